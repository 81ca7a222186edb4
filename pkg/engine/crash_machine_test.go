package engine_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const (
	crashDepth = 6
	crashPiece = 4096
	crashSlab  = 32 // sectors
)

// machine runs one array on drives in memory: it joins the state machine, the
// data path and the keeper of superblocks in the order in which the array's
// thread does it.
type machine struct {
	t   *testing.T
	rng *rand.Rand

	array  *engine.Array
	path   *stripe.Path
	keeper metadata.Keeper
	size   raid.Sectors // of what is synced
	drives map[engine.DeviceID]attached

	ops  []op // in flight, to end in any order
	slow bool // the operations of records are
	held []stripe.Request
	reqs [crashDepth]*stripe.Request // by tag, until answered
	ends []stripe.Result             // not answered yet
	busy int                         // requests in the data path
	// answered is called for each request.
	answered func(req *stripe.Request, ok bool)

	rec  recording
	sync engine.Sync
	on   bool
	at   raid.Sectors
	gen  int // of the sync
	slab int // gen of the slab under way

	over, stopping, stopped bool
	recorded                map[*drive]bool // that it failed
	failed                  map[*drive]bool // and the array was not broken by that
	sound                   map[*drive]bool // in sync, by the last record that is durable
	behind                  map[*drive]bool // when the array was started, and no record has been durable since
}

// attached is a drive of the array.
type attached struct {
	*drive

	offset raid.Sectors
}

// op is an operation on a drive.
type op struct {
	drive  *drive
	device engine.DeviceID
	record bool
	id     int // of the transfer
	op     stripe.Op
	at     raid.Sectors // of the drive
	data   []byte
	fua    bool
	mark   int // flush: what it makes durable
}

// recording is a record under way.
type recording struct {
	active, wanted, flushes bool
	seq, asked              uint64
	left                    int
	state                   metadata.State
	stages                  [][]metadata.Write
	failed                  []engine.DeviceID
	parting                 []engine.DeviceID // to be forgotten when the record has ended
}

func newMachine(
	t *testing.T, rng *rand.Rand, setup engine.Setup, geo raid.Geometry, keeper metadata.Keeper,
	drives map[engine.DeviceID]attached,
) *machine {
	t.Helper()

	m := &machine{
		t: t, rng: rng, array: engine.NewArray(setup), keeper: keeper, size: setup.Size, drives: drives,
		slow: rng.IntN(2) == 0, sound: make(map[*drive]bool),
		recorded: make(map[*drive]bool), failed: make(map[*drive]bool), behind: make(map[*drive]bool),
	}

	for _, member := range setup.Members {
		if member.State == raid.InSync {
			m.sound[drives[member.Device].drive] = true
		}
	}

	g, err := geometry.New(geo)
	if err != nil {
		t.Fatal(err)
	}

	scratch := make([][]byte, geo.Disks+3)
	for i := range scratch {
		scratch[i] = make([]byte, crashPiece)
	}

	m.path, err = stripe.New(stripe.Config{
		Geometry: g, Level: geo.Level, Disks: geo.Disks, Chunk: geo.Chunk, Depth: crashDepth, Scratch: scratch,
	})
	if err != nil {
		t.Fatal(err)
	}

	for slot := range setup.Members {
		m.setMember(raid.Slot(slot))
	}

	m.step(engine.Started{})
	m.pump()

	return m
}

func (m *machine) step(ev engine.Event) {
	effects := m.array.Step(ev)

	if f, ok := ev.(engine.MemberFailed); ok && m.array.State() != raid.Broken {
		m.failed[m.drives[f.Device].drive] = true
	}

	for _, effect := range effects {
		switch e := effect.(type) {
		case engine.WriteSuperblocks:
			m.record(e.Seq)
		case engine.ReleaseWrites:
			m.release()
		case engine.FailWrites:
			for _, r := range m.held {
				m.ends = append(m.ends, stripe.Result{Tag: r.Tag, Op: r.Op})
			}

			m.held = m.held[:0]
		case engine.SetMember:
			m.setMember(e.Slot)
		case engine.StartSync:
			m.sync = m.array.Syncing()
			m.on, m.at, m.gen = true, m.sync.From, m.gen+1
		case engine.StopSync:
			m.on = false
		case engine.Report:
			m.path.SetResynced(m.array.Resynced())
		case engine.Stopped:
			m.stopped = true
		case engine.Acknowledge:
		}
	}
}

func (m *machine) setMember(slot raid.Slot) {
	member := m.array.Members()[slot]
	m.path.SetMember(slot, stripe.Member{
		Device: int(member.Device), State: member.State, Recovered: member.Recovered,
	})
	m.path.SetResynced(m.array.Resynced())
}

// submit begins a request of a client.
func (m *machine) submit(r stripe.Request) {
	m.reqs[r.Tag] = &r

	if r.Op == stripe.Write && !m.array.MayWrite() {
		m.held = append(m.held, r)
		m.step(engine.WriteArrived{})
	} else {
		m.busy++
		m.path.Submit(r)
	}

	m.pump()
}

func (m *machine) release() {
	for _, r := range m.held {
		m.busy++
		m.path.Submit(r)
	}

	m.held = m.held[:0]
}

// idle reports whether no request is in flight.
func (m *machine) idle() bool { return m.busy == 0 && len(m.held) == 0 }

// pump moves what has completed on.
func (m *machine) pump() {
	for {
		for _, f := range m.path.Failures() {
			m.step(engine.MemberFailed{Device: engine.DeviceID(f.Device)})
		}

		for _, res := range m.path.Results() {
			m.busy--
			m.ends = append(m.ends, res)
		}

		m.syncClock()

		if m.over && !m.stopping {
			if m.on = false; m.idle() && !m.path.Syncing() {
				m.stopping = true
				m.step(engine.Stopping{})
			}
		}

		transfers := m.path.Transfers()
		for _, tr := range transfers {
			m.transfer(tr)
		}

		if len(transfers) == 0 && !m.path.Pending() {
			break
		}
	}

	kept := m.ends[:0]

	for _, res := range m.ends {
		if res.Op != stripe.Read && !m.array.MayAcknowledge() {
			if m.array.State() != raid.Broken {
				kept = append(kept, res)

				continue
			}

			res.OK = false
		}

		req := m.reqs[res.Tag]
		m.reqs[res.Tag] = nil
		m.answered(req, res.OK)
	}

	m.ends = kept
}

func (m *machine) transfer(tr stripe.Transfer) {
	d := m.drives[engine.DeviceID(tr.Device)] // none if it was removed
	o := op{
		drive: d.drive, device: engine.DeviceID(tr.Device), id: tr.ID,
		op: tr.Op, at: d.offset + tr.Sector, data: tr.Data, fua: tr.FUA,
	}

	if d.drive != nil {
		o.mark = d.seq
	}

	m.ops = append(m.ops, o)
}

// syncClock begins the next slab, at some time.
func (m *machine) syncClock() {
	if slab, ended := m.path.TakeSlab(); ended && m.slab == m.gen && m.on {
		if slab.OK {
			m.at = slab.To
			m.step(engine.SyncReached{Offset: m.at})
		} else {
			m.step(engine.SyncFailed{})
		}
	}

	if m.on && !m.stopping && !m.path.Syncing() && m.rng.IntN(3) == 0 {
		m.slab = m.gen
		m.path.SyncSlab(m.sync.Action, m.sync.Slot, m.at, min(m.size, m.at+crashSlab))
	}
}

// record begins a record, or remembers that another one is wanted.
func (m *machine) record(seq uint64) {
	r := &m.rec
	r.asked = seq

	if r.active {
		r.wanted = true

		return
	}

	r.active, r.wanted, r.seq = true, false, seq
	m.describe(m.array.Record())

	for _, id := range slices.Sorted(maps.Keys(r.state.Members)) {
		if s := r.state.Members[id].State; s == raid.InSync || s == raid.Recovering {
			d := m.drives[engine.DeviceID(id)]
			m.recordOp(op{drive: d.drive, device: engine.DeviceID(id), op: stripe.Flush, mark: d.seq})
		}
	}

	if r.flushes = r.left > 0; !r.flushes {
		m.flushed()
	}
}

func (m *machine) describe(rec engine.Record) {
	st := metadata.State{
		ResyncOffset: rec.ResyncOffset, Now: time.Unix(1e9, 0),
		Members: make(map[metadata.MemberID]metadata.MemberRecord),
	}

	for slot, member := range rec.Members {
		if member.Device != engine.None {
			st.Members[metadata.MemberID(member.Device)] = metadata.MemberRecord{
				State: member.State, Slot: raid.Slot(slot), Recovered: member.Recovered,
			}
		}
	}

	for _, d := range rec.Spares {
		st.Members[metadata.MemberID(d)] = metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
	}

	m.rec.state = st
}

func (m *machine) recordOp(o op) {
	o.record = true
	m.rec.left++
	m.ops = append(m.ops, o)
}

func (m *machine) flushed() {
	if len(m.rec.failed) > 0 || m.array.State() == raid.Broken {
		m.recordDone(false)

		return
	}

	m.rec.stages = m.keeper.Record(m.rec.state)
	m.nextWrites()
}

func (m *machine) nextWrites() {
	r := &m.rec
	if len(r.stages) == 0 {
		m.recordDone(true)

		return
	}

	for _, w := range r.stages[0] {
		id := engine.DeviceID(w.Member)
		m.recordOp(op{
			drive: m.drives[id].drive, device: id, op: stripe.Write, at: w.Sector, data: slices.Clone(w.Data), fua: true,
		})
	}

	r.stages = r.stages[1:]
}

// recordEnded takes the end of a flush or a write of the record.
func (m *machine) recordEnded(o op, ok bool) {
	r := &m.rec
	if !ok {
		r.failed = append(r.failed, o.device)
	}

	if r.left--; r.left > 0 {
		return
	}

	if r.flushes {
		r.flushes = false
		m.flushed()
	} else {
		m.nextWrites()
	}
}

func (m *machine) recordDone(written bool) {
	r := &m.rec
	r.active = false
	seq, state, failed := r.seq, r.state, r.failed
	r.failed = nil

	for _, d := range r.parting {
		m.keeper.Forget(metadata.MemberID(d))
	}

	r.parting = nil

	for _, d := range failed {
		m.step(engine.MemberFailed{Device: d})
	}

	if written && len(failed) == 0 && m.array.State() != raid.Broken {
		clear(m.sound)
		clear(m.behind)

		for id, member := range state.Members {
			if d := m.drives[engine.DeviceID(id)].drive; d != nil {
				m.recorded[d] = m.recorded[d] || member.State == raid.Faulty
				if member.State == raid.InSync {
					m.sound[d] = true
				}
			}
		}
	}

	if written {
		m.step(engine.SuperblocksDurable{Seq: seq})
	}

	if r.wanted && !r.active && m.array.State() != raid.Broken {
		m.record(r.asked)
	}
}

// complete ends operations in flight, some at a time and in any order.
func (m *machine) complete() {
	for n := 1 + m.rng.IntN(3); n > 0 && len(m.ops) > 0; n-- {
		i := m.rng.IntN(len(m.ops))

		o := m.ops[i]
		if o.record && m.slow && m.rng.IntN(5) > 0 {
			continue
		}

		m.ops[i] = m.ops[len(m.ops)-1]
		m.ops = m.ops[:len(m.ops)-1]
		ok := m.carryOut(o)

		switch {
		case o.record:
			m.recordEnded(o, ok)
		case ok:
			m.path.Complete(o.id, stripe.None)
		default:
			m.path.Complete(o.id, stripe.Gone)
		}
	}

	m.pump()
}

// carryOut does what o asks for, which a drive that died on the way may have
// done as well.
func (m *machine) carryOut(o op) bool {
	d := o.drive
	if d == nil || d.dead && m.rng.IntN(2) == 0 {
		return false
	}

	switch o.op {
	case stripe.Read:
		for i := range len(o.data) / raid.SectorSize {
			copy(o.data[i*raid.SectorSize:], d.read(o.at + raid.Sectors(i))[:])
		}
	case stripe.Write:
		d.write(o.at, o.data, o.fua)
	case stripe.Flush:
		d.flush(o.mark)
	}

	return !d.dead
}

// add gives the array a drive as a spare.
func (m *machine) add(d *drive, uuid raid.UUID) {
	id, offset, _, err := m.keeper.Add(d.source(), uuid)
	if err != nil {
		m.t.Fatal(err)
	}

	delete(m.recorded, d)
	delete(m.failed, d)
	delete(m.sound, d)
	m.drives[engine.DeviceID(id)] = attached{drive: d, offset: offset}
	m.step(engine.SpareAdded{Device: engine.DeviceID(id)})
	m.pump()
}

// remove lets go of a device that is faulty or a spare.
func (m *machine) remove(id engine.DeviceID) {
	m.step(engine.DeviceRemoved{Device: id})

	for _, member := range m.array.Members() {
		if member.Device == id {
			return
		}
	}

	if m.rec.active {
		m.rec.parting = append(m.rec.parting, id)
	} else {
		m.keeper.Forget(metadata.MemberID(id))
	}

	delete(m.drives, id)
	m.pump()
}

// cut takes the power: what is in flight may be there or not, in part.
func (m *machine) cut(all []*drive) {
	for _, o := range m.ops {
		if o.op == stripe.Write && o.drive != nil {
			o.drive.write(o.at, o.data, false)
		}
	}

	keep := []int{0, 10, 50, 90, 100}[m.rng.IntN(5)]
	for _, d := range all {
		d.cut(m.rng, keep)
	}
}

func (m *machine) String() string {
	text := fmt.Sprintf("%s sync=%s", m.array.State(), m.array.Syncing().Action)

	for slot, member := range m.array.Members() {
		text += fmt.Sprintf(" %d:%s", slot, member.State)

		if d := m.drives[member.Device].drive; d != nil {
			text += fmt.Sprintf("(drive %d, dead %v)", d.name, d.dead)
		}
	}

	return text
}
