package sysfs

import (
	"slices"
	"strings"
)

// Kind is what kind of device a name stands for.
type Kind int

// The kinds. Disk is everything that has no kind of its own.
const (
	Disk Kind = iota
	Floppy
	Loop
	MD
	Mapper
	NBD
	Optical
	RAM
	Ublk
	Zram
)

// kinds are the names that drivers give, which a digit follows, and the words
// for what they are.
var kinds = map[Kind]struct{ prefix, text string }{
	Disk:    {"", "disk"},
	Floppy:  {"fd", "floppy"},
	Loop:    {"loop", "loop device"},
	MD:      {"md", "array of the kernel"},
	Mapper:  {"dm-", "device mapper"},
	NBD:     {"nbd", "network block device"},
	Optical: {"sr", "optical drive"},
	RAM:     {"ram", "RAM disk"},
	Ublk:    {"ublkb", "ublk device"},
	Zram:    {"zram", "compressed RAM disk"},
}

func (k Kind) String() string { return kinds[k].text }

// kindOf returns the kind of the whole device name.
func kindOf(name string) Kind {
	for kind, k := range kinds {
		rest, ok := strings.CutPrefix(name, k.prefix)
		if !ok || k.prefix == "" || rest == "" {
			continue
		}

		// Arrays of the kernel may have a name: md_home.
		if rest[0] >= '0' && rest[0] <= '9' || kind == MD && rest[0] == '_' {
			return kind
		}
	}

	return Disk
}

// ignored are the kinds that hold no members: they are memory, or an image that
// somebody looks at, or have a medium that comes and goes, or are our own
// arrays.
var ignored = []Kind{Floppy, Loop, Optical, RAM, Ublk, Zram}

// IgnoreReason says why d is not to be probed for metadata, or nothing if it
// is. Kinds that are allowed are probed though they would not be.
func (d Device) IgnoreReason(allowed ...Kind) string {
	switch {
	case d.Hidden:
		return "it is one path of several, and hidden"
	case d.MultipathMember:
		return "it is one path of several"
	case slices.Contains(ignored, d.Kind) && !slices.Contains(allowed, d.Kind):
		return "it is a " + d.Kind.String()
	case d.Sectors == 0:
		return "it has no medium"
	default:
		return ""
	}
}
