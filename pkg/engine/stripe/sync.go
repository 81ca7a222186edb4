package stripe

import (
	"raid-assembler/pkg/raid"
)

// Slab is what became of a range that was synced. It is of component sectors for
// Recover and Replace; for Resync, Check and Repair it is in the unit of
// geometry.Map's SyncSectors.
type Slab struct {
	Action     raid.SyncAction
	Slot       raid.Slot // Recover and Replace: the slot that is filled
	From, To   raid.Sectors
	OK         bool
	Mismatched raid.Sectors // of the range, what was not redundant; it is now, but for a Check
	// Where is where that was, in the unit of geometry.Map's SyncSectors: the
	// first of it. It is valid until the next slab.
	Where []raid.Range
	// Wrong is which slot's content was wrong in each of Where, or NoSlot if
	// nobody can know.
	Wrong []raid.Slot
}

// syncState is the slab that is being synced, and the last one's fate.
type syncState struct {
	slab   Slab
	device int // Recover and Replace: that is filled
	ended  bool
	where  []raid.Range // the memory of Slab.Where
	wrong  []raid.Slot
}

// SyncSlab makes redundancy right from from to to: it fills the recovering
// member of slot, or its successor, or compares and corrects. Client requests
// that need the range wait meanwhile, so it should be short; on Recover and
// Replace of a RAID10 it ends at geometry.Map's SectionEnd. Preconditions: no
// other slab is under way, and from is a multiple of the chunk.
func (p *Path) SyncSlab(action raid.SyncAction, slot raid.Slot, from, to raid.Sectors) {
	j := p.slabJob()
	if j.active {
		panic("stripe: a slab is under way")
	}

	s := &p.sync
	s.slab = Slab{Action: action, Slot: slot, From: from, To: to}
	s.where, s.wrong = s.where[:0], s.wrong[:0]

	if p.fills() {
		s.device = p.target().Device
	}

	*j = job{id: int32(len(p.jobs) - 1), op: Flush, active: true, syncing: true, lo: from, hi: to}

	if p.fills() && !p.level.HasParity() {
		to = min(to, p.geo.SectionEnd(from))
		s.slab.To = to
		span := p.geo.Span(from, to)
		j.lo, j.hi = span.From, span.To
	}

	p.begin(j)
}

// beginSlab begins the slab, or begins it again. What was corrected on the
// first time will not differ again; what was only counted would count twice.
func (p *Path) beginSlab(j *job) {
	s := &p.sync
	j.pos = s.slab.From

	if s.slab.Action == raid.Check {
		s.slab.Mismatched = 0
		s.where, s.wrong = s.where[:0], s.wrong[:0]
	}
}

// Syncing reports whether a slab is under way.
func (p *Path) Syncing() bool { return p.slabJob().active }

// TakeSlab returns the slab that ended since the last call.
func (p *Path) TakeSlab() (Slab, bool) {
	ended := p.sync.ended
	p.sync.ended = false

	return p.sync.slab, ended
}

// fills reports whether the slab fills a member, and compares nothing.
func (p *Path) fills() bool {
	return p.sync.slab.Action == raid.Recover || p.sync.slab.Action == raid.Replace
}

// target returns the member that the slab fills.
func (p *Path) target() *Member {
	if p.sync.slab.Action == raid.Replace {
		return &p.successor
	}

	return &p.members[p.sync.slab.Slot]
}

// targetPlace returns its place in a band.
func (p *Path) targetPlace() int {
	if p.sync.slab.Action == raid.Replace {
		return p.disks
	}

	return int(p.sync.slab.Slot)
}

// filling reports whether what is filled still is the device that the slab
// began with. Another one in its place has nothing of what was written to the
// first.
func (p *Path) filling() bool {
	m := p.target()

	return m.State == raid.Recovering && m.Device == p.sync.device &&
		(p.sync.slab.Action != raid.Replace || p.heir == p.sync.slab.Slot)
}

// slabDone moves the position that the data path trusts, before it lets those
// go on that waited for the range.
func (p *Path) slabDone(j *job) {
	s := &p.sync
	s.slab.OK = !j.failed && (!p.fills() || p.filling())
	s.slab.Where, s.slab.Wrong = s.where, s.wrong
	s.ended = true

	switch {
	case !s.slab.OK:
	case p.fills():
		p.target().Recovered = s.slab.To
	case s.slab.Action == raid.Resync:
		p.SetResynced(s.slab.To)
	}
}

// cutSync makes the next band of a slab.
func (p *Path) cutSync(j *job) bool {
	switch {
	case p.fills() && !p.filling():
		j.failed = true

		return true
	case p.fills() && p.level.HasParity():
		return p.cutFillRow(j)
	case p.fills():
		return p.cutFillCopy(j)
	case p.level.HasParity():
		return p.cutCompareRow(j)
	default:
		return p.cutCompare(j)
	}
}

// span returns the end of the next band of a slab over rows.
func (p *Path) span(j *job) raid.Sectors {
	n := min(p.sync.slab.To-j.pos, p.piece, p.chunk-j.pos%p.chunk)
	if j.fine {
		n = min(n, grain-j.pos%grain)
	}

	return j.pos + p.evenRow(j.pos, n)
}

// takeRow returns a band of the slab over a row from j.pos to end.
func (p *Path) takeRow(j *job, how kind, end raid.Sectors) *band {
	b := p.take(j, p.everyone())
	if b != nil {
		b.kind, b.lo, b.hi, b.row = how, j.pos, end, int64(j.pos/p.chunk)
		j.pos = end
	}

	return b
}

// cutFillRow makes the next band that fills a member of a row.
func (p *Path) cutFillRow(j *job) bool {
	b := p.takeRow(j, fillRow, p.span(j))
	if b == nil {
		return false
	}

	b.want.add(p.sync.slab.Slot)

	if p.sync.slab.Action == raid.Recover {
		b.shun = b.want
	}

	p.fillRowStep(b)

	return true
}

// fillRowStep takes the filling of a member on: read, compute and write, or
// end.
func (p *Path) fillRowStep(b *band) {
	slot := p.sync.slab.Slot

	switch {
	case b.stage == writing, !p.filling():
		p.done(b, p.filling())

		return
	case p.spoiled(b):
		return
	}

	switch p.learn(b) {
	case asked:
	case unknown:
		p.forgo(b, b.lo)
	case known:
		if b.want&b.bad != 0 {
			p.solve(b)
		}

		b.stage = writing
		p.send(b, p.targetPlace(), Transfer{
			Op: Write, Sector: b.lo, Sectors: b.sectors(), Data: b.buf(slot),
		})

		for other := range raid.Slot(p.disks) {
			if other != slot && b.lost.has(other) && b.have.has(other) && p.members[other].State == raid.InSync {
				p.store(b, other, Transfer{Op: Write, Sector: b.lo, Sectors: b.sectors(), Data: b.buf(other)})
			}
		}
	}
}

// forgo ends a band whose content no member can give. It is recorded as bad on
// the member that is filled, at component sector at, and the filling goes on;
// without room for that, or with too many members gone, it does not.
func (p *Path) forgo(b *band, at raid.Sectors) {
	if p.changed(b) {
		return
	}

	p.done(b, p.bearable() && p.addBad(p.target(), p.sync.slab.Slot, at, at+b.sectors()))
}

// bearable reports whether it is for bad blocks that something cannot be read,
// and not for members that are gone.
func (p *Path) bearable() bool { return p.alive() }

// cutFillCopy makes the next band that fills a member from another copy.
func (p *Path) cutFillCopy(j *job) bool {
	slot := p.sync.slab.Slot
	left := p.sync.slab.To - j.pos

	s, run, ok := p.geo.Virtual(slot, j.pos)
	if !ok {
		j.pos += min(left, run) // an end of the member that the array does not use

		return true
	}

	n := min(run, left, p.piece)
	if j.fine {
		n = min(n, grain-j.pos%grain)
	}

	n = p.evenCopies(s, n)

	b := p.take(j, 1<<uint(slot))
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi = fillCopy, s, s+n
	j.pos += n
	p.readCopy(b)

	return true
}

// readCopy reads what the target lacks from a copy that was not tried yet, the
// member's own first that is replaced.
func (p *Path) readCopy(b *band) {
	slot := p.sync.slab.Slot
	own := p.copyIn(slot, b.lo)
	avoid := b.lost
	m := &p.members[slot]

	from, at := slot, own
	if p.sync.slab.Action == raid.Recover || avoid.has(slot) || !m.holds(own+b.sectors()) ||
		m.bad(own, own+b.sectors()) {
		avoid.add(slot)
		from, at = p.choose(b.lo, b.sectors(), avoid)
	}

	switch {
	case from != raid.NoSlot:
		b.slot = from
		p.send(b, int(from), Transfer{
			Op: Read, Sector: at, Sectors: b.sectors(), Data: b.bufs[slot][:b.sectors().Bytes()],
		})
	case !p.spoiled(b):
		p.forgo(b, own)
	}
}

// fillCopyStep takes the filling of a mirror on: read from the next copy, or
// write, or end.
func (p *Path) fillCopyStep(b *band) {
	slot := p.sync.slab.Slot

	switch {
	case b.stage == writing, !p.filling():
		p.done(b, p.filling())

		return
	case b.lost.has(b.slot):
		p.readCopy(b)

		return
	}

	b.stage = writing
	tr := Transfer{
		Op: Write, Sector: p.copyIn(slot, b.lo), Sectors: b.sectors(), Data: b.bufs[slot][:b.sectors().Bytes()],
	}
	p.send(b, p.targetPlace(), tr)

	for other := range raid.Slot(p.disks) {
		if other != slot && b.lost.has(other) && p.members[other].State == raid.InSync {
			tr.Sector = p.copyIn(other, b.lo)
			p.store(b, other, tr)
		}
	}
}
