package stripe

import (
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// cutParity makes the next band of a write to a level with parity. The band is
// the next range of columns of the row over which the same chunks are written.
func (p *Path) cutParity(r *request) bool {
	if r.column < 0 {
		r.row = int64(r.Sector / p.geo.RowSectors())
		r.column = 0
	}

	hi, w0, w1 := p.segment(r)
	if w0 <= w1 && !p.startParity(r, hi, w0, w1) {
		return false
	}

	r.column = hi
	if hi == p.chunk {
		r.row++
		r.column = 0
	}

	if raid.Sectors(r.row)*p.geo.RowSectors() >= r.end() {
		r.next = r.end()
	}

	return true
}

// segment returns the end of the columns from r.column on over which the data
// chunks w0 to w1 of r.row, and no others, are written; none if w0 > w1.
func (p *Path) segment(r *request) (hi raid.Sectors, w0, w1 int) {
	perRow := p.geo.RowSectors()
	start := raid.Sectors(r.row) * perRow
	from := max(r.Sector, start) - start
	to := min(r.end(), start+perRow) - start

	// The first chunk is written from column a, the last one up to column b.
	w0, w1 = int(from/p.chunk), int((to-1)/p.chunk)
	a, b := from%p.chunk, (to-1)%p.chunk+1

	if r.column < a {
		w0++
	}

	if r.column >= b {
		w1--
	}

	hi = p.chunk
	for _, edge := range [...]raid.Sectors{a, b} {
		if edge > r.column {
			hi = min(hi, edge)
		}
	}

	if int(from/p.chunk) == int((to-1)/p.chunk) && (r.column < a || r.column >= b) {
		w0, w1 = 1, 0
	}

	return min(hi, r.column+p.piece), w0, w1
}

// startParity plans one band of a parity write and starts its reads. Reports
// whether there was room for it.
func (p *Path) startParity(r *request, hi raid.Sectors, w0, w1 int) bool {
	base := raid.Sectors(r.row) * p.chunk
	end := base + hi
	paritySlot := p.geo.ParitySlot(r.row)

	var written, kept slots

	for d := range p.geo.DataDisks() {
		if slot := p.geo.DataSlot(r.row, d); d >= w0 && d <= w1 {
			written.add(slot)
		} else {
			kept.add(slot)
		}
	}

	how, reads, need, ok := p.plan(end, paritySlot, written, kept, r.avoid)
	if !ok {
		r.failed = true

		return true
	}

	b := p.take(r, need)
	if b == nil {
		return false
	}

	b.kind, b.row, b.lo, b.hi, b.w0, b.w1 = how, r.row, base+r.column, end, w0, w1
	p.readInto(b, reads)

	if b.pending == 0 {
		p.parityStep(b)
	}

	return true
}

// plan chooses how parity is made over component sectors up to end: from the
// chunks that are kept, or from what is replaced. It returns what to read and
// where memory is needed; not ok if the data cannot be stored so that it could
// be read again.
func (p *Path) plan(end raid.Sectors, paritySlot raid.Slot, written, kept, avoid slots) (
	how kind, reads, need slots, ok bool,
) {
	var p1 slots

	p1.add(paritySlot)

	if !p.writable(paritySlot, end) {
		// No parity here to keep right, so every written member must be there.
		return modify, 0, 0, p.unreadable(end, 0)&written == 0
	}

	if p.unreadable(end, 0).count() > p.level.Redundancy(p.disks) {
		return modify, 0, 0, false
	}

	bad := p.unreadable(end, avoid)
	canRewrite := bad&kept == 0
	canModify := bad&(written|p1) == 0
	// Where parity has not been checked since an unclean stop, it is made
	// anew from data: modifying what is wrong would keep it wrong. With a
	// member missing there is no choice, nor anything to check against.
	trusted := end <= p.resynced

	switch {
	case canRewrite && (!canModify || !trusted || kept.count() <= written.count()+1):
		return rewrite, kept, kept | p1, true
	case canModify:
		return modify, written | p1, written | p1, true
	default:
		return modify, 0, 0, false
	}
}

// parityStep takes a parity write on: compute and write, or end.
func (p *Path) parityStep(b *band) {
	switch {
	case b.writing:
		ok := p.unreadable(b.hi, 0).count() <= p.level.Redundancy(p.disks)
		p.done(b, ok)
	case b.lost != 0:
		p.again(b)
	default:
		p.writeParity(b)
	}
}

// writeParity computes the parity of b and writes it with the data, all at
// once: what is torn by a crash in between, the dirty mark covers.
func (p *Path) writeParity(b *band) {
	paritySlot := p.geo.ParitySlot(b.row)
	if b.bufs[paritySlot] != nil {
		p.compute(b, paritySlot)
	}

	b.writing = true

	for d := b.w0; d <= b.w1; d++ {
		if slot := p.geo.DataSlot(b.row, d); p.writable(slot, b.hi) {
			p.send(b, slot, Write, p.newData(b, d), b.req.FUA)
		}
	}

	if b.bufs[paritySlot] != nil && p.writable(paritySlot, b.hi) {
		p.send(b, paritySlot, Write, b.scratch(paritySlot), b.req.FUA)
	}

	if b.pending == 0 {
		p.done(b, false)
	}
}

// compute leaves the new parity in the scratch memory of the parity slot.
func (p *Path) compute(b *band, paritySlot raid.Slot) {
	sum := b.scratch(paritySlot)

	if b.kind == rewrite {
		clear(sum)
	}

	for slot := range raid.Slot(p.disks) {
		if slot != paritySlot && b.bufs[slot] != nil {
			parity.XORInto(sum, b.scratch(slot))
		}
	}

	for d := b.w0; d <= b.w1; d++ {
		parity.XORInto(sum, p.newData(b, d))
	}
}

// newData returns the client's data for data chunk d over b's range.
func (p *Path) newData(b *band, d int) []byte {
	column := b.lo - raid.Sectors(b.row)*p.chunk
	s := raid.Sectors(b.row)*p.geo.RowSectors() + raid.Sectors(d)*p.chunk + column

	return b.req.bytes(s, b.sectors())
}
