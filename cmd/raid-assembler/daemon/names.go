package daemon

import (
	"slices"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// uniqueLen is how much of a UUID makes a name unique, after a "_".
const uniqueLen = 8

// nameOf returns the name that an array has on this host. One that runs has
// the name that it was started by. Of others with the same name in their
// metadata the one with the lowest UUID has it, and the rest get a piece of
// their UUID behind it: the name of an array depends on what is there, and not
// on what came first.
func (d *Daemon) nameOf(uuid raid.UUID) string {
	if a := d.running(uuid); a != nil {
		return a.Name
	}

	base := d.baseName(uuid)
	if !d.taken(uuid, base) {
		return base
	}

	return base[:min(len(base), api.NameMax-uniqueLen-1)] + "_" + uuid.String()[:uniqueLen]
}

// baseName returns the name in the metadata of an array as it can be a file
// name below /dev/raid, or else the beginning of its UUID.
func (d *Daemon) baseName(uuid raid.UUID) string {
	for _, dk := range d.sortedDisks() {
		if sb := dk.of(uuid); sb != nil {
			if name := api.SafeName(sb.Name); name != "" {
				return name
			}
		}
	}

	return uuid.String()[:uniqueLen]
}

// taken reports whether the name belongs to another array.
func (d *Daemon) taken(uuid raid.UUID, name string) bool {
	for _, a := range d.arrays {
		if a.Name == name && a.UUID != uuid.String() {
			return true
		}
	}

	for _, dk := range d.disks {
		for _, sb := range dk.all() {
			if d.running(sb.Array) == nil && slices.Compare(sb.Array[:], uuid[:]) < 0 && api.SafeName(sb.Name) == name {
				return true
			}
		}
	}

	return false
}
