package loop

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keeper writes one block to every member that is not faulty.
type keeper struct {
	block     [raid.SectorSize]byte
	records   []metadata.State
	forgotten []metadata.MemberID
}

func (k *keeper) Record(st metadata.State) [][]metadata.Write {
	members := make(map[metadata.MemberID]metadata.MemberRecord)

	var stage []metadata.Write

	for id, m := range st.Members {
		members[id] = m

		if m.State != raid.Faulty {
			stage = append(stage, metadata.Write{Member: id, Data: k.block[:]})
		}
	}

	st.Members = members
	k.records = append(k.records, st)

	return [][]metadata.Write{stage}
}

func (k *keeper) Add(metadata.Source, raid.UUID) (id metadata.MemberID, offset, size raid.Sectors, err error) {
	return 0, 0, 0, os.ErrInvalid
}

func (k *keeper) Forget(id metadata.MemberID) { k.forgotten = append(k.forgotten, id) }

func (k *keeper) Events() uint64 { return uint64(len(k.records)) }

// newLoop returns a mirror of files that has a ring, and no queue of requests.
// The files of the members in readOnly can be flushed but not written.
func newLoop(t *testing.T, disks int, readOnly map[int]bool) (*Loop, *keeper) {
	t.Helper()
	runtime.LockOSThread() // the ring is of this thread; the test's goroutine ends with it

	const size = 1024

	k := &keeper{}
	setup := engine.Setup{Level: raid.Level1, Size: size, Resynced: raid.MaxSectors}

	for slot := range disks {
		setup.Members = append(setup.Members, engine.Member{Device: engine.DeviceID(slot), State: raid.InSync})
	}

	geo, err := geometry.New(raid.Geometry{Level: raid.Level1, Disks: disks, Size: size})
	if err != nil {
		t.Fatal(err)
	}

	l := &Loop{
		cfg:   Config{Geometry: geo, Setup: setup, Keeper: k},
		array: engine.NewArray(setup), disks: make(map[engine.DeviceID]Device), cause: make(map[engine.DeviceID]string),
	}

	scratch := make([][]byte, disks+2)
	for i := range scratch {
		scratch[i] = make([]byte, pieceSize)
	}

	l.path, err = stripe.New(stripe.Config{Geometry: geo, Level: raid.Level1, Disks: disks, Depth: Depth, Scratch: scratch})
	if err != nil {
		t.Fatal(err)
	}

	for i := range l.recorder.bufs {
		l.recorder.bufs[i] = make([]byte, recordSize)
	}

	if l.ring, err = uring.New(uring.Config{Entries: 64}); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = l.ring.Close() })

	if err := l.ring.RegisterFiles(2 + SlotMax); err != nil {
		t.Fatal(err)
	}

	for slot := range disks {
		l.setMember(raid.Slot(slot))
		l.openFile(t, engine.DeviceID(slot), readOnly[slot])
	}

	return l, k
}

// dataOffset is where the data of each member begins.
const dataOffset raid.Sectors = 16

// openFile gives the loop a file in place of a device.
func (l *Loop) openFile(t *testing.T, id engine.DeviceID, readOnly bool) *os.File {
	t.Helper()

	path := filepath.Join(t.TempDir(), "member")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}

	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}

	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = f.Close() })

	if err := l.ring.UpdateFile(fileSlot(id), int(f.Fd())); err != nil {
		t.Fatal(err)
	}

	l.disks[id] = Device{ID: id, Offset: dataOffset}

	return f
}

// wait handles the completions that there will be next.
func (l *Loop) wait(t *testing.T) {
	t.Helper()

	if err := l.ring.SubmitAndWait(1); err != nil {
		t.Fatal(err)
	}

	var batch [1]uring.CQE
	for l.ring.Reap(batch[:]) > 0 {
		if err := l.complete(batch[0]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecordWithoutAMember writes superblocks of which one cannot be written.
// Only the next record says so, and before that is durable nothing may be
// acknowledged: a crash would bring the member back as if it were fresh.
func TestRecordWithoutAMember(t *testing.T) {
	l, k := newLoop(t, 3, map[int]bool{2: true})

	l.step(engine.Started{})
	l.step(engine.WriteArrived{})

	for l.array.Degraded() == 0 {
		l.wait(t)
	}

	for l.recorder.active {
		if l.array.MayAcknowledge() || l.array.MayWrite() {
			t.Fatalf("writes go on (acknowledge %v, write %v) after %d records, the second of which is not durable",
				l.array.MayAcknowledge(), l.array.MayWrite(), len(k.records))
		}

		l.wait(t)
	}

	if len(k.records) != 2 || k.records[1].Members[2].State != raid.Faulty {
		t.Errorf("records = %+v, want two, the second with member 2 faulty", k.records)
	}

	if !l.array.MayAcknowledge() || !l.array.MayWrite() {
		t.Errorf("MayAcknowledge() = %v, MayWrite() = %v, want both when the failure is recorded",
			l.array.MayAcknowledge(), l.array.MayWrite())
	}
}

// TestNoRecordOfABrokenArray breaks an array while a record is under way and
// another one is wanted. Either would be written to whoever is left, such as a
// spare that is being filled, and could call the members faulty, or gone if they
// were removed, whose return is all that the array needs.
func TestNoRecordOfABrokenArray(t *testing.T) {
	l, k := newLoop(t, 2, nil)

	for _, ev := range []engine.Event{
		engine.Started{}, engine.WriteArrived{}, engine.MemberFailed{Device: 1}, engine.MemberFailed{Device: 0},
	} {
		l.step(ev)
	}

	for l.recorder.active {
		l.wait(t)
	}

	if len(k.records) > 0 {
		t.Errorf("written: %+v, want nothing", k.records)
	}
}

// TestRemoveDuringARecord removes a device that the record under way names. The
// keeper must not forget it before that is written: it would say that the slot
// is free, and nothing of what has happened since.
func TestRemoveDuringARecord(t *testing.T) {
	l, k := newLoop(t, 3, nil)

	l.step(engine.Started{})
	l.step(engine.WriteArrived{})
	l.step(engine.MemberFailed{Device: 1})
	l.step(engine.DeviceRemoved{Device: 1})
	l.forget(1)

	for l.recorder.active {
		if named := len(k.records) == 0; named && len(k.forgotten) > 0 {
			t.Fatalf("device %v is forgotten before the record that names it", k.forgotten)
		}

		l.wait(t)
	}

	if len(k.records) != 2 || len(k.records[1].Members) != 2 || len(k.forgotten) != 1 {
		t.Errorf("records %+v, forgotten %v, want the second without device 1", k.records, k.forgotten)
	}

	l.forget(2)

	if len(k.forgotten) != 2 {
		t.Errorf("forgotten %v, want device 2 too, at once", k.forgotten)
	}
}
