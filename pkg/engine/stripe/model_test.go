package stripe

import (
	"flag"
	"fmt"
	"math"
	"runtime/debug"
	"testing"

	"raid-assembler/pkg/raid"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "the first seed of TestHistories")
	modelSeeds = flag.Uint64("model.seeds", 25, "how many seeds TestHistories takes for each kind of array")
	modelTrace = flag.Bool("model.trace", false, "print what happens in TestHistories")
)

// kinds are the arrays that histories are lived with.
func kinds() []raid.Geometry {
	var all []raid.Geometry

	add := func(level raid.Level, layout raid.Layout, disks int, chunk raid.Sectors) {
		g := raid.Geometry{Level: level, Layout: layout, Disks: disks, Chunk: chunk, Size: 70}

		if level == raid.Level0 || level == raid.LevelLinear {
			g.Size = 0
			for slot := range raid.Sectors(disks) {
				g.Sizes = append(g.Sizes, 70-20*slot)
			}
		}

		all = append(all, g)
	}

	add(raid.LevelLinear, 0, 3, 0)
	add(raid.Level0, 1, 3, 8)
	add(raid.Level0, 2, 3, 16)
	add(raid.Level0, 2, 3, 9)
	add(raid.Level1, 0, 2, 0)
	add(raid.Level1, 0, 3, 0)
	add(raid.Level1, 0, 4, 0)
	add(raid.Level4, 0, 4, 8)

	for layout := range raid.Layout(6) {
		add(raid.Level5, layout, 4, 8)
		add(raid.Level5, layout, 3, 16)
		add(raid.Level6, layout, 5, 8)
		add(raid.Level6, layout, 4, 16)
	}

	add(raid.Level5, 2, 2, 8)
	add(raid.Level5, 2, 7, 8)
	add(raid.Level6, 2, 7, 8)

	for _, layout := range []raid.Layout{8, 9, 10, 16, 17, 18, 19, 20} {
		add(raid.Level6, layout, 5, 8)
	}

	for _, layout := range []raid.Layout{0x102, 0x201, 0x10201, 0x103, 0x301, 0x202} {
		for _, disks := range []int{3, 4, 5} {
			if n := int(layout&0xff) * int(layout>>8&0xff); n <= disks {
				add(raid.Level10, layout, disks, 8)
			}
		}
	}

	add(raid.Level10, 0x102, 2, 16)
	add(raid.Level10, 0x10202, 4, 8)

	return all
}

// live lives a history of so many steps at most, and returns what was wrong.
func live(t *testing.T, g raid.Geometry, seed uint64, most int, counts map[string]int) (text string) {
	t.Helper()

	defer func() {
		if what := recover(); what != nil {
			text = fmt.Sprintf("after %d steps: %v", most, what)

			if _, ok := what.(broken); !ok {
				text += "\n" + string(debug.Stack())
			}
		}
	}()

	h := newHistory(t, g, seed, counts)
	h.most = most
	h.run()

	return ""
}

// shrunk lives a history, and returns what was wrong with it and with the
// shortest one that begins alike.
func shrunk(t *testing.T, g raid.Geometry, seed uint64, counts map[string]int) string {
	t.Helper()

	first := live(t, g, seed, math.MaxInt, counts)
	if first == "" {
		return ""
	}

	for most := 1; ; most++ {
		if text := live(t, g, seed, most, make(map[string]int)); text != "" || most > 200 {
			return fmt.Sprintf("seed %d: %s\nshortest, %s", seed, first, text)
		}
	}
}

// TestHistories lives random lives of arrays of every level and layout, and
// compares what they hold with what was written to them.
func TestHistories(t *testing.T) {
	counts := make(map[string]int)

	for _, g := range kinds() {
		name := fmt.Sprintf("%v %s of %d, chunk %d", g.Level, g.Layout.Name(g.Level), g.Disks, g.Chunk)

		t.Run(name, func(t *testing.T) {
			for seed := range *modelSeeds {
				if text := shrunk(t, g, seed+*modelSeed, counts); text != "" {
					t.Fatal(text)
				}
			}
		})
	}

	for _, what := range []string{
		"read", "write", "flush", "discard", "write-zeroes", "error read", "error write", "lingered",
		"medium on read", "medium on write", "gone on read", "gone on write", "gone on flush", "sector mended",
		"device dies", "sector fails", "sector fails for good", "speed changes", "member given up",
		"bad block recorded", "bad block cleared", "spare put to work", "recovered", "successor comes",
		"successor takes over", "replaced", "slab given up", "recover", "replace", "resync", "check", "repair",
	} {
		t.Logf("%-22s %d", what, counts[what])

		if counts[what] == 0 && *modelSeeds >= 25 {
			t.Errorf("%s: never", what)
		}
	}
}
