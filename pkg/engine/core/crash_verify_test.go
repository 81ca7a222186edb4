package core

import (
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// settle lets all that goes on end, and the array be made whole if it can be.
func (w *world) settle() {
	for range 20000 {
		if w.m.atRest() {
			return
		}

		w.m.complete()
	}

	w.t.Fatalf("never at rest: %v, %d operations in flight", w.m, len(w.m.flying))
}

// verify reads all there is, in every way that there is.
func (w *world) verify() {
	const tag = 0

	for s := raid.Sectors(0); int(s) < len(w.cells); s += 20 {
		n := min(20, raid.Sectors(len(w.cells))-s)
		w.m.submit(stripe.Request{Tag: tag, Op: stripe.Read, Sector: s, Data: make([]byte, n.Bytes())})
		w.settle()

		if w.m.reqs[tag] != nil {
			w.t.Fatalf("read at sector %d never ended", s)
		}
	}

	missing := raid.NoSlot

	for slot, member := range w.m.array.Members() {
		if member.State != raid.InSync {
			missing = raid.Slot(slot)
		}
	}

	if missing == raid.NoSlot && w.m.array.Resynced() != raid.MaxSectors {
		w.t.Fatalf("redundancy is right below %d only: %v", w.m.array.Resynced(), w.m)
	}

	for s := range w.g.ArraySectors() {
		var first *block

		for slot := range raid.Slot(w.geo.Disks) {
			if w.m.array.Members()[slot].State != raid.InSync || missing != raid.NoSlot && w.geo.Level.HasParity() {
				continue
			}

			b := w.without(slot, s)
			if first == nil {
				first = b
				w.check("members", s, b[:])
			}

			if *b != *first {
				w.t.Fatalf("sector %d differs when slot %d has no say: %v", s, slot, w.m)
			}
		}
	}
}

// without returns a sector of the array as it is without the data of a slot,
// for a mirror with that alone; it knows the levels in its own way.
func (w *world) without(lost raid.Slot, s raid.Sectors) *block {
	slot, at, _ := w.g.Locate(s)
	disk := func(slot raid.Slot) *block {
		id := w.m.array.Members()[slot].Device

		return w.m.drives[id].read(w.m.disks[id].Offset + at)
	}

	if w.geo.Level == raid.Level1 {
		return disk(lost)
	}

	if slot != lost {
		return disk(slot)
	}

	var sum block

	for other := range raid.Slot(w.geo.Disks) {
		if other != lost {
			for i, c := range disk(other) {
				sum[i] ^= c
			}
		}
	}

	return &sum
}

// stop ends a life as it should end.
func (w *world) stop() {
	w.m.Close()
	w.m.pump()
	w.settle()

	if !w.m.Stopped() {
		w.t.Fatalf("not stopped: %v", w.m)
	}

	w.m.cut(w.drives)

	if w.m.array.Degraded() > 0 {
		return
	}

	for s := range w.cells {
		c := &w.cells[s]
		b := w.without(0, raid.Sectors(s))

		for _, id := range c.versions {
			if *content(id, raid.Sectors(s)) == *b {
				*c = cell{versions: []uint64{id}, exact: true}
			}
		}
	}
}
