package geometry

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"raid-assembler/pkg/raid"
)

// place is where an array sector lies.
type place struct {
	Slot      raid.Slot
	Component raid.Sectors
}

// walk returns the place of every array sector in order. It is the slow second
// opinion: it lays chunks down one after another and computes no quotients.
func walk(g raid.Geometry) []place {
	switch g.Level {
	case raid.LevelLinear, raid.Level0:
		sizes := make([]raid.Sectors, len(g.Sizes))
		for i, size := range g.Sizes {
			for g.Chunk > 0 && sizes[i]+g.Chunk <= size {
				sizes[i] += g.Chunk
			}

			if g.Chunk == 0 {
				sizes[i] = size
			}
		}

		if g.Level == raid.LevelLinear {
			var all []place
			for slot, size := range sizes {
				all = appendRun(all, raid.Slot(slot), 0, size)
			}

			return all
		}

		return walkRAID0(g, sizes)
	case raid.Level1:
		return appendRun(nil, 0, 0, g.Size)
	default:
		return walkParity(g)
	}
}

func appendRun(all []place, slot raid.Slot, from, n raid.Sectors) []place {
	for i := range n {
		all = append(all, place{slot, from + i})
	}

	return all
}

// shownByMD is what raid0_size of the kernel's drivers/md/raid0.c adds up.
func shownByMD(g raid.Geometry, sizes []raid.Sectors) (sum raid.Sectors) {
	for _, size := range sizes {
		sum += size & ^(g.Chunk - 1)
	}

	return sum
}

// walkRAID0 lays row upon row over the members that still have room, turn by
// turn.
func walkRAID0(g raid.Geometry, sizes []raid.Sectors) []place {
	var (
		all         []place
		chunks      int // laid in the array so far
		zoneChunks  int // laid in the zone so far
		roomyBefore int
	)

	for at := raid.Sectors(0); ; at += g.Chunk {
		var roomy []raid.Slot
		for slot, size := range sizes {
			if size > at {
				roomy = append(roomy, raid.Slot(slot))
			}
		}

		if len(roomy) == 0 {
			return all[:shownByMD(g, sizes)]
		}

		if len(roomy) != roomyBefore {
			roomyBefore, zoneChunks = len(roomy), 0
		}

		for range roomy {
			turn := chunks
			if g.Layout == raid.Alternate {
				turn = zoneChunks
			}

			for turn >= len(roomy) {
				turn -= len(roomy)
			}

			all = appendRun(all, roomy[turn], at, g.Chunk)
			chunks++
			zoneChunks++
		}
	}
}

// walkParity lays row upon row, moving the parity one slot on after each.
func walkParity(g raid.Geometry) []place {
	var all []place

	last := raid.Slot(g.Disks - 1)
	parity, step, wraps := last, raid.Slot(0), false

	if g.Level == raid.Level5 {
		switch g.Layout {
		case raid.LeftAsymmetric:
			parity, step = last, -1
		case raid.RightAsymmetric:
			parity, step = 0, 1
		case raid.LeftSymmetric:
			parity, step, wraps = last, -1, true
		case raid.RightSymmetric:
			parity, step, wraps = 0, 1, true
		case raid.ParityFirst:
			parity = 0
		case raid.ParityLast:
		}
	}

	for at := raid.Sectors(0); at+g.Chunk <= g.Size; at += g.Chunk {
		slot := raid.Slot(0)
		if wraps {
			slot = parity
		}

		for range g.Disks {
			if slot != parity {
				all = appendRun(all, slot, at, g.Chunk)
			}

			if slot++; slot > last {
				slot = 0
			}
		}

		switch parity += step; {
		case parity < 0:
			parity = last
		case parity > last:
			parity = 0
		}
	}

	return all
}

// TestLayoutsAsDrawn pins the layouts to what md's manual draws: a row a line,
// a member a column.
func TestLayoutsAsDrawn(t *testing.T) {
	for _, tt := range []struct {
		level  raid.Level
		layout raid.Layout
		want   string
	}{
		{raid.Level4, 99, "0 1 2 P / 3 4 5 P / 6 7 8 P / 9 10 11 P"},
		{raid.Level5, raid.LeftAsymmetric, "0 1 2 P / 3 4 P 5 / 6 P 7 8 / P 9 10 11"},
		{raid.Level5, raid.RightAsymmetric, "P 0 1 2 / 3 P 4 5 / 6 7 P 8 / 9 10 11 P"},
		{raid.Level5, raid.LeftSymmetric, "0 1 2 P / 4 5 P 3 / 8 P 6 7 / P 9 10 11"},
		{raid.Level5, raid.RightSymmetric, "P 0 1 2 / 5 P 3 4 / 7 8 P 6 / 9 10 11 P"},
		{raid.Level5, raid.ParityFirst, "P 0 1 2 / P 3 4 5 / P 6 7 8 / P 9 10 11"},
		{raid.Level5, raid.ParityLast, "0 1 2 P / 3 4 5 P / 6 7 8 P / 9 10 11 P"},
	} {
		m, err := New(raid.Geometry{Level: tt.level, Layout: tt.layout, Disks: 4, Chunk: 8, Size: 32})
		if err != nil {
			t.Fatal(err)
		}

		rows := make([]string, m.Rows())
		for row := range rows {
			cells := make([]string, m.Disks())
			for slot := range cells {
				cells[slot] = "P"
				if d := m.DataIndex(int64(row), raid.Slot(slot)); d >= 0 {
					cells[slot] = fmt.Sprint(row*m.DataDisks() + d)
				}
			}

			rows[row] = strings.Join(cells, " ")
		}

		if got := strings.Join(rows, " / "); got != tt.want {
			t.Errorf("%v %v = %s, want %s", tt.level, tt.layout.Name(tt.level), got, tt.want)
		}
	}
}

// TestRAID0Zones pins the two layouts of members that differ in size: the
// letter is the member, one for each chunk of the array.
func TestRAID0Zones(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layout raid.Layout
		chunks []raid.Sectors
		want   string
	}{
		{"equal members need no layout", 0, []raid.Sectors{2, 2, 2}, "abcabc"},
		{"a second zone of one member needs no layout", 0, []raid.Sectors{1, 3}, "abbb"},
		{"original turns go by the array's chunk", 1, []raid.Sectors{1, 3, 3}, "abccbcb"},
		{"alternate turns go by the zone's chunk", 2, []raid.Sectors{1, 3, 3}, "abcbcbc"},
		{"three zones", 1, []raid.Sectors{3, 1, 4}, "abccacac"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := raid.Geometry{Level: raid.Level0, Layout: tt.layout, Disks: len(tt.chunks), Chunk: 16}
			for _, n := range tt.chunks {
				g.Sizes = append(g.Sizes, n*g.Chunk+7) // the odd end is not used
			}

			m, err := New(g)
			if err != nil {
				t.Fatal(err)
			}

			var got strings.Builder

			for s := raid.Sectors(0); s < m.ArraySectors(); s += g.Chunk {
				slot, _, _ := m.Locate(s)
				got.WriteByte(byte('a' + slot))
			}

			if got.String() != tt.want {
				t.Errorf("members = %s, want %s", got.String(), tt.want)
			}
		})
	}
}

// drawGeometry draws an array small enough to be walked.
func drawGeometry(t *rapid.T) raid.Geometry {
	g := raid.Geometry{
		Level: rapid.SampledFrom([]raid.Level{
			raid.LevelLinear, raid.Level0, raid.Level1, raid.Level4, raid.Level5,
		}).Draw(t, "level"),
		Disks:  rapid.IntRange(2, 7).Draw(t, "disks"),
		Chunk:  raid.Sectors(rapid.IntRange(1, 9).Draw(t, "chunk")),
		Layout: raid.Layout(rapid.IntRange(0, 5).Draw(t, "layout")),
	}

	switch g.Level {
	case raid.Level0, raid.LevelLinear:
		if g.Level == raid.LevelLinear && rapid.Bool().Draw(t, "chunkless") {
			g.Chunk = 0
		}

		g.Layout = raid.Layout(rapid.IntRange(1, 2).Draw(t, "raid0 layout"))

		for range g.Disks {
			g.Sizes = append(g.Sizes, max(g.Chunk, 1)+raid.Sectors(rapid.IntRange(0, 60).Draw(t, "size")))
		}
	default:
		g.Size = g.Chunk + raid.Sectors(rapid.IntRange(0, 60).Draw(t, "size"))
	}

	return g
}

// TestLocateAgreesWithWalk: the map and the walk put every sector at the same
// place, no two sectors share one, and a run is contiguous for its whole length.
func TestLocateAgreesWithWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGeometry(t)
		want := walk(g)

		m, err := New(g)
		if err != nil {
			t.Fatalf("New(%+v): %v", g, err)
		}

		if m.ArraySectors() != raid.Sectors(len(want)) {
			t.Fatalf("ArraySectors() = %d, want %d", m.ArraySectors(), len(want))
		}

		taken := map[place]bool{}

		for s, w := range want {
			slot, component, run := m.Locate(raid.Sectors(s))

			got := place{slot, component}
			if got != w {
				t.Fatalf("Locate(%d) = %v, want %v", s, got, w)
			}

			if taken[got] {
				t.Fatalf("Locate(%d) = %v, as an earlier sector", s, got)
			}

			taken[got] = true

			if run < 1 || s+int(run) > len(want) {
				t.Fatalf("Locate(%d): run of %d, array of %d", s, run, len(want))
			}

			for i := range run {
				if next := (place{w.Slot, w.Component + i}); want[s+int(i)] != next {
					t.Fatalf("Locate(%d): run of %d, but %d lies at %v", s, run, s+int(i), want[s+int(i)])
				}
			}
		}
	})
}

// TestRowsAreBijective: in every row each slot is either the parity or one data
// index, and DataSlot undoes DataIndex.
func TestRowsAreBijective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := raid.Geometry{
			Level:  rapid.SampledFrom([]raid.Level{raid.Level4, raid.Level5}).Draw(t, "level"),
			Layout: raid.Layout(rapid.IntRange(0, 5).Draw(t, "layout")),
			Disks:  rapid.IntRange(2, maxDisks).Draw(t, "disks"),
			Chunk:  128,
			Size:   1 << 40,
		}

		m, err := New(g)
		if err != nil {
			t.Fatal(err)
		}

		row := rapid.Int64Range(0, m.Rows()-1).Draw(t, "row")
		if d := m.DataIndex(row, m.ParitySlot(row)); d != -1 {
			t.Fatalf("DataIndex of the parity slot = %d, want -1", d)
		}

		if again := row % int64(m.Period()); m.ParitySlot(again) != m.ParitySlot(row) {
			t.Fatalf("parity of row %d is in slot %d, of row %d in %d", row, m.ParitySlot(row), again, m.ParitySlot(again))
		}

		for d := range m.DataDisks() {
			slot := m.DataSlot(row, d)
			if slot < 0 || int(slot) >= g.Disks || m.DataIndex(row, slot) != d {
				t.Fatalf("DataSlot(%d, %d) = %d, whose DataIndex is %d", row, d, slot, m.DataIndex(row, slot))
			}
		}
	})
}

func TestNewRefuses(t *testing.T) {
	huge := raid.Sectors(math.MaxInt64)

	for _, tt := range []struct {
		name string
		g    raid.Geometry
		want string // a piece of the message
	}{
		{"an unknown level", raid.Geometry{Level: 77}, "raid77 is not supported"},
		{"a raid6 of three", raid.Geometry{Level: raid.Level6, Disks: 3, Chunk: 8, Size: 8}, "3 slots, raid6 needs 4"},
		{"no slots", raid.Geometry{Level: raid.Level1, Size: 8}, "0 slots, raid1 needs 1"},
		{
			"a lone parity member",
			raid.Geometry{Level: raid.Level5, Disks: 1, Chunk: 8, Size: 8},
			"1 slots, raid5 needs 2",
		},
		{"negative slots", raid.Geometry{Level: raid.Level1, Disks: -1, Size: 8}, "-1 slots"},
		{"absurd slots", raid.Geometry{Level: raid.Level1, Disks: 4097, Size: 8}, "4097 slots, limit 4096"},
		{"chunk 0", raid.Geometry{Level: raid.Level5, Disks: 3, Size: 8}, "raid5 with a chunk of 0"},
		{
			"chunk 0 on raid0",
			raid.Geometry{Level: raid.Level0, Disks: 1, Sizes: []raid.Sectors{8}},
			"raid0 with a chunk of 0",
		},
		{"a negative chunk", raid.Geometry{Level: raid.Level1, Disks: 2, Chunk: -8, Size: 8}, "chunk of -8"},
		{
			"an absurd chunk",
			raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: huge, Size: huge},
			"chunk of 9223372036854775807 sectors on 3",
		},
		{"no size", raid.Geometry{Level: raid.Level1, Disks: 2}, "component size of 0"},
		{
			"less than a chunk",
			raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: 8, Size: 7},
			"component size of 7 sectors with a chunk of 8",
		},
		{
			"a negative size",
			raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: 8, Size: -8},
			"component size of -8",
		},
		{
			"overflow in bytes",
			raid.Geometry{Level: raid.Level1, Disks: 2, Size: huge / 256},
			"component size of 36028797018963967 sectors on 2",
		},
		{
			"overflow by slots",
			raid.Geometry{Level: raid.Level5, Disks: 4096, Chunk: 8, Size: huge / 4096},
			"on 4096 slots is too large",
		},
		{
			"more data than Q tells apart",
			raid.Geometry{Level: raid.Level6, Layout: 2, Disks: 258, Chunk: 8, Size: 8},
			"258 slots of layout 2: Q tells 255 data blocks apart, not 256",
		},
		{
			"more slots than a DDF layout's Q tells apart",
			raid.Geometry{Level: raid.Level6, Layout: 8, Disks: 256, Chunk: 8, Size: 8},
			"256 slots of layout 8: Q tells 255 data blocks apart, not 256",
		},
		{
			"an unknown layout of raid6",
			raid.Geometry{Level: raid.Level6, Layout: 7, Disks: 4, Chunk: 8, Size: 8},
			"unknown layout 7 of raid6",
		},
		{
			"an unknown layout",
			raid.Geometry{Level: raid.Level5, Layout: 6, Disks: 3, Chunk: 8, Size: 8},
			"unknown layout 6 of raid5",
		},
		{
			"too few sizes",
			raid.Geometry{Level: raid.Level0, Disks: 3, Chunk: 8, Sizes: []raid.Sectors{8, 8}},
			"sizes of 2 members for 3 slots",
		},
		{
			"a member without room",
			raid.Geometry{Level: raid.Level0, Disks: 2, Chunk: 8, Sizes: []raid.Sectors{8, 7}},
			"slot 1 has 7 sectors",
		},
		{
			"a negative member",
			raid.Geometry{Level: raid.LevelLinear, Disks: 1, Sizes: []raid.Sectors{-8}},
			"slot 0 has -8 sectors",
		},
		{
			"overflow of a sum",
			raid.Geometry{Level: raid.LevelLinear, Disks: 2, Sizes: []raid.Sectors{maxArray, 1}},
			"slot 1 has 1 sectors, which makes",
		},
		{
			"zones without a layout",
			raid.Geometry{Level: raid.Level0, Disks: 3, Chunk: 8, Sizes: []raid.Sectors{8, 16, 16}},
			"the layout is 0",
		},
		{
			"zones with a strange layout",
			raid.Geometry{Level: raid.Level0, Layout: 3, Disks: 3, Chunk: 8, Sizes: []raid.Sectors{8, 16, 16}},
			"the layout is 3",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := New(tt.g)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, want an error with %q", err, tt.want)
			}

			if m != nil {
				t.Error("New returned a map beside the error")
			}
		})
	}
}

// TestSizes pins the sizes that others show and allocate by.
func TestSizes(t *testing.T) {
	type sizes struct {
		Array, Component, Row, Stripe, Chunk raid.Sectors
		Data                                 int
	}

	for _, tt := range []struct {
		name string
		g    raid.Geometry
		want sizes
	}{
		{
			"raid5 rounds the component down",
			raid.Geometry{Level: raid.Level5, Disks: 4, Chunk: 128, Size: 1000},
			sizes{Array: 2688, Component: 896, Row: 384, Stripe: 384, Chunk: 128, Data: 3},
		},
		{
			"raid1 uses every sector",
			raid.Geometry{Level: raid.Level1, Disks: 2, Size: 1001},
			sizes{Array: 1001, Component: 1001, Data: 1},
		},
		{
			"raid0 rounds each member",
			raid.Geometry{Level: raid.Level0, Layout: 1, Disks: 2, Chunk: 128, Sizes: []raid.Sectors{300, 511}},
			sizes{Array: 640, Stripe: 256, Chunk: 128, Data: 1},
		},
		{
			"raid0 shows what md's mask leaves of members of two chunks of 12 KiB",
			raid.Geometry{Level: raid.Level0, Layout: 1, Disks: 2, Chunk: 24, Sizes: []raid.Sectors{48, 48}},
			sizes{Array: 2 * 32, Stripe: 48, Chunk: 24, Data: 1},
		},
		{
			"linear without a chunk rounds nothing",
			raid.Geometry{Level: raid.LevelLinear, Disks: 2, Sizes: []raid.Sectors{250, 399}},
			sizes{Array: 649, Data: 1},
		},
		{
			"linear rounds each member to a chunk if there is one",
			raid.Geometry{Level: raid.LevelLinear, Disks: 2, Chunk: 24, Sizes: []raid.Sectors{250, 399}},
			sizes{Array: 240 + 384, Chunk: 24, Data: 1},
		},
		{
			"raid6 has two chunks less of data",
			raid.Geometry{Level: raid.Level6, Disks: 5, Chunk: 128, Size: 1000},
			sizes{Array: 2688, Component: 896, Row: 384, Stripe: 384, Chunk: 128, Data: 3},
		},
		{
			"raid10 of pairs",
			raid.Geometry{Level: raid.Level10, Layout: 0x102, Disks: 4, Chunk: 128, Size: 1000},
			sizes{Array: 1792, Component: 896, Stripe: 256, Chunk: 128, Data: 1},
		},
		{
			"raid10 of an odd one",
			raid.Geometry{Level: raid.Level10, Layout: 0x102, Disks: 3, Chunk: 128, Size: 1000},
			sizes{Array: 1280, Component: 896, Stripe: 384, Chunk: 128, Data: 1},
		},
	} {
		m, err := New(tt.g)
		if err != nil {
			t.Fatal(err)
		}

		got := sizes{
			m.ArraySectors(), m.ComponentSectors(), m.RowSectors(), m.StripeSectors(), m.Chunk(), m.DataDisks(),
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
