package stripe

import (
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// row is what there is in a row of chunks.
type row struct {
	p, q slots // the one slot of each; none for Q where the level has none
	data slots
}

func (p *Path) rowOf(n int64) row { return p.rows[n%int64(len(p.rows))] }

// rowsOf returns the rows until they come again.
func (p *Path) rowsOf() []row {
	rows := make([]row, p.geo.Period())

	for n := range rows {
		r := &rows[n]
		r.p.add(p.geo.ParitySlot(int64(n)))

		if q := p.geo.QSlot(int64(n)); q != raid.NoSlot {
			r.q.add(q)
		}

		r.data = p.everyone() &^ (r.p | r.q)
	}

	return rows
}

// sources returns what has to be read so that the chunks of want are known or
// can be computed when those of bad cannot be read; not ok if too much is bad.
func (r row) sources(bad, want slots) (reads slots, ok bool) {
	reads = want &^ bad
	if reads == want {
		return reads, true
	}

	reads |= r.data &^ bad
	parities := (r.p | r.q) &^ bad

	switch lost := (r.data & bad).count(); {
	case lost > parities.count():
		return 0, false
	case lost == 1 && parities.has(r.p.first()):
		reads |= r.p
	case lost > 0:
		reads |= parities
	}

	return reads, true
}

// evenRow returns the part of n component sectors from at on over which each
// member is known to be bad everywhere or nowhere.
func (p *Path) evenRow(at, n raid.Sectors) raid.Sectors {
	for odd := p.odd; odd != 0; odd = odd.rest() {
		if m := &p.members[odd.first()]; m.working() {
			n = m.even(at, n)
		}
	}

	return n
}

// cutRowRead makes the next band of a read.
func (p *Path) cutRowRead(j *job) bool {
	slot, at, run := p.geo.Locate(j.pos)

	n := p.evenRow(at, min(run, j.to-j.pos))
	if j.fine {
		n = min(n, grain-at%grain)
	}

	bad := p.unreadable(at, at+n)

	shun := p.shunned(slot, at+n, bad, j.fine)
	if here := !bad.has(slot) && shun == 0; here && !j.fine {
		return p.cutDirect(j, slot, at, n)
	}

	if !j.locked {
		// It was begun when all members were there. Redundancy is read only
		// while nobody writes it, so it is done over with its range held.
		j.again = true

		return true
	}

	return p.cutSolve(j, slot, shun, raid.Range{From: at, To: at + min(n, p.piece)})
}

// cutDirect makes a band that reads data where it lies.
func (p *Path) cutDirect(j *job, slot raid.Slot, at, n raid.Sectors) bool {
	b := p.take(j, 0)
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi, b.slot = direct, at, at+n, slot
	b.data = p.bytes(j, j.pos, n)
	j.pos += n
	p.send(b, int(slot), Transfer{Op: Read, Sector: at, Sectors: n, Data: b.data})

	return true
}

// shunned returns the slot if its member is slow, and its content is sure to
// be the same when it is computed from the others, which are not.
func (p *Path) shunned(slot raid.Slot, end raid.Sectors, bad slots, fine bool) slots {
	if !p.members[slot].Slow || bad != 0 || end > p.resynced || fine {
		return 0
	}

	for i := range p.members {
		if raid.Slot(i) != slot && p.members[i].Slow {
			return 0
		}
	}

	return 1 << uint(slot)
}

// cutSolve makes a band that finds out what the member of slot holds over a
// range of components.
func (p *Path) cutSolve(j *job, slot raid.Slot, shun slots, at raid.Range) bool {
	var want slots

	want.add(slot)

	bad := p.unreadable(at.From, at.To) | shun
	r := p.rowOf(int64(at.From / p.chunk))

	reads, ok := r.sources(bad, want)
	if !ok {
		j.failed = true

		return true
	}

	need := (reads | r.data&bad) &^ want
	if j.fine {
		need = p.everyone()
	}

	b := p.take(j, need)
	if b == nil {
		return false
	}

	n := at.Len()
	b.kind, b.row, b.lo, b.hi, b.slot = solve, int64(at.From/p.chunk), at.From, at.To, slot
	b.data = p.bytes(j, j.pos, n)
	b.want, b.shun = want, shun
	j.pos += n
	p.solveStep(b)

	return true
}

// progress is how far a band is with what it has to know.
type progress uint8

const (
	known   progress = iota // or can be computed from what is in memory
	asked                   // reads are in flight
	unknown                 // too much cannot be read
)

// learn reads what is still needed for b to know what it wants. Other bands than
// those of a grain have memory for one plan only, and keep to it.
func (p *Path) learn(b *band) progress {
	if b.planned && !b.fine {
		return known
	}

	// What was read counts, whatever has become of its member since.
	b.bad = p.unreadable(b.lo, b.hi)&^b.have | b.lost | b.shun
	b.planned = true

	reads, ok := p.rowOf(b.row).sources(b.bad, b.want)
	if !ok {
		return unknown
	}

	reads &^= b.have
	p.read(b, reads)

	if reads != 0 {
		return asked
	}

	return known
}

// read reads b's range from the members of set.
func (p *Path) read(b *band, set slots) {
	b.have |= set

	for ; set != 0; set = set.rest() {
		slot := set.first()
		p.send(b, int(slot), Transfer{Op: Read, Sector: b.lo, Sectors: b.sectors(), Data: b.buf(slot)})
	}
}

// spoiled reports whether b lost something that it has to be done over for,
// and sees to that. Bands of a grain go on by themselves.
func (p *Path) spoiled(b *band) bool {
	if b.lost == 0 || b.fine {
		return false
	}

	p.again(b)

	return true
}

// changed reports whether b could not read something from a device that is not
// used any more, while the one in its place was not tried: then b is to be done
// over, and is.
func (p *Path) changed(b *band) bool {
	for slot := range raid.Slot(p.disks) {
		if m, _ := p.holder(int(slot), &b.ios[slot]); b.lost.has(slot) && m == nil {
			p.again(b)

			return true
		}
	}

	return false
}

// solveStep takes a read on that may need redundancy, and gives the members
// whose sectors were unreadable the chance to store them anew.
func (p *Path) solveStep(b *band) {
	switch b.stage {
	case gathering:
		if p.spoiled(b) {
			return
		}

		switch p.learn(b) {
		case unknown:
			if !p.changed(b) {
				p.done(b, false) // more is lost than the level survives
			}
		case asked:
		case known:
			p.complete(b)
		}
	case writing:
		if !p.verify(b, func(slot raid.Slot) []byte { return b.buf(slot) }) {
			p.done(b, true)
		}
	case verifying:
		p.condemn(b)
		p.done(b, true)
	}
}

// complete hands out what a read is for.
func (p *Path) complete(b *band) {
	computed := b.want&b.bad != 0
	if computed {
		p.solve(b)
	}

	if b.bufs[b.slot] != nil {
		copy(b.data, b.buf(b.slot))
	}

	// What is mended is what has memory of its own: the client may have its
	// data as soon as it is there. Nothing is known of what was lost on the way
	// if a member that holds the data has come in the meantime.
	where := func(slot raid.Slot) (raid.Sectors, []byte) { return b.lo, b.buf(slot) }
	if b.lost == 0 || !computed || !p.mend(b, where) {
		p.done(b, true)
	}
}

// load sets the views to what b has of the data of its row, by exponent.
func (p *Path) load(b *band, r row) {
	clear(p.views)

	for slot := range raid.Slot(p.disks) {
		if r.data.has(slot) {
			p.views[p.geo.Exponent(b.row, slot)] = b.buf(slot)
		}
	}
}

// solve computes what b has no readable member for, in the memory of its slot:
// data first, then the parities that are wanted or were lost. All other data
// of the row is in memory.
func (p *Path) solve(b *band) {
	r := p.rowOf(b.row)
	lost := r.data & b.bad

	p.load(b, r)

	switch lost.count() {
	case 0:
	case 1:
		slot := lost.first()
		if b.have&r.p != 0 {
			p.sumOthers(b, r, slot)
		} else {
			p.code.RecoverQ(p.views, b.buf(r.q.first()), p.geo.Exponent(b.row, slot))
		}
	default:
		x := lost.first()
		y := (lost &^ (1 << uint(x))).first()
		p.code.RecoverTwo(p.views, b.buf(r.p.first()), b.buf(r.q.first()),
			p.geo.Exponent(b.row, x), p.geo.Exponent(b.row, y))
	}

	b.have |= lost
	p.parities(b, r, (b.want|b.lost)&b.bad)
}

// sumOthers sets the memory of a data slot to the sum of P and the others.
func (p *Path) sumOthers(b *band, r row, slot raid.Slot) {
	parts := p.parts[:0]

	for other := range raid.Slot(p.disks) {
		if other != slot && (r.data | r.p).has(other) {
			parts = append(parts, b.buf(other))
		}
	}

	parity.XOR(b.buf(slot), parts...)
}

// parities computes P and Q from the views, those of them that are in set.
func (p *Path) parities(b *band, r row, set slots) {
	var sumP, sumQ []byte

	if set&r.p != 0 {
		sumP = b.buf(r.p.first())
	}

	if set&r.q != 0 {
		sumQ = b.buf(r.q.first())
	}

	switch {
	case sumQ != nil:
		p.code.PQ(sumP, sumQ, p.views)
	case sumP != nil:
		parts := p.parts[:0]

		for _, view := range p.views {
			if view != nil {
				parts = append(parts, view)
			}
		}

		parity.XOR(sumP, parts...)
	}
}
