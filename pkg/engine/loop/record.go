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
	pending int
	stage   int // -1 while flushing
	stages  [][]metadata.Write
	state   metadata.State
	failed  []engine.DeviceID
	bufs    [SlotMax + 1][]byte // by device
	want    [SlotMax + 1]int32  // the result of its operation that is success
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
	r.active, r.wanted, r.seq, r.stage = true, false, seq, -1
	l.describe(l.array.Record())
	l.flushMembers()

	if r.pending == 0 {
		l.nextStage()
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
		if m.State != raid.InSync && m.State != raid.Recovering {
			continue
		}

		sqe := l.entry()
		sqe.PrepFsync(uring.Slot(fileSlot(engine.DeviceID(id))))
		sqe.UserData = kindRecord | uint64(id)
		l.recorder.want[id] = 0
		l.recorder.pending++
	}
}

// nextStage submits the next writes of the record, or ends it.
func (l *Loop) nextStage() {
	r := &l.recorder

	if r.stage == -1 {
		r.stages = l.cfg.Keeper.Record(r.state)
	}

	r.stage++

	for r.stage < len(r.stages) && len(r.stages[r.stage]) == 0 {
		r.stage++
	}

	if r.stage >= len(r.stages) {
		l.recordDone()

		return
	}

	for _, w := range r.stages[r.stage] {
		buf := r.bufs[w.Member][:len(w.Data)]
		copy(buf, w.Data)

		sqe := l.entry()
		sqe.PrepWrite(uring.Slot(fileSlot(engine.DeviceID(w.Member))), buf, uint64(w.Sector.Bytes()), unix.RWF_DSYNC)
		sqe.UserData = kindRecord | uint64(w.Member)
		r.want[w.Member] = int32(len(buf))
		r.pending++
	}
}

// recorded takes the result of a flush or a write of the record.
func (l *Loop) recorded(device int, res int32) {
	r := &l.recorder
	r.pending--

	if res != r.want[device] {
		r.failed = append(r.failed, engine.DeviceID(device))
	}

	if r.pending == 0 {
		l.nextStage()
	}
}

// recordDone tells the array, of members that could not be written first: what
// is durable then is not enough, and the array asks for another record.
func (l *Loop) recordDone() {
	r := &l.recorder
	r.active = false
	failed := r.failed
	r.failed = nil

	for _, d := range failed {
		l.step(engine.MemberFailed{Device: d})
	}

	l.step(engine.SuperblocksDurable{Seq: r.seq})

	if r.wanted && !r.active {
		l.record(r.asked)
	}
}
