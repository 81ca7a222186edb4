package geometry

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"raid-assembler/pkg/raid"
)

// layouts10 are the layouts of RAID10 that mdadm makes, with more or fewer
// copies, and some that only md knows.
var layouts10 = []raid.Layout{
	0x102, 0x103, 0x104, 0x105, // near
	0x201, 0x301, 0x401, // far
	0x10201, 0x10301, 0x10401, // offset
	0x40201, 0x40301, 0x50201, 0x50301, // in sets
	0x20201, 0x20301, // in sets of the first kind
	0x202, 0x302, 0x203, 0x10202, 0x40202, 0x50202, // near and far at once
}

// shelf is what the members of a RAID10 hold: the array's chunk by slot and
// component chunk, or -1.
type shelf [][]int

// fillShelf is the second opinion on RAID10. It lays chunks down on a line, near
// copies in a row, cuts that into rows, and makes each further section by
// turning the one before within its sets of slots.
func fillShelf(g raid.Geometry) (held shelf, chunks int) {
	near, far := int(g.Layout&0xff), int(g.Layout>>8&0xff)
	rows := int(g.Size/g.Chunk) / far

	var line []int
	for chunk := 0; (chunk+1)*near <= rows*g.Disks; chunk++ {
		for range near {
			line = append(line, chunk)
		}

		chunks = chunk + 1
	}

	for len(line) < rows*g.Disks {
		line = append(line, -1)
	}

	held = make(shelf, g.Disks)
	for slot := range held {
		held[slot] = make([]int, rows*far)
	}

	for row := range rows {
		cells := line[row*g.Disks : (row+1)*g.Disks]

		for f := range far {
			at := f*rows + row
			if g.Layout&(1<<16) != 0 {
				at = row*far + f
			}

			for slot, chunk := range cells {
				held[slot][at] = chunk
			}

			cells = turnedInSets(cells, near, setSizes(g))
		}
	}

	return held, chunks
}

// setSizes returns the sizes of the sets of slots within which far copies are;
// what does not fill a set goes to the last.
func setSizes(g raid.Geometry) []int {
	near, far := int(g.Layout&0xff), int(g.Layout>>8&0xff)
	size := g.Disks

	switch g.Layout >> 17 {
	case 1:
		size = g.Disks / far
	case 2:
		size = near * far
	}

	var sizes []int
	for left := g.Disks; left > 0; left -= sizes[len(sizes)-1] {
		if left < 2*size {
			sizes = append(sizes, left)
		} else {
			sizes = append(sizes, size)
		}
	}

	return sizes
}

func turnedInSets(cells []int, by int, sizes []int) []int {
	var out []int

	for _, size := range sizes {
		out = append(out, turned(cells[:size], by)...)
		cells = cells[size:]
	}

	return out
}

// drawRAID10 draws an array small enough for a shelf, of a layout that is
// known. Not all of them go with all numbers of members.
func drawRAID10(t *rapid.T) (raid.Geometry, *Map) {
	g := raid.Geometry{
		Level:  raid.Level10,
		Layout: rapid.SampledFrom(layouts10).Draw(t, "layout"),
		Disks:  rapid.IntRange(2, 9).Draw(t, "disks"),
		Chunk:  raid.Sectors(rapid.IntRange(1, 5).Draw(t, "chunk")),
	}
	g.Size = 4*g.Chunk + raid.Sectors(rapid.IntRange(0, 60).Draw(t, "size"))

	m, err := New(g)
	if err != nil {
		copies := int(g.Layout&0xff) * int(g.Layout>>8&0xff)
		if copies <= g.Disks && copies < 4 && g.Layout>>17 != 1 && g.Layout&0xff < 3 {
			t.Fatalf("New(%+v): %v", g, err)
		}

		t.Skip(err)
	}

	return g, m
}

// TestRAID10AgreesWithShelf: the copies of every chunk of the array are where
// the shelf has them, in different slots, and nowhere else; and from every
// place the way leads back.
func TestRAID10AgreesWithShelf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, m := drawRAID10(t)
		held, chunks := fillShelf(g)
		where := make([]int, chunks) // how many copies of a chunk were found on the shelf

		if m.ArraySectors() != raid.Sectors(chunks)*g.Chunk ||
			m.ComponentSectors() != raid.Sectors(len(held[0]))*g.Chunk {
			t.Fatalf("%d sectors, %d of each member, want %d and %d chunks of %d",
				m.ArraySectors(), m.ComponentSectors(), chunks, len(held[0]), g.Chunk)
		}

		for slot := range raid.Slot(g.Disks) {
			for component := range m.ComponentSectors() {
				chunk := held[slot][component/g.Chunk]

				s, run, ok := m.Virtual(slot, component)
				if ok != (chunk >= 0) {
					t.Fatalf("Virtual(%d, %d) is there: %v, want chunk %d", slot, component, ok, chunk)
				}

				if !ok {
					continue
				}

				if want := raid.Sectors(chunk)*g.Chunk + component%g.Chunk; s != want || run != g.Chunk-s%g.Chunk {
					t.Fatalf("Virtual(%d, %d) = %d, run %d, want %d", slot, component, s, run, want)
				}

				if component%g.Chunk == 0 {
					where[chunk]++
				}
			}
		}

		for s := range m.ArraySectors() {
			slots := make(map[raid.Slot]bool)

			for i := range m.Copies() {
				slot, component, run := m.Copy(s, i)
				if chunk := held[slot][component/g.Chunk]; chunk != int(s/g.Chunk) || component%g.Chunk != s%g.Chunk {
					t.Fatalf("Copy(%d, %d) = slot %d, %d, where chunk %d is", s, i, slot, component, chunk)
				}

				if run != g.Chunk-s%g.Chunk {
					t.Fatalf("Copy(%d, %d): run of %d", s, i, run)
				}

				slots[slot] = true
			}

			if len(slots) != m.Copies() || where[s/g.Chunk] != m.Copies() {
				t.Fatalf("sector %d has copies in %d slots, %d on the shelf, want %d",
					s, len(slots), where[s/g.Chunk], m.Copies())
			}

			slot, component, run := m.Locate(s)
			if slot0, component0, run0 := m.Copy(s, 0); slot != slot0 || component != component0 || run != run0 {
				t.Fatalf("Locate(%d) = %d, %d, %d, Copy 0 is %d, %d, %d",
					s, slot, component, run, slot0, component0, run0)
			}
		}
	})
}

// TestSpanHoldsAll: a span holds everything that lies in a range of components,
// and begins and ends with such.
func TestSpanHoldsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, m := drawRAID10(t)
		lo := raid.Sectors(rapid.Int64Range(0, int64(m.ComponentSectors()-1)).Draw(t, "lo"))
		hi := raid.Sectors(rapid.Int64Range(int64(lo)+1, int64(m.SectionEnd(lo))).Draw(t, "hi"))

		first, last := raid.MaxSectors, raid.Sectors(-1)

		for slot := range raid.Slot(g.Disks) {
			for component := lo; component < hi; component++ {
				if s, _, ok := m.Virtual(slot, component); ok {
					first, last = min(first, s), max(last, s)
				}
			}
		}

		span := m.Span(lo, hi)
		if first < span.From || last >= span.To {
			t.Fatalf("Span(%d, %d) = %v, but %d to %d are there", lo, hi, span, first, last)
		}

		// With offset, copies of several rows are between, whose ends are not
		// looked for; nor is it where the last row has an unused tail.
		tight := raid.Range{From: first, To: last + 1}
		if g.Layout&(1<<16) == 0 && span.To < m.ArraySectors() && span != tight {
			t.Fatalf("Span(%d, %d) = %v, want %v", lo, hi, span, tight)
		}

		if width := g.Chunk * raid.Sectors(g.Disks); span.From < first-width || span.To > last+1+width {
			t.Fatalf("Span(%d, %d) = %v, which is far more than %v", lo, hi, span, tight)
		}
	})
}

// TestSectionsDoNotMix: a range of a component within one section holds an
// unbroken range of each far copy's chunks, and sections cover a component.
func TestSectionsDoNotMix(t *testing.T) {
	for _, tt := range []struct {
		layout raid.Layout
		want   []raid.Sectors
	}{
		{0x102, []raid.Sectors{96}},
		{0x201, []raid.Sectors{48, 96}},
		{0x301, []raid.Sectors{32, 64, 96}},
		{0x10201, []raid.Sectors{96}},
		{0x40201, []raid.Sectors{48, 96}},
	} {
		m, err := New(raid.Geometry{Level: raid.Level10, Layout: tt.layout, Disks: 5, Chunk: 8, Size: 100})
		if err != nil {
			t.Fatal(err)
		}

		var ends []raid.Sectors
		for at := raid.Sectors(0); at < m.ComponentSectors(); at = m.SectionEnd(at) {
			ends = append(ends, m.SectionEnd(at))
		}

		if len(ends) != len(tt.want) || ends[0] != tt.want[0] || ends[len(ends)-1] != 96 {
			t.Errorf("%#x: sections end at %v, want %v", tt.layout, ends, tt.want)
		}
	}
}

// TestSurvivesIsExact: an array survives the loss of members if and only if
// each sector of it still has a place.
func TestSurvivesIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, _ := drawRAID10(t)
		g.Size = 16 * g.Chunk * raid.Sectors(g.Disks) // a full turn, so that all combinations are there

		m, err := New(g)
		if err != nil {
			t.Fatal(err)
		}

		gone := rapid.IntRange(0, 1<<g.Disks-1).Draw(t, "gone")
		works := func(slot raid.Slot) bool { return gone>>slot&1 == 0 }

		want := true
		for s := raid.Sectors(0); s < m.ArraySectors() && want; s += g.Chunk {
			want = false

			for i := range m.Copies() {
				slot, _, _ := m.Copy(s, i)
				want = want || works(slot)
			}
		}

		if got := g.Survives(works); got != want {
			t.Fatalf("%s of %d without %#b: Survives = %v, want %v", g.Layout.Name(g.Level), g.Disks, gone, got, want)
		}
	})
}

// TestRAID10Refused: layouts that md would serve, and lose data with, and those
// that mean nothing.
func TestRAID10Refused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layout raid.Layout
		disks  int
		size   raid.Sectors
		want   string
	}{
		{"one copy", 0x101, 4, 80, "layout 0x101 on 4 slots: 1 near and 1 far copies"},
		{"no copies", 0, 4, 80, "layout 0x0 on 4 slots: 0 near and 0 far copies"},
		{"more copies than slots", 0x203, 5, 80, "layout 0x203 on 5 slots: 3 near and 2 far copies"},
		{"unknown far sets", 0x60201, 4, 80, "layout 0x60201 on 4 slots: far sets of the unknown kind 3"},
		{"an unknown bit", 0x80102, 4, 80, "layout 0x80102 on 4 slots: far sets of the unknown kind 4"},
		{"far sets of one slot", 0x20401, 4, 80, "two copies of a chunk are in slot 0"},
		{"near copies over an offset row's end", 0x10202, 5, 80, "on 5 slots: 2 near copies with offset"},
		{"near copies over a set's end", 0x40202, 9, 80, "far copies of slots 3 and 8 are both in slot 5"},
		{"too small for the sections", 0x401, 4, 31, "31 sectors with a chunk of 8 and 4 far copies"},
	} {
		g := raid.Geometry{Level: raid.Level10, Layout: tt.layout, Disks: tt.disks, Chunk: 8, Size: tt.size}

		if _, err := New(g); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestRAID10Sizes pins sizes to what mdadm said of arrays that md made, and
// rounding to that of md's raid10_size.
func TestRAID10Sizes(t *testing.T) {
	for _, tt := range []struct {
		name              string
		layout            raid.Layout
		disks             int
		chunk, size       raid.Sectors
		array, ofEachDisk raid.Sectors
	}{
		{"near=2 of 4, as mdadm shows it", 0x102, 4, 128, 30720, 2 * 30720, 30720},
		{"far=2 of 3, as mdadm shows it", 0x201, 3, 128, 30720, 2 * 23040, 30720},
		{"an odd last chunk of a row", 0x102, 3, 8, 5 * 8, 7 * 8, 5 * 8},
		{"sections alike", 0x201, 3, 8, 5*8 + 7, 6 * 8, 4 * 8},
		{"rows of offset copies alike", 0x10201, 3, 8, 5 * 8, 6 * 8, 4 * 8},
	} {
		m, err := New(raid.Geometry{
			Level: raid.Level10, Layout: tt.layout, Disks: tt.disks, Chunk: tt.chunk, Size: tt.size,
		})
		if err != nil {
			t.Fatal(err)
		}

		if m.ArraySectors() != tt.array || m.ComponentSectors() != tt.ofEachDisk || m.SyncSectors() != tt.array {
			t.Errorf("%s: array of %d, %d to sync, %d of each member, want %d and %d", tt.name,
				m.ArraySectors(), m.SyncSectors(), m.ComponentSectors(), tt.array, tt.ofEachDisk)
		}
	}
}
