package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/raid"
)

// loan is a spare that another array might be given.
type loan struct {
	device *Device
	owner  *tender
	held   bool // the owner has it; else it was about to be given it
}

// lend gives arrays that lack a member, and that have nobody to take its place,
// spares of arrays that are whole, within a domain, or blank disks: the most
// endangered array first. What the engine has just refused to give to one stays with
// its owner. Tended is what was decided about each array so far.
func lend(tenders map[raid.UUID]*tender, tended map[raid.UUID][]Decision, devices []Device) {
	var (
		needy []*tender
		loans []loan
	)

	for _, uuid := range sortedKeys(tenders) {
		if t := tenders[uuid]; t.takes() && t.ready() < t.needs() && len(t.domains()) > 0 {
			needy = append(needy, t)
		}
	}

	if len(needy) == 0 {
		return
	}

	for _, uuid := range sortedKeys(tenders) {
		if t := tenders[uuid]; t.lends() && t.takes() && t.needs() == 0 {
			loans = append(loans, t.loans(tended[uuid], devices)...)
		}
	}

	slices.SortStableFunc(needy, func(a, b *tender) int { return cmp.Compare(a.spared(), b.spared()) })

	used := make(map[string]bool)

	for _, t := range needy {
		for t.lends() && t.ready() < t.needs() {
			i, domain := t.choose(loans)
			if i < 0 {
				break
			}

			uuid, owner := t.array.UUID, loans[i].owner.array.UUID
			tended[owner] = slices.DeleteFunc(tended[owner], func(dec Decision) bool {
				return dec.Action == AddSpare && dec.Device == loans[i].device.Path
			})
			tended[uuid] = append(tended[uuid], t.borrow(loans[i], domain))
			loans = slices.Delete(loans, i, i+1)
		}

		tended[t.array.UUID] = append(tended[t.array.UUID], t.fill(devices, used)...)
	}
}

// takes reports whether the array can be given members.
func (t *tender) takes() bool {
	return t.array.Level.HasRedundancy() &&
		(t.array.State == raid.Clean || t.array.State == raid.Active || t.array.State == raid.WritePending)
}

// lends reports whether spares may move to or from the array. Those of a container
// are its arrays' alone.
func (t *tender) lends() bool { return t.array.Container.IsZero() }

// filled returns the members that hold a slot and are here.
func (t *tender) filled() []*Device {
	var ds []*Device

	for i, m := range t.array.Members {
		d := t.attached[i]
		if d != nil && d.of(t.array.UUID) && (m.State == raid.InSync || m.State == raid.Recovering) {
			ds = append(ds, d)
		}
	}

	return ds
}

// domains returns those that every member is in.
func (t *tender) domains() []string {
	var common []string

	for i, d := range t.filled() {
		if i == 0 {
			common = slices.Clone(d.Domains)
		} else {
			common = slices.DeleteFunc(common, func(name string) bool { return !slices.Contains(d.Domains, name) })
		}
	}

	slices.Sort(common)

	return common
}

// spared returns how many further members the array survives the loss of, where
// it survives any; less than none do not occur while it runs.
func (t *tender) spared() int {
	lost := make(map[raid.Slot]bool)
	slots := make(map[raid.Slot]bool)

	for _, m := range t.array.Members {
		if m.Slot != raid.NoSlot {
			slots[m.Slot] = true
			lost[m.Slot] = lost[m.Slot] || m.State != raid.InSync
		}
	}

	n := t.array.Level.Redundancy(len(slots))

	for _, is := range lost {
		if is {
			n--
		}
	}

	return n
}

// loans returns the spares that the array has, or was to be given by ds.
func (t *tender) loans(ds []Decision, devices []Device) []loan {
	var loans []loan

	for i, m := range t.array.Members {
		if d := t.attached[i]; d != nil && m.State == raid.Spare && d.of(t.array.UUID) {
			loans = append(loans, loan{d, t, true})
		}
	}

	for _, dec := range ds {
		for i := range devices {
			if d := &devices[i]; dec.Action == AddSpare && d.Path == dec.Device && d.of(t.array.UUID) {
				loans = append(loans, loan{d, t, false})
			}
		}
	}

	return loans
}

// choose returns the best of loans for the array, and the domain that allows it,
// or -1.
func (t *tender) choose(loans []loan) (best int, domain string) {
	best = -1

	for i, l := range loans {
		shared := slices.IndexFunc(t.domains(), func(name string) bool {
			return slices.Contains(l.device.Domains, name)
		})
		if shared < 0 || t.refused[l.device.Path] || !t.suits(l.device) {
			continue
		}

		if best < 0 || t.better(l, loans[best]) {
			best, domain = i, t.domains()[shared]
		}
	}

	return best, domain
}

// better reports whether a is the better of two that fit: where the lost member
// was, then in its enclosure; then the smaller; then of the array that has more.
func (t *tender) better(a, b loan) bool {
	return cmp.Or(
		cmp.Compare(t.distance(a.device), t.distance(b.device)),
		cmp.Compare(a.device.Size, b.device.Size),
		cmp.Compare(b.owner.ready(), a.owner.ready()),
		cmp.Compare(a.device.Path, b.device.Path),
	) < 0
}

// The distances of a disk from the place that it is to take.
const (
	inSlot = iota
	inEnclosure
	elsewhere
)

// distance returns how far a disk is from where the members were whose slots are
// vacant, as far as that is known.
func (t *tender) distance(d *Device) int {
	nearest := elsewhere

	for _, slot := range t.vacant() {
		switch port := t.ports[slot]; {
		case port == "" || d.Port == "":
		case port == d.Port:
			return inSlot
		case enclosure(port) != "" && enclosure(port) == enclosure(d.Port):
			nearest = inEnclosure
		}
	}

	return nearest
}

// enclosure returns what a port has in common with its neighbours: the expander,
// or the controller; nothing if it has none.
func enclosure(port string) string {
	for _, last := range []string{"-phy", "-ata-", "-scsi-"} {
		if before, _, ok := strings.Cut(port, last); ok && !strings.Contains(before, "-usb-") {
			return before
		}
	}

	return ""
}

// suits reports whether d, a spare of another array, can be a member of this one as
// those are that it has: of the same kind of metadata, so that the new takes the
// place of the old.
func (t *tender) suits(d *Device) bool {
	same := !slices.ContainsFunc(t.filled(), func(m *Device) bool {
		return m.Superblock.Format != d.Superblock.Format
	})

	return same && t.holds(d) && d.fault() == (why{})
}

// holds reports whether d is like the members that the array has: of the same kind
// of medium; with blocks no larger, and in a container the same; and with room for
// as much.
func (t *tender) holds(d *Device) bool {
	var (
		block int
		need  raid.Sectors
	)

	filled := t.filled()

	for _, m := range filled {
		if m.Rotational != d.Rotational || !t.lends() && m.Block != d.Block {
			return false
		}

		room := m.Size - (m.Superblock.DataSize - m.Superblock.Size)
		if need == 0 || room < need {
			need = room
		}

		block = max(block, m.Block)
	}

	flaps, _ := t.flaps(d)

	return len(filled) > 0 && d.Size >= need && d.Block <= block && d.Shunned == "" && d.Worn == "" && flaps == (why{})
}

// borrow decides to give the array a spare of another one.
func (t *tender) borrow(l loan, domain string) Decision {
	dec := t.give(l.device, fmt.Sprintf("%s, and no spare of its own is here: it is a spare of %s, which is "+
		"whole, in the domain %s", t.need(), l.owner.array.Name, domain))

	if l.held {
		dec.From = l.owner.array.UUID
	}

	return dec
}
