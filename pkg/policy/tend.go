package policy

import (
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/raid"
)

// tender decides about an array that the engine has, and counts what is given
// to it.
type tender struct {
	array    *Running
	attached map[int]*Device // by index into array.Members; those that are here
	given    int             // spares given by this round of decisions
	reach    raid.Sectors    // where the data of all arrays of its container ends
	members  []string        // paths of those that say that they are members
	failing  failing
	ports    map[raid.Slot]string // as [View] has them
	refused  map[string]bool      // likewise
	returned map[string][]time.Duration
}

func newTender(r *Running, all []Device, v View) *tender {
	t := &tender{
		array: r, attached: attached(r, all), ports: v.Ports[r.UUID], refused: v.Refused[r.UUID], returned: v.Returned,
	}

	for _, d := range all {
		if sb := d.Superblock; sb != nil && sb.Container == r.Container && !sb.Array.IsZero() {
			t.reach = max(t.reach, sb.DataOffset+sb.DataSize)
		}

		if d.of(r.UUID) {
			t.members = append(t.members, d.Path)
		}
	}

	return t
}

// tend decides which of the array's members are gone, and what to do with
// others, which claim to belong to it and are not part of it.
func (t *tender) tend(others []*Device, v View, cfg Config) []Decision {
	t.failing = t.worst(v, cfg)
	ds := append(t.gone(), t.release()...)

	// Spares come before members that are out of date, because somebody
	// meant them for this.
	var late []*Device

	for _, d := range others {
		switch reason, spare := t.excluded(d), d.Superblock.role(d.Superblock.Number) == raid.RoleSpare; {
		case reason != (why{}):
			ds = append(ds, leave(d, reason))
		case spare:
			ds = append(ds, t.addSpare(d))
		default:
			late = append(late, d)
		}
	}

	for _, d := range late {
		ds = append(ds, t.takeBack(d, cfg))
	}

	// Last, so that what the engine may refuse keeps nobody else out.
	return append(ds, t.replace()...)
}

// attached finds the device of each member that is here. A path is not enough:
// it may name another disk by now. Of a device that is of several arrays it is
// what is of this one.
func attached(r *Running, all []Device) map[int]*Device {
	found := make(map[int]*Device)

	for i, m := range r.Members {
		for k := range all {
			d := &all[k]
			same := d.Path == m.Path && (d.Serial == m.Serial || d.Serial == "" || m.Serial == "") &&
				(d.DiskSeq == m.DiskSeq || d.DiskSeq == 0 || m.DiskSeq == 0)
			if m.Path != "" && same && (found[i] == nil || d.of(r.UUID)) {
				found[i] = d
			}
		}
	}

	return found
}

// gone decides about members whose device is no longer there. A broken array
// keeps the names of those that it lost: they are what would mend it.
func (t *tender) gone() []Decision {
	var ds []Decision

	for i, m := range t.array.Members {
		if m.Path == "" || t.attached[i] != nil {
			continue
		}

		dec := Decision{Array: t.array.UUID, Name: t.array.Name, Device: m.Path, Serial: m.Serial}
		dec.Reason = "removed from the bus"

		switch m.State {
		case raid.InSync, raid.Recovering:
			dec.Action = FailMember
		case raid.Spare, raid.Faulty, raid.Stale:
			dec.Action = RemoveMember
		case raid.Missing:
			continue
		}

		if dec.Action == RemoveMember && t.array.State == raid.Broken {
			continue
		}

		ds = append(ds, dec)
	}

	return ds
}

// excluded says why d cannot be given to the array, whatever its role, if so.
// The cases are ordered by how much they explain.
func (t *tender) excluded(d *Device) why {
	fault := d.fault()
	state := t.array.State

	switch {
	case fault != (why{}):
		return fault
	case t.twin(d) != "":
		return because(Cloned, "it is a copy of %s, which is in use: unplug it, or erase it", t.twin(d))
	case t.former(d):
		return because(InUse, "the engine has not let go of what it was before it was unplugged")
	case d.Superblock.Unsupported != "":
		return because(Unserved, "%s", d.Superblock.Unsupported)
	case !t.array.Level.HasRedundancy():
		return because(Unneeded, "%v has no use for another device", t.array.Level)
	case state == raid.ReadOnly:
		return because(InUse, "the array is read-only: raid-assembler readwrite %v lets it take members", t.array.UUID)
	case state == raid.Broken || state == raid.Inactive:
		return because(InUse, "the array is %s and takes no member: stop it and assemble it again", state)
	case d.Worn != "":
		return d.worn()
	case d.Shunned != "":
		return because(Held, "%s", d.Shunned)
	case !d.fits(d.Superblock.Size):
		return because(Unneeded, "it is too small: %d sectors for data, %d needed",
			d.Superblock.DataSize, d.Superblock.Size)
	default:
		return why{}
	}
}

// lacks reports whether d is a spare that is of no array, and needed by this one.
func (t *tender) lacks(d *Device) bool {
	return d.of(raid.UUID{}) && !t.array.Container.IsZero() && t.admits(d) && t.excluded(d) == (why{}) &&
		t.ready() < len(t.vacant())
}

// follow decides to give the array members that another of its container has got
// and it has not, while it did not run, where they are to have the same.
func (t *tender) follow(other *tender) []Decision {
	var ds []Decision

	if other == t || t.array.Container.IsZero() || other.array.Container != t.array.Container ||
		!other.array.Level.HasRedundancy() { // it has no members that came later
		return nil
	}

	for i, m := range other.array.Members {
		d := other.attached[i]
		if d == nil || !d.of(other.array.UUID) || m.State != raid.InSync && m.State != raid.Recovering {
			continue
		}

		if d.Superblock.Everywhere && !t.knows(d) && t.excluded(d) == (why{}) && t.ready() < len(t.vacant()) {
			ds = append(ds, t.give(d, fmt.Sprintf("it is a member of %q, of the same container, and %s %s vacant",
				d.Superblock.Name, slotNames(t.vacant()), are(t.vacant()))))
		}
	}

	return ds
}

// knows reports whether the array has a device, or that says that it is a member.
func (t *tender) knows(d *Device) bool {
	return slices.Contains(t.members, d.Path) ||
		slices.ContainsFunc(t.array.Members, func(m RunningMember) bool { return m.Path == d.Path })
}

// admits reports whether a spare is of the array's container, or of any and fits
// into this one: there data lies at the same place on all devices.
func (t *tender) admits(d *Device) bool {
	sb := d.Superblock
	if !sb.Container.IsZero() {
		return sb.Container == t.array.Container && sb.DataSize >= t.size()
	}

	for _, a := range t.attached {
		if a.Block != d.Block {
			return false
		}
	}

	return sb.Format == t.array.Format && sb.DataSize >= t.reach
}

// size returns how much of each member the array uses, as far as they tell.
func (t *tender) size() raid.Sectors {
	var size raid.Sectors

	for _, d := range t.attached {
		if d.of(t.array.UUID) {
			size = max(size, d.Superblock.Size)
		}
	}

	return size
}

// twin returns the path of the member that d is a copy of, or nothing.
func (t *tender) twin(d *Device) string {
	for i := range t.array.Members {
		a := t.attached[i]
		if a != nil && a.Superblock != nil && a.Superblock.Device == d.Superblock.Device {
			return a.Path
		}
	}

	return ""
}

// former reports whether d is a member that is gone by another name: it was
// plugged in again before the engine was told.
func (t *tender) former(d *Device) bool {
	for i, m := range t.array.Members {
		if m.Path != "" && t.attached[i] == nil && m.Serial != "" && m.Serial == d.Serial {
			return true
		}
	}

	return false
}

// addSpare decides to give the array a spare of its own.
func (t *tender) addSpare(d *Device) Decision {
	reason := "it is a spare of this array, which is whole: it is held ready"
	if vacant := t.vacant(); len(vacant) > 0 {
		reason = fmt.Sprintf("it is a spare of this array, and %s %s vacant", slotNames(vacant), are(vacant))
	}

	return t.give(d, reason)
}

// give decides to give the array a device, unless that flaps.
func (t *tender) give(d *Device, reason string) Decision {
	if flaps, left := t.flaps(d); flaps != (why{}) {
		dec := leave(d, flaps)
		dec.Array, dec.Name, dec.Left = t.array.UUID, t.array.Name, left

		return dec
	}

	t.given++

	return Decision{
		Action: AddSpare, Array: t.array.UUID, Name: t.array.Name,
		Device: d.Path, Serial: d.Serial, Reason: reason,
	}
}

// takeBack decides about a former member that turns up while the array runs.
// What it holds missed the writes since, however few: it is never trusted, but
// given what it missed, if it is known, or all anew, or it is left alone.
func (t *tender) takeBack(d *Device, cfg Config) Decision {
	sb := d.Superblock
	slot, holds := sb.slot(sb.Number)
	vacant := t.vacant()
	stale := fmt.Sprintf("it is stale: slot %d at event %d of an array that has run since without it", slot, sb.Events)

	switch {
	case !holds:
		return leave(d, because(Stale, "its own superblock calls it %v", sb.role(sb.Number)))
	case wentAlone(sb, t.numbers()):
		return leave(d, because(Diverged, "it went on without any member that runs now, to event %d, and "+
			"may hold data that the array lacks: look at it, then give it up with raid-assembler add --force %v %s",
			sb.Events, sb.Array, d.Path))
	case !slices.Contains(vacant, slot):
		return leave(d, because(Stale, "%s, and its slot is taken", stale))
	case t.ready() >= len(vacant):
		return leave(d, because(Stale, "%s, and a spare takes its slot", stale))
	case !cfg.Readd:
		return leave(d, because(Stale, "%s: raid-assembler add %v %s gives it what it missed", stale, sb.Array, d.Path))
	default:
		return t.give(d, stale+", and is given what it missed")
	}
}

// numbers returns the numbers of the members that hold a slot, as far as they
// are known.
func (t *tender) numbers() []int {
	var numbers []int

	for i, m := range t.array.Members {
		a := t.attached[i]
		if a != nil && a.Superblock != nil && (m.State == raid.InSync || m.State == raid.Recovering) {
			numbers = append(numbers, a.Superblock.Number)
		}
	}

	return numbers
}

// vacant returns the slots that nobody fills or is being filled for. One that failed
// may have its slot still when another has it already.
func (t *tender) vacant() []raid.Slot {
	var vacant []raid.Slot

	held := make(map[raid.Slot]bool)

	for i, m := range t.array.Members {
		gone := m.Path != "" && t.attached[i] == nil

		switch m.State {
		case raid.Missing, raid.Faulty, raid.Stale:
			if m.Slot != raid.NoSlot {
				vacant = append(vacant, m.Slot)
			}
		case raid.InSync, raid.Recovering:
			if gone && m.Slot != raid.NoSlot {
				vacant = append(vacant, m.Slot)
			}

			held[m.Slot] = held[m.Slot] || !gone
		case raid.Spare:
		}
	}

	vacant = slices.DeleteFunc(vacant, func(slot raid.Slot) bool { return held[slot] })
	slices.Sort(vacant)

	return slices.Compact(vacant)
}

// ready returns how many spares the array has or is being given.
func (t *tender) ready() int {
	n := t.given

	for i, m := range t.array.Members {
		if m.State == raid.Spare && t.attached[i] != nil {
			n++
		}
	}

	return n
}
