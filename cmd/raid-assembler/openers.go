package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// How long a program may look at an array that is to be stopped, and how long udev, which
// always does when it was written to, and never for long unless the host is busy.
const (
	openPatience = 2 * time.Second
	udevPatience = 20 * time.Second
)

// mustNotBeOpen says who has an array's block device open, if somebody does. Linux 6.12
// stops a ublk device all the same, and does not tell the engine; and only here are we
// allowed to look at all processes.
func (p *program) mustNotBeOpen(ctx context.Context, array string) error {
	device := deviceOf(filepath.Dir(p.engineSocket), array)
	if device == "" {
		return nil
	}

	if users := whoStays(ctx, device); len(users) > 0 {
		return fmt.Errorf("refused: %s is open: %s", array, strings.Join(users, ", "))
	}

	return nil
}

// whoStays returns who has a device open for longer than it takes to look at it.
func whoStays(ctx context.Context, device string) []string {
	for began := time.Now(); ; {
		users := openers("/proc", device)
		patience := udevPatience
		if slices.ContainsFunc(users, func(u string) bool { return !isUdev(u) }) {
			patience = openPatience
		}

		if len(users) == 0 || time.Since(began) > patience || ctx.Err() != nil {
			return users
		}

		time.Sleep(openPatience / 20)
	}
}

// isUdev reports whether an opener is a worker of udevd, as they are called or were before.
func isUdev(opener string) bool {
	return strings.HasPrefix(opener, "(udev-worker) ") || strings.HasPrefix(opener, "systemd-udevd ")
}

// deviceOf returns the block device of an array that runs, by its name or UUID, as the
// engine notes it in the directory runDir; empty if none does.
func deviceOf(runDir, array string) string {
	files, _ := filepath.Glob(filepath.Join(runDir, "by-device", "ublkb*"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if (key == "RAID_NAME" || key == "RAID_UUID") && value == array {
				return filepath.Join("/dev", filepath.Base(file))
			}
		}
	}

	return ""
}

// openers returns who has a device or a partition of it open, by what proc tells.
func openers(proc, device string) []string {
	numbers := make(map[uint64]bool)

	partitions, _ := filepath.Glob(device + "p*")
	for _, node := range append(partitions, device) {
		if st := stat(node); st != nil {
			numbers[st.Rdev] = true
		}
	}

	var users []string

	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	for _, file := range files {
		// What lies elsewhere may be on a file system that does not answer.
		if target, err := os.Readlink(file); err != nil || !strings.HasPrefix(target, "/dev/") {
			continue
		}

		if st := stat(file); st == nil || !numbers[st.Rdev] {
			continue
		}

		dir := filepath.Dir(filepath.Dir(file))
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		users = append(users,
			fmt.Sprintf("%s (process %s)", printable(strings.TrimSpace(string(name))), filepath.Base(dir)))
	}

	return slices.Compact(users)
}

// stat returns what is known of a device's node; nil if path is none.
func stat(path string) *syscall.Stat_t {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&os.ModeDevice == 0 {
		return nil
	}

	st, _ := info.Sys().(*syscall.Stat_t)

	return st
}
