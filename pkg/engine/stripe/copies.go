package stripe

import "raid-assembler/pkg/raid"

// The bands in this file are of levels without parity: ranges of array sectors
// of which there are as many copies as the level has, one or more.

// region is how much of an array is read from one copy, so that it can read
// ahead.
const region raid.Sectors = 2048

// cutStore makes the next band of a write, a discard or of zeroes.
func (p *Path) cutStore(j *job) bool {
	_, _, run := p.geo.Copy(j.pos, 0)
	n := min(run, j.to-j.pos)

	b := p.take(j, 0)
	if b == nil {
		return false
	}

	b.kind, b.stage, b.lo, b.hi = store, writing, j.pos, j.pos+n
	j.pos += n

	tr := Transfer{Op: j.op, Sectors: n, FUA: j.fua}
	if j.op == Write {
		tr.Data = p.bytes(j, b.lo, n)
	}

	for i := range p.geo.Copies() {
		slot, at, _ := p.geo.Copy(b.lo, i)
		tr.Sector = at
		p.store(b, slot, tr)
	}

	if b.pending == 0 {
		p.done(b, false)
	}

	return true
}

// cutLeg makes the next band of a read.
func (p *Path) cutLeg(j *job) bool {
	_, at, run := p.geo.Copy(j.pos, 0)

	n := min(run, j.to-j.pos)
	if j.fine {
		n = min(n, grain-at%grain)
	}

	n = p.evenCopies(j.pos, n)

	slot, at := p.choose(j.pos, n, 0)
	if slot == raid.NoSlot {
		j.failed = true

		return true
	}

	var need slots
	if j.fine {
		need = 1 // to verify what is mended
	}

	b := p.take(j, need)
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi, b.slot = direct, j.pos, j.pos+n, slot
	if j.fine {
		b.kind = leg
	}

	b.data = p.bytes(j, j.pos, n)
	j.pos += n
	p.send(b, int(slot), Transfer{Op: Read, Sector: at, Sectors: n, Data: b.data})

	return true
}

// evenCopies returns the part of n array sectors from s on over which each
// copy is known to be bad everywhere or nowhere.
func (p *Path) evenCopies(s, n raid.Sectors) raid.Sectors {
	for i := range p.geo.Copies() {
		slot, at, _ := p.geo.Copy(s, i)
		n = p.members[slot].even(at, n)
	}

	return n
}

// choose chooses the copy of n array sectors from s on to read, and says where
// it is; NoSlot if none can be read. While copies may differ it is always the
// first, so that a sector does not change its content from read to read.
func (p *Path) choose(s, n raid.Sectors, avoid slots) (best raid.Slot, at raid.Sectors) {
	copies := p.geo.Copies()
	steady := s+n > p.resynced
	turn := int(int64(s/region) % int64(copies))
	least := int64(-1)
	best = raid.NoSlot

	for i := range copies {
		slot, component, _ := p.geo.Copy(s, i)
		m := &p.members[slot]

		if avoid.has(slot) || !m.holds(component+n) || m.bad(component, component+n) {
			continue
		}

		if steady {
			return slot, component
		}

		if cost := p.cost(slot, i == turn); least < 0 || cost < least {
			best, at, least = slot, component, cost
		}
	}

	return best, at
}

// cost says how good it is to read from a member: less is better. The one
// whose turn it is for a region keeps it until it is clearly the busiest.
func (p *Path) cost(slot raid.Slot, turn bool) int64 {
	const (
		stays       = 4
		slow        = 1 << 20
		writeMostly = 1 << 21
	)

	m := &p.members[slot]
	cost := int64(p.reading[slot]) + stays

	if turn {
		cost -= stays
	}

	if m.Slow {
		cost += slow
	}

	if m.WriteMostly {
		cost += writeMostly
	}

	return cost
}

// legStep takes a read on that is done grain by grain: from one copy after
// another, and what was read is written to those that could not be.
func (p *Path) legStep(b *band) {
	where := func(slot raid.Slot) (raid.Sectors, []byte) { return p.copyIn(slot, b.lo), b.data }

	switch b.stage {
	case gathering:
		if !b.lost.has(b.slot) {
			if b.lost == 0 || !p.mend(b, where) {
				p.done(b, true)
			}

			return
		}

		slot, at := p.choose(b.lo, b.sectors(), b.lost)
		if b.slot = slot; slot == raid.NoSlot {
			if !p.changed(b) {
				p.done(b, false)
			}

			return
		}

		p.send(b, int(slot), Transfer{Op: Read, Sector: at, Sectors: b.sectors(), Data: b.data})
	case writing:
		spare := b.bufs[0][:b.sectors().Bytes()]
		if !p.verify(b, func(raid.Slot) []byte { return spare }) {
			p.done(b, true)
		}
	case verifying:
		p.condemn(b)
		p.done(b, true)
	}
}

// copyIn returns where the member of slot has its copy of array sector s.
// Preconditions: it has one.
func (p *Path) copyIn(slot raid.Slot, s raid.Sectors) raid.Sectors {
	for i := range p.geo.Copies() {
		if other, at, _ := p.geo.Copy(s, i); other == slot {
			return at
		}
	}

	panic("stripe: no copy in that slot")
}
