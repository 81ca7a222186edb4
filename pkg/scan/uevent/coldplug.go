package uevent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"
	"syscall"
)

const (
	classBlock = "class/block"

	// A file in sysfs is at most a page long; what is longer is not one.
	ueventFileMax = 64 << 10
)

// Coldplug yields an event "add" for every block device below sys, which is
// rooted at /sys. A device that vanishes during the walk is left out; one that
// cannot be read yields an error, and the walk goes on.
//
// The events carry the kernel's pairs only, not those that udevd adds.
func Coldplug(sys fs.FS) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		entries, err := fs.ReadDir(sys, classBlock)
		if err != nil {
			yield(Event{}, fmt.Errorf("uevent: list block devices: %w", err))

			return
		}

		for _, entry := range entries {
			ev, err := coldplugOne(sys, entry.Name())
			if gone(err) {
				continue
			}

			if !yield(ev, err) {
				return
			}
		}
	}
}

// coldplugOne makes the event of the device that sysfs calls name.
func coldplugOne(sys fs.FS, name string) (Event, error) {
	link := path.Join(classBlock, name)

	target, err := fs.ReadLink(sys, link)
	if err != nil {
		return Event{}, fmt.Errorf("uevent: %s: %w", name, err)
	}

	text, err := readUevent(sys, path.Join(link, "uevent"))
	if err != nil {
		return Event{}, fmt.Errorf("uevent: %s: %w", name, err)
	}

	// What the kernel adds to the file's lines when it sends an event. It
	// goes in front, since a partition's name is free text: one with a
	// newline in it must not pass for a pair of the kernel's.
	env := map[string]string{
		"ACTION":    "add",
		"DEVPATH":   "/" + path.Join(classBlock, target),
		"SUBSYSTEM": "block",
	}

	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, repeated := env[key]; ok && !repeated {
			env[key] = value
		}
	}

	return fromEnv(env)
}

func readUevent(sys fs.FS, name string) (string, error) {
	f, err := sys.Open(name)
	if err != nil {
		return "", err
	}

	text, err := io.ReadAll(io.LimitReader(f, ueventFileMax))

	return string(text), errors.Join(err, f.Close())
}

// gone reports whether err says that the device is no longer there: sysfs
// answers ENOENT before a file is opened and ENODEV after.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}
