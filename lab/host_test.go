package lab_test

import (
	"os/exec"
	"testing"
)

// run runs a program on the host.
func run(t *testing.T, name string, arg ...string) {
	t.Helper()

	if out, err := exec.CommandContext(t.Context(), name, arg...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
