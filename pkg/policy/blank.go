package policy

import (
	"cmp"
	"fmt"
	"slices"

	"raid-assembler/pkg/raid"
)

// Blank is what is known of whether a device holds anything.
type Blank uint8

// What is known.
const (
	// NotKnown says that it holds something that is known, or cannot be looked at.
	NotKnown Blank = iota
	// Unproven says that there is no sign of anything, in the places where programs
	// put theirs. It may hold data all the same.
	Unproven
	// Proven says that every byte of it was read, and is zero.
	Proven
	// Disproved says that some byte is not.
	Disproved
)

// fill decides to give the array blank disks, where it is allowed to at their
// places, once it is proven that they are blank. Used are the paths of those that
// were chosen already.
func (t *tender) fill(devices []Device, used map[string]bool) []Decision {
	var (
		ds    []Decision
		fills []loan
	)

	for i := range devices {
		d := &devices[i]
		if used[d.Path] || t.refused[d.Path] || t.fillDomain(d) == "" || !t.holds(d) {
			continue
		}

		switch d.Blank {
		case Unproven, Proven:
			fills = append(fills, loan{device: d})
		case Disproved:
			ds = append(ds, leave(d, because(NotBlank,
				"it could take the place of a member of %s, and is not blank: %s; raid-assembler add --force %v %s "+
					"overwrites that", t.array.Name, d.Content, t.array.UUID, d.Path)))
		case NotKnown:
		}
	}

	slices.SortFunc(fills, func(a, b loan) int {
		return cmp.Or(cmp.Compare(t.distance(a.device), t.distance(b.device)),
			cmp.Compare(b.device.Blank, a.device.Blank), cmp.Compare(a.device.Size, b.device.Size),
			cmp.Compare(a.device.Path, b.device.Path))
	})

	for _, f := range fills[:min(len(fills), max(0, t.needs()-t.ready()))] {
		used[f.device.Path] = true
		ds = append(ds, t.fillWith(f.device))
	}

	return ds
}

// fillWith decides to give the array a blank disk, or to prove that it is one.
func (t *tender) fillWith(d *Device) Decision {
	domain := t.fillDomain(d)
	need := t.need() + ", and no spare is here"
	place := "it is in the domain " + domain

	if !slices.Contains(d.Fills, domain) {
		place = "it is where a member of it was plugged in, in the domain " + domain
	}

	if d.Blank == Proven {
		return t.give(d, fmt.Sprintf("%s: every byte of this disk was read and is zero, and %s", need, place))
	}

	dec := t.give(d, fmt.Sprintf("%s: it is put to use if every byte of it is zero, for %s", need, place))
	dec.Action = Prove

	return dec
}

// fillDomain returns the domain that allows the array to be given d, should that be
// blank, or nothing.
func (t *tender) fillDomain(d *Device) string {
	if d.Superblock != nil || d.Blank == NotKnown {
		return ""
	}

	for _, name := range t.domains() {
		lost := slices.ContainsFunc(t.vacant(), func(slot raid.Slot) bool {
			return d.Port != "" && t.ports[slot] == d.Port
		})
		if slices.Contains(d.Fills, name) || lost && slices.Contains(d.FillsSlot, name) {
			return name
		}
	}

	return ""
}
