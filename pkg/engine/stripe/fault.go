package stripe

import "raid-assembler/pkg/raid"

// readEnded takes the end of a read. What comes from a device that is not used
// any more does not count: it may be somebody else's by now.
func (p *Path) readEnded(b *band, place int, t *transfer) {
	p.reading[place]--
	m, slot := p.holder(place, t)
	b.stale = b.stale || m == nil

	if t.fault == None {
		return
	}

	b.lost.add(raid.Slot(place))
	b.have.remove(raid.Slot(place))

	if t.fault == Gone {
		p.giveUp(m, slot, t)
	} else {
		b.medium = true
	}
}

// holder returns what a transfer was sent to, as it is now: a successor may have
// taken its place in the meantime. It is nil if the device is not used any more.
func (p *Path) holder(place int, t *transfer) (*Member, raid.Slot) {
	m, slot := p.at(place)

	if place == p.disks {
		for i := range p.members {
			if p.members[i].Device == int(t.device) {
				m, slot = &p.members[i], raid.Slot(i)
			}
		}
	}

	if m.Device != int(t.device) || !m.working() {
		return nil, slot
	}

	return m, slot
}

// writeEnded takes the end of anything but a read. What is written to bad
// blocks makes them good; what cannot be written is recorded as bad if there is
// room for that, grain by grain, and else the member is given up.
func (p *Path) writeEnded(b *band, place int, t *transfer) {
	m, slot := p.holder(place, t)
	writes := t.op == Write || t.op == WriteZeroes

	if m == nil {
		// Whatever holds the slot now has none of it. What somebody who has left
		// did not flush, nobody counts on.
		if t.op != Flush {
			p.miss(b, place)
		}

		return
	}

	switch {
	case t.fault == None:
		if writes {
			p.clearBad(m, slot, t.at, t.end)
		}
	case t.fault == Gone || !writes:
		p.refused(b, place, t)

		return
	case m.Bad != nil && !t.grains && t.to-t.from > grain:
		t.grains, t.end = true, t.from
	case p.addBad(m, slot, t.at, t.end):
		// It is there but for these sectors, as whoever reads them knows.
	default:
		p.refused(b, place, t)

		return
	}

	if t.grains && t.end < t.to {
		p.nextGrain(b, t)
	}
}

// refused deals with a member that did not take what it was sent.
func (p *Path) refused(b *band, place int, t *transfer) {
	p.miss(b, place)

	if m, slot := p.holder(place, t); p.dispensable(m, slot, t) {
		p.giveUp(m, slot, t)
	}
}

// nextGrain sends the next grain of a write that failed as a whole.
func (p *Path) nextGrain(b *band, t *transfer) {
	t.at, t.end = t.end, min(t.to, (t.end/grain+1)*grain)
	p.ask(b, t)
}

// miss notes that a write did not arrive.
func (p *Path) miss(b *band, place int) {
	if place < p.disks {
		b.missed.add(raid.Slot(place))
	} else {
		b.heirMissed = true
	}
}

// dispensable reports whether m is to be given up for a failed write or flush.
// One that answers and whose loss would break the array is not, if all that is
// amiss is what its error says: without redundancy, and on the last copy.
func (p *Path) dispensable(m *Member, slot raid.Slot, t *transfer) bool {
	switch {
	case t.fault == Gone:
		return true
	case t.op == Discard || !p.level.HasRedundancy():
		return false
	case p.level.HasParity() || m.State != raid.InSync:
		return true
	default:
		return p.survives(p.lacking() | 1<<uint(slot))
	}
}

// giveUp stops using m, which holds slot, if it is used.
func (p *Path) giveUp(m *Member, slot raid.Slot, t *transfer) {
	if m == nil || !m.working() {
		return
	}

	m.State = raid.Faulty
	p.review()
	p.failures = append(p.failures, Failure{Device: m.Device, Slot: slot, Op: t.op, Sector: t.at})
	p.trust()

	// What is under way is to find what the array finds as soon as it is told.
	if slot == p.heir && m != &p.successor && p.successor.Full && p.successor.working() {
		heir := p.successor
		heir.State, heir.Recovered, heir.Full = raid.InSync, 0, false
		p.SetSuccessor(raid.NoSlot, Member{Device: -1})
		p.SetMember(slot, heir)
	}
}

// addBad records component sectors of m as bad. Reports false if there is no
// room for that.
func (p *Path) addBad(m *Member, slot raid.Slot, lo, hi raid.Sectors) bool {
	if m.Bad == nil || !m.Bad.Add(lo, hi) {
		return false
	}

	p.review()
	p.badBlocks = append(p.badBlocks, BadBlock{
		Device: m.Device, Slot: slot, Range: raid.Range{From: lo, To: hi},
	})
	p.trust()

	return true
}

// clearBad forgets the bad blocks of m that were written.
func (p *Path) clearBad(m *Member, slot raid.Slot, lo, hi raid.Sectors) {
	if !m.bad(lo, hi) || !m.Bad.Remove(lo, hi) {
		return
	}

	p.review()
	p.badBlocks = append(p.badBlocks, BadBlock{
		Device: m.Device, Slot: slot, Range: raid.Range{From: lo, To: hi}, Cleared: true,
	})
}

// mend begins to write what was made of the sectors that could not be read, to
// let the members store them anew. Reports whether there is anything to do.
// place tells where the content of a slot belongs on its member, and where it
// is.
func (p *Path) mend(b *band, place func(slot raid.Slot) (raid.Sectors, []byte)) bool {
	b.stage = writing

	for slot := range raid.Slot(p.disks) {
		if b.lost.has(slot) && p.members[slot].State == raid.InSync {
			at, data := place(slot)
			p.store(b, slot, Transfer{Op: Write, Sector: at, Sectors: b.sectors(), Data: data})
		}
	}

	return b.pending > 0
}

// verify reads again what was mended, into memory that is free by then.
// Reports whether there is anything to do.
func (p *Path) verify(b *band, into func(slot raid.Slot) []byte) bool {
	b.stage = verifying
	mended := b.lost &^ b.missed
	b.lost = 0

	for slot := range raid.Slot(p.disks) {
		if t := &b.ios[slot]; mended.has(slot) && t.op == Write && p.members[slot].State == raid.InSync &&
			!p.members[slot].bad(t.from, t.to) {
			p.send(b, int(slot), Transfer{Op: Read, Sector: t.from, Sectors: t.to - t.from, Data: into(slot)})
		}
	}

	return b.pending > 0
}

// condemn deals with members that could not read what they had just stored
// anew: it is recorded as bad, or they are given up, as after a failed write.
func (p *Path) condemn(b *band) {
	for slot := range raid.Slot(p.disks) {
		t := &b.ios[slot]
		m, _ := p.holder(int(slot), t)

		if !b.lost.has(slot) || m == nil || p.addBad(m, slot, t.from, t.to) {
			continue
		}

		t.op = Write

		if p.dispensable(m, slot, t) {
			p.giveUp(m, slot, t)
		}
	}
}
