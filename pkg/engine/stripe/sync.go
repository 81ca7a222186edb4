package stripe

import (
	"bytes"
	"math/bits"

	"raid-assembler/pkg/engine/parity"
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
	// Where is where that was, of the component, or of the array on a RAID10:
	// the first of them. It is valid until the next slab.
	Where []raid.Range
	// Wrong is which slot's content was wrong in each of Where, or NoSlot if
	// nobody can know.
	Wrong []raid.Slot
}

// syncState is the slab that is being synced, and the last one's fate.
type syncState struct {
	slab   Slab
	device int // recover: that is filled
	ended  bool
}

// SyncSlab makes redundancy right over component sectors from to to: it fills
// the recovering member of slot, or compares and corrects. Client requests
// that need the range wait meanwhile, so it should be short. Preconditions: no
// other slab is under way, and from is a multiple of the chunk.
func (p *Path) SyncSlab(action raid.SyncAction, slot raid.Slot, from, to raid.Sectors) {
	r := &p.requests[len(p.requests)-1]
	if r.active {
		panic("stripe: a slab is under way")
	}

	p.sync = syncState{slab: Slab{Action: action, Slot: slot, From: from, To: to}}
	if action == raid.Recover {
		p.sync.device = p.members[slot].Device
	}

	*r = request{active: true, syncing: true, lo: from, hi: to, next: from}

	if p.lock(r) {
		p.cut(r)
	}
}

// Syncing reports whether a slab is under way.
func (p *Path) Syncing() bool { return p.requests[len(p.requests)-1].active }

// TakeSlab returns the slab that ended since the last call.
func (p *Path) TakeSlab() (Slab, bool) {
	ended := p.sync.ended
	p.sync.ended = false

	return p.sync.slab, ended
}

// slabDone moves the position that the data path trusts, before it lets those
// go on that waited for the range.
func (p *Path) slabDone(r *request) {
	s := &p.sync
	s.slab.OK = !r.failed && (s.slab.Action != raid.Recover || p.filling())
	s.ended = true

	if !s.slab.OK {
		return
	}

	if s.slab.Action == raid.Recover {
		p.members[s.slab.Slot].Recovered = s.slab.To
	} else {
		p.resynced = s.slab.To
	}
}

// filling reports whether the slot of the slab that recovers still is held by
// the device that it began with. Another one in its place has nothing of what
// was written to the first.
func (p *Path) filling() bool {
	m := &p.members[p.sync.slab.Slot]

	return m.State == raid.Recovering && m.Device == p.sync.device
}

// cutSync makes the next band of a slab.
func (p *Path) cutSync(r *request) bool {
	end := min(r.hi, r.next+p.piece)

	row := int64(0)
	if p.level.HasParity() {
		row = int64(r.next / p.chunk)
		end = min(end, raid.Sectors(row+1)*p.chunk)
	}

	if r.fine {
		end = min(end, r.next+grain)
	}

	reads, need, ok := p.planSync(end, r.avoid)
	if !ok {
		r.failed = true

		return true
	}

	b := p.take(r, need)
	if b == nil {
		return false
	}

	b.row, b.lo, b.hi, b.slot = row, r.next, end, p.sync.slab.Slot
	r.next = end

	if p.sync.slab.Action == raid.Recover {
		b.kind = recovering
	} else {
		b.kind = resyncing
	}

	if p.level == raid.Level1 && b.kind == recovering {
		p.readMirror(b, reads)
	} else {
		p.readInto(b, reads)
	}

	return true
}

// readMirror reads b's range from the first mirror of set, for another one.
func (p *Path) readMirror(b *band, set slots) {
	source := raid.Slot(bits.TrailingZeros64(uint64(set)))
	p.send(b, source, Read, b.scratch(b.slot), false)
}

// planSync returns which members can be read for the slab, but for those to
// avoid, and where memory is needed; not ok if too many are missing.
func (p *Path) planSync(end raid.Sectors, avoid slots) (reads, need slots, ok bool) {
	var target slots

	bad := p.unreadable(end, avoid)
	s := &p.sync.slab

	if s.Action == raid.Resync {
		good := p.everyone() &^ bad

		return good, good, good.count() > 1 && (p.level == raid.Level1 || bad == 0)
	}

	target.add(s.Slot)

	if !p.filling() {
		return 0, 0, false
	}

	others := p.everyone() &^ target
	if p.level.HasParity() {
		return others, p.everyone(), bad&others == 0
	}

	good := others &^ bad

	return good, target, good != 0
}

// recovered takes the filling of a member on: compute and write, or end.
func (p *Path) recovered(b *band) {
	switch {
	case b.writing:
		p.done(b, b.missed == 0)
	case b.lost != 0 && p.level == raid.Level1:
		p.otherMirror(b)
	case b.lost != 0 || !p.filling():
		p.done(b, false)
	default:
		if p.level.HasParity() {
			p.sumOthers(b, b.slot)
		}

		b.writing = true
		p.send(b, b.slot, Write, b.scratch(b.slot), false)
	}
}

// otherMirror reads again what one mirror could not give, from the next.
func (p *Path) otherMirror(b *band) {
	b.req.avoid |= b.lost
	b.lost = 0

	if reads, _, ok := p.planSync(b.hi, b.req.avoid); ok {
		p.readMirror(b, reads)
	} else {
		p.done(b, false)
	}
}

// sumOthers leaves in the scratch memory of slot the sum of all others.
func (p *Path) sumOthers(b *band, slot raid.Slot) {
	sum := b.scratch(slot)
	clear(sum)

	for other := range raid.Slot(p.disks) {
		if other != slot && b.bufs[other] != nil {
			parity.XORInto(sum, b.scratch(other))
		}
	}
}

// compared takes a resync on: correct what differs, or end.
func (p *Path) compared(b *band) {
	switch {
	case b.writing:
		p.done(b, p.survivors() >= p.disks-p.level.Redundancy(p.disks))
	case p.level.HasParity():
		p.checkParity(b)
	default:
		p.checkMirrors(b)
	}
}

// checkParity writes the parity anew if it is wrong, or what the one member
// holds that could not be read. That is computed from parity that nobody could
// check, so it is done for no more than had to be: the neighbours of a bad
// sector are right where the parity is not.
func (p *Path) checkParity(b *band) {
	wrong := p.geo.ParitySlot(b.row)
	differs := b.lost != 0

	if differs && b.sectors() > grain {
		b.req.fine, b.req.again = true, true
		p.done(b, true)

		return
	}

	if b.lost.count() > 1 {
		p.done(b, false)

		return
	}

	for slot := range raid.Slot(p.disks) {
		if b.lost.has(slot) {
			wrong = slot
		}
	}

	if !differs {
		differs = p.parityDiffers(b, wrong)
	}

	if !differs {
		p.done(b, true)

		return
	}

	p.sumOthers(b, wrong)
	p.correct(b, wrong, b.scratch(wrong))

	if b.pending == 0 {
		p.done(b, false)
	}
}

// parityDiffers compares the parity of b with its data.
func (p *Path) parityDiffers(b *band, paritySlot raid.Slot) bool {
	data := p.views[:0]

	for slot := range raid.Slot(p.disks) {
		if slot != paritySlot {
			data = append(data, b.scratch(slot))
		}
	}

	return parity.Check(b.scratch(paritySlot), data...) >= 0
}

// checkMirrors writes the first mirror's content to those that differ, or that
// could not be read. Those that failed meanwhile need it no more.
func (p *Path) checkMirrors(b *band) {
	var source []byte

	for slot := range raid.Slot(p.disks) {
		if source == nil && b.bufs[slot] != nil && !b.lost.has(slot) {
			source = b.scratch(slot)
		}
	}

	if source == nil {
		p.done(b, false)

		return
	}

	for slot := range raid.Slot(p.disks) {
		if b.bufs[slot] != nil && (b.lost.has(slot) || !bytes.Equal(source, b.scratch(slot))) {
			p.correct(b, slot, source)
		}
	}

	if b.pending == 0 {
		p.done(b, true)
	}
}

// correct writes data to the member of slot, if there still is one.
func (p *Path) correct(b *band, slot raid.Slot, data []byte) {
	if p.members[slot].State != raid.InSync {
		return
	}

	if !b.writing {
		p.sync.slab.Mismatched += b.sectors()
	}

	b.writing = true
	p.send(b, slot, Write, data, false)
}
