package daemon

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan/uevent"
)

// TestStorm plugs 200 disks in within a second, in no order, with ten uevents for each of
// which some are lost: 60 arrays are assembled within 3 seconds of the last, each once
// and none degraded. What the daemon keeps of all that is less than 32 MiB.
func TestStorm(t *testing.T) {
	const (
		events    = 10 // for each disk
		memoryMax = 32 << 20
	)

	inWorld(t, func(t *testing.T, w *world) {
		var disks []*fakeDisk

		for i := range 40 {
			disks = append(disks, w.set(fmt.Sprintf("%c-mirror", 'A'+i), raid.Level1, 3, 0)...)
		}

		for i := range 20 {
			disks = append(disks, w.set(fmt.Sprintf("%c-parity", 'A'+40+i), raid.Level5, 4, 0)...)
		}

		if len(disks) != 200 {
			t.Fatalf("%d disks", len(disks))
		}

		rng := rand.New(rand.NewPCG(1, 2))
		rng.Shuffle(len(disks), func(i, k int) { disks[i], disks[k] = disks[k], disks[i] })
		w.run()
		w.pass(second)

		before := heap()

		for _, f := range disks {
			w.plugQuietly(f)

			for range events {
				if rng.IntN(10) > 0 {
					w.hear([]string{"add", "change"}[rng.IntN(2)], f.Path)
				}
			}

			w.pass(second / 200)
		}

		w.events <- uevent.Event{Action: uevent.ActionRescan} // the kernel had no room for more
		w.pass(3 * second)

		state := w.state()
		if n := strings.Count(state, "\n") + 1; n != 60 || strings.Count(state, ":in-sync") != 200 || w.starts != 60 {
			t.Errorf("%d arrays in %d starts, want 60, all whole:\n%s", n, w.starts, state)
		}

		if after := heap(); after > before+memoryMax {
			t.Errorf("the daemon keeps %d MiB", (after-before)>>20)
		} else {
			t.Logf("the daemon keeps %d KiB more than before", (int64(after)-int64(before))>>10)
		}
	})
}

// heap returns how much memory is in use.
func heap() uint64 {
	var stats runtime.MemStats

	runtime.GC()
	runtime.ReadMemStats(&stats)

	return stats.HeapAlloc
}
