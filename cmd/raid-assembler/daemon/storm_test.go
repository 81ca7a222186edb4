package daemon

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan/uevent"
)

// TestStorm plugs 200 disks in within a second, in no order, with ten uevents for each of
// which some are lost: 60 arrays are assembled within 3 seconds of the last, each once
// and none degraded. What the daemon keeps of all that is less than 32 MiB.
func TestStorm(t *testing.T) {
	const events = 10 // for each disk

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

		keepsLittle(t, before)
	})
}

// TestSticks plugs 200 disks in within a second of which each claims to be the only one
// there is of an array of 128. None is started, a mirror that comes last is within 3
// seconds, each is told of a few times, and the daemon keeps less than 32 MiB of it all.
func TestSticks(t *testing.T) {
	const (
		sticks  = 200
		devices = 128
	)

	inWorld(t, func(t *testing.T, w *world) {
		all := w.sticks(sticks, devices)
		mirror := w.set("mirror", raid.Level1, 2, 0)
		w.run()
		w.pass(second)

		before := heap()

		for _, f := range append(all, mirror...) {
			w.plug(f)
			w.pass(second / sticks)
		}

		w.pass(3 * second)
		w.mustBe("mirror 0:mirror0:in-sync 1:mirror1:in-sync")
		w.pass(10 * time.Minute)
		w.mustBe("mirror 0:mirror0:in-sync 1:mirror1:in-sync")

		if w.starts != 1 {
			t.Errorf("%d starts, want 1", w.starts)
		}

		status, err := w.daemon.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}

		if n := len(status.Arrays); n != sticks+1 {
			t.Errorf("the status tells of %d arrays, want %d", n, sticks+1)
		}

		if n := len(w.journal); n > 4*sticks {
			t.Errorf("%d events within 10 minutes", n)
		}

		keepsLittle(t, before)
		t.Logf("it told %d events", len(w.journal))
	})
}

// sticks makes the first disk of each of so many RAID6, which are of so many devices.
func (w *world) sticks(count, devices int) []*fakeDisk {
	w.t.Helper()

	var (
		sticks  []*fakeDisk
		nowhere = fakeDisk{Disk: Disk{Size: diskBytes / raid.SectorSize, Block: raid.SectorSize}, image: make([]byte, diskBytes)}
	)

	for i := range count {
		f := w.disk(fmt.Sprintf("stick%d", i))
		members := []metadata.NewMember{{Source: f.source(), Device: raid.UUID{byte(i), 1}}}

		for k := 1; k < devices; k++ {
			members = append(members, metadata.NewMember{Source: nowhere.source(), Device: raid.UUID{byte(i), 1, byte(k)}})
		}

		as := metadata.NewArray{Array: raid.UUID{byte(i), 2}, Name: f.Serial}
		w.format(as, raid.Level6, devices, members, []*fakeDisk{f})

		sticks = append(sticks, f)
	}

	return sticks
}

// keepsLittle checks that what is in use has not grown by 32 MiB.
func keepsLittle(t *testing.T, before uint64) {
	t.Helper()

	const most = 32 << 20

	if after := heap(); after > before+most {
		t.Errorf("the daemon keeps %d MiB", (after-before)>>20)
	} else {
		t.Logf("the daemon keeps %d KiB more than before", (int64(after)-int64(before))>>10)
	}
}

// heap returns how much memory is in use.
func heap() uint64 {
	var stats runtime.MemStats

	runtime.GC()
	runtime.ReadMemStats(&stats)

	return stats.HeapAlloc
}
