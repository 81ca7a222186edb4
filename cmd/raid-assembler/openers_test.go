package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestOpeners: whoever has a device open is seen, and nobody else.
func TestOpeners(t *testing.T) {
	const device = "/dev/full"

	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}

	me := fmt.Sprintf("%s (process %d)", printable(string(name[:len(name)-1])), os.Getpid())
	if users := openers("/proc", device); slices.Contains(users, me) {
		t.Errorf("%v have %s open before anybody opens it", users, device)
	}

	for range 2 {
		f, err := os.Open(device)
		if err != nil {
			t.Fatal(err)
		}

		t.Cleanup(func() { _ = f.Close() })
	}

	users := openers("/proc", device)
	if n := len(slices.DeleteFunc(users, func(u string) bool { return u != me })); n != 1 {
		t.Errorf("%d times %s, want once", n, me)
	}
}

// TestWhoStays: a worker of udevd is waited for, and others are named soon.
func TestWhoStays(t *testing.T) {
	const device = "/dev/full"

	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}

	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}

	for name, stays := range map[string]bool{"(udev-worker)": false, "reader": true} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, program, 0o755); err != nil {
			t.Fatal(err)
		}

		f, err := os.Open(device)
		if err != nil {
			t.Fatal(err)
		}

		cmd := exec.Command(path, fmt.Sprint(2*openPatience.Seconds()))
		cmd.ExtraFiles = []*os.File{f}

		if err := errors.Join(cmd.Start(), f.Close()); err != nil {
			t.Fatal(err)
		}

		users := whoStays(t.Context(), device)
		if (len(users) > 0) != stays {
			t.Errorf("%s: %v stay", name, users)
		}

		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// TestDeviceOf: arrays are known by name and by UUID.
func TestDeviceOf(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "by-device"), 0o755); err != nil {
		t.Fatal(err)
	}

	text := "RAID_NAME=data\nRAID_UUID=1:2:3:4\nRAID_LEVEL=raid1\n"
	if err := os.WriteFile(filepath.Join(dir, "by-device", "ublkb7"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}

	for array, want := range map[string]string{"data": "/dev/ublkb7", "1:2:3:4": "/dev/ublkb7", "raid1": "", "": ""} {
		if got := deviceOf(dir, array); got != want {
			t.Errorf("%q is %q, want %q", array, got, want)
		}
	}
}
