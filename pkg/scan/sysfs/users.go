package sysfs

import (
	"io/fs"
	"path"
	"strings"
)

// Users says who uses a block device in ways that sysfs does not tell: by the
// device's number, 8:1, and by its node. What cannot be read says nothing: an
// exclusive open knows all the same.
type Users map[string]string

// ReadUsers reads who uses block devices. Proc is rooted at /proc.
func ReadUsers(proc fs.FS) Users {
	u := make(Users)

	// A service may have mounts of its own, and lack the host's.
	mounts, err := fs.ReadFile(proc, "1/mountinfo")
	if err != nil {
		mounts, _ = fs.ReadFile(proc, "self/mountinfo")
	}

	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)

		if len(f) < 5 || len(g) < 2 {
			continue
		}

		// A file system of several devices has a number of its own.
		u[f[2]] = "the mount " + f[4]
		u[g[1]] = "the mount " + f[4]
	}

	swaps, _ := fs.ReadFile(proc, "swaps")
	for line := range strings.Lines(string(swaps)) {
		if f := strings.Fields(line); len(f) > 0 && path.IsAbs(f[0]) {
			u[f[0]] = "swap"
		}
	}

	return u
}

// Of returns who uses the device with a name and a number, as sysfs has them,
// or nothing.
func (u Users) Of(name, number string) string {
	if user := u[number]; user != "" {
		return user
	}

	return u["/dev/"+strings.ReplaceAll(name, "!", "/")]
}
