package geometry

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"raid-assembler/pkg/raid"
)

// FuzzNew: whatever a superblock says, New neither panics nor returns a map
// that places a sector outside of the array's members, or two of its copies in
// one slot, or from which the way back leads elsewhere.
func FuzzNew(f *testing.F) {
	f.Add(int32(5), uint32(2), 4, int64(128), int64(1000), int64(0))
	f.Add(int32(0), uint32(1), 3, int64(8), int64(100), int64(50))
	f.Add(int32(0), uint32(2), 3, int64(24), int64(100), int64(50))
	f.Add(int32(-1), uint32(0), 2, int64(0), int64(1), int64(math.MaxInt64))
	f.Add(int32(1), uint32(0), 1, int64(0), int64(1)<<54, int64(0))
	f.Add(int32(6), uint32(10), 5, int64(128), int64(1000), int64(0))
	f.Add(int32(6), uint32(19), 257, int64(128), int64(1)<<40, int64(0))
	f.Add(int32(10), uint32(0x102), 3, int64(8), int64(100), int64(0))
	f.Add(int32(10), uint32(0x50302), 11, int64(8), int64(1)<<40, int64(0))
	f.Add(int32(10), uint32(0x1ff01), 300, int64(131072), int64(1)<<44, int64(0))

	f.Fuzz(func(t *testing.T, level int32, layout uint32, disks int, chunk, size, grow int64) {
		g := raid.Geometry{
			Level: raid.Level(level), Layout: raid.Layout(layout), Disks: disks,
			Chunk: raid.Sectors(chunk), Size: raid.Sectors(size),
		}
		for i := range max(0, min(disks, maxDisks)) {
			g.Sizes = append(g.Sizes, g.Size+raid.Sectors(grow)*raid.Sectors(i))
		}

		m, err := New(g)
		if err != nil {
			return
		}

		for _, s := range []raid.Sectors{0, m.ArraySectors() / 3, m.ArraySectors() / 2, m.ArraySectors() - 1} {
			if err := checkSector(m, g, s); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// checkSector holds the places of one array sector to what every map promises.
func checkSector(m *Map, g raid.Geometry, s raid.Sectors) error {
	seen := make(map[raid.Slot]bool)

	for i := range m.Copies() {
		slot, component, run := m.Copy(s, i)
		if slot < 0 || int(slot) >= g.Disks || seen[slot] {
			return fmt.Errorf("Copy(%d, %d): slot %d of %d, seen before: %v", s, i, slot, g.Disks, seen[slot])
		}

		seen[slot] = true

		room := m.ComponentSectors()
		if room == 0 {
			room = g.Sizes[slot]
		}

		if component < 0 || run < 1 || component+run > room || s+run > m.ArraySectors() {
			return fmt.Errorf("Copy(%d, %d) = %d with a run of %d, of %d", s, i, component, run, room)
		}

		if err := checkBack(m, s, slot, component, run); err != nil {
			return err
		}
	}

	return nil
}

// checkBack follows the way back from a place of s.
func checkBack(m *Map, s raid.Sectors, slot raid.Slot, component, run raid.Sectors) error {
	switch m.level {
	case raid.Level1, raid.Level10:
		if back, length, ok := m.Virtual(slot, component); !ok || back != s || length != run {
			return fmt.Errorf("Virtual(%d, %d) = %d, %d, %v, want %d, %d", slot, component, back, length, ok, s, run)
		}

		if end := m.SectionEnd(component); component+run > end || end > m.ComponentSectors() {
			return fmt.Errorf("SectionEnd(%d) = %d, in a run of %d", component, end, run)
		}

		if span := m.Span(component, component+run); span.From > s || span.To < s+run || span.To > m.array {
			return fmt.Errorf("Span(%d, %d) = %v without %d", component, component+run, span, s)
		}
	case raid.Level4, raid.Level5, raid.Level6:
		row := int64(component / m.chunk)
		d := m.DataIndex(row, slot)
		p, q := m.ParitySlot(row), m.QSlot(row)

		switch {
		case d < 0 || d >= m.DataDisks() || m.DataSlot(row, d) != slot || p == slot || q == slot || p == q:
			return fmt.Errorf("slot %d of row %d has data index %d, P is in %d, Q in %d", slot, row, d, p, q)
		case raid.Sectors(row)*m.RowSectors()+raid.Sectors(d)*m.chunk+component%m.chunk != s:
			return fmt.Errorf("sector %d is in row %d at %d", s, row, d)
		case m.Exponent(row, slot) < 0 || m.Exponent(row, slot) >= m.Exponents():
			return fmt.Errorf("exponent %d of %d", m.Exponent(row, slot), m.Exponents())
		}
	case raid.LevelLinear, raid.Level0:
	}

	return nil
}

// TestLargeArrays: nothing overflows in arrays as large as they can be, with
// chunks of 4 KiB to 64 MiB.
func TestLargeArrays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := raid.Geometry{
			Level: rapid.SampledFrom([]raid.Level{
				raid.LevelLinear, raid.Level0, raid.Level1, raid.Level4, raid.Level5, raid.Level6, raid.Level10,
			}).Draw(t, "level"),
			Disks: rapid.IntRange(4, 250).Draw(t, "disks"),
			Chunk: raid.Sectors(8) << rapid.IntRange(0, 14).Draw(t, "chunk"),
		}

		switch g.Level {
		case raid.Level6:
			g.Layout = rapid.SampledFrom(layouts6).Draw(t, "layout")
		case raid.Level10:
			g.Layout = rapid.SampledFrom([]raid.Layout{0x102, 0x201, 0x10201, 0x40201}).Draw(t, "layout")
		default:
			g.Layout = raid.Layout(rapid.IntRange(1, 2).Draw(t, "layout"))
		}

		if g.Level == raid.Level0 {
			g.Chunk += 8 * raid.Sectors(rapid.IntRange(0, 100).Draw(t, "more")) // no power of two
		}

		most := maxArray / raid.Sectors(g.Disks)
		least := most - most/3

		if g.Size = most; !g.Level.HasRedundancy() {
			for range g.Disks {
				g.Sizes = append(g.Sizes, raid.Sectors(rapid.Int64Range(int64(least), int64(most)).Draw(t, "size")))
			}
		}

		m, err := New(g)
		if err != nil {
			t.Fatal(err)
		}

		last := int64(m.ArraySectors() - 1)
		for _, s := range []int64{0, last, rapid.Int64Range(0, last).Draw(t, "sector")} {
			if err := checkSector(m, g, raid.Sectors(s)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestLookupsDoNotAllocate: they are done for every request.
func TestLookupsDoNotAllocate(t *testing.T) {
	for _, g := range []raid.Geometry{
		{Level: raid.LevelLinear, Disks: 2, Sizes: []raid.Sectors{1 << 20, 1 << 21}},
		{Level: raid.Level0, Layout: raid.Original, Disks: 2, Chunk: 24, Sizes: []raid.Sectors{1 << 20, 1 << 21}},
		{Level: raid.Level1, Disks: 3, Size: 1 << 20},
		{Level: raid.Level4, Disks: 4, Chunk: 128, Size: 1 << 20},
		{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 4, Chunk: 128, Size: 1 << 20},
		{Level: raid.Level6, Layout: raid.LeftAsymmetric, Disks: 5, Chunk: 128, Size: 1 << 20},
		{Level: raid.Level10, Layout: 0x201, Disks: 5, Chunk: 128, Size: 1 << 20},
	} {
		m, err := New(g)
		if err != nil {
			t.Fatal(err)
		}

		var s raid.Sectors

		allocs := testing.AllocsPerRun(100, func() {
			slot, component, run := m.Copy(s, m.Copies()-1)
			_, _, _ = m.Locate(s)

			switch {
			case g.Level.HasParity():
				row := int64(component / m.chunk)
				_ = m.DataSlot(row, m.DataIndex(row, slot)) + m.ParitySlot(row) + m.QSlot(row)
				_ = m.Exponent(row, slot)
			case g.Level.HasRedundancy():
				_, _, _ = m.Virtual(slot, component)
				_ = m.Span(component, component+run)
			}

			s = (s + run) % m.ArraySectors()
		})
		if allocs != 0 {
			t.Errorf("%v: %v allocations per lookup, want 0", g.Level, allocs)
		}
	}
}

func BenchmarkLocate(b *testing.B) {
	m, err := New(raid.Geometry{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 4, Chunk: 128, Size: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}

	var s raid.Sectors
	for b.Loop() {
		_, _, run := m.Locate(s)
		s = (s + run) % m.ArraySectors()
	}
}
