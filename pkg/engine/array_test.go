package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"raid-assembler/pkg/raid"
)

// describe prints an effect on one line.
func describe(e Effect) string {
	text := fmt.Sprintf("%T%+v", e, e)

	if r, ok := e.(Report); ok {
		return fmt.Sprintf("report %v device=%d slot=%d", r.Note, r.Device, r.Slot)
	}

	return strings.TrimPrefix(text, "engine.")
}

// TestTranscripts replays testdata/*.txt: each command is an event, answered by
// the effects and then the state. Rewrite with go test -rewrite and read the
// diff.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var a *Array

		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "new" {
				a = newFrom(t, d)

				return summary(a)
			}

			var b strings.Builder

			for _, e := range a.Step(event(t, d)) {
				fmt.Fprintf(&b, "-> %s\n", describe(e))
			}

			return b.String() + summary(a)
		})
	})
}

func newFrom(t *testing.T, d *datadriven.TestData) *Array {
	var (
		level, disks, spares int
		resynced             = -1
		missing              = -1
		recovering           = -1
		recovered            int
	)

	d.ScanArgs(t, "level", &level)
	d.ScanArgs(t, "disks", &disks)
	d.MaybeScanArgs(t, "spares", &spares)
	d.MaybeScanArgs(t, "resynced", &resynced)
	d.MaybeScanArgs(t, "missing", &missing)
	d.MaybeScanArgs(t, "recovering", &recovering)
	d.MaybeScanArgs(t, "recovered", &recovered)

	s := Setup{Level: raid.Level(level), Size: 1000, Resynced: raid.MaxSectors}
	if resynced >= 0 {
		s.Resynced = raid.Sectors(resynced)
	}

	for slot := range disks {
		m := Member{Device: DeviceID(slot), State: raid.InSync}

		switch slot {
		case missing:
			m = Member{Device: None, State: raid.Missing}
		case recovering:
			m.State, m.Recovered = raid.Recovering, raid.Sectors(recovered)
		}

		s.Members = append(s.Members, m)
	}

	for i := range spares {
		s.Spares = append(s.Spares, DeviceID(disks+i))
	}

	return NewArray(s)
}

func event(t *testing.T, d *datadriven.TestData) Event {
	var n int

	if len(d.CmdArgs) > 0 {
		d.ScanArgs(t, d.CmdArgs[0].Key, &n)
	}

	switch d.Cmd {
	case "start":
		return Started{}
	case "write":
		return WriteArrived{}
	case "idle":
		return WentIdle{}
	case "fail":
		return MemberFailed{Device: DeviceID(n)}
	case "add":
		return SpareAdded{Device: DeviceID(n)}
	case "remove":
		return DeviceRemoved{Device: DeviceID(n)}
	case "durable":
		return SuperblocksDurable{Seq: uint64(n)}
	case "reach":
		return SyncReached{Offset: raid.Sectors(n)}
	case "checkpoint":
		return CheckpointDue{}
	case "sync-failed":
		return SyncFailed{}
	case "check":
		return SyncRequested{Action: raid.Check, Range: raid.Range{To: raid.MaxSectors}}
	case "no-check":
		return SyncRequested{Action: raid.Idle}
	case "replace":
		return ReplaceRequested{Slot: raid.Slot(n), Spare: None}
	case "bad-blocks":
		return RecordNeeded{}
	case "read-only":
		return ReadOnlySet{On: true}
	case "read-write":
		return ReadOnlySet{}
	case "stop":
		return Stopping{}
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)

		return nil
	}
}

// summary prints the array on one line: its members by slot, then the spares.
func summary(a *Array) string {
	var b strings.Builder

	fmt.Fprintf(&b, "%s", a.State())

	for _, m := range a.Members() {
		fmt.Fprintf(&b, " %d:%s", m.Device, m.State)
	}

	if heir, m := a.Successor(); m.Device != None {
		fmt.Fprintf(&b, " successor=%d of %d", m.Device, heir)
	}

	if r := a.Retired(); len(r) > 0 {
		fmt.Fprintf(&b, " retired=%v", r)
	}

	fmt.Fprintf(&b, " spares=%v sync=%s records=%s ack=%v\n",
		a.Spares(), a.Syncing().Action, offset(a.Record().ResyncOffset), a.MayAcknowledge())

	return b.String()
}

func offset(s raid.Sectors) string {
	if s == raid.MaxSectors {
		return "in-sync"
	}

	return fmt.Sprint(int64(s))
}

// TestRecoveringAfterACrash starts with a mirror that was being filled when the
// array was not stopped cleanly. Writes that were in flight may have reached one
// mirror and not the other, below the recorded position too: it is trusted no
// further than redundancy is right.
func TestRecoveringAfterACrash(t *testing.T) {
	for _, tt := range []struct{ recovered, resynced, want raid.Sectors }{
		{recovered: 300, resynced: 0, want: 0},
		{recovered: 300, resynced: 200, want: 200},
		{recovered: 300, resynced: 400, want: 300},
		{recovered: 300, resynced: raid.MaxSectors, want: 300},
	} {
		a := NewArray(Setup{
			Level: raid.Level1, Size: 1000, Resynced: tt.resynced, Members: []Member{
				{Device: 0, State: raid.InSync}, {Device: 1, State: raid.Recovering, Recovered: tt.recovered},
			},
		})

		if got := a.Members()[1].Recovered; got != tt.want {
			t.Errorf("Recovered = %d before the start, want %d, as redundancy is right below %d",
				got, tt.want, tt.resynced)
		}

		a.Step(Started{})

		if got := a.Syncing(); got.Action != raid.Recover || got.From != tt.want {
			t.Errorf("Syncing() = %+v, want a recovery from %d", got, tt.want)
		}

		// Else a crash in the midst of the first record could leave the mark that
		// all is right beside the position that was not.
		if got := a.Record().ResyncOffset; got != tt.resynced {
			t.Errorf("ResyncOffset = %d, want %d until the member is filled", got, tt.resynced)
		}
	}
}

// TestBrokenBeforeTheRecord loses the last mirror before it was recorded on it
// that the other one failed: when both return they look alike, and the first
// would count, so that nothing that it missed may be acknowledged, ever.
func TestBrokenBeforeTheRecord(t *testing.T) {
	a := NewArray(Setup{
		Level: raid.Level1, Size: 1000, Resynced: raid.MaxSectors,
		Members: []Member{{Device: 0, State: raid.InSync}, {Device: 1, State: raid.InSync}},
	})

	for _, ev := range []Event{
		Started{},
		WriteArrived{},
		SuperblocksDurable{Seq: 1},
		MemberFailed{Device: 0},
		MemberFailed{Device: 1},
		SuperblocksDurable{Seq: 2},
	} {
		a.Step(ev)
	}

	if a.State() != raid.Broken || a.MayAcknowledge() {
		t.Errorf("state %s, MayAcknowledge() = %v, want broken and false", a.State(), a.MayAcknowledge())
	}
}

// TestRandomWalk steps through random events; check panics if an invariant is
// broken. Beside it a model holds what a crash at any moment must not lose.
func TestRandomWalk(t *testing.T) {
	notes := make(map[Note]bool)

	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 7))
		level := []raid.Level{raid.Level0, raid.Level1, raid.Level5, raid.Level6, raid.Level10}[rng.IntN(5)]
		disks := 2 + rng.IntN(3)
		s := Setup{Level: level, Size: 1000, Resynced: raid.MaxSectors}

		if level == raid.Level10 {
			s.Layout, s.SyncSize = 0x102, 1500
		}

		if level == raid.Level6 {
			disks += 2
		}

		if rng.IntN(2) == 0 {
			s.Resynced = 0
		}

		for slot := range disks {
			s.Members = append(s.Members, Member{Device: DeviceID(slot), State: raid.InSync})
		}

		w := walk{t: t, seed: seed, rng: rng, a: NewArray(s), next: DeviceID(disks), came: make(map[DeviceID]uint64)}
		w.step(Started{})

		for range 200 {
			w.random()
		}

		for _, e := range w.seen {
			notes[e] = true
		}
	}

	for n := range NoteReturned + 1 {
		if !notes[n] {
			t.Errorf("the walk never met %v", n)
		}
	}
}

// walk is an Array with superblocks that become durable late.
type walk struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	a       *Array
	next    DeviceID
	came    map[DeviceID]uint64 // the newest superblocks when a spare came
	writing bool
	pending []pending
	disk    Record // what is durable
	seen    []Note
}

type pending struct {
	seq uint64
	rec Record
}

func (w *walk) random() {
	switch w.rng.IntN(16) {
	case 0, 1:
		w.step(WriteArrived{})
	case 2:
		if !w.writing {
			w.step(WentIdle{})
		}
	case 3:
		w.step(MemberFailed{Device: DeviceID(w.rng.IntN(int(w.next)))})
	case 4:
		if len(w.a.Spares()) < 3 {
			w.came[w.next] = w.a.seq
			w.step(SpareAdded{Device: w.next})
			w.next++
		}
	case 5, 6:
		w.durable()
	case 7:
		if s := w.a.Syncing(); s.Action != raid.Idle {
			w.step(SyncReached{Offset: min(s.To, s.From+raid.Sectors(w.rng.IntN(1600)))})
		}
	case 8:
		if w.writing = w.a.MayWrite() && w.rng.IntN(2) == 0; w.writing {
			w.checkWrite()
		}
	case 9:
		w.step(SyncRequested{
			Action: []raid.SyncAction{raid.Check, raid.Repair, raid.Repair, raid.Idle}[w.rng.IntN(4)],
			Range:  raid.Range{To: raid.MaxSectors},
		})
	case 10:
		w.step(ReplaceRequested{Slot: raid.Slot(w.rng.IntN(len(w.a.Members()))), Spare: None})
	case 11:
		if w.rng.IntN(4) == 0 {
			w.step(SyncFailed{})
		}
	case 12:
		if !w.writing {
			w.step(ReadOnlySet{On: w.rng.IntN(3) == 0})
		}
	case 13:
		w.step(RecordNeeded{})
	case 14:
		w.step(DeviceRemoved{Device: DeviceID(w.rng.IntN(int(w.next)))})
	case 15:
		if slot := raid.Slot(w.rng.IntN(len(w.a.Members()))); w.a.Vacant(slot) {
			w.step(MemberReturned{Device: w.next, Slot: slot})
			w.next++
		}
	}
}

// durable lets the oldest superblocks that are under way reach the disks.
func (w *walk) durable() {
	if len(w.pending) == 0 {
		return
	}

	p := w.pending[0]
	w.pending = w.pending[1:]
	w.disk = p.rec
	w.step(SuperblocksDurable{Seq: p.seq})
}

func (w *walk) step(ev Event) {
	for _, e := range w.a.Step(ev) {
		if r, ok := e.(Report); ok {
			w.seen = append(w.seen, r.Note)
		}

		if e, ok := e.(WriteSuperblocks); ok {
			rec := w.a.Record()
			rec.Members = slices.Clone(rec.Members)
			w.pending = append(w.pending, pending{seq: e.Seq, rec: rec})
		}

		if _, ok := e.(StartSync); ok {
			w.checkFilled()
		}
	}
}

// checkFilled holds what is known of a device on disk against its being filled now: what
// it was before it came as a spare is over.
func (w *walk) checkFilled() {
	filled := None

	switch s := w.a.Syncing(); s.Action {
	case raid.Recover:
		filled = w.a.Members()[s.Slot].Device
	case raid.Replace:
		_, m := w.a.Successor()
		filled = m.Device
	}

	if w.a.durable < w.came[filled] {
		w.t.Fatalf("seed %d: device %d is filled, and what it was before may not be on disk", w.seed, filled)
	}
}

// checkWrite holds what is on disk against a write that is let through now.
func (w *walk) checkWrite() {
	if !w.a.level.HasRedundancy() {
		return
	}

	if w.disk.ResyncOffset != 0 {
		w.t.Fatalf("seed %d: a write is let through while the disks say in sync below %d",
			w.seed, w.disk.ResyncOffset)
	}

	if !w.a.MayAcknowledge() {
		return
	}

	for slot, m := range w.a.Members() {
		if m.State == raid.Faulty && w.disk.Members[slot].Device == m.Device &&
			w.disk.Members[slot].State != raid.Faulty {
			w.t.Fatalf("seed %d: writes may be acknowledged while the disks call slot %d %s",
				w.seed, slot, w.disk.Members[slot].State)
		}

		if old := w.disk.Members[slot]; slices.Contains(w.a.Retired(), old.Device) && old.State == raid.InSync {
			w.t.Fatalf("seed %d: writes may be acknowledged while the disks call device %d in sync, which has retired",
				w.seed, old.Device)
		}
	}

	if s := w.disk.Successor; s.Device != None && slices.Contains(w.a.Retired(), s.Device) {
		w.t.Fatalf("seed %d: writes may be acknowledged while the disks call device %d a successor, which has retired",
			w.seed, s.Device)
	}
}
