package tests

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestUblkBindings runs the tests of our ublk bindings where there is ublk.
func TestUblkBindings(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "root", "ublk.test")

	out, err := exec.Command("go", "test", "-c", "-tags", "vm", "-o", bin, "../../pkg/engine/ublk").CombinedOutput()
	if err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}

	b := start(t)
	b.MustInstall(dir)
	// Udev would read the devices too, and be counted.
	b.MustShell("modprobe ublk_drv; udevadm control --stop-exec-queue; cd /root; ./ublk.test -test.v -test.timeout 5m 2>&1")
}
