package stripe

import (
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// cutPlain makes the next band of a write to a level without redundancy.
func (p *Path) cutPlain(r *request) bool {
	slot, component, run := p.geo.Locate(r.next)
	n := min(run, r.end()-r.next)

	if !p.writable(slot, component+n) {
		r.failed = true

		return true
	}

	b := p.take(r, 0)
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi = plain, component, component+n
	data := r.bytes(r.next, n)
	r.next += n
	p.send(b, slot, Write, data, r.FUA)

	return true
}

// cutMirror makes the one band of a write to a mirror.
func (p *Path) cutMirror(r *request) bool {
	b := p.take(r, 0)
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi = plain, r.Sector, r.end()
	r.next = r.end()

	for slot := range raid.Slot(p.disks) {
		if !p.writable(slot, b.hi) {
			continue
		}

		p.send(b, slot, Write, r.Data, r.FUA)
	}

	if b.pending == 0 {
		p.done(b, false)
	}

	return true
}

// cutRead makes the next band of a read.
func (p *Path) cutRead(r *request) bool {
	slot, component, run := p.geo.Locate(r.next)
	n := min(run, r.end()-r.next)

	if p.level == raid.Level1 {
		slot = p.leg(r)
	}

	if slot == raid.NoSlot {
		r.failed = true

		return true
	}

	if p.unreadable(component+n, r.avoid).has(slot) {
		return p.cutReconstruct(r, slot, component, min(n, p.piece))
	}

	b := p.take(r, 0)
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi, b.slot = plain, component, component+n, slot
	b.data = r.bytes(r.next, n)
	r.next += n
	p.send(b, slot, Read, b.data, false)

	return true
}

// leg chooses the mirror to read r from. While mirrors may differ it is always
// the first, so that a sector does not change its content from read to read.
func (p *Path) leg(r *request) raid.Slot {
	bad := p.unreadable(r.end(), r.avoid)

	start := 0
	if p.resynced >= r.end() {
		// Neighbours go to one member, which can then read ahead.
		const region = 2048
		start = int(int64(r.Sector/region) % int64(p.disks))
	}

	for i := range p.disks {
		if slot := raid.Slot((start + i) % p.disks); !bad.has(slot) {
			return slot
		}
	}

	return raid.NoSlot
}

// cutReconstruct makes a band that computes what the member of slot holds.
func (p *Path) cutReconstruct(r *request, slot raid.Slot, component, n raid.Sectors) bool {
	others := p.everyone() &^ (1 << uint(slot))

	if !p.level.HasParity() || p.unreadable(component+n, r.avoid)&others != 0 {
		r.failed = true

		return true
	}

	if !r.locked {
		// It was begun when all members were there. Redundancy is read only
		// while nobody writes it, so it is done over with its range held.
		r.again, r.next = true, r.end()

		return true
	}

	// Some of it could not be read, and parity may be wrong: then what can be
	// read counts, and only the rest is computed.
	direct := p.members[slot].State == raid.InSync && component+n > p.resynced
	if direct {
		n = min(n, grain)
	}

	b := p.take(r, others)
	if b == nil {
		return false
	}

	b.kind, b.lo, b.hi, b.slot = reconstruct, component, component+n, slot
	b.data = r.bytes(r.next, n)
	r.next += n

	if b.direct = direct; direct {
		p.send(b, slot, Read, b.data, false)
	} else {
		p.readInto(b, others)
	}

	return true
}

// everyone returns the set of all slots.
func (p *Path) everyone() slots {
	return slots(1)<<uint(p.disks-1)<<1 - 1
}

// readInto reads b's range from the members of set into b's scratch memory.
func (p *Path) readInto(b *band, set slots) {
	for slot := range raid.Slot(p.disks) {
		if set.has(slot) {
			p.send(b, slot, Read, b.scratch(slot), false)
		}
	}
}

// scratch returns the part of b's memory for slot that its range needs.
func (b *band) scratch(slot raid.Slot) []byte {
	return b.bufs[slot][:b.sectors().Bytes()]
}

// reconstructed takes a read that needed redundancy on: compute, and give the
// member whose sectors were unreadable the chance to store them anew.
func (p *Path) reconstructed(b *band) {
	switch {
	case b.writing, b.direct && b.lost == 0:
		p.done(b, true)

		return
	case b.direct:
		b.direct, b.lost = false, 0
		p.readInto(b, p.everyone()&^(1<<uint(b.slot)))

		return
	case b.lost != 0:
		p.done(b, false) // more is lost than the level survives

		return
	}

	clear(b.data)

	for slot := range raid.Slot(p.disks) {
		if b.bufs[slot] != nil {
			parity.XORInto(b.data, b.scratch(slot))
		}
	}

	m := p.members[b.slot]
	if !b.req.avoid.has(b.slot) || m.State != raid.InSync {
		p.done(b, true)

		return
	}

	// From a copy: the client may have its data as soon as it is there, and
	// the copy is safe from whatever happens to the buffer.
	b.writing = true
	spare := p.anyBuffer(b)
	copy(spare, b.data)
	p.send(b, b.slot, Write, spare, false)
}

// anyBuffer returns some of b's scratch memory.
func (p *Path) anyBuffer(b *band) []byte {
	for slot := range raid.Slot(p.disks) {
		if b.bufs[slot] != nil {
			return b.scratch(slot)
		}
	}

	panic("stripe: a band without memory")
}
