package tests

import (
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// kind is an array of the table: a level, a layout and what else matters.
type kind struct {
	name    string
	level   raid.Level
	layout  string // in mdadm's words; empty where the level has none
	members []int  // the size of each, in MiB
	chunk   string // in KiB; empty where the level has none
	loses   int    // members that it survives the loss of, at slots that are neighbours
}

// mib makes a list of sizes that are all the same.
func mib(size, n int) []int { return slices.Repeat([]int{size}, n) }

// families are all levels and layouts that md knows, as many to a guest as it
// runs at a time.
var families = map[string][]kind{
	"mirrors": {
		{"zero-original", raid.Level0, "original", []int{9, 13, 11}, "64", 0},
		{"zero-alternate", raid.Level0, "alternate", []int{13, 9, 17, 9}, "64", 0},
		{"zero-odd-chunk", raid.Level0, "", mib(9, 3), "12", 0},
		{"one-2", raid.Level1, "", mib(9, 2), "", 1},
		{"one-3", raid.Level1, "", mib(9, 3), "", 2},
		{"ten-n2-4", raid.Level10, "n2", mib(9, 4), "64", 1},
		{"ten-n2-5", raid.Level10, "n2", mib(9, 5), "64", 1},
		{"ten-n3-5", raid.Level10, "n3", mib(9, 5), "32", 2},
		{"ten-f2-3", raid.Level10, "f2", mib(9, 3), "64", 1},
		{"ten-f2-4", raid.Level10, "f2", mib(9, 4), "512", 1},
		{"ten-o2-3", raid.Level10, "o2", mib(9, 3), "64", 1},
		{"ten-o2-4", raid.Level10, "o2", mib(9, 4), "4", 1},
	},
	"parity": {
		{"four", raid.Level4, "", mib(9, 4), "64", 1},
		{"five-la", raid.Level5, "left-asymmetric", mib(9, 3), "64", 1},
		{"five-ra", raid.Level5, "right-asymmetric", mib(9, 4), "4", 1},
		{"five-ls", raid.Level5, "left-symmetric", mib(9, 4), "512", 1},
		{"five-rs", raid.Level5, "right-symmetric", mib(9, 5), "64", 1},
		{"five-first", raid.Level5, "parity-first", mib(9, 4), "64", 1},
		{"five-last", raid.Level5, "parity-last", mib(9, 4), "64", 1},
	},
	"six": {
		{"six-la", raid.Level6, "left-asymmetric", mib(9, 5), "64", 2},
		{"six-ra", raid.Level6, "right-asymmetric", mib(9, 5), "4", 2},
		{"six-ls", raid.Level6, "left-symmetric", mib(9, 6), "512", 2},
		{"six-rs", raid.Level6, "right-symmetric", mib(9, 4), "64", 2},
		{"six-first", raid.Level6, "parity-first", mib(9, 5), "64", 2},
		{"six-last", raid.Level6, "parity-last", mib(9, 5), "64", 2},
	},
	"six-others": {
		{"six-zr", raid.Level6, "ddf-zero-restart", mib(9, 5), "64", 2},
		{"six-Nr", raid.Level6, "ddf-N-restart", mib(9, 5), "64", 2},
		{"six-Nc", raid.Level6, "ddf-N-continue", mib(9, 5), "64", 2},
		{"six-la-6", raid.Level6, "left-asymmetric-6", mib(9, 5), "64", 2},
		{"six-ra-6", raid.Level6, "right-asymmetric-6", mib(9, 5), "64", 2},
		{"six-ls-6", raid.Level6, "left-symmetric-6", mib(9, 5), "64", 2},
		{"six-rs-6", raid.Level6, "right-symmetric-6", mib(9, 5), "64", 2},
		{"six-first-6", raid.Level6, "parity-first-6", mib(9, 5), "64", 2},
	},
}

// alike are arrays whose layouts are those of others but for a direction, or for the
// number of members: "make test" leaves them to "make test-long".
var alike = []string{
	"one-2", "ten-n2-4", "ten-f2-4", "ten-o2-4", "five-ra", "five-ls", "five-last", "six-ra", "six-ls", "six-last",
	"six-Nr", "six-Nc", "six-ra-6", "six-ls-6", "six-rs-6", "six-first-6",
}

// sample returns kinds without those named, for which "make test" has no time, or
// all of them if it need not be short.
func sample(kinds []kind, without ...string) []kind {
	if !testing.Short() {
		return kinds
	}

	return slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return slices.Contains(without, k.name) })
}

// TestLevels has mdadm make arrays of all levels and layouts and md fill them.
// The engine runs them, whole, degraded and during recovery; md takes them back,
// finds every byte and nothing that its check would mend.
func TestLevels(t *testing.T) {
	guests := [][]string{{"mirrors"}, {"parity"}, {"six"}, {"six-others"}}
	if testing.Short() {
		guests = [][]string{{"mirrors"}, {"parity", "six", "six-others"}}
	}

	for _, guest := range guests {
		t.Run(strings.Join(guest, " and "), func(t *testing.T) {
			var kinds []kind
			for _, family := range guest {
				kinds = append(kinds, families[family]...)
			}

			f := newFleet(t, sample(kinds, alike...), false)
			f.create()
			f.engineStarts()
			f.each("exercise check -model $M /dev/raid/$A")
			f.each("exercise run -model $M -mix mixed -ops 250 -seed 11 /dev/raid/$A")
			f.failAndReturn()
			f.each("exercise run -model $M -mix discard -ops 40 -seed 14 /dev/raid/$A")
			f.each("exercise check -model $M /dev/raid/$A")
			f.engineStops()
			f.mdChecks()
		})
	}
}

// unserved says why the engine does not run such arrays, or is empty.
func (k kind) unserved(t *testing.T) string {
	t.Helper()

	g := raid.Geometry{Level: k.level, Disks: len(k.members), Chunk: 128}

	if k.layout != "" && k.level != raid.Level0 {
		var err error
		if g.Layout, err = raid.ParseLayout(k.level, k.layout); err != nil {
			t.Fatal(err)
		}
	}

	return policy.Served(g)
}
