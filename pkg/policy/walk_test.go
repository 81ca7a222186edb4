package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// TestWalk lets disks come and go, machines crash in the middle of a round of
// superblock writes and arrays be written to, at random, and checks that
//
//   - an array is only ever started from members that hold the same data,
//   - and not while a disk is here that holds data which those lack,
//   - and no disk that holds data which the array lacks is given to it,
//   - and with every disk plugged in and nothing ever run in halves, the array
//     ends up running and whole.
func TestWalk(t *testing.T) {
	for _, tt := range []struct {
		level   raid.Level
		disks   int
		members string
	}{
		{raid.Level1, 2, "0@7 1@7"},
		{raid.Level1, 2, "0@7 1@7 S@7"},
		{raid.Level1, 3, "0@7 1@7 2@7"},
		{raid.Level5, 3, "0@7 1@7 2@7 S@7"},
		{raid.Level5, 4, "0@7 1@7 2@7 3@7"},
	} {
		t.Run(fmt.Sprintf("%v %s", tt.level, tt.members), func(t *testing.T) {
			for seed := range uint64(300) {
				w := walker{
					world: newWorld(draw(t, array(tt.level, tt.disks), tt.members)),
					rng:   rand.New(rand.NewPCG(seed, 0)),
				}
				for range 60 {
					w.step(t, seed)
				}
			}
		})
	}
}

// walker is a world that moves at random.
type walker struct {
	*world
	rng *rand.Rand
	log []string
}

func (w *walker) step(t *testing.T, seed uint64) {
	t.Helper()

	w.log = append(w.log, w.move())

	for range 20 {
		ds := Decide(w.view(), DefaultConfig())

		busy := false

		for _, d := range ds {
			busy = busy || d.Action != LeaveAlone && d.Action != Wait && d.Action != Refuse

			w.log = append(w.log, "    "+brief(d))
			if wrong := w.check(d); wrong != "" {
				t.Fatalf("seed %d: %s\n%s", seed, wrong, strings.Join(w.log, "\n"))
			}
		}

		if !busy {
			return
		}

		w.carryOut(ds)
		w.log = append(w.log, "  -> "+strings.TrimSpace(w.describe()))
	}

	t.Fatalf("seed %d: no end of decisions\n%s", seed, strings.Join(w.log, "\n"))
}

// move does one random thing and returns what.
func (w *walker) move() string {
	disks := w.sorted()
	d := disks[w.rng.IntN(len(disks))]

	switch n := w.rng.IntN(12); {
	case n < 4:
		w.plug(d, true)

		return "plug " + d.Path
	case n < 6:
		w.plug(d, false)

		return "unplug " + d.Path
	case n < 7:
		dt := [...]time.Duration{30 * time.Second, 5 * time.Minute, 20 * time.Hour}[w.rng.IntN(3)]
		w.pass(dt)

		return fmt.Sprint("pass ", dt)
	case w.running == nil:
		return "nothing"
	case n < 9:
		if w.status().State == raid.Broken {
			return "nothing"
		}

		return fmt.Sprintf("write %v", w.write())
	case n < 10:
		if w.status().State == raid.Broken {
			return "nothing"
		}

		w.recovered()

		return "recovered"
	default:
		return w.crash()
	}
}

// crash ends the machine, perhaps in the middle of a round.
func (w *walker) crash() string {
	what := "crash"

	if w.status().State != raid.Broken && w.rng.IntN(2) == 0 {
		what = "crash within a round"
		w.running.dirty = !w.running.dirty

		if w.rng.IntN(2) == 0 {
			m := w.running.members[w.rng.IntN(len(w.running.members))]
			what = "crash within the round that fails " + m.Path

			w.fail(m.Path)
			w.activate()
		}

		if w.status().State != raid.Broken {
			w.record(func() bool { return w.rng.IntN(2) == 0 })
		}
	}

	w.running, w.waited = nil, 0

	return what
}

// check says what is wrong about carrying out d, or returns the empty string.
func (w *walker) check(d Decision) string {
	switch d.Action {
	case Start:
		return w.checkStart(d)
	case AddSpare:
		dk := w.disks[d.Device]
		_, holds := dk.Superblock.slot(dk.Superblock.Number)

		if holds && dk.data != "?" && !strings.HasPrefix(w.running.data, dk.data) {
			return fmt.Sprintf("%s holds %q, the array %q", d.Device, dk.data, w.running.data)
		}
	case FailMember:
		if w.disks[d.Device].plugged {
			return d.Device + " is here"
		}
	case LeaveAlone, Wait, Refuse, RemoveMember, Prove, Replace:
	}

	return ""
}

func (w *walker) checkStart(d Decision) string {
	var data []string

	for _, m := range d.Members {
		if dk := w.disks[m.Path]; m.Slot != raid.NoSlot && dk.inSync() {
			data = append(data, dk.data)
		}
	}

	if len(slices.Compact(slices.Clone(data))) != 1 {
		return fmt.Sprintf("in sync, with the data %q", data)
	}

	for _, dk := range w.sorted() {
		_, holds := dk.Superblock.slot(dk.Superblock.Number)
		if dk.plugged && holds && dk.data != "?" && !strings.HasPrefix(data[0], dk.data) {
			return fmt.Sprintf("%s holds %q, those started %q", dk.Path, dk.data, data[0])
		}
	}

	return ""
}
