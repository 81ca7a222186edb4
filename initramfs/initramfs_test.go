// Package initramfs_test runs the hook and the boot script of initramfs-tools, on scratch
// directories.
package initramfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	hook   = "hooks/raid-assembler"
	script = "scripts/init-bottom/raid-assembler"
	file   = "raid-assembler/roster.json"
)

// run runs a script with the directories of this machine replaced by those below dir,
// with the programs that an initramfs has if sparse.
func run(t *testing.T, name, dir string, sparse bool, args ...string) {
	t.Helper()

	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}

	changed := strings.NewReplacer("/var/lib/", dir+"/lib/", "/run/", dir+"/run/").Replace(string(text))
	if changed == string(text) {
		t.Fatalf("%s names no directory", name)
	}

	path := os.Getenv("PATH")
	if sparse {
		path = filepath.Join(dir, "bin")
		link(t, path, "mkdir", "cat")
	}

	cmd := exec.Command("/bin/sh", append([]string{"-c", changed, name}, args...)...)
	cmd.Env = []string{"PATH=" + path, "DESTDIR=" + filepath.Join(dir, "image")}

	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("%s %q: %v: %s", name, args, err, out)
	}
}

// link puts programs into a directory.
func link(t *testing.T, dir string, programs ...string) {
	t.Helper()

	for _, program := range programs {
		path, err := exec.LookPath(program)
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}

		if err == nil {
			err = os.Symlink(path, filepath.Join(dir, program))
		}

		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestCarried has the hook copy the roster into an image, and the boot script from there:
// it arrives as it was, for root alone, and nothing else does. Without a roster neither
// does anything.
func TestCarried(t *testing.T) {
	for _, roster := range []string{"", "{\"version\": 1}\n"} {
		dir := t.TempDir()
		place(t, filepath.Join(dir, "lib", file), roster)
		place(t, filepath.Join(dir, "lib/raid-assembler/other"), "x")
		run(t, hook, dir, false)

		image := filepath.Join(dir, "image", dir, "lib")
		if found := files(t, image); roster == "" && len(found) > 0 || roster != "" && (len(found) != 1 || found[file] != roster) {
			t.Errorf("the image has %q", found)
		}

		// The initramfs has the image as its root.
		if err := os.RemoveAll(filepath.Join(dir, "lib")); err != nil {
			t.Fatal(err)
		}

		if roster != "" {
			if err := os.Rename(image, filepath.Join(dir, "lib")); err != nil {
				t.Fatal(err)
			}
		}

		run(t, script, dir, true, "")

		found := files(t, filepath.Join(dir, "run"))
		if roster == "" && len(found) > 0 || roster != "" && (len(found) != 1 || found[file] != roster) {
			t.Errorf("/run has %q", found)
		}

		if roster == "" {
			continue
		}

		for path, want := range map[string]os.FileMode{
			"lib/" + file: 0o600, "run/" + file: 0o600, "run/raid-assembler": 0o755 | os.ModeDir,
		} {
			if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v, want %v", path, info, err, want)
			}
		}
	}
}

// place writes a file, if there is anything to write.
func place(t *testing.T, path, text string) {
	t.Helper()

	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil && text != "" {
		err = os.WriteFile(path, []byte(text), 0o644)
	}

	if err != nil {
		t.Fatal(err)
	}
}

// files returns what the files below a directory hold.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()

	found := make(map[string]string)

	if _, err := os.Stat(dir); err != nil {
		return found
	}

	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}

		text, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, dir+"/")] = string(text)

		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	return found
}

// TestPrerequisites: initramfs-tools asks each script for those that have to run before it,
// to order them, and takes a failure for the end of the image.
func TestPrerequisites(t *testing.T) {
	for _, name := range []string{hook, script} {
		dir := t.TempDir()
		run(t, name, dir, true, "prereqs")

		if found := files(t, filepath.Join(dir, "run")); len(found) > 0 {
			t.Errorf("%s: asked, it did %q", name, found)
		}

		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v, want it to be run", name, info, err)
		}
	}
}

// TestNeverInTheWay: a boot script that fails is not to keep the host from booting.
func TestNeverInTheWay(t *testing.T) {
	dir := t.TempDir()
	place(t, filepath.Join(dir, "lib", file), "x")
	place(t, filepath.Join(dir, "run"), "no directory")

	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}

	changed := strings.NewReplacer("/var/lib/", dir+"/lib/", "/run/", dir+"/run/").Replace(string(text))
	if out, err := exec.Command("/bin/sh", "-c", changed, script, "").CombinedOutput(); err != nil || len(out) == 0 {
		t.Errorf("%v: %s, want a word on what is wrong, and no failure", err, out)
	}
}
