package raid

import (
	"strings"
	"testing"
)

// TestLayoutNames pins names to mdadm's, and each to its number: what is shown
// is understood, and so are the short forms.
func TestLayoutNames(t *testing.T) {
	for _, tt := range []struct {
		level  Level
		layout Layout
		name   string
		also   string // other names of it
	}{
		{Level0, Original, "original", "Original"},
		{Level0, Alternate, "alternate", ""},
		{Level5, LeftAsymmetric, "left-asymmetric", "la ddf-N-restart"},
		{Level5, RightAsymmetric, "right-asymmetric", "ra ddf-zero-restart"},
		{Level5, LeftSymmetric, "left-symmetric", "ls ddf-N-continue"},
		{Level5, RightSymmetric, "right-symmetric", "rs"},
		{Level5, ParityFirst, "parity-first", ""},
		{Level5, ParityLast, "parity-last", ""},
		{Level6, LeftAsymmetric, "left-asymmetric", "la"},
		{Level6, RightAsymmetric, "right-asymmetric", "ra"},
		{Level6, LeftSymmetric, "left-symmetric", "ls"},
		{Level6, RightSymmetric, "right-symmetric", "rs"},
		{Level6, ParityFirst, "parity-first", ""},
		{Level6, ParityLast, "parity-last", "parity-last-6"},
		{Level6, DDFZeroRestart, "ddf-zero-restart", ""},
		{Level6, DDFNRestart, "ddf-N-restart", "ddf-n-restart"},
		{Level6, DDFNContinue, "ddf-N-continue", ""},
		{Level6, LeftAsymmetric6, "left-asymmetric-6", "la-6"},
		{Level6, RightAsymmetric6, "right-asymmetric-6", "ra-6"},
		{Level6, LeftSymmetric6, "left-symmetric-6", "ls-6"},
		{Level6, RightSymmetric6, "right-symmetric-6", "rs-6"},
		{Level6, ParityFirst6, "parity-first-6", ""},
		{Level10, 0x102, "n2", ""},
		{Level10, 0x103, "n3", ""},
		{Level10, 0x201, "f2", "n1,f2"},
		{Level10, 0x10201, "o2", ""},
		{Level10, 0x10303, "n3,o3", "o3,n3"},
		{Level10, 0x203, "n3,f2", ""},
		{Level10, 0x40201, "f2,sets", ""},
		{Level10, 0x20201, "f2,old-sets", ""},
		{Level10, 0x101, "n1", ""},
	} {
		if got := tt.layout.Name(tt.level); got != tt.name {
			t.Errorf("%v: Name of %#x = %q, want %q", tt.level, uint32(tt.layout), got, tt.name)
		}

		for _, name := range append(strings.Fields(tt.also), tt.name) {
			if got, err := ParseLayout(tt.level, name); got != tt.layout || err != nil {
				t.Errorf("ParseLayout(%v, %q) = %#x, %v, want %#x", tt.level, name, uint32(got), err, uint32(tt.layout))
			}
		}
	}
}

// TestDefaultLayouts: what is made if nobody says otherwise, as mdadm does.
func TestDefaultLayouts(t *testing.T) {
	for level, want := range map[Level]Layout{
		LevelLinear: 0, Level0: Original, Level1: 0, Level4: 0,
		Level5: LeftSymmetric, Level6: LeftSymmetric, Level10: 0x102,
	} {
		if got, err := ParseLayout(level, ""); got != want || err != nil {
			t.Errorf("ParseLayout(%v, \"\") = %#x, %v, want %#x", level, uint32(got), err, uint32(want))
		}
	}
}

func TestParseLayoutRefuses(t *testing.T) {
	for _, tt := range []struct {
		level Level
		text  string
		want  string
	}{
		{Level1, "left-symmetric", "raid1 has none"},
		{Level4, "ls", "raid4 has none"},
		{LevelLinear, "n2", "linear has none"},
		{Level5, "ls-6", `layout "ls-6": raid5 has left-asymmetric, right-asymmetric`},
		{Level6, "sideways", "ddf-N-continue"},
		{Level0, "ls", "raid0 has original, alternate"},
		{Level10, "ls", `layout "ls": raid10 has nN, fN and oN`},
		{Level10, "n0", `layout "n0"`},
		{Level10, "n256", `layout "n256"`},
		{Level10, "n", `layout "n"`},
		{Level10, "n2,", `layout "n2,"`},
		{Level10, ",", `layout ","`},
		{Level10, "x2", `layout "x2"`},
	} {
		if got, err := ParseLayout(tt.level, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseLayout(%v, %q) = %d, %v, want an error with %q", tt.level, tt.text, got, err, tt.want)
		}
	}
}

// TestUnknownLayouts: a number that has no name is shown as what it is.
func TestUnknownLayouts(t *testing.T) {
	for _, tt := range []struct {
		level  Level
		layout Layout
		want   string
	}{
		{Level0, 0, ""}, // md's members are of one size, most likely
		{Level0, 3, "layout-3"},
		{Level1, 7, ""},
		{Level5, 8, "layout-8"},
		{Level6, 7, "layout-7"},
		{Level10, 0, "layout-0x0"},
		{Level10, 0x60201, "layout-0x60201"},
	} {
		if got := tt.layout.Name(tt.level); got != tt.want {
			t.Errorf("%v: Name of %#x = %q, want %q", tt.level, uint32(tt.layout), got, tt.want)
		}
	}
}

// FuzzParseLayout: what is understood is shown as something that means the
// same.
func FuzzParseLayout(f *testing.F) {
	f.Add(int32(6), "ls-6")
	f.Add(int32(10), "n2,f3,sets")
	f.Add(int32(10), "o2,f3,old-sets,sets")

	f.Fuzz(func(t *testing.T, number int32, text string) {
		level := Level(number)

		layout, err := ParseLayout(level, text)
		if err != nil {
			return
		}

		if again, err := ParseLayout(level, layout.Name(level)); again != layout || err != nil {
			t.Errorf("ParseLayout(%v, %q) = %#x, which is called %q: %#x, %v",
				level, text, layout, layout.Name(level), again, err)
		}
	})
}

// TestSurvives: one line a case; the slots that are gone, and whether all
// content is left.
func TestSurvives(t *testing.T) {
	n2 := Geometry{Level: Level10, Layout: 0x102, Disks: 4}
	n2of3 := Geometry{Level: Level10, Layout: 0x102, Disks: 3}
	f2 := Geometry{Level: Level10, Layout: 0x201, Disks: 4}
	inSets := Geometry{Level: Level10, Layout: 0x40201, Disks: 4}
	bad := Geometry{Level: Level10, Layout: 0x101, Disks: 4}

	for _, tt := range []struct {
		g         Geometry
		gone      string
		want      bool
		redundant int
	}{
		{Geometry{Level: LevelLinear, Disks: 2}, "", true, 0},
		{Geometry{Level: Level0, Disks: 2}, "1", false, 0},
		{Geometry{Level: Level1, Disks: 3}, "02", true, 2},
		{Geometry{Level: Level1, Disks: 3}, "012", false, 2},
		{Geometry{Level: Level4, Disks: 3}, "2", true, 1},
		{Geometry{Level: Level5, Disks: 3}, "02", false, 1},
		{Geometry{Level: Level6, Disks: 5}, "04", true, 2},
		{Geometry{Level: Level6, Disks: 5}, "024", false, 2},
		{n2, "02", true, 1},
		{n2, "13", true, 1},
		{n2, "01", false, 1},
		{n2, "12", true, 1}, // of two pairs
		{n2, "123", false, 1},
		{n2of3, "0", true, 1},
		{n2of3, "02", false, 1}, // the second chunk is in 2 and 0
		{f2, "02", true, 1},
		{f2, "03", false, 1},
		{inSets, "03", true, 1},
		{inSets, "23", false, 1},
		{Geometry{Level: Level10, Layout: 0x103, Disks: 4}, "01", true, 2},
		{Geometry{Level: Level10, Layout: 0x202, Disks: 4}, "013", true, 3},
		{bad, "0", false, 0},
	} {
		working := func(slot Slot) bool { return !strings.ContainsRune(tt.gone, rune('0'+slot)) }

		if got := tt.g.Survives(working); got != tt.want {
			t.Errorf("%v of %d, %s: without %q Survives = %v, want %v",
				tt.g.Level, tt.g.Disks, tt.g.Layout.Name(tt.g.Level), tt.gone, got, tt.want)
		}

		if got := tt.g.Redundancy(); got != tt.redundant {
			t.Errorf("%v of %d: Redundancy = %d, want %d", tt.g.Level, tt.g.Disks, got, tt.redundant)
		}
	}
}

// TestSurvivesDoesNotAllocate: it is asked while requests wait.
func TestSurvivesDoesNotAllocate(t *testing.T) {
	g := Geometry{Level: Level10, Layout: 0x40201, Disks: 9}
	working := func(slot Slot) bool { return slot != 3 }

	if allocs := testing.AllocsPerRun(100, func() { _ = g.Survives(working) }); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func TestRange(t *testing.T) {
	r := Range{From: 8, To: 16}

	if r.Len() != 8 || r.Empty() || !(Range{From: 8, To: 8}).Empty() || (Range{From: 9, To: 8}).Len() != 0 {
		t.Errorf("%v has %d sectors", r, r.Len())
	}

	for _, tt := range []struct {
		other Range
		want  bool
	}{
		{Range{0, 8}, false},
		{Range{0, 9}, true},
		{Range{16, 20}, false},
		{Range{15, 20}, true},
		{Range{10, 10}, false},
		{Range{10, 11}, true},
	} {
		if r.Overlaps(tt.other) != tt.want || tt.other.Overlaps(r) != tt.want {
			t.Errorf("%v overlaps %v: want %v", r, tt.other, tt.want)
		}
	}
}
