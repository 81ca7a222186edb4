package loop

import (
	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// recorder writes superblocks: first the members are flushed, so that what the
// superblocks claim is on disk before they are; then each stage of the record
// is written through their caches; then the array is told. One record is under
// way at a time, and what is asked for meanwhile goes into the next.
type recorder struct {
	active  bool
	wanted  bool
	seq     uint64 // of the record under way
	asked   uint64 // of the newest that was asked for
	asks    int    // operations under way
	ended   int    // of them
	flushes bool
	stages  [][]metadata.Write // those that are left
	state   metadata.State
	failed  []engine.DeviceID
	parting []engine.DeviceID // to be forgotten when the record has ended
	ops     [recordOps]recordOp
	bufs    [recordOps][]byte
}

// recordOp is a flush or a write of the record.
type recordOp struct {
	device engine.DeviceID
	want   int32 // the result that is success
}

// record begins a record, or remembers that another one is wanted.
func (l *Loop) record(seq uint64) {
	r := &l.recorder
	r.asked = seq

	if r.active {
		r.wanted = true

		return
	}

	// What is recorded is taken before the flush: a position that is reached
	// during it may not be on disk after it.
	r.active, r.wanted, r.seq = true, false, seq
	l.describe(l.array.Record())
	l.flushMembers()

	if r.flushes = r.asks > 0; !r.flushes {
		l.flushed()
	}
}

// describe translates a record for the keeper.
func (l *Loop) describe(rec engine.Record) {
	st := &l.recorder.state
	if st.Members == nil {
		st.Members = make(map[metadata.MemberID]metadata.MemberRecord)
	}

	clear(st.Members)
	st.ResyncOffset, st.Now = rec.ResyncOffset, l.now

	for slot, m := range rec.Members {
		if m.Device != engine.None {
			st.Members[metadata.MemberID(m.Device)] = metadata.MemberRecord{
				State: m.State, Slot: raid.Slot(slot), Recovered: m.Recovered,
			}
		}
	}

	for _, d := range rec.Spares {
		st.Members[metadata.MemberID(d)] = metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
	}
}

// flushMembers makes durable what the members in use have completed.
func (l *Loop) flushMembers() {
	for id, m := range l.recorder.state.Members {
		if m.State == raid.InSync || m.State == raid.Recovering {
			l.recordOp(engine.DeviceID(id), 0).PrepFsync(uring.Slot(fileSlot(engine.DeviceID(id))))
		}
	}
}

// recordOp returns an entry for an operation of the record.
func (l *Loop) recordOp(device engine.DeviceID, want int32) *uring.SQE {
	r := &l.recorder
	sqe := l.entry()
	sqe.UserData = kindRecord | uint64(r.asks)
	r.ops[r.asks] = recordOp{device: device, want: want}
	r.asks++

	return sqe
}

// flushed goes on to the writes, unless a member could not be flushed. A record
// that calls it in sync all the same, and the array clean, would after a crash
// bring the member back without what it lost; so nothing is written before the
// array has taken it out. And nothing is written once the array is broken: who
// is left, a member that is being filled perhaps, would say that those are gone
// whose return is all it needs.
func (l *Loop) flushed() {
	if len(l.failed) > 0 || l.array.State() == raid.Broken {
		l.recordDone(false)

		return
	}

	l.stages = l.cfg.Keeper.Record(l.recorder.state)
	l.nextWrites()
}

// nextWrites submits writes of the stage that is due, as many as there are
// buffers for, or ends the record.
func (l *Loop) nextWrites() {
	r := &l.recorder

	for len(r.stages) > 0 && len(r.stages[0]) == 0 {
		r.stages = r.stages[1:]
	}

	if len(r.stages) == 0 {
		l.recordDone(true)

		return
	}

	n := min(len(r.stages[0]), recordOps)
	for i, w := range r.stages[0][:n] {
		buf := r.bufs[i][:len(w.Data)]
		copy(buf, w.Data)

		device := engine.DeviceID(w.Member)
		l.recordOp(device, int32(len(buf))).PrepWrite(
			uring.Slot(fileSlot(device)), buf, uint64(w.Sector.Bytes()), unix.RWF_DSYNC)
	}

	r.stages[0] = r.stages[0][n:]
}

// recorded takes the result of a flush or a write of the record.
func (l *Loop) recorded(op int, res int32) {
	r := &l.recorder
	r.ended++

	if res != r.ops[op].want {
		r.failed = append(r.failed, r.ops[op].device)
	}

	if r.ended < r.asks {
		return
	}

	r.asks, r.ended = 0, 0

	if r.flushes {
		r.flushes = false
		l.flushed()
	} else {
		l.nextWrites()
	}
}

// recordDone tells the array of members that could not be written, and then
// what is durable: not enough, if there were any, and the array has asked for
// another record.
func (l *Loop) recordDone(written bool) {
	r := &l.recorder
	r.active = false
	// Of this record: what the array is told next may begin another.
	seq, failed := r.seq, r.failed
	r.failed = nil

	for _, d := range r.parting {
		l.cfg.Keeper.Forget(metadata.MemberID(d))
	}

	r.parting = nil

	for _, d := range failed {
		l.step(engine.MemberFailed{Device: d})
	}

	if written {
		l.step(engine.SuperblocksDurable{Seq: seq})
	}

	if r.wanted && !r.active && l.array.State() != raid.Broken {
		l.record(r.asked)
	}
}
