package stripe

import (
	"bytes"

	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// differs counts a grain, or what there is of one, that is not redundant.
// wrong is whose content is, or NoSlot.
func (p *Path) differs(lo, hi raid.Sectors, wrong raid.Slot) {
	s := &p.sync
	s.slab.Mismatched += hi - lo

	if last := len(s.where) - 1; last >= 0 && s.where[last].To == lo && s.wrong[last] == wrong {
		s.where[last].To = hi
	} else if len(s.where) < whereMax {
		s.where = append(s.where, raid.Range{From: lo, To: hi})
		s.wrong = append(s.wrong, wrong)
	}
}

// corrects reports whether the slab makes right what it finds.
func (p *Path) corrects() bool { return p.sync.slab.Action != raid.Check }

// cutCompareRow makes the next band that compares parity with data.
func (p *Path) cutCompareRow(j *job) bool {
	end := p.span(j)
	r := p.rowOf(int64(j.pos / p.chunk))
	gone := p.gone(end)

	// As many parities as there is data missing prove nothing.
	if (r.data & gone).count() >= ((r.p | r.q) &^ gone).count() {
		j.failed = true

		return true
	}

	b := p.takeRow(j, compareRow, end)
	if b == nil {
		return false
	}

	b.bad = p.unreadable(b.lo, b.hi)
	b.want = p.everyone() &^ gone
	p.read(b, p.everyone()&^b.bad)

	if b.pending == 0 {
		p.compareRowStep(b)
	}

	return true
}

// compareRowStep takes a comparison on: correct what differs, or end.
func (p *Path) compareRowStep(b *band) {
	if b.stage == writing {
		p.done(b, p.alive())

		return
	}

	if p.spoiled(b) {
		return
	}

	r := p.rowOf(b.row)
	b.bad |= b.lost

	if (r.data & b.bad).count() > ((r.p | r.q) &^ b.bad).count() {
		if !p.changed(b) {
			p.done(b, p.bearable()) // what cannot be read cannot be compared either
		}

		return
	}

	dirty := p.wrongIn(b, r) | p.curable(b)
	b.stage = writing

	for slot := range raid.Slot(p.disks) {
		if dirty.has(slot) && p.members[slot].State == raid.InSync {
			p.store(b, slot, Transfer{Op: Write, Sector: b.lo, Sectors: b.sectors(), Data: b.buf(slot)})
		}
	}

	if b.pending == 0 {
		p.done(b, true)
	}
}

// curable returns what b could not read and knows now: a check lets the members
// store anew what they could not read, and the others try known bad blocks too.
func (p *Path) curable(b *band) slots {
	if p.corrects() {
		return b.want & b.bad
	}

	return b.want & b.lost
}

// wrongIn computes what b lacks and compares the rest, grain by grain where it
// differs. It returns the slots whose memory holds what they should now.
func (p *Path) wrongIn(b *band, r row) slots {
	var dirty slots

	seen := (r.p | r.q) &^ b.bad // parities that were read
	want := b.want
	b.want |= r.data & b.bad

	if b.want&b.bad != 0 {
		p.solve(b)
	}

	b.want = want
	p.load(b, r)

	if p.agrees(b, r, seen, 0, int(b.sectors().Bytes())) {
		return 0
	}

	for lo := b.lo; lo < b.hi; {
		hi := min(b.hi, (lo/grain+1)*grain)
		from, to := int((lo - b.lo).Bytes()), int((hi - b.lo).Bytes())

		if !p.agrees(b, r, seen, from, to) {
			dirty |= p.correctRow(b, r, seen, lo, hi)
		}

		lo = hi
	}

	return dirty
}

// window sets the views to the bytes from from to to of what b has of the data
// of its row.
func (p *Path) window(b *band, r row, from, to int) {
	p.load(b, r)

	for e, view := range p.views {
		if view != nil {
			p.views[e] = view[from:to]
		}
	}
}

// parity returns the bytes from from to to of the memory of P or Q, or nil if
// it is not in set.
func (b *band) parity(set slots, from, to int) []byte {
	if set == 0 {
		return nil
	}

	return b.buf(set.first())[from:to]
}

// agrees reports whether the parities of seen are those of the data.
func (p *Path) agrees(b *band, r row, seen slots, from, to int) bool {
	p.window(b, r, from, to)

	if sumQ := b.parity(seen&r.q, from, to); sumQ != nil {
		wrongP, wrongQ := p.code.CheckPQ(b.parity(seen&r.p, from, to), sumQ, p.views)

		return wrongP < 0 && wrongQ < 0
	}

	sumP := b.parity(seen&r.p, from, to)

	return sumP == nil || parity.Check(sumP, p.present()...) < 0
}

// present returns the views that are not gaps.
func (p *Path) present() [][]byte {
	parts := p.parts[:0]

	for _, view := range p.views {
		if view != nil {
			parts = append(parts, view)
		}
	}

	return parts
}

// correctRow makes right what differs from lo to hi, and returns the slots that
// are other than they were. Data is right, and parity follows it; but where a
// repair can tell that a single chunk agrees with no other, it is that one.
func (p *Path) correctRow(b *band, r row, seen slots, lo, hi raid.Sectors) slots {
	from, to := int((lo - b.lo).Bytes()), int((hi - b.lo).Bytes())
	sumP, sumQ := b.parity(seen&r.p, from, to), b.parity(seen&r.q, from, to)
	wrong := raid.NoSlot

	if sumP != nil && sumQ != nil && b.bad == 0 {
		wrong = p.suspect(b, r, p.code.Locate(sumP, sumQ, p.views))
	}

	p.differs(lo, hi, wrong)

	switch {
	case !p.corrects():
		return 0
	case p.sync.slab.Action == raid.Repair && r.data.has(wrong):
		sum := b.buf(wrong)[from:to]
		copy(sum, sumP)

		for slot := range raid.Slot(p.disks) {
			if slot != wrong && r.data.has(slot) {
				parity.XORInto(sum, b.buf(slot)[from:to])
			}
		}

		return 1 << uint(wrong)
	case sumQ != nil:
		p.code.PQ(sumP, sumQ, p.views)
	default:
		parity.XOR(sumP, p.present()...)
	}

	return seen
}

// suspect returns the slot that an answer of Locate means.
func (p *Path) suspect(b *band, r row, answer int) raid.Slot {
	switch answer {
	case parity.InP:
		return r.p.first()
	case parity.InQ:
		return r.q.first()
	}

	for slot := range raid.Slot(p.disks) {
		if answer >= 0 && r.data.has(slot) && p.geo.Exponent(b.row, slot) == answer {
			return slot
		}
	}

	return raid.NoSlot
}

// cutCompare makes the next band that compares copies.
func (p *Path) cutCompare(j *job) bool {
	_, at, run := p.geo.Copy(j.pos, 0)

	n := min(run, p.sync.slab.To-j.pos, p.piece)
	if j.fine {
		n = min(n, grain-at%grain)
	}

	n = p.evenCopies(j.pos, n)

	var reads, bad slots

	for i := range p.geo.Copies() {
		slot, at, _ := p.geo.Copy(j.pos, i)
		m := &p.members[slot]

		switch {
		case !m.holds(at + n):
		case m.bad(at, at+n):
			bad.add(slot)
		default:
			reads.add(slot)
		}
	}

	if reads == 0 && bad == 0 {
		j.failed = true

		return true
	}

	b := p.take(j, reads|bad)
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi, b.bad, b.have = compare, j.pos, j.pos+n, bad, reads
	j.pos += n

	for slot := range raid.Slot(p.disks) {
		if reads.has(slot) {
			p.send(b, int(slot), Transfer{
				Op: Read, Sector: p.copyIn(slot, b.lo), Sectors: n, Data: b.buf(slot),
			})
		}
	}

	if b.pending == 0 {
		p.done(b, true)
	}

	return true
}

// compareStep takes a comparison of copies on: correct those that differ, or
// that could not be read, or end. Those that failed meanwhile need it no more.
func (p *Path) compareStep(b *band) {
	if b.stage == writing {
		p.done(b, p.alive())

		return
	}

	if b.medium && p.spoiled(b) {
		return
	}

	if b.have == 0 {
		p.done(b, p.bearable())

		return
	}

	dirty := b.lost
	if p.corrects() {
		dirty |= b.bad
	}

	for lo := b.lo; lo < b.hi; {
		hi := min(b.hi, (lo/grain+1)*grain)
		dirty |= p.compareGrain(b, lo, hi, dirty)
		lo = hi
	}

	b.stage = writing

	for slot := range raid.Slot(p.disks) {
		if dirty.has(slot) && p.members[slot].State == raid.InSync {
			p.store(b, slot, Transfer{
				Op: Write, Sector: p.copyIn(slot, b.lo), Sectors: b.sectors(), Data: b.buf(slot),
			})
		}
	}

	if b.pending == 0 {
		p.done(b, true)
	}
}

// compareGrain compares the copies from lo to hi and makes those alike that
// differ, in memory, and those of blank what they should be. It returns the
// slots that differed, if that is to be corrected.
func (p *Path) compareGrain(b *band, lo, hi raid.Sectors, blank slots) slots {
	from, to := (lo - b.lo).Bytes(), (hi - b.lo).Bytes()
	part := func(slot raid.Slot) []byte { return b.buf(slot)[from:to] }

	// The first copy is what reads have returned.
	source := p.source(b)
	differ := p.unlike(b, part, source)
	wrong := raid.NoSlot

	if differ != 0 {
		if major := p.majority(b, part); major != raid.NoSlot {
			odd := p.unlike(b, part, major)
			if odd.count() == 1 {
				wrong = odd.first()
			}

			if p.sync.slab.Action == raid.Repair {
				source, differ = major, odd
			}
		}

		p.differs(lo, hi, wrong)
	}

	if !p.corrects() {
		differ = 0
	}

	for slot := range raid.Slot(p.disks) {
		if (blank | differ).has(slot) {
			copy(part(slot), part(source))
		}
	}

	return differ
}

// source returns the first copy that b has read.
func (p *Path) source(b *band) raid.Slot {
	for i := range p.geo.Copies() {
		if slot, _, _ := p.geo.Copy(b.lo, i); b.have.has(slot) {
			return slot
		}
	}

	panic("stripe: copies are compared of which none was read")
}

// unlike returns the copies that b has read and that differ from that of slot.
func (p *Path) unlike(b *band, part func(raid.Slot) []byte, slot raid.Slot) slots {
	var set slots

	for other := range raid.Slot(p.disks) {
		if b.have.has(other) && !bytes.Equal(part(slot), part(other)) {
			set.add(other)
		}
	}

	return set
}

// majority returns a copy that more than half of those read agree with, or
// NoSlot.
func (p *Path) majority(b *band, part func(raid.Slot) []byte) raid.Slot {
	for slot := range raid.Slot(p.disks) {
		if !b.have.has(slot) {
			continue
		}

		if 2*p.unlike(b, part, slot).count() < b.have.count() {
			return slot
		}
	}

	return raid.NoSlot
}
