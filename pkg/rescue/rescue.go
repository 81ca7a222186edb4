// Package rescue reads the content of an array from its members, without the
// kernel and without changing a byte: the way to one's data on a machine where
// the array cannot run, and the second opinion that tests compare with.
//
// [Open] chooses the members by the freshest superblock's role table, whatever
// their order, and refuses to guess: what it left out and why is part of the
// result. Then an [Array] is an [io.ReaderAt], reconstructing what is missing
// where the level has redundancy, also where a member turns out to have bad
// sectors.
//
// It does not find members, nor read superblocks: package scan does.
package rescue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

var (
	// ErrIncomplete says that the members that can be used do not hold all of
	// the content.
	ErrIncomplete = errors.New("not all of the content is there")

	// ErrAmbiguous says that the members contradict one another, so that the
	// caller has to say which of them count by giving only those.
	ErrAmbiguous = errors.New("the members contradict one another")
)

// Member is a device or an image file that holds a member.
type Member struct {
	Name       string // for messages; decides nothing
	Source     metadata.Source
	Superblock *metadata.Superblock
}

// Options are what the caller may choose.
type Options struct {
	// ForceStale also uses members whose data is out of date, in slots that
	// have no other. Content read from them is old, and mixed with newer it
	// may be worthless.
	ForceStale bool
}

// Used is a member that content is read from.
type Used struct {
	Name  string
	Slot  raid.Slot
	Stale bool // out of date, and forced
	// Below is the component offset below which the member is used:
	// MaxSectors unless it was being recovered.
	Below raid.Sectors
}

// LeftOut is a member that is not used, and why.
type LeftOut struct {
	Name   string
	Reason string
}

// Array is an array whose content can be read. It is safe for concurrent use.
type Array struct {
	// Superblock is the freshest, which describes the array.
	Superblock *metadata.Superblock
	Used       []Used    // by slot
	LeftOut    []LeftOut // by name
	Missing    []raid.Slot

	layout *geometry.Map
	slots  []component // by slot
	rows   sync.Pool   // of *row

	patches []patch // in the order of the logs
	logged  bool    // all that was being written is in logs
}

// component is the data area of the member in a slot; zero if it is missing.
type component struct {
	name   string
	source metadata.Source
	start  raid.Sectors // of the data area
	below  raid.Sectors // component offset below which it is right
	bad    []raid.Range // component sectors that it has no valid data of, ascending
}

func (c component) present() bool { return c.below > 0 }

func (c component) whole() bool { return c.below == raid.MaxSectors }

// same returns for how many sectors from s on the member is right, or is not.
func (c component) same(s raid.Sectors) raid.Sectors {
	run := raid.MaxSectors
	if s < c.below {
		run = c.below - s
	}

	for _, r := range c.bad {
		if s < r.From {
			return min(run, r.From-s)
		}

		if s < r.To {
			return min(run, r.To-s)
		}
	}

	return run
}

// badWithin reports whether one of the bytes is on record as bad.
func (c component) badWithin(from, to int64) bool {
	return slices.ContainsFunc(c.bad, func(r raid.Range) bool { return from < r.To.Bytes() && to > r.From.Bytes() })
}

// Open chooses among members, which are all that there is of one array, in any
// order.
//
// Returns an error wrapping [ErrAmbiguous] if they contradict one another, and
// one wrapping [ErrIncomplete] if too few can be used for all content to be
// read.
func Open(members []Member, opts Options) (*Array, error) {
	array, err := open(members, opts)
	if err != nil {
		return nil, fmt.Errorf("rescue: %w", err)
	}

	return array, nil
}

func open(members []Member, opts Options) (*Array, error) {
	chosen, err := choose(members, opts)
	if err != nil {
		return nil, err
	}

	best := chosen.freshest.Superblock
	a := &Array{
		Superblock: best,
		LeftOut:    chosen.leftOut,
		slots:      make([]component, best.Disks),
	}

	for slot := range a.slots {
		seat, ok := chosen.seats[raid.Slot(slot)]
		if !ok {
			a.Missing = append(a.Missing, raid.Slot(slot))

			continue
		}

		c := component{
			name:   seat.member.Name,
			source: seat.member.Source,
			start:  seat.member.Superblock.DataOffset,
			below:  seat.member.Superblock.RecoveryOffset,
			bad:    seat.member.Superblock.BadBlocks,
		}
		if c.below >= best.Size {
			c.below = raid.MaxSectors
		}

		a.slots[slot] = c
		a.Used = append(a.Used, Used{
			Name: c.name, Slot: raid.Slot(slot), Stale: seat.stale != "", Below: c.below,
		})
	}

	if err := a.checkComplete(); err != nil {
		return nil, err
	}

	if a.layout, err = geometry.New(a.geometry(chosen)); err != nil {
		return nil, err
	}

	logs := make(map[raid.Slot]*metadata.PPL)
	for slot, seat := range chosen.seats {
		logs[slot] = seat.member.Superblock.PPL
	}

	a.replayLogs(logs)

	return a, nil
}

// geometry returns the geometry with the sizes that only the members know.
// Preconditions: no member is missing if the level needs the sizes.
func (a *Array) geometry(c choice) raid.Geometry {
	g := a.Superblock.Geometry
	if g.Level.HasRedundancy() {
		return g
	}

	g.Sizes = make([]raid.Sectors, g.Disks)
	for slot, seat := range c.seats {
		g.Sizes[slot] = seat.member.Superblock.DataSize
	}

	return g
}

// checkComplete makes sure that all content can be read, up to bad sectors: a
// dump that ends in the middle is found out too late.
func (a *Array) checkComplete() error {
	var partly []string

	for slot, c := range a.slots {
		if c.present() && !c.whole() {
			partly = append(partly,
				fmt.Sprintf("%s in slot %d was recovered only below sector %d", c.name, slot, c.below))
		}
	}

	best := a.Superblock
	if best.Survives(func(slot raid.Slot) bool { return a.slots[slot].whole() }) {
		return nil
	}

	tolerance := fmt.Sprintf("%v of %d slots survives the loss of %d", best.Level, best.Disks, best.Redundancy())
	if best.Level == raid.Level10 {
		if _, err := best.Copies(); err != nil {
			return err
		}

		tolerance = fmt.Sprintf("%v of %d slots has no copy left of some chunks", best.Level, best.Disks)
	}

	why := []string{tolerance}
	if len(a.Missing) > 0 {
		why = append(why, "no member for "+slotList(a.Missing))
	}

	why = append(why, partly...)
	for _, l := range a.LeftOut {
		why = append(why, fmt.Sprintf("%s left out: %s", l.Name, l.Reason))
	}

	return fmt.Errorf("%s: %w", strings.Join(why, "; "), ErrIncomplete)
}

func slotList(slots []raid.Slot) string {
	words := make([]string, len(slots))
	for i, slot := range slots {
		words[i] = fmt.Sprint(int(slot))
	}

	if len(slots) == 1 {
		return "slot " + words[0]
	}

	return "slots " + strings.Join(words, ", ")
}

// Size returns the size of the array in bytes.
func (a *Array) Size() int64 { return a.layout.ArraySectors().Bytes() }

// Warnings says what the reader of the content has to know, a sentence each.
func (a *Array) Warnings() []string {
	var warnings []string

	for _, u := range a.Used {
		if u.Stale {
			warnings = append(warnings,
				fmt.Sprintf("%s in slot %d is stale and was forced: its content is old", u.Name, u.Slot))
		}
	}

	lacking := slices.Clone(a.Missing)

	for _, u := range a.Used {
		if u.Below != raid.MaxSectors {
			lacking = append(lacking, u.Slot)
		}
	}

	if a.Superblock.Level.HasParity() && len(lacking) > 0 && !a.Superblock.Clean() && !a.logged {
		warnings = append(warnings, fmt.Sprintf("the array is degraded and was not stopped cleanly: "+
			"what is reconstructed for %s may be wrong where writes were in flight", slotList(lacking)))
	}

	return warnings
}
