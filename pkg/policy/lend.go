package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"raid-assembler/pkg/raid"
)

// loan is a spare that an array might be given which it is not for.
type loan struct {
	device *Device
	owner  *tender // whose spare it is; nil for one of a container that no array has
	held   bool    // the owner has it; else it was about to be given it
	spares int     // that the owner has, this one included; 1 without
}

// lend gives arrays that lack a member, and that have nobody to take its place,
// spares of arrays that are whole, within a domain, or blank disks: the most
// endangered array first. What the engine has just refused to give to one stays with
// its owner. Tended is what was decided about each array so far, and strays are devices
// that no array has.
func lend(tenders map[raid.UUID]*tender, tended map[raid.UUID][]Decision, devices []Device, strays []*Device) {
	var needy []*tender

	for _, uuid := range sortedKeys(tenders) {
		if t := tenders[uuid]; t.takes() && t.ready() < t.needs() && len(t.domains()) > 0 {
			needy = append(needy, t)
		}
	}

	if len(needy) == 0 {
		return
	}

	loans := idle(tenders, devices, strays)

	for _, uuid := range sortedKeys(tenders) {
		if t := tenders[uuid]; t.takes() && t.spares(tenders) {
			loans = append(loans, t.loans(tended[uuid], devices)...)
		}
	}

	slices.SortStableFunc(needy, func(a, b *tender) int { return cmp.Compare(a.spared(), b.spared()) })

	served, used := make(map[raid.UUID]bool), make(map[string]bool)

	for _, t := range needy {
		container := t.array.Container
		if served[container] {
			continue // what another array of it is given will be a spare of this one
		}

		given := t.given
		ds := t.borrowAll(&loans, tended)
		ds = append(ds, t.fill(devices, used)...)
		tended[t.array.UUID] = append(tended[t.array.UUID], ds...)
		served[container] = !container.IsZero() && t.given > given
	}
}

// borrowAll decides which of loans the array is given, takes them out, and has their
// owners not be given them.
func (t *tender) borrowAll(loans *[]loan, tended map[raid.UUID][]Decision) []Decision {
	var ds []Decision

	for t.ready() < t.needs() {
		i, domain := t.choose(*loans)
		if i < 0 {
			break
		}

		l := (*loans)[i]
		ds = append(ds, t.borrow(l, domain))
		*loans = slices.DeleteFunc(*loans, func(other loan) bool { return other.device.Path == l.device.Path })

		if l.owner != nil {
			owner := l.owner.array.UUID
			tended[owner] = slices.DeleteFunc(tended[owner], func(dec Decision) bool {
				return dec.Action == AddSpare && dec.Device == l.device.Path
			})
		}
	}

	return ds
}

// idle returns the strays that are spares of a container, or of any of their format,
// where all arrays that may want them run and have no use for them.
func idle(tenders map[raid.UUID]*tender, devices []Device, strays []*Device) []loan {
	lenders := make(map[raid.UUID]*tender) // one array of each container
	for _, t := range tenders {
		lenders[t.array.Container] = t
	}

	var loans []loan

	for _, d := range strays {
		if !d.of(raid.UUID{}) || d.Superblock.Unsupported != "" {
			continue
		}

		container := d.Superblock.Container
		lender := lenders[container]

		waits := slices.ContainsFunc(devices, func(other Device) bool {
			sb := other.Superblock

			return sb != nil && !sb.Array.IsZero() && tenders[sb.Array] == nil &&
				sb.Format == d.Superblock.Format && (sb.Container == container || container.IsZero())
		})

		if !waits && (container.IsZero() || lender != nil && lender.spares(tenders)) {
			loans = append(loans, loan{device: d, spares: 1})
		}
	}

	return loans
}

// takes reports whether the array can be given members.
func (t *tender) takes() bool {
	return t.array.Level.HasRedundancy() &&
		(t.array.State == raid.Clean || t.array.State == raid.Active || t.array.State == raid.WritePending)
}

// spares reports whether neither the array nor another of its container has a use for
// a spare.
func (t *tender) spares(tenders map[raid.UUID]*tender) bool {
	for _, other := range tenders {
		same := other == t || !t.array.Container.IsZero() && other.array.Container == t.array.Container
		if same && other.array.Level.HasRedundancy() && (!other.takes() || other.needs() > 0) {
			return false
		}
	}

	return true
}

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
		if d := t.attached[i]; d != nil && m.State == raid.Spare && (d.of(t.array.UUID) || d.of(raid.UUID{})) {
			loans = append(loans, loan{device: d, owner: t, held: true, spares: t.ready()})
		}
	}

	for _, dec := range ds {
		for i := range devices {
			if d := &devices[i]; dec.Action == AddSpare && d.Path == dec.Device && d.of(t.array.UUID) {
				loans = append(loans, loan{device: d, owner: t, spares: t.ready()})
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
		if shared < 0 || t.refused[l.device.Path] || l.device.fault() != (why{}) || !t.holds(l.device) {
			continue
		}

		if best < 0 || t.better(l, loans[best]) {
			best, domain = i, t.domains()[shared]
		}
	}

	return best, domain
}

// better reports whether a is the better of two that fit: where the lost member
// was, then in its enclosure; then the smaller; then what has such metadata already;
// then of the array that has more.
func (t *tender) better(a, b loan) bool {
	return cmp.Or(
		cmp.Compare(t.distance(a.device), t.distance(b.device)),
		cmp.Compare(a.device.Size, b.device.Size),
		cmp.Compare(t.foreign(a.device), t.foreign(b.device)),
		cmp.Compare(b.spares, a.spares),
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

// foreign returns 1 if d has metadata of another kind than the members of the array,
// which gives way to theirs, and else 0.
func (t *tender) foreign(d *Device) int {
	if d.Superblock.Format != t.array.Format {
		return 1
	}

	return 0
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
		if m.Rotational != d.Rotational || !t.array.Container.IsZero() && m.Block != d.Block {
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

// borrow decides to give the array a spare that is not its own.
func (t *tender) borrow(l loan, domain string) Decision {
	of := "of " + l.device.home() + ", whose arrays are whole"
	if l.owner != nil {
		of = "of " + l.owner.array.Name + ", which is whole"
	}

	if t.foreign(l.device) > 0 {
		of += ", with metadata " + l.device.Superblock.Format + " that gives way to " + t.array.Format
	}

	dec := t.give(l.device, fmt.Sprintf("%s, and no spare of its own is here: it is a spare %s, in the domain %s",
		t.need(), of, domain))

	if l.held {
		dec.From = l.owner.array.UUID
	}

	return dec
}
