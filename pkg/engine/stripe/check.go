package stripe

import "raid-assembler/pkg/raid"

// check panics unless the invariants of the package hold.
func (p *Path) check() {
	for i, a := range p.held {
		if conflicts(p.held[:i], a) {
			panic("stripe: overlapping ranges are held")
		}

		if !a.active || !a.locked {
			panic("stripe: a range is held by nobody")
		}
	}

	inFlight, buffers := 0, len(p.scratch)

	for i := range p.bands {
		b := &p.bands[i]
		if b.job == nil {
			continue
		}

		inFlight++

		if !b.job.active {
			panic("stripe: a band outlives its job")
		}

		if (b.kind != direct && b.kind != store) && !b.job.locked {
			panic("stripe: redundancy is used without its range being held")
		}

		for slot := range p.disks {
			if b.bufs[slot] != nil {
				buffers++
			}
		}

		p.checkWrites(b)
	}

	if inFlight+len(p.free) != len(p.bands) {
		panic("stripe: bands were lost")
	}

	if buffers != p.total {
		panic("stripe: scratch memory was lost")
	}

	p.checkMembers()
	p.checkJobs()
	p.checkReads()
}

func (p *Path) checkMembers() {
	if p.odd != p.oddities() {
		panic("stripe: a member is not what it is taken for")
	}
}

// checkWrites panics if a member that reads trust is left out of a write, or
// what is to take its place.
func (p *Path) checkWrites(b *band) {
	if b.stage != writing || b.pending == 0 || b.job.op != Write || b.job.syncing {
		return
	}

	if b.kind == modify || b.kind == rewrite {
		for slot := range raid.Slot(p.disks) {
			if (b.written | b.parities).has(slot) {
				p.checkWritten(b, slot, b.hi)
			}
		}
	}

	if b.kind == store {
		for i := range p.geo.Copies() {
			slot, at, _ := p.geo.Copy(b.lo, i)
			p.checkWritten(b, slot, at+b.sectors())
		}
	}
}

// checkWritten panics if a write up to component sector end is not sent to all
// that must have it. A member that came later has nothing to lose.
func (p *Path) checkWritten(b *band, slot raid.Slot, end raid.Sectors) {
	heir := &b.ios[p.disks]
	m := &p.members[slot]
	promoted := heir.sent && m.Device == int(heir.device)

	if m.State == raid.InSync && !b.ios[slot].sent && !promoted {
		panic("stripe: a member is left out of a write")
	}

	if slot == p.heir && p.successor.State == raid.Recovering && end <= p.successor.Recovered && !b.ios[p.disks].sent {
		panic("stripe: a successor is left out of a write")
	}
}

// checkJobs panics unless each request has its jobs, and each stream its
// requests.
func (p *Path) checkJobs() {
	jobs, waiting := 0, p.checkGathering()

	for i := range p.jobs[:len(p.jobs)-1] {
		if p.jobs[i].active {
			jobs++
		}
	}

	var flying, active int

	for i := range p.clients {
		c := &p.clients[i]
		if !c.active {
			continue
		}

		jobs -= c.jobs
		waiting -= c.waiting

		if c.stream >= 0 {
			active++
		}

		if c.flying {
			flying++
		}
	}

	for i := range p.streams.all {
		flying -= p.streams.all[i].flying
		active -= p.streams.all[i].active
	}

	if jobs != 0 || waiting != 0 || flying != 0 || active != 0 {
		panic("stripe: requests and their parts were lost")
	}
}

// checkGathering panics unless the parts of rows that wait hold nothing and do
// not overlap. It returns how many they are.
func (p *Path) checkGathering() int {
	n := 0

	for i, lead := range p.gathering {
		for part := lead; part != nil; part = part.next {
			if !part.active || part.locked || part.queued || part.bands > 0 {
				panic("stripe: a part of a row that waits was begun")
			}

			n++

			for _, other := range p.gathering[:i] {
				if other.from < part.to && part.from < other.to {
					panic("stripe: parts that wait overlap")
				}
			}
		}
	}

	return n
}

// checkReads panics unless the reads in flight are counted.
func (p *Path) checkReads() {
	for place, n := range p.reading {
		for i := range p.bands {
			if t := &p.bands[i].ios[place]; p.bands[i].job != nil && t.pending && t.op == Read {
				n--
			}
		}

		if n != 0 {
			panic("stripe: reads in flight are counted wrong")
		}
	}
}
