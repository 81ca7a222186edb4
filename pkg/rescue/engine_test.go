package rescue

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// engineArray is an array on disks in memory, written by the engine's data
// path.
type engineArray struct {
	t     *rapid.T
	g     raid.Geometry
	m     *geometry.Map
	p     *stripe.Path
	disks [][]byte // by slot, from the start of the device
}

func newEngineArray(t *rapid.T, g raid.Geometry) *engineArray {
	m, err := geometry.New(g)
	if err != nil {
		t.Fatal(err)
	}

	scratch := make([][]byte, 2*g.Disks+2)
	for i := range scratch {
		scratch[i] = make([]byte, 8192)
	}

	p, err := stripe.New(stripe.Config{
		Geometry: m, Level: g.Level, Disks: g.Disks, Chunk: g.Chunk, Depth: 2, Scratch: scratch,
	})
	if err != nil {
		t.Fatal(err)
	}

	a := &engineArray{t: t, g: g, m: m, p: p}

	for slot := range raid.Slot(g.Disks) {
		size := g.Size
		if len(g.Sizes) > 0 {
			size = g.Sizes[slot]
		}

		a.disks = append(a.disks, make([]byte, (dataOffset+size).Bytes()))
		p.SetMember(slot, stripe.Member{Device: int(slot), State: raid.InSync})
	}

	return a
}

// settle carries out all that the path asks for.
func (a *engineArray) settle() {
	for a.p.Pending() {
		for tr := range a.p.Transfers {
			at := (dataOffset + tr.Sector).Bytes()

			switch tr.Op {
			case stripe.Read:
				copy(tr.Data, a.disks[tr.Device][at:])
			case stripe.Write:
				copy(a.disks[tr.Device][at:], tr.Data)
			case stripe.WriteZeroes:
				clear(a.disks[tr.Device][at : at+tr.Sectors.Bytes()])
			case stripe.Flush, stripe.Discard:
			}

			a.p.Complete(tr.ID, stripe.None)
		}

		for _, r := range a.p.Results() {
			if !r.OK {
				a.t.Fatalf("%v: %v was given up", a.g.Level, r.Op)
			}
		}

		if slab, ended := a.p.TakeSlab(); ended && !slab.OK {
			a.t.Fatalf("%v: %+v was given up", a.g.Level, slab)
		}
	}
}

// lose takes the member of slot away, if the array survives that.
func (a *engineArray) lose(slot raid.Slot) {
	if a.g.Survives(func(s raid.Slot) bool { return s != slot }) {
		a.p.SetMember(slot, stripe.Member{Device: -1, State: raid.Missing})
	}
}

// refill has a new member filled if the one of slot was lost.
func (a *engineArray) refill(slot raid.Slot, noise *rand.ChaCha8) {
	if a.p.Member(slot).State == raid.InSync {
		return
	}

	_, _ = noise.Read(a.disks[slot]) // never fails

	for at := raid.Sectors(0); at < a.m.ComponentSectors(); {
		a.p.SetMember(slot, stripe.Member{Device: int(slot), State: raid.Recovering, Recovered: at})

		to := min(at+2*max(a.g.Chunk, 8), a.m.ComponentSectors())
		if a.g.Level == raid.Level10 {
			to = min(to, a.m.SectionEnd(at))
		}

		a.p.SyncSlab(raid.Recover, slot, at, to)
		a.settle()

		at = to
	}

	a.p.SetMember(slot, stripe.Member{Device: int(slot), State: raid.InSync})
}

// content reads the array from what is left of its members.
func (a *engineArray) content(gone []raid.Slot) []byte {
	works := func(slot raid.Slot) bool { return !slices.Contains(gone, slot) }
	if !a.g.Survives(works) {
		works = func(raid.Slot) bool { return true }
	}

	all := membersOf(a.g, a.disks)

	var members []Member
	for slot, m := range all {
		if works(raid.Slot(slot)) {
			members = append(members, m)
		}
	}

	array, err := Open(members, Options{})
	if err != nil {
		a.t.Fatal(err)
	}

	content := make([]byte, array.Size())
	if _, err := array.ReadAt(content, 0); err != nil {
		a.t.Fatal(err)
	}

	return content
}

// TestSameBytesThroughAnyLevel: the same writes to two arrays of whatever
// levels, layouts, chunks and numbers of members, with a member lost and another
// filled in between, leave the same bytes on both, read by this package from
// any members that are enough.
func TestSameBytesThroughAnyLevel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var arrays []*engineArray

		shortest := raid.MaxSectors

		for range 2 {
			g := drawArray(t)
			g.Chunk = 8 << raid.Sectors(rapid.IntRange(0, 2).Draw(t, "chunk shift"))
			g.Size *= 8

			for i := range g.Sizes {
				g.Sizes[i] = 8 * g.Sizes[i]
			}

			if g.Level == raid.LevelLinear || g.Level == raid.Level1 {
				g.Chunk = 0
			}

			a := newEngineArray(t, g)
			arrays = append(arrays, a)
			shortest = min(shortest, a.m.ArraySectors())
		}

		var (
			noise = rand.NewChaCha8([32]byte{1})
			want  = make([]byte, shortest.Bytes())
			slot  = rapid.IntRange(0, 99).Draw(t, "slot")
		)

		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch step {
			case 4:
				for _, a := range arrays {
					a.lose(raid.Slot(slot % a.g.Disks))
				}
			case 8:
				for _, a := range arrays {
					a.refill(raid.Slot(slot%a.g.Disks), noise)
				}
			}

			from := rapid.Int64Range(0, int64(shortest)-1).Draw(t, "from")
			to := rapid.Int64Range(from+1, min(int64(shortest), from+200)).Draw(t, "to")
			data := make([]byte, (to-from)*raid.SectorSize)
			_, _ = noise.Read(data)

			copy(want[from*raid.SectorSize:], data)

			for _, a := range arrays {
				a.p.Submit(stripe.Request{Op: stripe.Write, Sector: raid.Sectors(from), Data: data})
				a.settle()
			}
		}

		for _, a := range arrays {
			a.refill(raid.Slot(slot%a.g.Disks), noise)

			gone := rapid.SliceOfN(rapid.IntRange(0, a.g.Disks-1), 0, 3).Draw(t, "gone")

			var slots []raid.Slot
			for _, s := range gone {
				slots = append(slots, raid.Slot(s))
			}

			if !bytes.Equal(a.content(slots)[:len(want)], want) {
				t.Fatalf("%v of %d, layout %v, chunk %d: content differs without %v",
					a.g.Level, a.g.Disks, a.g.Layout, a.g.Chunk, slots)
			}
		}
	})
}
