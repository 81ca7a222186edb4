package stripe

import (
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// cutRowWrite makes the next band of a write to a level with parity. The band
// is the next range of columns of the row over which the same chunks are
// written.
func (p *Path) cutRowWrite(j *job) bool {
	if j.column < 0 { // the range that is held begins and ends with what is written
		j.row, j.column = int64(j.lo/p.chunk), j.lo%p.chunk
	}

	base := raid.Sectors(j.row) * p.chunk
	hi, written := p.segment(j)

	n := p.evenRow(base+j.column, min(hi-j.column, p.piece))
	if j.fine {
		n = min(n, grain-(base+j.column)%grain)
	}

	if written != 0 && !p.startWrite(j, n, written) {
		return false
	}

	if j.column += n; j.column == p.chunk {
		j.row++
		j.column = 0
	}

	if raid.Sectors(j.row)*p.chunk+j.column >= j.hi {
		j.pos = j.to
	}

	return true
}

// segment returns the end of the columns from j.column on over which the same
// slots of j.row are written, and these. Where all of the row is, it matters
// not that the data comes in parts.
func (p *Path) segment(j *job) (hi raid.Sectors, written slots) {
	perRow := p.geo.RowSectors()
	start := raid.Sectors(j.row) * perRow

	if first := (j.from - start) / p.chunk; j.next == nil && j.to <= start+(first+1)*p.chunk && j.from >= start {
		written.add(p.geo.DataSlot(j.row, int(first)))

		return j.to - start - first*p.chunk, written // it lies in one chunk, as most do
	}

	sum := raid.Sectors(0)
	hi = p.chunk

	for part := j; part != nil; part = part.next {
		from, to := max(part.from, start)-start, min(part.to, start+perRow)-start
		sum += to - from

		// The chunks that begin, plus the column, within the part.
		first := (from - j.column + p.chunk - 1) / p.chunk
		if from < j.column {
			first = 0
		}

		for d := first; d*p.chunk+j.column < to; d++ {
			written.add(p.geo.DataSlot(j.row, int(d)))
		}

		for _, edge := range [...]raid.Sectors{from % p.chunk, to % p.chunk} {
			if edge > j.column {
				hi = min(hi, edge)
			}
		}
	}

	if sum == perRow {
		hi = p.chunk
	}

	return hi, written
}

// plan is how parity is made.
type plan struct {
	how  kind
	want slots // what has to be known
	need slots // where memory is needed
}

// planWrite chooses how parity is made over component sectors from lo to hi:
// from the chunks that are kept, or from what is replaced, whichever reads
// less. Not ok if the data cannot be stored so that it could be read again.
//
// Where parity has not been checked since an unclean stop, it is made anew from
// data: modifying what is wrong would keep it wrong. With a member missing there
// is no choice, nor anything to check against.
func (p *Path) planWrite(r row, lo, hi raid.Sectors, written slots) (plan, bool) {
	kept := r.data &^ written
	parities := p.writable(r, hi)

	if p.gone(hi).count() > p.level.Redundancy(p.disks) {
		return plan{}, false
	}

	if parities == 0 {
		// No parity here to keep right, and no member of data to spare.
		return plan{how: modify}, true
	}

	bad := p.unreadable(lo, hi)
	old := written | parities
	canRewrite, canModify := bad&kept == 0, bad&old == 0
	trusted := hi <= p.resynced

	switch {
	case canRewrite && (!canModify || !trusted || kept.count() <= old.count()):
		return plan{how: rewrite, want: kept, need: kept | parities}, true
	case canModify:
		return plan{how: modify, want: old, need: old}, true
	default:
		reads, ok := r.sources(bad, kept)

		return plan{how: rewrite, want: kept, need: reads | kept | parities | r.data&bad}, ok
	}
}

// writable returns the parities of a row that a write must keep right, on a
// member or on its successor.
func (p *Path) writable(r row, hi raid.Sectors) slots {
	var set slots

	for parities := r.p | r.q; parities != 0; parities = parities.rest() {
		slot := parities.first()
		if p.takes(&p.members[slot], hi) || slot == p.heir && p.takes(&p.successor, hi) {
			set.add(slot)
		}
	}

	return set
}

// startWrite plans one band of a write and starts its reads. Reports whether
// there was room for it.
func (p *Path) startWrite(j *job, n raid.Sectors, written slots) bool {
	lo := raid.Sectors(j.row)*p.chunk + j.column
	r := p.rowOf(j.row)

	how, ok := p.planWrite(r, lo, lo+n, written)
	if !ok {
		j.failed = true

		return true
	}

	need := how.need | p.pieced(j, n, written)
	if j.fine {
		// All may have to be read, and known from the others where it cannot.
		need = p.everyone()
		if how.how == modify && how.want != 0 {
			how = plan{how: rewrite, want: r.data &^ written}
		}
	}

	b := p.take(j, need)
	if b == nil {
		return false
	}

	b.kind, b.row, b.lo, b.hi = how.how, j.row, lo, lo+n
	b.want, b.written, b.parities = how.want, written, p.writable(r, b.hi)
	p.parityStep(b)

	return true
}

// pieced returns the slots whose data comes from several parts: it has to be
// put together in memory. That is so only where all of the row is written.
func (p *Path) pieced(j *job, n raid.Sectors, written slots) slots {
	if j.next == nil {
		return 0
	}

	var set slots

	for slot := range raid.Slot(p.disks) {
		if written.has(slot) && p.partAt(j, p.arrayAt(j.row, slot, j.column), n) == nil {
			set.add(slot)
		}
	}

	return set
}

// arrayAt returns the array sector at a column of a data slot of a row.
func (p *Path) arrayAt(row int64, slot raid.Slot, column raid.Sectors) raid.Sectors {
	return raid.Sectors(row)*p.geo.RowSectors() + raid.Sectors(p.geo.DataIndex(row, slot))*p.chunk + column
}

// partAt returns the part of j that has all n array sectors from s on, or nil.
func (p *Path) partAt(j *job, s, n raid.Sectors) *job {
	for part := j; part != nil; part = part.next {
		if part.from <= s && s+n <= part.to {
			return part
		}
	}

	return nil
}

// parityStep takes a parity write on: read, compute and write, or end.
func (p *Path) parityStep(b *band) {
	if b.stage == writing {
		p.done(b, p.protected(b))

		return
	}

	if p.spoiled(b) {
		return
	}

	progress := p.learn(b)

	if progress == unknown && b.kind == rewrite {
		// Chunks that are kept are lost. Parity can still be kept in step with
		// what is written, so that it is right again when they are written too.
		b.kind, b.want = modify, b.written|b.parities
		progress = p.learn(b)
	}

	if progress == known && b.kind == modify && b.want&b.bad != 0 {
		progress = unknown // it would be computed from what is kept, which is lost
	}

	switch progress {
	case unknown:
		if !p.changed(b) {
			p.done(b, false)
		}
	case asked:
	case known:
		p.writeRow(b)
	}
}

// protected reports whether what b wrote can be read again: where it was
// written, or from the rest of the row. A member that is being filled does not
// count, for what is recorded of its position may be behind: after a crash it
// would be filled anew from the others.
func (p *Path) protected(b *band) bool {
	survives := p.level.Redundancy(p.disks)
	bad := p.unreadable(b.lo, b.hi) | p.lacking()

	return p.gone(b.hi).count() <= survives && (bad&b.written == 0 || bad.count() <= survives)
}

// writeRow computes the parity of b, and has it stored when that is logged.
func (p *Path) writeRow(b *band) {
	r := p.rowOf(b.row)
	b.stage = writing

	if b.want&b.bad != 0 {
		p.solve(b)
	}

	p.renew(b)

	if b.kind == modify && b.want != 0 {
		p.update(b, r)
	} else if b.parities != 0 {
		p.remake(b, r)
	}

	if !p.logged(b) {
		p.storeRow(b)
	}
}

// storeRow writes the parity of b with its data, all at once: what is torn by a
// crash in between, the dirty mark covers.
//
// Preconditions: renew was called for b, and for no other since.
func (p *Path) storeRow(b *band) {
	r := p.rowOf(b.row)
	all := b.written | b.parities | b.lost&r.data&b.have

	for set := all; set != 0; set = set.rest() {
		slot := set.first()

		if b.written.has(slot) {
			p.noted[slot] = p.fresh[slot]
		} else {
			p.noted[slot] = b.buf(slot)
		}
	}

	if b.noted = p.crash != nil; b.noted {
		p.crash.Begin(int(b.id), raid.Range{From: b.lo, To: b.hi}, p.noted)
	}

	for set := all; set != 0; set = set.rest() {
		slot := set.first()
		p.store(b, slot, Transfer{
			Op: Write, Sector: b.lo, Sectors: b.sectors(), FUA: b.job.fua, Data: p.noted[slot],
		})
	}

	clear(p.noted)

	if b.pending == 0 {
		p.done(b, false)
	}
}

// renew sets what is written in each slot.
func (p *Path) renew(b *band) {
	column := b.lo - raid.Sectors(b.row)*p.chunk
	n := b.sectors()

	for set := b.written; set != 0; set = set.rest() {
		slot := set.first()

		s := p.arrayAt(b.row, slot, column)
		if part := p.partAt(b.job, s, n); part != nil {
			p.fresh[slot] = p.bytes(part, s, n)

			continue
		}

		whole := b.buf(slot)
		p.fresh[slot] = whole

		for part := b.job; part != nil; part = part.next {
			if from, to := max(s, part.from), min(s+n, part.to); from < to {
				copy(whole[(from-s).Bytes():], p.bytes(part, from, to-from))
			}
		}
	}
}

// update adds to the parities what changes.
func (p *Path) update(b *band, r row) {
	var sumP, sumQ []byte

	if b.parities&r.p != 0 {
		sumP = b.buf(r.p.first())
	}

	if b.parities&r.q != 0 {
		sumQ = b.buf(r.q.first())
	}

	for set := b.written; set != 0; set = set.rest() {
		slot := set.first()
		delta := b.buf(slot)
		parity.XORInto(delta, p.fresh[slot])
		p.code.Update(sumP, sumQ, p.geo.Exponent(b.row, slot), delta)
	}
}

// remake makes the parities from all data, kept and new.
func (p *Path) remake(b *band, r row) {
	clear(p.views)

	for set := r.data; set != 0; set = set.rest() {
		slot := set.first()
		view := &p.views[p.geo.Exponent(b.row, slot)]

		if b.written.has(slot) {
			*view = p.fresh[slot]
		} else {
			*view = b.buf(slot)
		}
	}

	p.parities(b, r, b.parities)
}
