package rescue

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/raid"
)

// damage is the blocks of each member that cannot be read, by slot.
type damage [][]raid.Range

func (d damage) add(slot raid.Slot, at, size raid.Sectors) {
	block := raid.Range{From: at, To: at + size}
	if !slices.Contains(d[slot], block) {
		d[slot] = append(d[slot], block)
	}
}

// drawDamage draws what members may lose so that all content is still there:
// some but not all of the copies of a block, or as many blocks of a row as its
// parity makes up for.
func drawDamage(t *rapid.T, g raid.Geometry, size raid.Sectors) damage {
	m, err := geometry.New(g)
	if err != nil {
		t.Fatal(err)
	}

	d := make(damage, g.Disks)

	if g.Level.HasParity() {
		for at := raid.Sectors(0); at < m.ComponentSectors(); at += size {
			for range rapid.IntRange(0, g.Redundancy()).Draw(t, "lost in a row") {
				d.add(raid.Slot(rapid.IntRange(0, g.Disks-1).Draw(t, "slot")), at, size)
			}
		}

		return d
	}

	for s := raid.Sectors(0); s < m.ArraySectors(); s += size {
		kept := rapid.IntRange(0, m.Copies()-1).Draw(t, "kept")

		for i := range m.Copies() {
			if i != kept && rapid.Bool().Draw(t, "lost") {
				slot, component, _ := m.Copy(s, i)
				d.add(slot, component, size)
			}
		}
	}

	return d
}

// TestAnyBadBlocks: members lose nothing that they have not lost in the same
// place, whether they say so when they are read, or their bad block log does
// and what they return is wrong.
func TestAnyBadBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawArray(t)
		if !g.Level.HasRedundancy() {
			return
		}

		// A log can say that single sectors are bad.
		unit, logged := raid.Sectors(8), rapid.Bool().Draw(t, "logged")
		if logged {
			unit = raid.Sectors(rapid.IntRange(1, 5).Draw(t, "unit"))
		}

		g.Chunk = 2 * unit
		g.Size = 4 * g.Chunk
		members, content := build(g)
		lost := drawDamage(t, g, unit)

		for slot := range members {
			m := &members[slot]
			bad := func(from, to int64) bool {
				return slices.ContainsFunc(lost[slot], func(r raid.Range) bool {
					return from < (dataOffset+r.To).Bytes() && to > (dataOffset+r.From).Bytes()
				})
			}

			if !logged {
				m.Source.ReaderAt = faultyReader{m.Source.ReaderAt, bad}

				continue
			}

			disk := make([]byte, m.Source.Size.Bytes())
			if _, err := m.Source.ReadAt(disk, 0); err != nil {
				t.Fatal(err)
			}

			for i := range disk {
				if bad(int64(i), int64(i)+1) {
					disk[i] ^= 0xff
				}
			}

			m.Source.ReaderAt = bytes.NewReader(disk)
			m.Superblock.BadBlocks = slices.SortedFunc(slices.Values(lost[slot]), func(a, b raid.Range) int {
				return int(a.From - b.From)
			})
		}

		a, err := Open(members, Options{})
		if err != nil {
			t.Fatal(err)
		}

		got := make([]byte, len(content))
		if _, err := a.ReadAt(got, 0); err != nil {
			t.Fatalf("%v: %v", lost, err)
		}

		if !bytes.Equal(got, content) {
			t.Fatalf("%v: content differs", lost)
		}
	})
}

// TestTooManyBadBlocks: where more is lost than redundancy makes up for, the
// error names every member that was asked.
func TestTooManyBadBlocks(t *testing.T) {
	for _, g := range []raid.Geometry{
		{Level: raid.Level6, Layout: raid.LeftSymmetric, Disks: 5, Chunk: 8, Size: 64},
		{Level: raid.Level10, Layout: 0x103, Disks: 5, Chunk: 8, Size: 64},
	} {
		members, content := build(g)

		for slot := range 3 { // of the first row
			members[slot].Superblock.BadBlocks = []raid.Range{{From: 0, To: 1}}
		}

		a, err := Open(members, Options{})
		if err != nil {
			t.Fatal(err)
		}

		n, err := a.ReadAt(make([]byte, len(content)), 0)
		if err == nil || n != 0 {
			t.Fatalf("%v: ReadAt = %d, %v, want an error", g.Level, n, err)
		}

		for slot := range 3 {
			want := fmt.Sprintf("%c in slot %d has no valid data at byte 0", 'a'+slot, slot)
			if !bytes.Contains([]byte(err.Error()), []byte(want)) {
				t.Errorf("%v: error %q does not say %q", g.Level, err, want)
			}
		}
	}
}
