package core

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

var (
	crashSeed  = flag.Uint64("crash.seed", 0, "the first seed of TestCrash")
	crashSeeds = flag.Uint64("crash.seeds", 460, "how many seeds TestCrash takes for each kind of array")
	crashOnly  = flag.String("crash.only", "", "a pattern that the kinds of arrays of TestCrash match")
	crashTime  = flag.Duration("crash.time", 0, "how long TestCrash goes on with more seeds")
)

// crashArrays are the kinds of arrays that TestCrash runs.
var crashArrays = []raid.Geometry{
	{Level: raid.LevelLinear, Disks: 2},
	{Level: raid.Level0, Disks: 3, Chunk: 8, Layout: raid.Alternate},
	{Level: raid.Level1, Disks: 2, Size: 203},
	{Level: raid.Level1, Disks: 3, Size: 203},
	{Level: raid.Level4, Disks: 3, Size: 203, Chunk: 8},
	{Level: raid.Level5, Disks: 2, Size: 203, Chunk: 8, Layout: raid.LeftSymmetric},
	{Level: raid.Level5, Disks: 3, Size: 203, Chunk: 8, Layout: raid.LeftSymmetric},
	{Level: raid.Level5, Disks: 4, Size: 203, Chunk: 16, Layout: raid.RightAsymmetric},
	{Level: raid.Level5, Disks: 3, Size: 203, Chunk: 8, Layout: raid.LeftAsymmetric},
	{Level: raid.Level5, Disks: 3, Size: 203, Chunk: 8, Layout: raid.RightSymmetric},
	{Level: raid.Level5, Disks: 3, Size: 203, Chunk: 8, Layout: raid.ParityFirst},
	{Level: raid.Level5, Disks: 3, Size: 203, Chunk: 8, Layout: raid.ParityLast},
	{Level: raid.Level6, Disks: 4, Size: 203, Chunk: 8, Layout: raid.LeftSymmetric},
	{Level: raid.Level6, Disks: 5, Size: 203, Chunk: 16, Layout: raid.RightAsymmetric},
	{Level: raid.Level6, Disks: 4, Size: 203, Chunk: 8, Layout: raid.DDFNContinue},
	{Level: raid.Level6, Disks: 5, Size: 203, Chunk: 8, Layout: raid.LeftSymmetric6},
	{Level: raid.Level10, Disks: 4, Size: 208, Chunk: 8, Layout: 0x102},         // n2
	{Level: raid.Level10, Disks: 4, Size: 208, Chunk: 8, Layout: 0x201},         // f2
	{Level: raid.Level10, Disks: 4, Size: 208, Chunk: 8, Layout: 1<<16 | 0x201}, // o2
	{Level: raid.Level10, Disks: 3, Size: 208, Chunk: 8, Layout: 0x102},
	{Level: raid.Level10, Disks: 5, Size: 208, Chunk: 8, Layout: 0x201},
	{Level: raid.Level10, Disks: 3, Size: 208, Chunk: 8, Layout: 0x103},
}

// name is how a kind of array is called in tests.
func name(g raid.Geometry) string {
	text := fmt.Sprintf("%v-%d", g.Level, g.Disks)
	if layout := g.Layout.Name(g.Level); layout != "" {
		text += "-" + layout
	}

	return text
}

// failure is why a history is not as it should be.
type failure string

// events counts what happened in histories, by name.
type events map[string]int

// expected are the events that must have happened in a long run.
var expected = []string{
	"add", "again", "bad-blocks", "bad-sector", "broken", "check", "check-done", "cut", "cut-in-closing", "cut-in-growth",
	"cut-in-record", "discard", "fail", "fail-by-hand",
	"flush", "fua", "grow", "grown", "hang", "kill", "kill-in-write", "late-flush", "late-read", "late-write",
	"logs-degraded", "logs-resync", "logs-untold", "logs-whole",
	"lost-in-cut", "memory-replaced", "not-grown", "not-started", "read", "readd",
	"rechunk", "recover-done", "released", "remove", "repair", "repair-done", "replace", "replace-done", "replace-failed", "resync-done",
	"returned", "stopped-hanging", "told-degraded", "two-at-once", "wake", "with-bitmap", "with-logs", "worn-sector", "write", "write-zeroes",
}

// history runs an array through several lives, each but the last of which ends
// when the power is cut, and returns what was wrong, or "". The events whose
// numbers are in skip do not happen. Each draws its own random numbers, so that
// the others are not changed by that.
func history(geo raid.Geometry, seed uint64, skip map[int]bool, seen events, trace func(string)) (int, failure) {
	w := &world{seed: seed, geo: geo, skip: skip, seen: seen, trace: trace}
	wrong := w.history()

	return w.event, wrong
}

// history is the whole of it.
func (w *world) history() (wrong failure) {
	w.src = rand.NewPCG(w.seed, 11)
	w.rng = rand.New(w.src)

	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			wrong = r
		default: // an invariant is broken
			wrong = failure(fmt.Sprintf("panic: %v\n%s", r, debug.Stack()))
		}
	}()

	w.create()
	w.run()

	return ""
}

// shrink returns the events that can be left out of a history with all others
// still leading to the failure.
func shrink(geo raid.Geometry, seed uint64, n int, limit time.Duration) map[int]bool {
	skip := make(map[int]bool)
	fails := func(skip map[int]bool) bool {
		_, wrong := history(geo, seed, skip, events{}, nil)

		return wrong != ""
	}

	for end, size := time.Now().Add(limit), n/2; size > 0; size /= 2 {
		for from := 0; from < n && time.Now().Before(end); from += size {
			try := maps.Clone(skip)
			for i := from; i < min(n, from+size); i++ {
				try[i] = true
			}

			if len(try) > len(skip) && fails(try) {
				skip = try
			}
		}
	}

	return skip
}

// report runs a history that fails again, without what it fails without as
// well, and says what happens in it.
func report(t *testing.T, geo raid.Geometry, seed uint64, n int, wrong failure) {
	t.Helper()

	n = max(n, 4*700) // those skipped may have kept others from happening
	skip := shrink(geo, seed, n, 20*time.Second)

	var steps []string

	_, shrunk := history(geo, seed, skip, events{}, func(step string) { steps = append(steps, step) })
	t.Errorf("%s, seed %d: %s\nwith %d of %d events: %s\n%s\nagain: -run TestCrash -crash.only '^%s$' -crash.seed %d -crash.seeds 1",
		name(geo), seed, wrong, n-len(skip), n, shrunk, strings.Join(steps, "\n"), name(geo), seed)
}

// TestCrash runs arrays of all levels through random requests, faults and power
// cuts, and checks that all is there that was promised.
func TestCrash(t *testing.T) {
	only, err := regexp.Compile(*crashOnly)
	if err != nil {
		t.Fatal(err)
	}

	seen := events{}
	begin := time.Now()
	histories := 0

	for seed := *crashSeed; seed < *crashSeed+*crashSeeds || time.Since(begin) < *crashTime; seed++ {
		for _, geo := range crashArrays {
			if !only.MatchString(name(geo)) {
				continue
			}

			histories++

			if n, wrong := history(geo, seed, nil, seen, nil); wrong != "" {
				report(t, geo, seed, n, wrong)

				return
			}
		}
	}

	t.Logf("%d histories from seed %d on in %v", histories, *crashSeed, time.Since(begin).Round(time.Millisecond))

	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%8d %s", seen[what], what)
	}

	if *crashOnly == "" && *crashSeeds >= 20 {
		for _, what := range expected {
			if seen[what] == 0 {
				t.Errorf("in %d histories there was no %s", histories, what)
			}
		}
	}
}

// TestRules runs histories without one of the rules about the order of writes
// each time, and expects them to lose something that was promised.
func TestRules(t *testing.T) {
	const seeds = 1500 // most are found out by the first few

	for rule := ruleDirty; rule < ruleEnd; rule <<= 1 {
		t.Run(fmt.Sprintf("without %08b", rule), func(t *testing.T) {
			for seed := range uint64(seeds) {
				for _, geo := range crashArrays {
					w := &world{seed: seed, geo: geo, seen: events{}, ignored: rule}
					if wrong := w.history(); wrong != "" {
						t.Logf("%s, seed %d: %s", name(geo), seed, wrong)

						return
					}
				}
			}

			t.Errorf("%d histories lose nothing", seeds*len(crashArrays))
		})
	}
}
