package geometry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"raid-assembler/pkg/raid"
)

// layouts6 are all layouts of RAID6.
var layouts6 = []raid.Layout{
	raid.LeftAsymmetric, raid.RightAsymmetric, raid.LeftSymmetric, raid.RightSymmetric,
	raid.ParityFirst, raid.ParityLast,
	raid.DDFZeroRestart, raid.DDFNRestart, raid.DDFNContinue,
	raid.LeftAsymmetric6, raid.RightAsymmetric6, raid.LeftSymmetric6, raid.RightSymmetric6, raid.ParityFirst6,
}

// The cells of a row that hold no data.
const (
	cellP = -1
	cellQ = -2
)

// drawRow returns what each slot of a row holds: a data index, P or Q. It is
// the second opinion on RAID6: it makes the row as a list and turns it, and
// computes no slot from another.
func drawRow(layout raid.Layout, disks int, row int64) []int {
	width := disks
	if layout >= raid.LeftAsymmetric6 {
		width-- // a RAID5, and Q beside it
	}

	data := make([]int, disks-2)
	for d := range data {
		data[d] = d
	}

	turn := int(row % int64(width))

	var p int

	switch layout {
	case raid.LeftAsymmetric, raid.LeftSymmetric, raid.DDFNContinue, raid.LeftAsymmetric6, raid.LeftSymmetric6:
		p = width - 1 - turn
	case raid.DDFNRestart: // as the left ones, one row on
		p = (2*width - 2 - turn) % width
	case raid.RightAsymmetric, raid.RightSymmetric, raid.DDFZeroRestart, raid.RightAsymmetric6, raid.RightSymmetric6:
		p = turn
	case raid.ParityFirst, raid.ParityFirst6:
		p = 0
	case raid.ParityLast:
		p = width - 2
	}

	var cells []int

	switch layout {
	case raid.LeftSymmetric, raid.RightSymmetric:
		cells = turned(slices.Concat([]int{cellP, cellQ}, data), p)
	case raid.DDFNContinue:
		cells = turned(slices.Concat([]int{cellP}, data, []int{cellQ}), p)
	case raid.LeftSymmetric6, raid.RightSymmetric6:
		cells = append(turned(slices.Concat([]int{cellP}, data), p), cellQ)
	case raid.LeftAsymmetric6, raid.RightAsymmetric6, raid.ParityFirst6:
		cells = append(slices.Insert(data, p, cellP), cellQ)
	default:
		if p == disks-1 {
			return slices.Concat([]int{cellQ}, data, []int{cellP})
		}

		cells = slices.Insert(data, p, cellP, cellQ)
	}

	return cells
}

// turned returns cells with the first moved to slot by.
func turned(cells []int, by int) []int {
	out := make([]int, len(cells))
	for i, c := range cells {
		out[(i+by)%len(out)] = c
	}

	return out
}

// exponents returns the exponent of each cell of a row, -1 for the parities, by
// going round from Q.
func exponents(layout raid.Layout, cells []int) []int {
	out := make([]int, len(cells))

	if layout >= raid.DDFZeroRestart && layout <= raid.DDFNContinue {
		for slot, c := range cells {
			out[slot] = slot
			if c < 0 {
				out[slot] = -1
			}
		}

		return out
	}

	next := 0

	for i := range cells {
		slot := (slices.Index(cells, cellQ) + 1 + i) % len(cells)
		out[slot] = -1

		if cells[slot] >= 0 {
			out[slot] = next
			next++
		}
	}

	return out
}

// TestRAID6AsDrawn pins the layouts to what they are: a row a line, a member a
// column.
func TestRAID6AsDrawn(t *testing.T) {
	for _, tt := range []struct {
		layout raid.Layout
		want   string
	}{
		{raid.LeftAsymmetric, "Q 0 1 2 P / 3 4 5 P Q / 6 7 P Q 8 / 9 P Q 10 11 / P Q 12 13 14"},
		{raid.RightAsymmetric, "P Q 0 1 2 / 3 P Q 4 5 / 6 7 P Q 8 / 9 10 11 P Q / Q 12 13 14 P"},
		{raid.LeftSymmetric, "Q 0 1 2 P / 3 4 5 P Q / 7 8 P Q 6 / 11 P Q 9 10 / P Q 12 13 14"},
		{raid.RightSymmetric, "P Q 0 1 2 / 5 P Q 3 4 / 7 8 P Q 6 / 9 10 11 P Q / Q 12 13 14 P"},
		{raid.ParityFirst, "P Q 0 1 2 / P Q 3 4 5 / P Q 6 7 8 / P Q 9 10 11 / P Q 12 13 14"},
		{raid.ParityLast, "0 1 2 P Q / 3 4 5 P Q / 6 7 8 P Q / 9 10 11 P Q / 12 13 14 P Q"},
		{raid.DDFZeroRestart, "P Q 0 1 2 / 3 P Q 4 5 / 6 7 P Q 8 / 9 10 11 P Q / Q 12 13 14 P"},
		{raid.DDFNRestart, "0 1 2 P Q / 3 4 P Q 5 / 6 P Q 7 8 / P Q 9 10 11 / Q 12 13 14 P"},
		{raid.DDFNContinue, "0 1 2 Q P / 4 5 Q P 3 / 8 Q P 6 7 / Q P 9 10 11 / P 12 13 14 Q"},
		{raid.LeftAsymmetric6, "0 1 2 P Q / 3 4 P 5 Q / 6 P 7 8 Q / P 9 10 11 Q / 12 13 14 P Q"},
		{raid.RightAsymmetric6, "P 0 1 2 Q / 3 P 4 5 Q / 6 7 P 8 Q / 9 10 11 P Q / P 12 13 14 Q"},
		{raid.LeftSymmetric6, "0 1 2 P Q / 4 5 P 3 Q / 8 P 6 7 Q / P 9 10 11 Q / 12 13 14 P Q"},
		{raid.RightSymmetric6, "P 0 1 2 Q / 5 P 3 4 Q / 7 8 P 6 Q / 9 10 11 P Q / P 12 13 14 Q"},
		{raid.ParityFirst6, "P 0 1 2 Q / P 3 4 5 Q / P 6 7 8 Q / P 9 10 11 Q / P 12 13 14 Q"},
	} {
		m, err := New(raid.Geometry{Level: raid.Level6, Layout: tt.layout, Disks: 5, Chunk: 8, Size: 40})
		if err != nil {
			t.Fatal(err)
		}

		rows := make([]string, m.Rows())
		for row := range rows {
			cells := make([]string, m.Disks())
			for slot := range raid.Slot(m.Disks()) {
				switch slot {
				case m.ParitySlot(int64(row)):
					cells[slot] = "P"
				case m.QSlot(int64(row)):
					cells[slot] = "Q"
				default:
					cells[slot] = fmt.Sprint(row*m.DataDisks() + m.DataIndex(int64(row), slot))
				}
			}

			rows[row] = strings.Join(cells, " ")
		}

		if got := strings.Join(rows, " / "); got != tt.want {
			t.Errorf("%v = %s, want %s", tt.layout.Name(raid.Level6), got, tt.want)
		}
	}
}

// TestRAID6AgreesWithRows: the map and the rows that were made as lists agree
// in every slot of any row of as many slots as there can be, in both
// directions, and in what counts how in Q.
func TestRAID6AgreesWithRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := raid.Geometry{
			Level:  raid.Level6,
			Layout: rapid.SampledFrom(layouts6).Draw(t, "layout"),
			Disks:  rapid.OneOf(rapid.IntRange(4, 8), rapid.IntRange(4, 255)).Draw(t, "disks"),
			Chunk:  raid.Sectors(8) << rapid.IntRange(0, 14).Draw(t, "chunk"), // 4 KiB to 64 MiB
			Size:   1 << 40,
		}

		m, err := New(g)
		if err != nil {
			t.Fatal(err)
		}

		row := rapid.Int64Range(0, m.Rows()-1).Draw(t, "row")
		cells := drawRow(g.Layout, g.Disks, row)
		counts := exponents(g.Layout, cells)

		if again := drawRow(g.Layout, g.Disks, row%int64(m.Period())); !slices.Equal(cells, again) {
			t.Fatalf("row %d is %v, and that of the same place in the period %v", row, cells, again)
		}

		seen := make([]bool, m.Exponents())

		for slot := range raid.Slot(g.Disks) {
			cell := cells[slot]

			if (m.ParitySlot(row) == slot) != (cell == cellP) || (m.QSlot(row) == slot) != (cell == cellQ) {
				t.Fatalf("row %d: P in slot %d, Q in slot %d, want %v", row, m.ParitySlot(row), m.QSlot(row), cells)
			}

			if e := m.Exponent(row, slot); e != counts[slot] {
				t.Fatalf("Exponent(%d, %d) = %d, want %d", row, slot, e, counts[slot])
			} else if e >= 0 {
				if seen[e] {
					t.Fatalf("row %d has the exponent %d twice", row, e)
				}

				seen[e] = true
			}

			if d := m.DataIndex(row, slot); d != max(cell, -1) {
				t.Fatalf("DataIndex(%d, %d) = %d, want %v", row, slot, d, cell)
			}

			if cell < 0 {
				continue
			}

			if back := m.DataSlot(row, cell); back != slot {
				t.Fatalf("DataSlot(%d, %d) = %d, want %d", row, cell, back, slot)
			}

			offset := raid.Sectors(rapid.Int64Range(0, int64(g.Chunk)-1).Draw(t, "offset"))
			s := raid.Sectors(row)*m.RowSectors() + raid.Sectors(cell)*g.Chunk + offset

			at, component, run := m.Locate(s)
			if at != slot || component != raid.Sectors(row)*g.Chunk+offset || run != g.Chunk-offset {
				t.Fatalf("Locate(%d) = %d, %d, %d, want slot %d of row %d", s, at, component, run, slot, row)
			}
		}
	})
}

// TestQCountsAsData: in the layouts named the exponent is the data index; in
// the others it is not, as who takes them for one would find out too late.
func TestQCountsAsData(t *testing.T) {
	equal := []raid.Layout{
		raid.LeftSymmetric, raid.RightSymmetric, raid.ParityFirst, raid.ParityLast,
		raid.LeftAsymmetric6, raid.RightAsymmetric6, raid.ParityFirst6,
	}

	for _, layout := range layouts6 {
		m, err := New(raid.Geometry{Level: raid.Level6, Layout: layout, Disks: 6, Chunk: 8, Size: 8 * 30})
		if err != nil {
			t.Fatal(err)
		}

		same := true
		for row := range m.Rows() {
			for slot := range raid.Slot(m.Disks()) {
				same = same && m.Exponent(row, slot) == m.DataIndex(row, slot)
			}
		}

		if same != slices.Contains(equal, layout) {
			t.Errorf("%s: exponents equal data indexes: %v", layout.Name(raid.Level6), same)
		}
	}
}

// TestRAID5HasNoQ: what is asked of a RAID6 has an answer on other levels.
func TestRAID5HasNoQ(t *testing.T) {
	m, err := New(raid.Geometry{Level: raid.Level5, Layout: raid.RightSymmetric, Disks: 5, Chunk: 8, Size: 80})
	if err != nil {
		t.Fatal(err)
	}

	if m.Exponents() != 4 || m.Copies() != 1 || m.SyncSectors() != 80 {
		t.Errorf("%d exponents, %d copies, %d sectors to sync", m.Exponents(), m.Copies(), m.SyncSectors())
	}

	for row := range m.Rows() {
		if q := m.QSlot(row); q != raid.NoSlot {
			t.Errorf("QSlot(%d) = %d, want none", row, q)
		}

		for slot := range raid.Slot(m.Disks()) {
			if e, d := m.Exponent(row, slot), m.DataIndex(row, slot); e != d {
				t.Errorf("Exponent(%d, %d) = %d, want the data index %d", row, slot, e, d)
			}
		}
	}
}
