package loop

import (
	"errors"
	"os"
	"runtime"
	"slices"
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
	taken := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(memory, &st); err != nil {
			t.Fatal(err)
		}

		return st.Blocks * 512
	}

	before := taken()
	l.check(t)
	during := taken()

	l.holds = true
	l.relax()
	held := taken()

	l.holds = false
	l.relax()

	if after := taken(); during < before+1<<20 || held != during || after != before {
		t.Errorf("%d KiB before a sync, %d after it, %d if they are held, and %d if not; want as many as before",
			before>>10, during>>10, held>>10, after>>10)
	}

	if slices.Contains(l.pins.state, pinned) {
		t.Error("some of it is registered still")
	}
}
