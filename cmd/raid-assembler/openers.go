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

// openPatience is how long a program may look at an array that is to be stopped, as udev
// does when it was written to.
const openPatience = 2 * time.Second

// mustNotBeOpen says who has an array's block device open, if somebody does. Linux 6.12
// stops a ublk device all the same, and does not tell the engine; and only here are we
// allowed to look at all processes.
func (p *program) mustNotBeOpen(ctx context.Context, array string) error {
	device := deviceOf(filepath.Dir(p.engineSocket), array)
	if device == "" {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()

	for {
		users := openers("/proc", device)
		if len(users) == 0 {
			return nil
		}

		select {
		case <-time.After(openPatience / 20):
		case <-ctx.Done():
			return fmt.Errorf("refused: %s is open: %s", array, strings.Join(users, ", "))
		}
	}
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
