package core

import (
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keeper writes one block to every member that is not faulty.
type keeper struct {
	early     int // stages before the last one
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

	stages := [][]metadata.Write{stage}
	for range k.early {
		stages = append([][]metadata.Write{slices.Clone(stage)}, stages...)
	}

	return stages
}

func (k *keeper) Add(metadata.Source, raid.UUID) (id metadata.MemberID, offset, size raid.Sectors, err error) {
	return 0, 0, 0, os.ErrInvalid
}

func (k *keeper) Attach(metadata.Attachment) (metadata.MemberID, error) { return 0, os.ErrInvalid }

func (k *keeper) Grow(raid.Sectors) (raid.Sectors, error) { return 0, os.ErrInvalid }

func (k *keeper) BadBlockRoom(metadata.MemberID) int { return 0 }

func (k *keeper) Log(metadata.MemberID) *metadata.PPL { return nil }

func (k *keeper) Bitmap() metadata.Bitmap { return nil }

func (k *keeper) Forget(id metadata.MemberID) { k.forgotten = append(k.forgotten, id) }

func (k *keeper) Events() uint64 { return uint64(len(k.records)) }

// dataOffset is where the data of each member begins.
const dataOffset raid.Sectors = 16

// newMirror returns a mirror whose operations end when the test says so.
func newMirror(t *testing.T, disks int) (*Core, *keeper) {
	t.Helper()

	const size = 1024

	geo, err := geometry.New(raid.Geometry{Level: raid.Level1, Disks: disks, Size: size})
	if err != nil {
		t.Fatal(err)
	}

	k := &keeper{}
	cfg := Config{
		Geometry: geo, Keeper: k, Depth: 8,
		Setup:   engine.Setup{Level: raid.Level1, Size: size, Resynced: raid.MaxSectors},
		Scratch: memory(disks+2, 4096), Records: memory(disks+1, 4096),
	}

	for slot := range disks {
		cfg.Setup.Members = append(cfg.Setup.Members, engine.Member{Device: engine.DeviceID(slot), State: raid.InSync})
		cfg.Devices = append(cfg.Devices, Device{ID: engine.DeviceID(slot), Offset: dataOffset})
	}

	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	c.Start(time.Unix(1e9, 0))

	return c, k
}

// operations returns what is to be done now.
func (c *Core) operations() (list []Operation) {
	for o := range c.Operations {
		list = append(list, *o)
	}

	return list
}

// turn ends all operations that there are, and fails what bad says.
func (c *Core) turn(bad func(Operation) bool) {
	c.Advance()

	for _, o := range c.operations() {
		fault := stripe.None
		if bad != nil && bad(o) {
			fault = stripe.Gone
		}

		c.Complete(o.ID, fault)
	}
}

// TestRecordWithoutAMember writes superblocks of which one cannot be written.
// Only the next record says so, and before that is durable nothing may be
// acknowledged: a crash would bring the member back as if it were fresh.
func TestRecordWithoutAMember(t *testing.T) {
	c, k := newMirror(t, 3)
	bad := func(o Operation) bool { return o.Device == 2 && o.Op == stripe.Write }

	for c.step(engine.WriteArrived{}); c.array.Degraded() == 0; {
		c.turn(bad)
	}

	for c.recorder.active {
		if c.array.MayAcknowledge() || c.array.MayWrite() {
			t.Fatalf("writes go on (acknowledge %v, write %v) after %d records, the second of which is not durable",
				c.array.MayAcknowledge(), c.array.MayWrite(), len(k.records))
		}

		if n := c.Status().Recorded; n != 0 {
			t.Fatalf("record %d is told to be on all members while one is under way", n)
		}

		c.turn(bad)
	}

	if len(k.records) != 2 || k.records[1].Members[2].State != raid.Faulty {
		t.Errorf("records = %+v, want two, the second with member 2 faulty", k.records)
	}

	if n := c.Status().Recorded; n != 2 {
		t.Errorf("record %d is told to be on all members, want the second", n)
	}

	if !c.array.MayAcknowledge() || !c.array.MayWrite() {
		t.Errorf("MayAcknowledge() = %v, MayWrite() = %v, want both when the failure is recorded",
			c.array.MayAcknowledge(), c.array.MayWrite())
	}
}

// TestRecordAfterAFailedStage fails a write to a member in the first stage of a
// record: in the later ones nothing is written to it, which could only count on
// what is not there.
func TestRecordAfterAFailedStage(t *testing.T) {
	c, k := newMirror(t, 3)
	k.early = 2
	written := map[engine.DeviceID]int{}

	for c.step(engine.WriteArrived{}); len(k.records) < 2; {
		c.turn(func(o Operation) bool {
			if o.Op == stripe.Write && len(k.records) == 1 {
				written[o.Device]++
			}

			return o.Op == stripe.Write && o.Device == 2
		})
	}

	if written[0] != 3 || written[1] != 3 || written[2] != 1 {
		t.Errorf("writes by device: %v, want 3 of each and 1 of the one that failed", written)
	}
}

// TestNoRecordOfABrokenArray breaks an array while a record is under way and
// another one is wanted. Either would be written to whoever is left, such as a
// spare that is being filled, and could call the members faulty, or gone if they
// were removed, whose return is all that the array needs.
func TestNoRecordOfABrokenArray(t *testing.T) {
	c, k := newMirror(t, 2)

	c.step(engine.WriteArrived{})
	c.step(engine.MemberFailed{Device: 1})
	c.step(engine.MemberFailed{Device: 0})

	for c.recorder.active {
		c.turn(nil)
	}

	if len(k.records) > 0 {
		t.Errorf("written: %+v, want nothing", k.records)
	}
}

// TestRemoveDuringARecord removes a device that the record under way names. The
// keeper must not forget it before that is written: it would say that the slot
// is free, and nothing of what has happened since.
func TestRemoveDuringARecord(t *testing.T) {
	c, k := newMirror(t, 3)

	c.step(engine.WriteArrived{})
	c.step(engine.MemberFailed{Device: 1})

	if err := c.Remove(1); err != nil {
		t.Fatal(err)
	}

	for c.recorder.active {
		if named := len(k.records) == 0; named && len(k.forgotten) > 0 {
			t.Fatalf("device %v is forgotten before the record that names it", k.forgotten)
		}

		c.turn(nil)
	}

	if len(k.records) != 2 || len(k.records[1].Members) != 2 || len(k.forgotten) != 1 {
		t.Errorf("records %+v, forgotten %v, want the second without device 1", k.records, k.forgotten)
	}

	c.forget(2)

	if len(k.forgotten) != 2 {
		t.Errorf("forgotten %v, want device 2 too, at once", k.forgotten)
	}
}

// TestVerdict answers requests that have ended while a failure is recorded, and
// when the array is broken before it was: a write that ended well on the member
// that is gone is not there when both come back.
func TestVerdict(t *testing.T) {
	type want struct{ ok, due bool }

	const done = 1 // the second of each pair is of a request that ended well

	for _, tt := range []struct {
		name   string
		events []engine.Event
		op     stripe.Op
		want   [2]want
	}{
		{"all is well", nil, stripe.Write, [2]want{{false, true}, {true, true}}},
		{"unrecorded", fail(0), stripe.Write, [2]want{{false, false}, {false, false}}},
		{"unrecorded", fail(0), stripe.Flush, [2]want{{false, false}, {false, false}}},
		{"unrecorded", fail(0), stripe.Read, [2]want{{false, true}, {true, true}}},
		{"recorded", record(fail(0), 2), stripe.Write, [2]want{{false, true}, {true, true}}},
		{"broken, unrecorded", fail(0, 1), stripe.Write, [2]want{{false, true}, {false, true}}},
		{"broken, recorded late", record(fail(0, 1), 2), stripe.Write, [2]want{{false, true}, {false, true}}},
		{"broken, recorded", append(record(fail(0), 2), fail(1)...), stripe.Write, [2]want{{false, true}, {false, true}}},
		{"broken", fail(0, 1), stripe.Read, [2]want{{false, true}, {true, true}}},
	} {
		c, _ := newMirror(t, 2)
		c.kinds[7] = tt.op

		for _, ev := range append([]engine.Event{
			engine.WriteArrived{}, engine.SuperblocksDurable{Seq: 1},
		}, tt.events...) {
			c.array.Step(ev)
		}

		for ended, want := range tt.want {
			ok, due := c.verdict(Answer{Tag: 7, OK: ended == done})
			if due != want.due || due && ok != want.ok {
				t.Errorf("%s: verdict(%v, ok %v) = %v, %v, want %v, %v",
					tt.name, tt.op, ended == done, ok, due, want.ok, want.due)
			}
		}
	}
}

func fail(devices ...engine.DeviceID) []engine.Event {
	var events []engine.Event
	for _, d := range devices {
		events = append(events, engine.MemberFailed{Device: d})
	}

	return events
}

func record(events []engine.Event, seq uint64) []engine.Event {
	return append(events, engine.SuperblocksDurable{Seq: seq})
}

// TestOperationOnARemovedDevice removes a member that failed while the data
// path still has a write for it, not asked for yet. It must name the device that
// is gone, so that it fails, and the other member must have it.
func TestOperationOnARemovedDevice(t *testing.T) {
	c, _ := newMirror(t, 2)
	c.Submit(stripe.Request{Tag: 3, Op: stripe.Write, Data: make([]byte, 4096)})

	for !c.array.MayWrite() {
		c.turn(nil)
	}

	c.step(engine.MemberFailed{Device: 1})

	if err := c.Remove(1); err != nil {
		t.Fatal(err)
	}

	wrote := make(map[engine.DeviceID]int)

	var answers []Answer

	for len(answers) == 0 {
		c.turn(func(o Operation) bool {
			if o.Op == stripe.Write && !o.Record {
				wrote[o.Device]++
			}

			return o.Device == 1
		})
		answers = append(answers, c.Answers()...)
	}

	if wrote[0] != 1 || wrote[1] != 1 {
		t.Errorf("writes by device: %v, want one each", wrote)
	}

	if !answers[0].OK {
		t.Error("the write is given up, although the other member has it")
	}
}

// TestNoAllocations serves requests of a mirror that is dirty.
func TestNoAllocations(t *testing.T) {
	c, _ := newMirror(t, 2)
	data := make([]byte, 4096)

	serve := func() {
		for tag, op := range []stripe.Op{stripe.Write, stripe.Read, stripe.Flush} {
			r := stripe.Request{Tag: tag, Op: op}
			if op != stripe.Flush {
				r.Data = data
			}

			c.Submit(r)
		}

		for ended := 0; ended < 3; {
			c.Advance()

			for o := range c.Operations {
				c.Complete(o.ID, stripe.None)
			}

			ended += len(c.Answers())
		}
	}

	serve()

	if n := testing.AllocsPerRun(100, serve); n != 0 {
		t.Errorf("%v allocations for three requests, want none", n)
	}
}

// TestTables bounds what an array takes before it has done anything, with as many
// requests and buffers as the engine gives it: all of that stays locked in memory.
func TestTables(t *testing.T) {
	for _, tt := range []struct {
		level raid.Level
		disks int
		most  uint64 // in KiB
	}{
		{raid.Level1, 2, 128},
		{raid.Level5, 4, 264},
		{raid.Level6, 16, 616},
	} {
		g := raid.Geometry{Level: tt.level, Disks: tt.disks, Size: 1024}
		if tt.level.HasParity() {
			g.Chunk = 128
		}

		geo, err := geometry.New(g)
		if err != nil {
			t.Fatal(err)
		}

		cfg := Config{
			Geometry: geo, Keeper: &keeper{}, Depth: 64, Chunk: g.Chunk,
			Setup:   engine.Setup{Level: tt.level, Size: 1024, Resynced: raid.MaxSectors},
			Scratch: memory(48, 4096), Records: memory(4*(tt.disks+1), 512),
		}

		for slot := range tt.disks {
			id := engine.DeviceID(slot)
			cfg.Setup.Members = append(cfg.Setup.Members, engine.Member{Device: id, State: raid.InSync})
			cfg.Devices = append(cfg.Devices, Device{ID: id})
		}

		var before, after runtime.MemStats

		runtime.ReadMemStats(&before)

		if _, err := New(cfg); err != nil {
			t.Fatal(err)
		}

		runtime.ReadMemStats(&after)

		if took := (after.TotalAlloc - before.TotalAlloc) >> 10; took > tt.most {
			t.Errorf("a %v of %d takes %d KiB, want %d at most", tt.level, tt.disks, took, tt.most)
		} else {
			t.Logf("a %v of %d takes %d KiB", tt.level, tt.disks, took)
		}
	}
}

// TestSpent: after a sync its memory may go, but not while a client's request goes on,
// nor right after it, and once only.
func TestSpent(t *testing.T) {
	c, _ := newMirror(t, 2)

	check := func(want bool, when string) {
		t.Helper()

		if got := c.Spent(); got != want {
			t.Errorf("Spent() = %v %s", got, when)
		}
	}

	check(false, "before any sync")

	if err := c.Sync(raid.Check, raid.Range{To: raid.MaxSectors}); err != nil {
		t.Fatal(err)
	}

	check(false, "when a sync was asked for")
	c.Advance()
	check(false, "during a sync")

	for c.array.Syncing().Action != raid.Idle || c.InFlight() > 0 {
		c.SetTime(c.now.Add(time.Second))
		c.turn(nil)
	}

	c.Submit(stripe.Request{Op: stripe.Read, Data: make([]byte, 4096)})
	c.SetTime(c.now.Add(time.Second))
	check(false, "during a request")

	for len(c.Answers()) == 0 {
		c.turn(nil)
	}

	check(false, "right after a request")
	c.SetTime(c.now.Add(time.Second))
	check(true, "at rest")
	check(false, "for the second time")
}

// TestResting: an array rests when nothing was asked for a while, and nothing goes on.
func TestResting(t *testing.T) {
	c, _ := newMirror(t, 2)

	check := func(want bool, when string) {
		t.Helper()

		if got := c.Resting(); got != want {
			t.Errorf("Resting() = %v %s", got, when)
		}
	}

	rest := func() {
		c.SetTime(c.now.Add(restMin))
		c.turn(nil)
	}

	check(true, "before any request")

	for _, op := range []stripe.Op{stripe.Read, stripe.Write} {
		c.Submit(stripe.Request{Op: op, Data: make([]byte, 4096)})
		c.SetTime(c.now.Add(restMin))
		check(false, "before a request has begun")

		for len(c.Answers()) == 0 {
			c.turn(nil)
		}

		check(false, "right after a request")
		rest()

		if op == stripe.Write {
			check(false, "while clean is being recorded")

			for c.recorder.active {
				c.turn(nil)
			}
		}

		check(true, "after a while")
	}

	if err := c.Sync(raid.Check, raid.Range{To: raid.MaxSectors}); err != nil {
		t.Fatal(err)
	}

	rest()
	check(false, "during a sync")
}

// TestNoticeOfAStart checks that a sync is told to start where it does, and not
// where the one before ended.
func TestNoticeOfAStart(t *testing.T) {
	c, _ := newMirror(t, 2)

	var starts []raid.Sectors

	c.cfg.Notify = func(n Notice) {
		if n.Note == engine.NoteCheckStart {
			starts = append(starts, n.Offset)
		}
	}

	for range 2 {
		if err := c.Sync(raid.Check, raid.Range{To: raid.MaxSectors}); err != nil {
			t.Fatal(err)
		}

		for c.array.Syncing().Action != raid.Idle {
			c.SetTime(c.now.Add(time.Second))
			c.turn(nil)
		}
	}

	if !slices.Equal(starts, []raid.Sectors{0, 0}) {
		t.Errorf("the checks start at %v, want both at 0", starts)
	}
}
