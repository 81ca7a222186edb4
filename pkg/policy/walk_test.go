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
//   - and where somebody remembers how it last ran, no older data is started,
//   - unless all were set back, by an image say, who were in sync then: nobody waits.
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
				w.remembers = seed%2 == 0

				for range 60 {
					w.step(t, seed, w.moveOrSetBack)
				}

				w.step(t, seed, w.gather)
			}
		})
	}
}

// walker is a world that moves at random.
type walker struct {
	*world
	rng   *rand.Rand
	log   []string
	image map[string]disk // all disks as they were once
}

func (w *walker) step(t *testing.T, seed uint64, move func() string) {
	t.Helper()

	w.log = append(w.log, move())

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
			w.note()

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

func (w *walker) moveOrSetBack() string {
	if w.rng.IntN(13) == 0 {
		return w.setBack()
	}

	return w.move()
}

// setBack makes an image of all disks, or gives all disks what is on it while the
// machine is off. Nobody can know then what was written since.
func (w *walker) setBack() string {
	if w.image == nil {
		w.image = make(map[string]disk)
		for path, d := range w.disks {
			w.image[path] = *d
		}

		return "make an image"
	}

	w.running, w.waited, w.noted = nil, 0, ""

	for path, d := range w.disks {
		d.Superblock, d.data = w.image[path].Superblock, w.image[path].data
	}

	return "restore the image"
}

// gather has every disk plugged in as the machine boots.
func (w *walker) gather() string {
	for _, d := range w.sorted() {
		w.plug(d, true)
	}

	w.running, w.waited = nil, DefaultDeadline

	return "boot with all disks"
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
	case Wait:
		absent := slices.ContainsFunc(w.last.Members, func(m LastMember) bool {
			return slices.ContainsFunc(w.sorted(), func(d *disk) bool { return d.Serial == m.Serial && !d.plugged })
		})
		if d.Cause == Stale && !absent {
			return "it waits for nobody"
		}
	case LeaveAlone, Refuse, RemoveMember, Prove, Replace:
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

	if !strings.HasPrefix(data[0], w.noted) {
		return fmt.Sprintf("those started hold %q, and %q is remembered", data[0], w.noted)
	}

	for _, dk := range w.sorted() {
		_, holds := dk.Superblock.slot(dk.Superblock.Number)
		if dk.plugged && holds && dk.data != "?" && !strings.HasPrefix(data[0], dk.data) {
			return fmt.Sprintf("%s holds %q, those started %q", dk.Path, dk.data, data[0])
		}
	}

	return ""
}
