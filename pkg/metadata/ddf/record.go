package ddf

import (
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// The stages of a Record. Of each copy the header is opened, the sections are
// written and the header is closed with a higher sequence number: a crash leaves
// the other copy as it was, or as it will be. An open header keeps the old number,
// for else it would pass for newer than the other copy.
//
// A new disk has no anchor meanwhile: whatever it was before, it is nothing until
// all is written.
const (
	stageErase = iota
	stageOpen
	stageSections
	stageClose
	stageAnchor = 7
)

// createMax is the most that one write of a new array holds.
const createMax = 64 << 10

// Record implements [metadata.Keeper]. It does not allocate once every device was
// written.
//
// The anchor stays as it is. Only its time of writing would be another, and no
// disk is found without it.
func (k *keeper) Record(st metadata.State) [][]metadata.Write {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.seq++
	k.container.seq++
	k.settle(st)

	for i := range k.parts {
		k.parts[i] = k.parts[i][:0]
	}

	led := false

	for i, m := range k.members {
		record, ok := st.Members[metadata.MemberID(i)]
		if m == nil || !ok || record.State == raid.Faulty {
			continue
		}

		// Where there is one copy, a disk is torn meanwhile. One goes before the
		// others, so that there are always some that are whole.
		round := 0
		if len(m.disk.areas) == 1 && led {
			round = 1
		}

		led = led || len(m.disk.areas) == 1
		k.writeDisk(metadata.MemberID(i), m, round, diskTime(st.Now))
	}

	k.stages = k.stages[:0]

	for _, part := range k.parts {
		if len(part) > 0 {
			k.stages = append(k.stages, part)
		}
	}

	return k.stages
}

// settle makes the record, and what all arrays have in common, say st.
func (k *keeper) settle(st metadata.State) {
	clear(k.holders)
	clear(k.keeps)

	for i, m := range k.members {
		if m == nil {
			continue
		}

		record, ok := st.Members[metadata.MemberID(i)]
		m.failed = ok && record.State == raid.Faulty
		m.works, m.filled, m.inRecord = ok && !m.failed, false, false

		switch {
		case ok && (record.State == raid.InSync || record.State == raid.Recovering):
			k.seat(m, record)
		case m.failed && record.Slot != raid.NoSlot: // else another has it
			refnum := k.form.order.Uint32(k.record[offRefnums+4*k.places[record.Slot]:])
			k.keeps[record.Slot] = k.keeps[record.Slot] || refnum == m.disk.refnum
		}
	}

	for slot, m := range k.holders {
		k.putSlot(raid.Slot(slot), m)
	}

	k.putDisks()
	k.putArray(st)
	k.form.seal(k.physical)
	k.form.seal(k.virtual)
}

// putDisks puts what is said of the members into the physical section.
func (k *keeper) putDisks() {
	for _, m := range k.members {
		if m != nil && (m.works || m.failed) {
			k.describe(m.disk, m.inRecord || k.holds(m.disk, k.guid))
		}
	}
}

// seat gives a device its slot. While it is being filled it can have one only if
// it is a member of no other array: that a disk is being filled is said of all of
// it. Then it has none until it is full, and is a spare after a crash.
func (k *keeper) seat(m *member, record metadata.MemberRecord) {
	if k.holders[record.Slot] != nil {
		panic(fmt.Sprintf("ddf: two members in slot %d", record.Slot))
	}

	recovering := record.State == raid.Recovering
	if recovering && k.holds(m.disk, k.guid) || k.place(m.disk, k.guid) < 0 {
		return
	}

	m.filled, m.inRecord = recovering, true
	k.holders[record.Slot] = m
}

// putSlot puts the device in a slot into the record, or that there is none.
func (k *keeper) putSlot(slot raid.Slot, m *member) {
	o, at := k.form.order, k.places[slot]
	refnum := k.record[offRefnums+4*at:]

	switch was := o.Uint32(refnum); {
	case m != nil:
		o.PutUint32(refnum, m.disk.refnum)
		o.PutUint64(k.record[offRefnums+4*k.header.elements()+8*at:], uint64(m.offset))

		if was != 0 && was != m.disk.refnum {
			k.lost(was)
		}
	case !k.keeps[slot] && was != 0:
		o.PutUint32(refnum, 0)
		k.lost(was)
	}
}

// putArray puts the state of the array into the virtual section, and the time
// and the number of this record into it.
func (k *keeper) putArray(st metadata.State) {
	e := k.array(k.guid)
	if e == nil {
		panic("ddf: the array is none of the container's")
	}

	state := e[offState]&^vdStateMask | k.state()

	switch {
	case !k.geometry.Level.HasRedundancy():
	case st.ResyncOffset == raid.MaxSectors:
		state &^= vdInconsistent
		e[offInit] = e[offInit]&^initMask | initFull
	default:
		state |= vdInconsistent
	}

	e[offState] = state

	k.form.order.PutUint32(k.record[offConfTimestamp:], diskTime(st.Now))
	k.form.order.PutUint32(k.record[offConfSeq:], k.seq)
	k.form.seal(k.record)
}

// state returns what mdadm calls the array.
func (k *keeper) state() byte {
	works := 0

	for slot := range k.holders {
		if k.survives(raid.Slot(slot)) {
			works++
		}
	}

	missing := len(k.holders) - works

	switch {
	case missing == 0:
		return vdOptimal
	case !k.geometry.Survives(k.survives):
		return vdFailed
	case k.geometry.Redundancy() > missing && k.geometry.Level != raid.Level10:
		return vdPartiallyOptimal
	default:
		return vdDegraded
	}
}

// writeDisk appends the writes of a disk to the stages, those of its first copy
// in the round given.
func (k *keeper) writeDisk(id metadata.MemberID, m *member, round int, now uint32) {
	d := m.disk
	place := k.place(d, k.guid)

	for i, a := range d.areas {
		k.opened(a)
		a.put(a.offset(a.header.Physical), k.physical)
		a.put(a.offset(a.header.Virtual), k.virtual)

		record := k.unused
		if m.inRecord {
			record = k.record
		}

		if at := a.offset(a.header.Config) + place*a.header.recordSize(); place >= 0 {
			a.put(at, record)
		}

		k.closed(a, now)
		k.writeArea(id, a, 3*(round+i))
	}

	if d.anchor != nil {
		k.parts[stageAnchor] = append(k.parts[stageAnchor], metadata.Write{
			Member: id, Sector: d.anchorAt &^ raid.Sectors(len(d.anchor)/raid.SectorSize-1), Data: d.anchor,
		})

		for _, w := range d.erase {
			w.Member = id
			k.parts[stageErase] = append(k.parts[stageErase], w)
		}

		d.erase, d.anchor = nil, nil
	}
}

// opened prepares the block of an open header with the number that is on disk.
func (k *keeper) opened(a *area) {
	copy(a.open, a.image[:a.block])

	head := a.open[(a.at - a.start).Bytes():][:raid.SectorSize]
	head[offOpen] = 1
	k.form.seal(head)
}

// closed makes the header of a what it is in the end. What else is new in its block
// is written before that, for a block may be torn.
func (k *keeper) closed(a *area, now uint32) {
	a.first = a.first[:0]
	if at := int((a.at - a.start).Bytes()); a.block > raid.SectorSize && a.dirty[0] {
		a.first = append(a.first, a.image[:a.block]...)
		copy(a.first[at:], a.open[at:][:raid.SectorSize])
	}

	head := k.head[:]
	copy(head, a.head())
	head[offOpen] = 0
	k.form.order.PutUint32(head[offSeq:], k.container.seq)
	k.form.order.PutUint32(head[offTimestamp:], now)
	k.form.seal(head)
	a.put(a.offset(Section{}), head)
}

// writeArea appends the writes of the blocks of a that changed, from a stage on.
func (k *keeper) writeArea(id metadata.MemberID, a *area, stage int) {
	sections, most := stage+stageSections, max(k.piece/a.block, 1)
	head := metadata.Write{Member: id, Sector: a.start, Data: a.image[:a.block]}

	if len(a.first) > 0 {
		first := head
		first.Data = a.first
		k.parts[sections] = append(k.parts[sections], first)
	}

	// The first block has the header.
	for from := 1; from < len(a.dirty); from++ {
		if !a.dirty[from] {
			continue
		}

		to := from
		for ; to < len(a.dirty) && a.dirty[to] && to-from < most; to++ {
			a.dirty[to] = false
		}

		k.parts[sections] = append(k.parts[sections], metadata.Write{
			Member: id, Sector: a.start + raid.Sectors(from*a.block/raid.SectorSize),
			Data: a.image[from*a.block : to*a.block],
		})
		from = to - 1
	}

	a.dirty[0] = false

	if n := len(k.parts[sections]); n > 0 && k.parts[sections][n-1].Member == id {
		open := head
		open.Data = a.open
		k.parts[stage+stageOpen] = append(k.parts[stage+stageOpen], open)
	}

	k.parts[stage+stageClose] = append(k.parts[stage+stageClose], head)
}
