package loop

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keeper has nothing to write.
type keeper struct{ metadata.Keeper }

func (keeper) Record(metadata.State) [][]metadata.Write { return nil }
func (keeper) BadBlockRoom(metadata.MemberID) int       { return 0 }
func (keeper) Log(metadata.MemberID) *metadata.PPL      { return nil }
func (keeper) Bitmap() metadata.Bitmap                  { return nil }
func (keeper) Events() uint64                           { return 1 }

// newIdle returns a mirror of two with its memory and its ring, and no block device; and
// another descriptor of its memory.
func newIdle(t *testing.T) (l *Loop, memory int) {
	t.Helper()

	const size = 65536

	geo, err := geometry.New(raid.Geometry{Level: raid.Level1, Disks: 2, Size: size})
	if err != nil {
		t.Fatal(err)
	}

	l = &Loop{cfg: Config{
		Geometry: geo, Keeper: keeper{}, Recover: ublk.AnyDevice,
		Setup: engine.Setup{Level: raid.Level1, Size: size, Resynced: raid.MaxSectors},
		Keep: func(f *os.File) (err error) {
			memory, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)

			return err
		},
	}, disks: make(map[engine.DeviceID]*member.Device)}

	for id := range engine.DeviceID(2) {
		l.cfg.Setup.Members = append(l.cfg.Setup.Members, engine.Member{Device: id, State: raid.InSync})
		l.cfg.Devices = append(l.cfg.Devices, Device{ID: id, Member: &member.Device{}})
	}

	if err := l.prepare(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = errors.Join(l.arena.Close(), l.wake.Close(), unix.Close(memory)) })

	if l.ring, err = uring.New(uring.Config{Entries: 8}); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = l.ring.Close() })

	l.pins = newPins(l.ring, l.arena)
	l.core.Start(time.Unix(1e9, 0))

	return l, memory
}

// check has all of an array be compared, whose members are all zero.
func (l *Loop) check(t *testing.T) {
	t.Helper()

	now := time.Unix(1e9, 0)

	if err := l.core.Sync(raid.Check, raid.Range{To: raid.MaxSectors}); err != nil {
		t.Fatal(err)
	}

	for ended := false; !ended; ended = l.core.Status().Sync.Action == raid.Idle && l.core.InFlight() == 0 {
		now = now.Add(time.Second)
		l.core.SetTime(now)
		l.core.Advance()

		for o := range l.core.Operations {
			if o.Op == stripe.Read {
				clear(o.Data)
				l.pins.find(o.Data)
			}

			l.core.Complete(o.ID, stripe.None)
		}
	}
}

// TestRelax: after a sync an array is as small as before, unless it is to hold its memory.
func TestRelax(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	l, memory := newIdle(t)

	before := taken(t, memory)
	l.check(t)
	during := taken(t, memory)

	l.holds = true
	l.relax()
	held := taken(t, memory)

	l.holds = false
	l.relax()

	if after := taken(t, memory); during < before+1024 || held != during || after != before {
		t.Errorf("%d KiB before a sync, %d after it, %d if they are held, and %d if not; want as many as before",
			before, during, held, after)
	}

	if l.pins.any() {
		t.Error("some of it is registered still")
	}
}

// TestRest: an array at rest gives back what requests have used, unless it is to hold its
// memory, and one that is not gives nothing.
func TestRest(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	l, memory := newIdle(t)
	rests := func(want bool, when string) {
		t.Helper()

		if got := l.rests(); got != want {
			t.Errorf("rests() = %v %s", got, when)
		}
	}
	gives := func(want bool, when string) {
		t.Helper()

		before := taken(t, memory)
		l.rest()

		if after := taken(t, memory); (after < before) != want {
			t.Errorf("%s it goes from %d to %d KiB", when, before, after)
		}
	}

	before := taken(t, memory)

	l.core.Submit(stripe.Request{Op: stripe.Flush})
	l.core.Advance()

	for _, block := range l.own {
		l.pins.find(block)
	}

	l.core.SetTime(time.Unix(2e9, 0))
	rests(false, "during a request")
	gives(false, "during a request")

	for o := range l.core.Operations {
		l.core.Complete(o.ID, stripe.None)
	}

	l.core.Advance()
	l.core.Answers()
	rests(false, "right after a request")
	gives(false, "right after a request")

	l.core.SetTime(time.Unix(3e9, 0))

	l.holds = true

	rests(false, "if it is held")
	gives(false, "if it is held")

	l.holds = false

	rests(true, "after a while")
	gives(true, "after a while")
	rests(false, "with nothing to give")

	if after := taken(t, memory); after != before {
		t.Errorf("it takes %d KiB, and took %d before the request", after, before)
	}
}

// taken is how many KiB a file of memory has.
func taken(t *testing.T, file int) int64 {
	t.Helper()

	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		t.Fatal(err)
	}

	return st.Blocks / 2
}
