package doctor

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"raid-assembler/pkg/roster"
)

// carried tells whether what the initramfs knew of members at this boot is out of date,
// where that matters: what it was copied from lies on a file system that is mounted later.
// An initramfs that was made since is not looked into.
func carried(h Host) []Finding {
	const (
		check  = "initramfs"
		remedy = "update-initramfs -u"
	)

	if !h.exists("usr/sbin/update-initramfs") || !mountedLater(h) || remade(h) {
		return nil
	}

	// To others than root neither is told.
	now, err := known(h, "var/lib/raid-assembler/roster.json")
	if err != nil {
		return nil
	}

	was, err := known(h, "run/raid-assembler/roster.json")
	if err != nil {
		return []Finding{warn(check, fmt.Sprintf("has no copy of what is known of members, and /var is mounted later: "+
			"%v", err), remedy)}
	}

	if names := was.Outdated(now); len(names) > 0 {
		return []Finding{warn(check, fmt.Sprintf("does not know who has the newest data of %s: before /var is mounted "+
			"members that were left behind may be started", strings.Join(names, ", ")), remedy)}
	}

	return []Finding{ok(check, "knows who has the newest data of each array")}
}

// known returns a roster.
func known(h Host, file string) (roster.Roster, error) {
	text, err := fs.ReadFile(h.FS, file)
	if err != nil {
		return roster.Roster{}, err
	}

	return roster.Decode(text)
}

// mountedLater reports whether /var/lib is on another file system than the root.
func mountedLater(h Host) bool {
	mounts, _ := h.read("proc/self/mounts")

	for line := range strings.Lines(mounts) {
		if f := strings.Fields(line); len(f) > 1 && (f[1] == "/var" || f[1] == "/var/lib") {
			return true
		}
	}

	return false
}

// remade reports whether the initramfs of this kernel was made since it was booted.
func remade(h Host) bool {
	release, _ := h.release()

	info, err := fs.Stat(h.FS, "boot/initrd.img-"+release)
	if err != nil {
		return false
	}

	text, _ := h.read("proc/stat")

	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "btime" {
			seconds, err := strconv.ParseInt(f[1], 10, 64)

			return err == nil && info.ModTime().After(time.Unix(seconds, 0))
		}
	}

	return false
}
