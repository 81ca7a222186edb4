package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/metadata"
)

// choose settles what devices are that have metadata of several formats: the one
// reading counts that other devices agree with, if it was written last and of the
// arrays of all others no device is here. Else all of them stay in conflict. What the
// engine has is what it was.
func (d *Daemon) choose() {
	all := d.sortedDisks()

	for _, dk := range all {
		if len(dk.found.Readings) < 2 || dk.attached != "" {
			continue
		}

		chosen := dk.chosen(all)

		switch {
		case chosen == nil:
			dk.found.Superblock, dk.found.Conflicts = dk.found.Readings[0], dk.doubts
		case len(dk.found.Conflicts) > 0 || dk.found.Superblock != chosen:
			dk.found.Superblock, dk.found.Conflicts = chosen, nil
			d.cfg.Log(journal.Event{
				Kind: journal.SuperblockFound, Member: dk.Path, Serial: dk.Serial,
				Array: d.nameOf(chosen.Array), UUID: chosen.Array.String(),
				Message: fmt.Sprintf("%s has %s: it counts as a member of %q (metadata %s), which was written last, "+
					"for other members are here that say so, and none of any other array that it names",
					diskName(dk.Disk), strings.Join(dk.doubts, ", "), chosen.Name, chosen.Format),
			})
		}
	}
}

// chosen returns the reading of dk that counts, or nil if that cannot be told.
func (dk *disk) chosen(all []*disk) *metadata.Superblock {
	var chosen *metadata.Superblock

	for _, reading := range dk.found.Readings {
		switch backed, named := dk.backed(reading, all), dk.named(reading, all); {
		case backed && chosen == nil:
			chosen = reading
		case backed || named || reading.Disks < 2:
			return nil
		}
	}

	for _, reading := range dk.found.Readings {
		if at := written(reading); chosen != nil && reading != chosen && (at.IsZero() || !at.Before(written(chosen))) {
			return nil
		}
	}

	return chosen
}

// written returns when metadata was last written, as far as it says so.
func written(sb *metadata.Superblock) time.Time {
	if sb.Updated.After(sb.Created) {
		return sb.Updated
	}

	return sb.Created
}

// backed reports whether a device that has but one reading agrees with that of dk
// about its slot, and is no fresher than members may be.
func (dk *disk) backed(reading *metadata.Superblock, all []*disk) bool {
	for _, other := range all {
		if other == dk || len(other.found.Readings) > 1 || len(other.found.Conflicts) > 0 {
			continue
		}

		for _, mine := range reading.All() {
			if theirs := other.of(mine.Array); theirs != nil && agree(mine, theirs) {
				return true
			}
		}
	}

	return false
}

// agree reports whether two members of an array say the same of it and of the
// first of them, which may have missed no more than one record.
func agree(mine, theirs *metadata.Superblock) bool {
	slot, ok := mine.Role(mine.Number).Slot()
	same, both := theirs.Role(mine.Number).Slot()

	return ok && both && slot == same && mine.Level == theirs.Level && mine.Disks == theirs.Disks &&
		mine.Holds(theirs) && mine.Events+1 >= theirs.Events
}

// named reports whether another device is of an array or of the container of a
// reading, by any reading of its own.
func (dk *disk) named(reading *metadata.Superblock, all []*disk) bool {
	for _, other := range all {
		if other == dk {
			continue
		}

		for _, sb := range slices.Concat(other.all(), other.found.Readings) {
			if !sb.Container.IsZero() && sb.Container == reading.Container {
				return true
			}

			for _, mine := range reading.All() {
				if !mine.Array.IsZero() && sb.Of(mine.Array) != nil {
					return true
				}
			}
		}
	}

	return false
}
