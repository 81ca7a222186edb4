package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestVerbs does everything to a file, and sees a byte that changed.
func TestVerbs(t *testing.T) {
	dir := t.TempDir()
	path, model, log := filepath.Join(dir, "device"), filepath.Join(dir, "model"), filepath.Join(dir, "log")

	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}

	do := func(want int, args ...string) string {
		t.Helper()

		var stdout, stderr strings.Builder
		if got := run(args, &stdout, &stderr); got != want {
			t.Fatalf("exercise %s = %d, want %d: %s", args, got, want, &stderr)
		}

		return stdout.String() + stderr.String()
	}

	do(0, "fill", "-model", model, path)
	do(0, "check", "-model", model, path)
	do(0, "run", "-model", model, "-mix", "mixed", "-ops", "300", "-seed", "4", path)
	do(0, "check", "-model", model, path)

	// A run of which nothing is said afterwards is one that the power cut ended.
	before, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}

	do(0, "run", "-model", model, "-mix", "fua", "-ops", "300", "-seed", "5", "-log", log, path)

	if err := os.WriteFile(model, before, 0o600); err != nil {
		t.Fatal(err)
	}

	if out := do(0, "crashed", "-model", model, "-mix", "fua", "-seed", "5", "-log", log, path); !strings.
		Contains(out, "single ones durable") {
		t.Errorf("crashed said %q", out)
	}

	do(0, "check", "-model", model, path)

	if out := do(1, "check", "-without", "7 9", "-model", model, path); !strings.Contains(out, `"", want "7 9"`) {
		t.Errorf("check of a file that can be read where it may not said %q", out)
	}

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	data[1<<20] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}

	if out := do(1, "check", "-model", model, path); !strings.Contains(out, "sector 2048 holds") {
		t.Errorf("check of a byte that changed said %q", out)
	}

	do(0, "fsx", "-ops", "500", "-seed", "6", filepath.Join(dir, "file"))
	do(2, "fsx")
	do(2, "dance", path)
}
