package policy

import (
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/raid"
)

// judgement is what the superblocks of one array say, taken together.
type judgement struct {
	// best has the freshest superblock; nil if nobody holds a slot. Where
	// several are equally fresh they say the same, and it is one of them.
	best *Device
	// use has the device to use in each slot, in sync or recovering.
	use map[raid.Slot]*Device
	// successors has the device that is to replace the one in use in each slot.
	successors map[raid.Slot]*Device
	// spares are devices that claim no slot.
	spares []*Device
	// left are devices that are not used, with the reason.
	left []Decision
	// histories are the sides that went on apart, if some did.
	histories [][]*Device
	// refusal says why no start is safe, if so.
	refusal why
}

// judge weighs the superblocks of devices, which are of one array, usable, and
// sorted.
func judge(devices []*Device) *judgement {
	j := &judgement{use: make(map[raid.Slot]*Device), successors: make(map[raid.Slot]*Device)}

	if a, b := twins(devices); a != nil {
		j.refuse(Cloned, "%s and %s are copies of one member: unplug one, or erase it", a.Path, b.Path)
	}

	var holders []*Device

	for _, d := range devices {
		own := d.Superblock.role(d.Superblock.Number)

		switch _, holds := own.Slot(); {
		case holds:
			holders = append(holders, d)
		case own == raid.RoleSpare:
			j.spares = append(j.spares, d)
		default:
			j.leave(d, Stale, "its own superblock calls it %v", own)
		}
	}

	if len(holders) > 0 {
		j.weigh(holders)
	}

	return j
}

// refuse notes the first reason that there is.
func (j *judgement) refuse(cause Cause, format string, args ...any) {
	if j.refusal == (why{}) {
		j.refusal = because(cause, format, args...)
	}
}

func (j *judgement) leave(d *Device, cause Cause, format string, args ...any) {
	j.left = append(j.left, leave(d, because(cause, format, args...)))
}

// twins returns two devices that are copies of each other, or nil.
func twins(devices []*Device) (one, other *Device) {
	for i, a := range devices {
		for _, b := range devices[i+1:] {
			if a.Superblock.Device == b.Superblock.Device {
				return a, b
			}
		}
	}

	return nil, nil
}

// weigh finds the freshest of holders, all of which hold a slot by their own
// word, and what it makes of the others. Only they have a say: the event count
// of a spare need not keep up, and a stray one may be ahead.
func (j *judgement) weigh(holders []*Device) {
	top := freshest(holders)

	// A member that an equally fresh one has written off took no part in the
	// last round of the other, which took part in its own: it is the older
	// of the two. If each wrote off the other, each went on alone.
	for _, d := range top {
		for _, other := range top {
			if accuses(d, other) && accuses(other, d) {
				j.diverge(holders, d, other)

				return
			}
		}

		if j.best == nil && !slices.ContainsFunc(top, func(by *Device) bool { return accuses(by, d) }) {
			j.best = d
		}
	}

	if j.best == nil {
		j.refuse(Diverged, "the freshest superblocks, on %s, write each other off in a circle: %s",
			paths(top), choose(top[0]))

		return
	}

	for _, d := range top {
		n, differ := disagreement(j.best.Superblock, d.Superblock)
		if differ && !accuses(j.best, d) {
			j.refuse(Conflict, "%s and %s are equally fresh and disagree about device number %d: %s",
				j.best.Path, d.Path, n, choose(d))

			return
		}
	}

	for _, d := range holders {
		j.admit(d, holders)
	}

	j.succeed()
	j.crossCheck()
}

// freshest returns those of devices that have the highest event count.
func freshest(devices []*Device) []*Device {
	var highest uint64
	for _, d := range devices {
		highest = max(highest, d.Superblock.Events)
	}

	var top []*Device

	for _, d := range devices {
		if d.Superblock.Events == highest {
			top = append(top, d)
		}
	}

	return top
}

// accuses reports whether a's superblock says that b holds no slot.
func accuses(a, b *Device) bool {
	_, ok := a.Superblock.slot(b.Superblock.Number)

	return !ok
}

// disagreement returns a number to which a and b give different slots. That
// one calls it faulty and the other free is no difference: both mean that its
// data is not current.
func disagreement(a, b *Superblock) (number int, differ bool) {
	for n := range max(len(a.Roles), len(b.Roles)) {
		slotA, okA := a.slot(n)
		slotB, okB := b.slot(n)

		if okA != okB || slotA != slotB {
			return n, true
		}
	}

	return 0, false
}

// admit gives d its slot if the freshest superblock confirms it. The cases are
// ordered: each holds only where those above it do not.
func (j *judgement) admit(d *Device, holders []*Device) {
	best, sb := j.best.Superblock, d.Superblock
	own, _ := sb.slot(sb.Number)
	slot, confirmed := best.slot(sb.Number)
	lag := best.Events - sb.Events
	old := !confirmed || lag > 1

	switch {
	case old && wentAlone(sb, best.members()):
		j.diverge(holders, j.best, d)
	case !confirmed:
		j.leave(d, Stale, "it is stale: slot %d at event %d, which %s at event %d calls %v",
			own, sb.Events, j.best.Path, best.Events, absence(best.role(sb.Number)))
	case old:
		j.leave(d, Stale, "it is stale: slot %d at event %d, and %s is at event %d",
			own, sb.Events, j.best.Path, best.Events)
	case slot != own:
		j.refuse(Conflict, "%s holds slot %d by its own superblock and slot %d by that of %s: %s",
			d.Path, own, slot, j.best.Path, choose(d))
	case int(slot) >= best.Disks:
		j.refuse(Conflict, "%s holds slot %d of an array that has %d", d.Path, slot, best.Disks)
	case !sameShape(sb, best):
		j.refuse(Conflict, "%s and %s disagree about level, layout, chunk or number of members: %s",
			j.best.Path, d.Path, choose(d))
	case sb.Replacement && j.successors[slot] == nil:
		j.successors[slot] = d
	case j.use[slot] != nil:
		j.refuse(Cloned, "%s and %s both hold slot %d: unplug one, or erase it", j.use[slot].Path, d.Path, slot)
	default:
		j.use[slot] = d
	}
}

// crossCheck refuses if a member that was admitted one event behind writes off
// another that is in sync. It cannot have missed more than the last round, and
// whoever that brought in has only begun to recover.
func (j *judgement) crossCheck() {
	for _, d := range sortedUse(j.use) {
		for _, other := range sortedUse(j.use) {
			if accuses(d, other) && other.inSync() {
				j.refuse(Conflict, "%s writes off %s, which %s counts on, and is only one event older: %s",
					d.Path, other.Path, j.best.Path, choose(d))
			}
		}
	}
}

// succeed gives a slot to the device that is to replace one which is not here:
// if it holds everything it is as good, and if not it is of no use, for nobody
// knows how much of it is right without the other.
func (j *judgement) succeed() {
	for _, slot := range slots(j.successors) {
		d := j.successors[slot]
		if j.use[slot] != nil {
			continue
		}

		delete(j.successors, slot)

		if d.inSync() {
			j.use[slot] = d
		} else {
			j.leave(d, Unneeded, "it was being filled to replace the member in slot %d, which is not here", slot)
		}
	}
}

func sortedUse(use map[raid.Slot]*Device) []*Device {
	var devices []*Device

	for _, slot := range slots(use) {
		devices = append(devices, use[slot])
	}

	return devices
}

// inSync reports whether d, which holds a slot, has current data everywhere.
func (d *Device) inSync() bool { return d.Superblock.RecoveryOffset == raid.MaxSectors }

func sameShape(a, b *Superblock) bool {
	return a.Level == b.Level && a.Layout == b.Layout && a.Disks == b.Disks && a.Chunk == b.Chunk
}

// wentAlone reports whether the device with superblock sb was last run without
// any of the devices with the numbers in current. Had one of them been with it,
// then what that one knows now would come after all that sb tells of. The
// device's own number is no evidence: it may be another's by now.
//
// An old member that all others have been replaced since looks the same. It is
// kept apart too, for nothing tells the two cases apart.
func wentAlone(sb *Superblock, current []int) bool {
	return !slices.ContainsFunc(sb.members(), func(n int) bool {
		return n != sb.Number && slices.Contains(current, n)
	})
}

// diverge refuses because a and b each went on without the other, and shows
// the histories that there are to choose from.
func (j *judgement) diverge(holders []*Device, a, b *Device) {
	j.histories = histories(holders, a, b)

	ways := make([]string, len(j.histories))
	for i, side := range j.histories {
		ways[i] = paths(side)
	}

	j.refuse(Diverged, "%s at event %d and %s at event %d each went on without the other, and both may hold data "+
		"that the other lacks: look at each with raid-assembler assemble --readonly %v DEVICE, then keep one with "+
		"raid-assembler assemble %v --choose followed by %s",
		a.Path, a.Superblock.Events, b.Path, b.Superblock.Events, a.Superblock.Array, a.Superblock.Array,
		strings.Join(ways, ", or by "))
}

// choose names the way out where superblocks contradict each other.
func choose(d *Device) string {
	return fmt.Sprintf("name the devices to believe with raid-assembler assemble %v --choose DEVICE",
		d.Superblock.Array)
}
