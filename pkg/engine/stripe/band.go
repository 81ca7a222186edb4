package stripe

import (
	"raid-assembler/pkg/raid"
)

// kind is what a band does once its reads are in, or instead of reads.
type kind uint8

const (
	plain       kind = iota // transfers and nothing else: direct reads, RAID0, mirrors, flushes
	reconstruct             // read: the data of one slot from all others
	modify                  // write: parity from old parity, old data and new data
	rewrite                 // write: parity from all data, old and new
	recovering              // sync: what a recovering member lacks
	resyncing               // sync: compare, and make right
)

// transfer is one transfer of a band, kept by slot.
type transfer struct {
	device  int32
	pending bool
	fault   Fault
	op      Op
	sector  raid.Sectors
}

// band is a range of component sectors of one row over which every chunk is
// treated alike.
type band struct {
	id      int32 // its place in Path.bands
	req     *request
	kind    kind
	direct  bool // reconstruct: it is tried first whether the member can be read here
	writing bool // the reads are done
	pending int
	row     int64
	lo, hi  raid.Sectors // component
	w0, w1  int          // data chunks written, by index in the row; w0 > w1 if none
	slot    raid.Slot    // reconstruct, recovering: whose data is made
	data    []byte       // of the request: direct reads and reconstruct
	lost    slots        // could not be read
	missed  slots        // writes that did not arrive
	bufs    [][]byte     // scratch, by slot; nil where none is held
	ios     []transfer   // by slot
}

func (b *band) sectors() raid.Sectors { return b.hi - b.lo }

// take returns a free band for r with scratch memory for the slots in need, or
// nil if there is not enough of either.
func (p *Path) take(r *request, need slots) *band {
	if len(p.free) == 0 || len(p.scratch) < need.count() {
		return nil
	}

	i := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	b := &p.bands[i]
	b.req, b.direct, b.writing, b.pending = r, false, false, 0
	b.lost, b.missed, b.data = 0, 0, nil
	b.w0, b.w1 = 1, 0
	r.bands++

	for slot := range p.disks {
		b.ios[slot] = transfer{}

		if need.has(raid.Slot(slot)) {
			b.bufs[slot] = p.scratch[len(p.scratch)-1]
			p.scratch = p.scratch[:len(p.scratch)-1]
		}
	}

	return b
}

// send asks for a transfer of b's whole range with the member of slot.
func (p *Path) send(b *band, slot raid.Slot, op Op, data []byte, fua bool) {
	device := p.members[slot].Device
	b.ios[slot] = transfer{device: int32(device), pending: true, op: op, sector: b.lo}
	b.pending++
	p.unsent = append(p.unsent, Transfer{
		ID:     int(b.id)*p.disks + int(slot),
		Device: device, Slot: slot, Op: op, Sector: b.lo, Data: data, FUA: fua,
	})
}

// Complete says how a transfer went.
func (p *Path) Complete(id int, fault Fault) {
	b, slot := &p.bands[id/p.disks], raid.Slot(id%p.disks)
	t := &b.ios[slot]

	if !t.pending {
		panic("stripe: completed twice")
	}

	t.pending, t.fault = false, fault
	b.pending--

	switch {
	case fault == None:
	case t.op == Read:
		b.lost.add(slot)

		if fault == Gone {
			p.giveUp(slot, t, t.op)
		}
	default:
		b.missed.add(slot)
		p.giveUp(slot, t, t.op)
	}

	if b.pending == 0 {
		p.advance(b)
		p.feed()
	}
}

// advance takes b on when nothing of it is in flight.
func (p *Path) advance(b *band) {
	switch b.kind {
	case plain:
		p.plainDone(b)
	case reconstruct:
		p.reconstructed(b)
	case modify, rewrite:
		p.parityStep(b)
	case recovering:
		p.recovered(b)
	case resyncing:
		p.compared(b)
	}
}

// done ends b, and its request if it was the last of it.
func (p *Path) done(b *band, ok bool) {
	r := b.req
	r.failed = r.failed || !ok
	r.bands--

	for slot := range p.disks {
		if b.bufs[slot] != nil {
			p.scratch = append(p.scratch, b.bufs[slot])
			b.bufs[slot] = nil
		}
	}

	p.free = append(p.free, b.id)
	b.req, b.data = nil, nil

	if r.bands == 0 && p.whole(r) {
		p.finish(r)
	}
}

// plainDone ends a band that was transfers and nothing else.
func (p *Path) plainDone(b *band) {
	r := b.req

	switch {
	case r.Op == Read && b.lost != 0:
		// Again from the others, which a level without any refuses at once.
		p.again(b)
	case r.Op == Read && r.avoid != 0 && !b.writing && p.level == raid.Level1:
		p.mend(b)
	case r.Op == Read:
		p.done(b, true)
	case r.Op == Write && p.level == raid.Level1:
		p.done(b, p.mirrored(b))
	case r.Op == Write:
		p.done(b, b.missed == 0)
	default:
		p.done(b, p.survivors() >= p.disks-p.level.Redundancy(p.disks))
	}
}

// mirrored reports whether a write to mirrors is stored. Recorded as faulty, the
// members that missed it do no harm; but one must have it that is in sync now.
// One that has failed since does not count: it will not come back as such.
func (p *Path) mirrored(b *band) bool {
	for slot := range raid.Slot(p.disks) {
		t, m := &b.ios[slot], &p.members[slot]
		if t.op == Write && !b.missed.has(slot) && m.State == raid.InSync && m.Device == int(t.device) {
			return true
		}
	}

	return false
}

// again ends b, and has its request done over without the members that could
// not be read.
func (p *Path) again(b *band) {
	b.req.avoid |= b.lost
	b.req.again = true
	p.done(b, true)
}

// mend gives the mirrors whose sectors were unreadable the chance to store
// anew what another one holds.
func (p *Path) mend(b *band) {
	b.writing = true

	for slot := range raid.Slot(p.disks) {
		if b.req.avoid.has(slot) && p.members[slot].State == raid.InSync {
			p.send(b, slot, Write, b.data, false)
		}
	}

	if b.pending == 0 {
		p.done(b, true)
	}
}

// survivors counts the members in sync.
func (p *Path) survivors() int {
	n := 0

	for i := range p.members {
		if p.members[i].State == raid.InSync {
			n++
		}
	}

	return n
}

// cutFlush asks every working member to make durable what it has completed.
func (p *Path) cutFlush(r *request) bool {
	b := p.take(r, 0)
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi = plain, 0, 0
	r.next++

	for slot := range raid.Slot(p.disks) {
		if p.members[slot].State == raid.InSync || p.members[slot].State == raid.Recovering {
			p.send(b, slot, Flush, nil, false)
		}
	}

	if b.pending == 0 {
		p.done(b, false)
	}

	return true
}

// Expected returns what a transfer was, and how many bytes it is when all went
// well.
func (p *Path) Expected(id int) (Op, int) {
	b := &p.bands[id/p.disks]
	t := &b.ios[id%p.disks]

	if t.op == Flush {
		return Flush, 0
	}

	return t.op, int(b.sectors().Bytes())
}
