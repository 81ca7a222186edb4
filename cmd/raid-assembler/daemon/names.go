package daemon

import (
	"cmp"
	"maps"
	"slices"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// uniqueLen is how much of a UUID makes a name unique, after a "_".
const uniqueLen = 8

// nameOf returns the name that an array has on this host. One that runs has
// the name that it was started by. Of others with the same name in their
// metadata one has it, by [Daemon.claimOf], and the rest get a piece of their UUID
// behind it: the name of an array depends on what is there, and not on what came
// first, and no array goes without one.
func (d *Daemon) nameOf(uuid raid.UUID) string {
	if a := d.running(uuid); a != nil {
		return a.Name
	}

	if name := d.names[uuid]; name != "" {
		return name
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

// claim is what speaks for it that an array has a name; less speaks for it more.
type claim int

// The claims.
const (
	hadIt    claim = iota // it ran on this machine by that name
	isHere                // it names this host, or none
	hadOther              // it ran on this machine by another name
	isFrom                // it names another host
)

// claimOf returns what claim an array with the superblock sb has to a name. Ours are
// those that ran on this machine, with their names.
func (d *Daemon) claimOf(sb *metadata.Superblock, name string, ours map[raid.UUID]string) claim {
	switch {
	case ours[sb.Array] == name:
		return hadIt
	case ours[sb.Array] != "":
		return hadOther
	case !d.settings.Foreign(sb.Host, d.cfg.Hostname):
		return isHere
	default:
		return isFrom
	}
}

// taken reports whether the name belongs to another array: to one that runs, to one
// that is here and has a better claim, or the lower UUID where they are alike;
// or to one that ran here and is not here yet, where an array asks that is another
// host's or ran here by another name.
func (d *Daemon) taken(uuid raid.UUID, name string) bool {
	for _, a := range d.arrays {
		if a.Name == name && a.UUID != uuid.String() {
			return true
		}
	}

	for other, has := range d.names {
		if other != uuid && has == name {
			return true
		}
	}

	ours, own := d.ours(), isHere
	if sb := d.freshest(uuid); sb != nil {
		own = d.claimOf(sb, name, ours)
	}

	if own >= hadOther && slices.Contains(slices.Collect(maps.Values(ours)), name) {
		return true
	}

	for _, dk := range d.disks {
		for _, sb := range dk.all() {
			if d.running(sb.Array) != nil || api.SafeName(sb.Name) != name {
				continue
			}

			if cmp.Or(cmp.Compare(d.claimOf(sb, name, ours), own), slices.Compare(sb.Array[:], uuid[:])) < 0 {
				return true
			}
		}
	}

	return false
}
