package core

import (
	"slices"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
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
	blocked bool   // it waits for the bitmap
	queued  bool   // it waits for another array of the container
	seq     uint64 // of the record under way
	events  uint64 // of the newest that is on all members; 0 before the first
	asked   uint64 // of the newest that was asked for
	left    int    // operations under way
	flushes bool
	stages  [][]metadata.Write // those that are left
	state   metadata.State
	failed  []engine.DeviceID
	told    int               // of those that have failed: the array knows of them
	parting []engine.DeviceID // to be forgotten when the record has ended
}

func newRecorder() recorder {
	return recorder{state: metadata.State{Members: make(map[metadata.MemberID]metadata.MemberRecord)}}
}

// record begins a record, or remembers that another one is wanted.
func (c *Core) record(seq uint64) {
	r := &c.recorder
	r.asked = seq

	if r.active {
		r.wanted = true

		return
	}

	// What is recorded is taken before the flush: a position that is reached
	// during it may not be on disk after it.
	r.active, r.wanted, r.seq = true, false, seq
	c.describe(c.array.Record())
	c.flushMembers(recording)

	if r.flushes = r.left > 0; !r.flushes {
		c.flushed()
	}
}

// describe translates a record for the keeper.
func (c *Core) describe(rec engine.Record) {
	st := &c.recorder.state
	clear(st.Members)
	st.ResyncOffset, st.Now = rec.ResyncOffset, c.now

	for slot, m := range rec.Members {
		c.describeMember(raid.Slot(slot), m, false)
	}

	c.describeMember(rec.Heir, rec.Successor, true)

	for _, d := range rec.Retired {
		c.describeAs(d, metadata.MemberRecord{State: raid.Faulty, Slot: raid.NoSlot})
	}

	for _, d := range rec.Spares {
		c.describeAs(d, metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot})
	}
}

// describeMember translates what holds a slot, or is to. Its bad blocks are
// those of now: of what is good again from here on, nothing may be on disk
// after the flush.
func (c *Core) describeMember(slot raid.Slot, m engine.Member, successor bool) {
	if m.Device == engine.None {
		return
	}

	r := metadata.MemberRecord{
		State: m.State, Slot: slot, Recovered: m.Recovered, Replacement: successor, ByBitmap: m.ByBitmap,
	}

	if bad := c.disks[m.Device].bad; bad != nil {
		r.BadBlocks = append([]raid.Range{}, bad.Ranges()...) // nil would leave the log as it is
	}

	c.describeAs(m.Device, r)
}

func (c *Core) describeAs(id engine.DeviceID, r metadata.MemberRecord) {
	if name, ok := c.names[id]; ok {
		c.recorder.state.Members[name] = r
	}
}

// flushMembers makes durable what the members in use have completed, for a
// record or for a pass over the marks.
func (c *Core) flushMembers(what kind) {
	for _, m := range c.array.Members() {
		c.flushMember(m, what)
	}

	_, successor := c.array.Successor()
	c.flushMember(successor, what)
}

func (c *Core) flushMember(m engine.Member, what kind) {
	if m.State != raid.InSync && m.State != raid.Recovering {
		return
	}

	if what == recording {
		c.recorder.left++
	} else {
		c.marker.flushing++
	}

	c.operate(Operation{Device: m.Device, Op: stripe.Flush, Record: true}, what)
}

// recordOp asks for an operation of the record.
func (c *Core) recordOp(o Operation) {
	o.Record = true
	c.recorder.left++
	c.operate(o, recording)
}

// flushed goes on to the writes, unless a member could not be flushed. A record
// that calls it in sync all the same, and the array clean, would after a crash
// bring the member back without what it lost; so nothing is written before the
// array has taken it out. And nothing is written once the array is broken: who
// is left, a member that is being filled perhaps, would say that those are gone
// whose return is all it needs. The blocks of the bitmap that are being written
// come first, and so does the record of another array of the container, which
// writes the same sectors.
func (c *Core) flushed() {
	if c.marker.left > 0 {
		c.recorder.blocked = true

		return
	}

	if len(c.recorder.failed) > 0 || c.array.State() == raid.Broken {
		c.recordDone(false)

		return
	}

	if c.recorder.queued = c.cfg.Seat != nil && !c.cfg.Seat.Take(); c.recorder.queued {
		return // Advance asks again
	}

	if c.broken(rulePosition) {
		c.describe(c.array.Record())
	}

	c.stages = c.cfg.Keeper.Record(c.recorder.state)

	c.counted()
	c.nextWrites()
}

// counted has crash logs know which event count the superblocks are about to have.
// Those of the other arrays of a container may have another by this record too, and
// would not be believed.
func (c *Core) counted() {
	switch {
	case c.cfg.Seat != nil:
		c.cfg.Seat.counted()
	case c.cfg.CrashLog != nil:
		c.cfg.CrashLog.Events(c.cfg.Keeper.Events())
	}
}

// nextWrites asks for writes of the stage that is due, as many as there are
// buffers for, or ends the record. A member of which a write has failed gets no
// more of them: what comes later counts on what came before, such as a
// superblock on the log that it says is there.
func (c *Core) nextWrites() {
	r := &c.recorder

	for r.left == 0 {
		for len(r.stages) > 0 && len(r.stages[0]) == 0 {
			r.stages = r.stages[1:]
		}

		if len(r.stages) == 0 {
			c.recordDone(true)

			return
		}

		batch := r.stages[0][:min(len(r.stages[0]), len(c.cfg.Records))]
		r.stages[0] = r.stages[0][len(batch):]

		for i, w := range batch {
			device, ok := c.devices[w.Member]
			if !ok || slices.Contains(r.failed, device) {
				continue
			}

			buf := c.cfg.Records[i][:len(w.Data)]
			copy(buf, w.Data)
			c.recordOp(Operation{
				Device: device, Op: stripe.Write, Sector: w.Sector, Data: buf, FUA: true,
			})
		}
	}
}

// recorded takes the end of a flush or a write of the record.
func (c *Core) recorded(device engine.DeviceID, fault stripe.Fault) {
	r := &c.recorder
	r.left--

	if fault != stripe.None {
		r.failed = append(r.failed, device)
	}

	if r.left > 0 {
		return
	}

	if r.flushes {
		r.flushes = false
		c.flushed()

		return
	}

	// If it breaks the array, those that are left may not go on: a member that
	// is two records behind is not let in again, and all would need it.
	for ; r.told < len(r.failed); r.told++ {
		c.step(engine.MemberFailed{Device: r.failed[r.told]})
	}

	if c.array.State() == raid.Broken {
		c.recordDone(false)
	} else {
		c.nextWrites()
	}
}

// recordDone tells the array of members that could not be written, and then
// what is durable: not enough, if there were any, and the array has asked for
// another record.
func (c *Core) recordDone(written bool) {
	r := &c.recorder
	r.active, r.queued = false, false

	if written {
		r.events = c.cfg.Keeper.Events()
	}

	if c.cfg.Seat != nil {
		c.cfg.Seat.Release()
	}

	// Of this record: what the array is told next may begin another.
	seq, failed := r.seq, r.failed[r.told:]
	r.failed, r.told = nil, 0

	for _, d := range r.parting {
		c.forget(d)
	}

	r.parting = nil

	for _, d := range failed {
		c.step(engine.MemberFailed{Device: d})
	}

	if written {
		if c.cfg.CrashLog != nil {
			c.cfg.CrashLog.Recorded()
		}

		c.step(engine.SuperblocksDurable{Seq: seq})
	}

	if r.wanted && !r.active && c.array.State() != raid.Broken {
		c.record(r.asked)
	}
}
