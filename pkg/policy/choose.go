package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"raid-assembler/pkg/raid"
)

// Choose returns what to do when the operator chooses, of an array whose members
// contradict each other, those at paths: first what becomes of the array, which is
// to be started with them alone, and then, if it is, what becomes of each of its
// other members. They are given to it to be filled anew, whatever they hold.
func Choose(v View, cfg Config, array raid.UUID, paths []string) []Decision {
	devices := sorted(v.Devices)
	head := Decision{Action: Refuse, Array: array, Cause: Unneeded}

	var others []*Device

	for i := range devices {
		d := &devices[i]
		if !d.of(array) {
			continue
		}

		head.Name = d.Superblock.Name

		_, holds := d.Superblock.slot(d.Superblock.Number)
		if holds && d.fault() == (why{}) && !slices.Contains(paths, d.Path) {
			others = append(others, d)
		}
	}

	if reason := unchosen(v, cfg, array, paths); reason != "" {
		head.Reason = reason

		return []Decision{head}
	}

	if shared := shared(v.Devices, others); shared != "" {
		head.Reason = fmt.Sprintf("%s is a member of other arrays too, which would lose it: raid-assembler assemble "+
			"%v %s starts it with these alone", shared, array, strings.Join(paths, " "))

		return []Decision{head}
	}

	v.Devices, v.Last = only(v.Devices, array, paths), nil // whatever is newer was not chosen

	if head = headOf(Decide(v, cfg), array); head.Action == Wait {
		v.Forced = map[raid.UUID]bool{array: true}

		if headOf(Decide(v, cfg), array).Action == Start {
			head.Reason = fmt.Sprintf("%s missing: plug in who has it, or start it without with --force",
				count{missing: head.Missing, known: v.Known[array]}.absent())
		}

		head.Action = Refuse
	}

	ds := []Decision{head}

	for _, d := range others {
		if head.Action == Start {
			ds = append(ds, Decision{
				Action: AddSpare, Array: array, Name: head.Name, Device: d.Path, Serial: d.Serial, Anew: true,
				Reason: fmt.Sprintf("it is given up for what is on %s, and is filled anew", strings.Join(paths, " ")),
			})
		}
	}

	return ds
}

// unchosen says why there is nothing to choose, or nothing is with paths.
func unchosen(v View, cfg Config, array raid.UUID, paths []string) string {
	if running(v.Running, array) != nil {
		return fmt.Sprintf("it runs: raid-assembler add --force %v DEVICE gives up what a device holds", array)
	}

	var members []string

	for _, d := range sorted(v.Devices) {
		if d.of(array) {
			members = append(members, d.Path)
		}
	}

	for _, path := range paths {
		if !slices.Contains(members, path) {
			return fmt.Sprintf("%s is no member of it: those that are here are %s", path, list(members))
		}
	}

	if len(paths) == 0 {
		return fmt.Sprintf("nothing is chosen: its members that are here are %s", list(members))
	}

	all := headOf(Decide(v, cfg), array)
	if slices.Contains([]Cause{Diverged, Conflict, Cloned}, all.Cause) {
		return ""
	}

	return fmt.Sprintf("there is nothing to choose, for its members do not contradict each other: "+
		"raid-assembler assemble %v starts it (now: %s)", array, cmp.Or(all.Reason, "no member can be used"))
}

// shared returns the path of one of devices that is a member of several arrays, or
// nothing.
func shared(all []Device, devices []*Device) string {
	for _, d := range devices {
		for _, other := range all {
			if other.Path == d.Path && other.Superblock != nil && !other.of(d.Superblock.Array) {
				return d.Path
			}
		}
	}

	return ""
}

// only returns devices without those members of an array that are not at paths.
func only(devices []Device, array raid.UUID, paths []string) []Device {
	return slices.DeleteFunc(slices.Clone(devices), func(d Device) bool {
		return d.of(array) && !slices.Contains(paths, d.Path)
	})
}

// headOf returns what was decided about an array, and not about one device.
func headOf(ds []Decision, array raid.UUID) Decision {
	i := slices.IndexFunc(ds, func(d Decision) bool { return d.Array == array && d.Device == "" })
	if i < 0 {
		return Decision{Action: Refuse, Array: array}
	}

	return ds[i]
}

// histories returns the sides of an array that went on apart, among them those of
// a and b: each is the members that count on each other.
func histories(holders []*Device, a, b *Device) [][]*Device {
	side := func(head *Device) []*Device {
		return slices.DeleteFunc(slices.Clone(holders), func(d *Device) bool {
			return d != head && (accuses(head, d) || accuses(d, head))
		})
	}

	all := [][]*Device{side(a), side(b)}

	for _, d := range holders {
		known := slices.ContainsFunc(all, func(side []*Device) bool { return slices.Contains(side, d) })
		stale := slices.ContainsFunc(holders, func(by *Device) bool { return accuses(by, d) && !accuses(d, by) })

		if !known && !stale {
			all = append(all, side(d))
		}
	}

	return all
}

// tell tells a history: who has it, when it ends, and who took no part.
func tell(n int, side []*Device) string {
	last := side[0]

	for _, d := range side {
		if d.Superblock.Events > last.Superblock.Events {
			last = d
		}
	}

	sb := last.Superblock
	when := ""

	if !sb.Updated.IsZero() {
		when = ", written " + sb.Updated.UTC().Format(time.RFC3339)
	}

	var had []raid.Slot

	for _, number := range sb.members() {
		slot, _ := sb.slot(number)
		had = append(had, slot)
	}

	slices.Sort(had)
	had = slices.Compact(had)

	return fmt.Sprintf("History %d: it is on %s and ends at event %d%s, when %s of %d %s working: raid-assembler "+
		"assemble %v --choose %s keeps it.", n, paths(side), sb.Events, when, slotNames(had), sb.Disks, are(had),
		sb.Array, paths(side))
}
