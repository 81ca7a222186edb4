package core

import (
	"slices"

	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// settle lets all that goes on end, and the array be made whole if it can be.
func (w *world) settle() {
	w.wake()

	for range 20000 {
		if w.m.atRest() {
			return
		}

		w.happens()
		w.m.complete()
	}

	w.wrong("never at rest: %v, %d operations in flight", w.m, len(w.m.flying))
}

// verify reads all there is, in every way that there is.
func (w *world) verify() {
	const tag = 0

	for s := raid.Sectors(0); int(s) < len(w.cells); s += 20 {
		n := min(20, raid.Sectors(len(w.cells))-s)
		w.m.submit(stripe.Request{Tag: tag, Op: stripe.Read, Sector: s, Data: w.m.hangs.buffers[tag][:n.Bytes()]})
		w.settle()

		if w.m.reqs[tag] != nil {
			w.wrong("read at sector %d never ended", s)
		}
	}

	if w.m.array.Degraded() == 0 && w.m.array.Resynced() != raid.MaxSectors {
		w.wrong("redundancy is right below %d only: %v", w.m.array.Resynced(), w.m)
	}

	if w.geo.Level.HasParity() {
		w.verifyParity()
	} else {
		w.verifyCopies()
	}
}

// disk returns what the member in sync of a slot holds, or nil.
func (w *world) disk(slot raid.Slot, component raid.Sectors) *block {
	m := w.m.array.Members()[slot]
	if bad, logged := w.logged(m.Device); m.State != raid.InSync || logged && bad.Has(component, component+1) {
		return nil
	}

	return w.m.drives[m.Device].read(w.m.disks[m.Device].Offset + component)
}

// checked has the array compare its redundancy, where there is nothing wrong.
func (w *world) checked() {
	w.happens()

	if w.rotten() || w.m.Sync(raid.Check, raid.Range{To: raid.MaxSectors}) != nil {
		return
	}

	w.m.pump()
	w.settle()

	if found := w.m.syncer.last; found.Action == raid.Check && found.Sectors != 0 {
		w.wrong("a check found %d sectors that are not redundant: %v", found.Sectors, found.Where)
	}
}

// slots returns all slots.
func (w *world) slots() []raid.Slot {
	all := make([]raid.Slot, w.geo.Disks)
	for slot := range all {
		all[slot] = raid.Slot(slot)
	}

	return all
}

// verifyCopies compares all copies of each sector.
func (w *world) verifyCopies() {
	for s := range w.g.ArraySectors() {
		var first *block

		for i := range w.g.Copies() {
			slot, component, _ := w.g.Copy(s, i)

			b := w.disk(slot, component)
			if b == nil {
				continue
			}

			if first == nil {
				first = b
				w.check("members", s, b[:])
			}

			if *b != *first {
				w.wrong("copy %d of sector %d, in slot %d, differs: %v", i, s, slot, w.m)
			}
		}
	}
}

// verifyParity computes the parity of each row, in its own slow way.
func (w *world) verifyParity() {
	if w.m.array.Degraded() > 0 {
		return
	}

	for s := range w.g.ArraySectors() {
		slot, component, _ := w.g.Locate(s)
		if b := w.disk(slot, component); b != nil {
			w.check("members", s, b[:])
		}
	}

	for component := range raid.Sectors(w.g.Rows()) * w.geo.Chunk {
		row := int64(component / w.geo.Chunk)

		if slices.ContainsFunc(w.slots(), func(slot raid.Slot) bool { return w.disk(slot, component) == nil }) {
			continue // there is no redundancy to be compared
		}

		var p, q block

		for d := range w.g.DataDisks() {
			slot := w.g.DataSlot(row, d)
			coefficient := byte(1)

			for range w.g.Exponent(row, slot) {
				coefficient = double(coefficient)
			}

			for i, c := range w.disk(slot, component) {
				p[i] ^= c
				q[i] ^= times(coefficient, c)
			}
		}

		if p != *w.disk(w.g.ParitySlot(row), component) {
			w.wrong("parity at component sector %d is wrong: %v", component, w.m)
		}

		if slot := w.g.QSlot(row); slot != raid.NoSlot && q != *w.disk(slot, component) {
			w.wrong("Q at component sector %d is wrong: %v", component, w.m)
		}
	}
}

// double is multiplication by 2 in the field of Q.
func double(c byte) byte {
	if c >= 0x80 {
		return c<<1 ^ 0x1d
	}

	return c << 1
}

func times(a, b byte) (product byte) {
	for ; b > 0; a, b = double(a), b>>1 {
		if b&1 != 0 {
			product ^= a
		}
	}

	return product
}

// stop ends a life as it should end.
func (w *world) stop() {
	w.stopHanging()
	w.m.Close()
	w.m.pump()
	w.settle()

	if !w.m.Stopped() {
		w.wrong("not stopped: %v", w.m)
	}

	w.m.cut(w.drives)

	if w.m.array.Degraded() > 0 {
		return
	}

	for s := range w.cells {
		c := &w.cells[s]
		slot, component, _ := w.g.Locate(raid.Sectors(s))
		b := w.disk(slot, component)

		for _, id := range c.versions {
			if b != nil && *content(id, raid.Sectors(s)) == *b {
				*c = cell{versions: []uint64{id}, exact: true}
			}
		}
	}
}
