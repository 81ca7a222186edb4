package stripe

import "raid-assembler/pkg/raid"

// readEnded takes the end of a read.
func (p *Path) readEnded(b *band, place int, t *transfer) {
	p.reading[place]--

	if t.fault == None {
		return
	}

	b.lost.add(raid.Slot(place))
	b.have.remove(raid.Slot(place))

	if t.fault == Gone {
		p.giveUp(place, t)
	} else {
		b.medium = true
	}
}

// writeEnded takes the end of anything but a read. What is written to bad
// blocks makes them good; what cannot be written is recorded as bad if there is
// room for that, grain by grain, and else the member is given up.
func (p *Path) writeEnded(b *band, place int, t *transfer) {
	m, _ := p.at(place)
	known := m.Device == int(t.device) && m.working()
	writes := t.op == Write || t.op == WriteZeroes

	if !known {
		// Whatever holds the slot now has none of it.
		p.miss(b, place)

		return
	}

	if p.arrived(b, place, t, writes) && t.grains && t.end < t.to {
		p.nextGrain(b, place, t)
	}
}

// arrived takes the end of a transfer to a member that is still there, and
// reports whether it is still used.
func (p *Path) arrived(b *band, place int, t *transfer, writes bool) bool {
	m, slot := p.at(place)

	switch {
	case t.fault == None:
		if writes {
			p.clearBad(m, slot, t.at, t.end)
		}
	case t.fault == Medium && writes && m.Bad != nil && !t.grains && t.to-t.from > grain:
		t.grains, t.end = true, t.from
	case t.fault == Medium && writes && p.addBad(m, slot, t.at, t.end):
		p.miss(b, place)
	default:
		p.miss(b, place)

		if p.dispensable(place, t) {
			p.giveUp(place, t)
		}

		return false
	}

	return true
}

// nextGrain sends the next grain of a write that failed as a whole.
func (p *Path) nextGrain(b *band, place int, t *transfer) {
	t.at, t.end = t.end, min(t.to, (t.end/grain+1)*grain)
	m, slot := p.at(place)
	tr := Transfer{
		Device: m.Device, Slot: slot, Op: t.op, Sector: t.at, Sectors: t.end - t.at, FUA: t.fua,
	}

	if t.op == Write {
		tr.Data = t.data[(t.at - t.from).Bytes():(t.end - t.from).Bytes()]
	}

	p.ask(b, place, tr)
}

// miss notes that a write did not arrive. Nobody counts on a successor.
func (p *Path) miss(b *band, place int) {
	if place < p.disks {
		b.missed.add(raid.Slot(place))
	}
}

// dispensable reports whether the member of place is to be given up for a
// failed write or flush. One that answers and whose loss would break the array
// is not, if all that is amiss is what its error says: without redundancy, and
// on the last copy.
func (p *Path) dispensable(place int, t *transfer) bool {
	switch {
	case t.fault == Gone:
		return true
	case t.op == Discard || !p.level.HasRedundancy():
		return false
	case place == p.disks || p.level.HasParity() || p.members[place].State != raid.InSync:
		return true
	default:
		return p.survives(p.lacking() | 1<<uint(place))
	}
}

// giveUp stops using what a place stands for, if it still is the device that
// failed.
func (p *Path) giveUp(place int, t *transfer) {
	m, slot := p.at(place)
	if m.Device != int(t.device) || !m.working() {
		return
	}

	m.State = raid.Faulty
	p.failures = append(p.failures, Failure{Device: m.Device, Slot: slot, Op: t.op, Sector: t.at})
}

// addBad records component sectors of m as bad. Reports false if there is no
// room for that.
func (p *Path) addBad(m *Member, slot raid.Slot, lo, hi raid.Sectors) bool {
	if m.Bad == nil || !m.Bad.Add(lo, hi) {
		return false
	}

	p.badBlocks = append(p.badBlocks, BadBlock{
		Device: m.Device, Slot: slot, Range: raid.Range{From: lo, To: hi},
	})

	return true
}

// clearBad forgets the bad blocks of m that were written.
func (p *Path) clearBad(m *Member, slot raid.Slot, lo, hi raid.Sectors) {
	if !m.bad(lo, hi) || !m.Bad.Remove(lo, hi) {
		return
	}

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
		if t := &b.ios[slot]; mended.has(slot) && t.op == Write && p.members[slot].State == raid.InSync {
			p.send(b, int(slot), Transfer{Op: Read, Sector: t.from, Sectors: t.to - t.from, Data: into(slot)})
		}
	}

	return b.pending > 0
}

// condemn deals with members that could not read what they had just stored
// anew: it is recorded as bad, or they are given up, as after a failed write.
func (p *Path) condemn(b *band) {
	for slot := range raid.Slot(p.disks) {
		m, t := &p.members[slot], &b.ios[slot]
		if !b.lost.has(slot) || m.Device != int(t.device) || !m.working() || p.addBad(m, slot, t.from, t.to) {
			continue
		}

		t.op = Write

		if p.dispensable(int(slot), t) {
			p.giveUp(int(slot), t)
		}
	}
}
