package stripe

import (
	"bytes"

	"raid-assembler/pkg/raid"
)

// tolerates reports whether the array survives what undo undoes. If the history
// is one that goes beyond redundancy, it may.
func (h *history) tolerates(beyond bool, undo func()) bool {
	for s := range h.over {
		if h.lost(raid.Sectors(s)) && !h.over[s] && !beyond {
			undo()

			return false
		}
	}

	h.look()

	return true
}

// harm does some harm.
func (h *history) harm() {
	slot := raid.Slot(h.rng.IntN(h.g.Disks))
	m := h.p.Member(slot)

	if m.Device < 0 || h.disks[m.Device].dead || h.quiet {
		return
	}

	d := h.disks[m.Device]
	size := raid.Sectors(len(d.data) / raid.SectorSize)
	if h.g.Size != 0 {
		size = h.geo.ComponentSectors()
	}

	at := raid.Sectors(h.rng.Int64N(int64(size)))
	beyond := h.rng.IntN(3) == 0

	switch what := h.rng.IntN(12); {
	case what == 0 && h.g.Level.HasRedundancy():
		d.dead = true
		if h.tolerates(false, func() { d.dead = false }) {
			h.count("device dies")
		}
	case what == 1 && h.g.Level.HasRedundancy():
		// The member may be given up for it.
		d.dead = true

		if h.tolerates(false, func() { d.dead = false }) {
			d.dead = false
			d.hard[at] = true
			h.look()
			h.doubt(slot, at)
			h.count("sector fails for good")
		}
	case what < 8:
		if !d.soft[at] {
			d.soft[at] = true
			if h.tolerates(beyond || !h.g.Level.HasRedundancy(), func() { delete(d.soft, at) }) {
				h.count("sector fails")
			}
		}
	case what == 8:
		m.Slow = !m.Slow
		h.p.SetMember(slot, m)
		h.count("speed changes")
	}
}

// doubt notes that writes to what a component sector of slot is a copy of may be
// refused: without room in a log the member has to go, and another chunk may
// not do without it.
func (h *history) doubt(slot raid.Slot, at raid.Sectors) {
	for s := range h.weak {
		for i := range h.geo.Copies() {
			if other, c, _ := h.geo.Copy(raid.Sectors(s), i); other == slot && c == at && !h.g.Level.HasParity() {
				h.weak[s] = true
			}
		}
	}
}

// upkeep does what whoever runs the array does.
func (h *history) upkeep() {
	if slab, ok := h.p.TakeSlab(); ok {
		h.slabEnded(slab)
	}

	if !h.g.Level.HasRedundancy() || h.p.Syncing() {
		return
	}

	slot := raid.Slot(h.rng.IntN(h.g.Disks))
	m := h.p.Member(slot)
	heir, successor := h.p.Successor()

	switch {
	case m.State == raid.Faulty && heir == slot:
		// The successor goes on as what is recovered.
		h.count("successor takes over")
		h.p.SetSuccessor(raid.NoSlot, Member{Device: -1})
		h.p.SetMember(slot, successor)
	case m.State == raid.Faulty:
		h.count("spare put to work")
		h.p.SetMember(slot, h.member(h.newDisk(true), raid.Recovering))
	case m.State == raid.Recovering:
		h.slab(raid.Recover, slot, m.Recovered, h.geo.ComponentSectors())
	case heir != raid.NoSlot:
		if m := h.p.Member(heir); m.State == raid.InSync {
			h.slab(raid.Replace, heir, successor.Recovered, h.geo.ComponentSectors())
		}
	case h.rng.IntN(20) == 0 && m.State == raid.InSync && !h.quiet:
		h.count("successor comes")
		h.p.SetSuccessor(slot, h.member(h.newDisk(true), raid.Recovering))
	case h.rng.IntN(4) == 0 && h.p.lacking() == 0:
		action := []raid.SyncAction{raid.Check, raid.Repair, raid.Resync}[h.rng.IntN(3)]
		from := raid.Sectors(0)

		if chunk := max(h.g.Chunk, 8); h.rng.IntN(2) == 0 {
			from = raid.Sectors(h.rng.Int64N(int64(h.geo.SyncSectors()))) / chunk * chunk
		}

		h.p.SetResynced(raid.MaxSectors)
		h.slab(action, raid.NoSlot, from, h.geo.SyncSectors())
	}
}

func (h *history) slab(action raid.SyncAction, slot raid.Slot, from, size raid.Sectors) {
	chunk := max(h.g.Chunk, 8)
	h.count(string(action))
	h.trace("slab %v slot %d from %d", action, slot, from)
	h.p.SyncSlab(action, slot, from, min(size, from+chunk*raid.Sectors(1+h.rng.IntN(4))))
	h.settle()
}

// slabEnded goes on from a slab.
func (h *history) slabEnded(slab Slab) {
	h.p.SetResynced(raid.MaxSectors)

	if !slab.OK {
		h.count("slab given up")

		m := h.p.Member(max(slab.Slot, 0))
		if slab.Action == raid.Recover && m.State == raid.Recovering {
			m.State = raid.Faulty
			h.p.SetMember(slab.Slot, m)
			h.look()
		}

		if heir, _ := h.p.Successor(); slab.Action == raid.Replace && heir == slab.Slot {
			h.p.SetSuccessor(raid.NoSlot, Member{Device: -1})
		}

		return
	}

	whole := slab.To >= h.geo.ComponentSectors()

	switch m := h.p.Member(max(slab.Slot, 0)); {
	case slab.Mismatched != 0:
		for i, r := range slab.Where {
			if !h.failed {
				h.fatalf("%s found a difference at %v, slot %d", slab.Action, r, slab.Wrong[i])
			}
		}
	case slab.Action == raid.Recover && whole && m.State == raid.Recovering:
		h.count("recovered")
		m.State = raid.InSync
		h.p.SetMember(slab.Slot, m)
	case slab.Action == raid.Replace && whole:
		if heir, s := h.p.Successor(); heir == slab.Slot {
			h.count("replaced")
			s.State = raid.InSync
			h.p.SetSuccessor(raid.NoSlot, Member{Device: -1})
			h.p.SetMember(slab.Slot, s)
		}
	}

	h.look()
}

// run lives the history.
func (h *history) run() {
	harms := h.rng.IntN(4)

	for range min(h.most, 60+h.rng.IntN(120)) {
		h.submit()

		if h.rng.IntN(10) < harms {
			h.harm()
		}

		h.upkeep()

		for n := h.rng.IntN(12); n > 0 && h.step(); n-- {
		}
	}

	h.quiet = true

	for _, d := range h.disks {
		clear(d.hard)

		if h.logs < 64 {
			clear(d.soft) // what nobody can give and nobody can note down ends a recovery
		}
	}

	h.drain()

	// Whoever died is found out by a flush, also a successor.
	h.reqs[0] = &wish{Request: Request{Op: Flush}}
	h.p.Submit(h.reqs[0].Request)
	h.drain()

	if !h.p.alive() {
		h.count("array broken")

		return
	}

	h.heal()
	h.verify()
}

// heal makes the array whole. What nobody can give any more, and nobody can note
// down as lost, has to be written first.
func (h *history) heal() {
	if !h.g.Level.HasRedundancy() {
		return
	}

	if !h.fill() {
		h.count("written anew")

		for s := range h.geo.ArraySectors() {
			r := &wish{
				Request: Request{Op: WriteZeroes, Sector: s / 64 * 64, Sectors: min(64, h.geo.ArraySectors()-s/64*64)},
			}
			r.data = make([]byte, r.Sectors.Bytes())

			if s%64 == 0 {
				h.reqs[0] = r
				h.p.Submit(r.Request)
				h.drain()
			}
		}

		if !h.fill() {
			h.fatalf("slots %b lack a member in sync", h.p.lacking())
		}
	}

	for _, action := range []raid.SyncAction{raid.Resync, raid.Check} {
		h.p.SyncSlab(action, raid.NoSlot, 0, h.geo.SyncSectors())
		h.drain()

		slab, _ := h.p.TakeSlab()
		if !slab.OK || action == raid.Check && slab.Mismatched != 0 {
			h.fatalf("at the end: %+v", slab)
		}
	}
}

// fill fills all that is to be filled. Reports whether the array is whole.
func (h *history) fill() bool {
	for range 400 {
		h.upkeep()
		h.drain()

		heir, _ := h.p.Successor()
		if h.p.lacking() == 0 && heir == raid.NoSlot && !h.p.Syncing() {
			break
		}
	}

	if slab, ok := h.p.TakeSlab(); ok {
		h.slabEnded(slab)
	}

	return h.p.lacking() == 0
}

// verify compares the disks with the model, and their redundancy with what the
// level says it is, without the Path.
func (h *history) verify() {
	h.t.Helper()

	sector := func(slot raid.Slot, at raid.Sectors) []byte {
		return h.disks[h.p.Member(slot).Device].data[at.Bytes() : at.Bytes()+raid.SectorSize]
	}

	for s := range raid.Sectors(len(h.unknown)) {
		if h.lost(s) {
			continue
		}

		for i := range h.geo.Copies() {
			slot, at, _ := h.geo.Copy(s, i)
			first, firstAt, _ := h.geo.Copy(s, 0)

			if h.damaged(slot, at) || h.damaged(first, firstAt) {
				continue
			}

			if !bytes.Equal(sector(slot, at), sector(first, firstAt)) {
				h.fatalf("copy %d of sector %d differs", i, s)
			}

			if !h.unknown[s] && !bytes.Equal(sector(slot, at), h.model[s.Bytes():s.Bytes()+raid.SectorSize]) {
				h.fatalf("copy %d of sector %d is not what was written", i, s)
			}
		}
	}

	if h.g.Level.HasParity() {
		for at := range h.geo.ComponentSectors() {
			h.verifyRow(at, sector)
		}
	}
}

// verifyRow computes the parities at a component sector slowly.
func (h *history) verifyRow(at raid.Sectors, sector func(raid.Slot, raid.Sectors) []byte) {
	row := int64(at / h.g.Chunk)
	p, q := make([]byte, raid.SectorSize), make([]byte, raid.SectorSize)

	for slot := range raid.Slot(h.g.Disks) {
		if h.damaged(slot, at) {
			return
		}

		if h.geo.DataIndex(row, slot) < 0 {
			continue
		}

		for i, c := range sector(slot, at) {
			p[i] ^= c
			q[i] ^= times2(c, h.geo.Exponent(row, slot))
		}
	}

	if !bytes.Equal(p, sector(h.geo.ParitySlot(row), at)) {
		h.fatalf("P is wrong at component sector %d", at)
	}

	if slot := h.geo.QSlot(row); slot != raid.NoSlot && !bytes.Equal(q, sector(slot, at)) {
		h.fatalf("Q is wrong at component sector %d", at)
	}
}

// times2 multiplies c by 2^e in the field of Q.
func times2(c byte, e int) byte {
	for range e {
		carry := c >> 7
		c = c<<1 ^ carry*0x1d
	}

	return c
}
