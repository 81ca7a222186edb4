package stripe

import (
	"raid-assembler/pkg/raid"
)

// kind is what a band does once its reads are in, or instead of reads.
type kind uint8

const (
	direct     kind = iota // read: where the data lies, and nothing else
	leg                    // read: of one copy after another
	solve                  // read: of a chunk from the rest of its row
	store                  // write: to all copies, or a flush
	modify                 // write: parity from old parity, old data and new data
	rewrite                // write: parity from all data, old and new
	fillRow                // sync: what a member lacks, from the rest of its row
	fillCopy               // sync: what a member lacks, from another copy
	compareRow             // sync: compare parity with data
	compare                // sync: compare copies
)

// stage is how far a band is.
type stage uint8

const (
	gathering stage = iota // what it needs is being read
	writing                // what it has to write is being written
	verifying              // what was mended is being read again
)

// transfer is one transfer of a band, kept by place.
type transfer struct {
	id      int32 // to be given to Complete
	device  int32
	log     bool // it is of a partial parity log
	sent    bool
	pending bool
	fua     bool
	grains  bool // it failed as a whole, and is done again grain by grain
	fault   Fault
	op      Op

	at, end  raid.Sectors // what is in flight, of the component
	from, to raid.Sectors // all of it
	data     []byte       // of all of it
}

// band is a range of component sectors of one row over which every chunk is
// treated alike, or a range of array sectors where there are no rows.
type band struct {
	id      int32 // its place in Path.bands
	job     *job
	kind    kind
	stage   stage
	fine    bool // it is of a grain, and goes on by itself when something cannot be read
	medium  bool // something could not be read that another member may have
	stale   bool // something was read from a device that is not used any more
	planned bool // what is read was chosen
	// heirMissed is that a write did not arrive at the successor.
	heirMissed bool
	pending    int
	row        int64
	lo, hi     raid.Sectors
	slot       raid.Slot // whose data is read or made
	data       []byte    // of the request: where a read goes

	written  slots // data slots that are written
	parities slots // that are kept right
	want     slots // what has to be known
	shun     slots // what is not to be read, as if it could not be
	have     slots // what is in memory, or will be when the reads are in
	bad      slots // what could not be read when that was chosen
	lost     slots // could not be read
	missed   slots // writes that did not arrive

	holds    *partialLog // that is kept until b has ended
	unlogged bool        // it changes rows that logs would be for, if redundancy was right
	noted    bool        // in the crash log

	bufs [][]byte   // scratch, by slot; nil where none is held
	ios  []transfer // by place
}

func (b *band) sectors() raid.Sectors { return b.hi - b.lo }

// buf returns the part of b's memory for slot that its range needs: what a
// read is for is made where the client wants it, if nothing else was taken.
func (b *band) buf(slot raid.Slot) []byte {
	if b.bufs[slot] == nil && slot == b.slot {
		return b.data
	}

	return b.bufs[slot][:b.sectors().Bytes()]
}

// take returns a free band for j with scratch memory for the slots in need, or
// nil if there is not enough of either.
func (p *Path) take(j *job, need slots) *band {
	if len(p.free) == 0 || len(p.scratch) < need.count() {
		return nil
	}

	i := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	b := &p.bands[i]
	*b = band{id: b.id, job: j, fine: j.fine, bufs: b.bufs, ios: b.ios, slot: raid.NoSlot}
	j.bands++

	for i := range b.ios {
		b.ios[i].sent = false // which the rest of it follows
	}

	for ; need != 0; need = need.rest() {
		b.bufs[need.first()] = p.scratch[len(p.scratch)-1]
		p.scratch = p.scratch[:len(p.scratch)-1]
	}

	return b
}

// send asks for a transfer with what place stands for.
func (p *Path) send(b *band, place int, tr Transfer) {
	m, _ := p.at(place)
	t := &b.ios[place]
	*t = transfer{
		id: b.id*int32(p.places()) + int32(place), device: int32(m.Device), sent: true, fua: tr.FUA, op: tr.Op,
		data: tr.Data,
		at:   tr.Sector, end: tr.Sector + tr.Sectors, from: tr.Sector, to: tr.Sector + tr.Sectors,
	}

	if tr.Op == Read {
		p.reading[place]++
	}

	p.ask(b, t)
}

// ask hands a transfer out, or a part of it.
func (p *Path) ask(b *band, t *transfer) {
	t.pending = true
	b.pending++
	p.unsent = append(p.unsent, t)
}

// store sends what is written to the member of slot, and to its successor, if
// they take it.
func (p *Path) store(b *band, slot raid.Slot, tr Transfer) {
	end := tr.Sector + tr.Sectors

	if p.takes(&p.members[slot], end) {
		p.send(b, int(slot), tr)
	}

	if slot == p.heir && p.takes(&p.successor, end) {
		p.send(b, p.disks, tr)
	}
}

// Complete says how a transfer went.
func (p *Path) Complete(id int, fault Fault) {
	if id >= p.logIDs() {
		p.logEnded(id-p.logIDs(), fault)
		p.feed()

		return
	}

	b, place := &p.bands[id/p.places()], id%p.places()
	t := &b.ios[place]

	if !t.pending {
		panic("stripe: completed twice")
	}

	t.pending, t.fault = false, fault
	b.pending--

	if t.op == Read {
		p.readEnded(b, place, t)
	} else {
		p.writeEnded(b, place, t)
	}

	if b.pending == 0 {
		p.advance(b)
		p.feed()
	}
}

// Expected returns what a transfer was, and how many bytes it is when all went
// well.
func (p *Path) Expected(id int) (Op, int) {
	t := &p.bands[id/p.places()].ios[id%p.places()]

	if t.op != Read && t.op != Write {
		return t.op, 0
	}

	return t.op, int((t.end - t.at).Bytes())
}

// advance takes b on when nothing of it is in flight.
func (p *Path) advance(b *band) {
	if b.stale && b.stage == gathering {
		p.again(b)

		return
	}

	switch b.kind {
	case direct:
		p.directDone(b)
	case leg:
		p.legStep(b)
	case solve:
		p.solveStep(b)
	case store:
		p.storeDone(b)
	case modify, rewrite:
		p.parityStep(b)
	case fillRow:
		p.fillRowStep(b)
	case fillCopy:
		p.fillCopyStep(b)
	case compareRow:
		p.compareRowStep(b)
	case compare:
		p.compareStep(b)
	}
}

// done ends b, and its job if it was the last of it.
func (p *Path) done(b *band, ok bool) {
	j := b.job
	j.failed = j.failed || !ok
	j.bands--
	p.logReleased(b)

	if b.noted {
		p.crash.End(int(b.id))
		b.noted = false
	}

	for slot := range p.disks {
		if b.bufs[slot] != nil {
			p.scratch = append(p.scratch, b.bufs[slot])
			b.bufs[slot] = nil
		}
	}

	p.free = append(p.free, b.id)
	b.job, b.data = nil, nil

	if j.bands == 0 && p.whole(j) {
		p.finish(j)
	}
}

// again ends b, and has its job done over: without the members that are gone
// now, and grain by grain where it is the medium that failed.
func (p *Path) again(b *band) {
	b.job.again = true
	b.job.fine = b.job.fine || b.medium
	p.done(b, true)
}

// directDone ends a band that read data where it lies.
func (p *Path) directDone(b *band) {
	switch {
	case b.lost == 0:
		p.done(b, true)
	case !p.level.HasRedundancy():
		p.done(b, false)
	default:
		p.again(b)
	}
}

// storeDone ends a band that wrote to all copies, or a flush.
func (p *Path) storeDone(b *band) {
	switch b.job.op {
	case Flush:
		p.done(b, p.alive() && p.intact(b))
	case Discard, Write, WriteZeroes:
		p.done(b, p.intact(b) && p.stored(b))
	case Read:
		panic("stripe: a read that writes")
	}
}

// stored reports whether a write to copies is there. Recorded as faulty, the
// members that missed it do no harm; but one must have it that is in sync now.
// One that has failed since does not count: it will not come back as such.
func (p *Path) stored(b *band) bool {
	for s := b.lo; s < b.hi; {
		n := p.evenCopies(s, b.hi-s)
		if !p.storedIn(b, s, n) {
			return false
		}

		s += n
	}

	return true
}

// storedIn is stored for n array sectors from s on, over which no copy is known
// to be bad in part.
func (p *Path) storedIn(b *band, s, n raid.Sectors) bool {
	for place := range p.places() {
		t := &b.ios[place]
		missed := b.heirMissed

		if place < p.disks {
			missed = b.missed.has(raid.Slot(place))
		}

		if !t.sent || missed {
			continue
		}

		m, slot := p.holder(place, t)
		if m == nil || m.State != raid.InSync {
			continue
		}

		if at := p.copyIn(slot, s); !m.bad(at, at+n) {
			return true
		}
	}

	return false
}

// intact reports whether no member that is used missed what was asked of it.
func (p *Path) intact(b *band) bool {
	for slot := range raid.Slot(p.disks) {
		if m, _ := p.holder(int(slot), &b.ios[slot]); b.missed.has(slot) && m != nil {
			return false
		}
	}

	return true
}

// cutFlush asks every working member to make durable what it has completed.
func (p *Path) cutFlush(j *job) bool {
	b := p.take(j, 0)
	if b == nil {
		return false
	}

	b.kind = store
	j.cut = true

	for place := range p.places() {
		if m, _ := p.at(place); m.working() {
			p.send(b, place, Transfer{Op: Flush})
		}
	}

	if b.pending == 0 {
		p.done(b, false)
	}

	return true
}
