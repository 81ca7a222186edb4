package stripe

import "raid-assembler/pkg/raid"

// check panics unless the invariants of the package hold.
func (p *Path) check() {
	for i, a := range p.held {
		if conflicts(p.held[:i], a) {
			panic("stripe: overlapping ranges are held")
		}
	}

	inFlight, buffers := 0, len(p.scratch)

	for i := range p.bands {
		b := &p.bands[i]
		if b.req == nil {
			continue
		}

		inFlight++

		if !b.req.active {
			panic("stripe: a band outlives its request")
		}

		if b.kind != plain && !b.req.locked {
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
}

// checkWrites panics if a member that reads trust is left out of a write.
func (p *Path) checkWrites(b *band) {
	if b.kind != plain || b.req.Op != Write || p.level != raid.Level1 || b.pending == 0 {
		return
	}

	for slot := range p.members {
		m := &p.members[slot]
		if m.State == raid.InSync && b.ios[slot].op != Write {
			panic("stripe: a mirror is left out of a write")
		}
	}
}
