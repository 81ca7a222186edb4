// Package systemd_test holds the units to what systemd itself says of them.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root makes a directory tree that has our units in it, the host's, and
// programs where the units want them.
func root(t *testing.T, units ...string) string {
	t.Helper()

	dir := t.TempDir()
	system := filepath.Join(dir, "usr/lib/systemd/system")
	sbin := filepath.Join(dir, "usr/sbin")

	for _, d := range []string{filepath.Dir(system), sbin} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.CopyFS(system, os.DirFS("/usr/lib/systemd/system")); err != nil {
		t.Fatalf("the units of this host: %v", err)
	}

	for _, name := range []string{"raid-engine", "raid-assembler"} {
		if err := os.WriteFile(filepath.Join(sbin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}

		if err := os.WriteFile(filepath.Join(system, unit), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	return dir
}

// verify returns what systemd-analyze complains about.
func verify(t *testing.T, dir string, units ...string) string {
	t.Helper()

	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is missing: tools/setup.sh installs it")
	}

	out, err := exec.Command("systemd-analyze",
		append([]string{"verify", "--man=no", "--root=" + dir}, units...)...).CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}

	return string(out)
}

func units(t *testing.T) []string {
	t.Helper()

	var names []string

	for _, pattern := range []string{"*.service", "*.socket"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}

		names = append(names, found...)
	}

	if len(names) < 3 {
		t.Fatalf("units %v, want at least 3", names)
	}

	return names
}

// TestUnitsVerify: systemd knows every key, and finds no loop.
func TestUnitsVerify(t *testing.T) {
	names := units(t)
	if complaints := verify(t, root(t, names...), names...); complaints != "" {
		t.Errorf("systemd-analyze verify:\n%s", complaints)
	}
}

// TestVerifyFindsFaults: the test above can fail.
func TestVerifyFindsFaults(t *testing.T) {
	names := units(t)
	dir := root(t, names...)
	path := filepath.Join(dir, "usr/lib/systemd/system/raid-engine.service")

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(path, append(text, "NoSuchKey=yes\n"...), 0o644); err != nil {
		t.Fatal(err)
	}

	if complaints := verify(t, dir, names...); !strings.Contains(complaints, "NoSuchKey") {
		t.Errorf("complaints = %q, want one about NoSuchKey", complaints)
	}
}

// TestExposure: what systemd would let a conquered service do, from 0 (nothing)
// to 100.
func TestExposure(t *testing.T) {
	const threshold = "20"

	for _, unit := range units(t) {
		if filepath.Ext(unit) != ".service" {
			continue
		}

		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager",
			"--threshold="+threshold, unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// TestEngineOutlivesUmount: whatever stops the engine at shutdown stops it
// before the file systems on its arrays are unmounted.
func TestEngineOutlivesUmount(t *testing.T) {
	for _, unit := range []string{"raid-engine.service", "raid-engine.socket"} {
		keys := settings(t, unit)

		if keys["DefaultDependencies"] != "no" {
			t.Errorf("%s: DefaultDependencies=%s, want no", unit, keys["DefaultDependencies"])
		}

		for _, key := range []string{"Conflicts", "Requires", "BindsTo", "PartOf", "PrivateTmp", "StateDirectory"} {
			if keys[key] != "" {
				t.Errorf("%s: %s=%s stops it too early, or starts it too late", unit, key, keys[key])
			}
		}
	}
}

// TestNeverGivenUp: systemd starts what runs arrays again, however often it has failed.
func TestNeverGivenUp(t *testing.T) {
	for _, unit := range []string{"raid-engine.service", "raid-assembler.service"} {
		keys := settings(t, unit)
		if keys["StartLimitIntervalSec"] != "0" || keys["Restart"] == "" {
			t.Errorf("%s: StartLimitIntervalSec=%s and Restart=%s, want 0 and some",
				unit, keys["StartLimitIntervalSec"], keys["Restart"])
		}
	}
}

// TestRunIsKept: what is in /run/raid-assembler outlives the service, and so does what was
// there before it.
func TestRunIsKept(t *testing.T) {
	keys := settings(t, "raid-assembler.service")
	if keys["RuntimeDirectory"] != "raid-assembler" || keys["RuntimeDirectoryPreserve"] != "yes" {
		t.Errorf("RuntimeDirectory=%s and RuntimeDirectoryPreserve=%s, want raid-assembler and yes",
			keys["RuntimeDirectory"], keys["RuntimeDirectoryPreserve"])
	}
}

// settings returns the keys of a unit; the values of one that is given more
// than once are joined.
func settings(t *testing.T, unit string) map[string]string {
	t.Helper()

	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}

	keys := map[string]string{}

	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			keys[key] = strings.TrimSpace(keys[key] + " " + value)
		}
	}

	return keys
}
