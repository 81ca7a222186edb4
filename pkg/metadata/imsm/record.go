package imsm

import (
	"fmt"
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Record implements [metadata.Keeper]. It does not allocate once all that changes
// did so before.
//
// A record of one block is written whole or not at all. Of a longer one a part may
// be, and then the disk says nothing: so they are written one after the other,
// unless nothing but the first block is another.
func (k *keeper) Record(st metadata.State) [][]metadata.Write {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.set(offGeneration, k.get(offGeneration)+1)

	if k.get(offOrigFamily) == 0 {
		k.set(offOrigFamily, k.get(offFamily))
	}

	k.settle(st)
	k.putVolume(st)
	k.build()

	// They stay where they are: what empties a log, and the record in pieces.
	each := 2 + len(k.image)/metadata.WriteMax
	k.writes, k.stages = slices.Grow(k.writes[:0], each*len(k.members)), k.stages[:0]

	k.writeLogs()
	k.writeRecords(st)

	return k.stages
}

// settle makes the table, the slots and the log of bad blocks say st.
func (k *keeper) settle(st metadata.State) {
	clear(k.holders)

	for i, m := range k.members {
		if m == nil {
			continue
		}

		record, ok := st.Members[metadata.MemberID(i)]
		if ok && record.State == raid.Faulty {
			k.lose(m)

			continue
		}

		if !ok || m.disk.lost || record.State != raid.InSync && record.State != raid.Recovering {
			continue
		}

		if k.holders[record.Slot] != nil {
			panic(fmt.Sprintf("imsm: two members in slot %d", record.Slot))
		}

		m.filled, m.recovered = record.State == raid.Recovering, record.Recovered
		k.holders[record.Slot] = m
	}

	for slot, m := range k.holders {
		k.vacate(slot, m)
	}

	for slot, m := range k.holders {
		if m != nil && !k.enlist(m.disk, k.volume, slot) {
			k.holders[slot] = nil // a crash makes a spare of it
		}
	}

	k.noteBadBlocks(st)
}

// lose notes that a disk has failed.
func (k *keeper) lose(m *member) {
	m.disk.lost = true

	if m.disk.index >= 0 {
		k.fail(m.disk.index, false)
	}
}

// vacate has whoever had a slot fail, if m is to have it or nobody.
func (k *keeper) vacate(slot int, m *member) {
	was, _ := k.ord(k.volume.maps[0], slot)
	if was < 0 || !k.table[was].works() || m != nil && m.disk.index == was {
		return
	}

	k.fail(was, true)
}

// noteBadBlocks puts the bad blocks of members into the log. One for which it has
// no room is not in sync.
func (k *keeper) noteBadBlocks(st metadata.State) {
	from := k.origin()

	for i, m := range k.members {
		record, ok := st.Members[metadata.MemberID(i)]
		if m == nil || !ok || record.BadBlocks == nil || !slices.Contains(k.holders, m) {
			continue
		}

		k.clearLog(m.disk.index, from, from+k.volume.geometry.Size)

		for _, r := range record.BadBlocks {
			if !k.addLog(m.disk.index, from+r.From, from+r.To) {
				m.filled, m.recovered = true, 0
			}
		}
	}
}

// putVolume puts the slots and the state of the volume into it.
func (k *keeper) putVolume(st metadata.State) {
	v := k.volume
	redundant := v.geometry.Level.HasRedundancy()
	missing, filled := 0, 0

	var filling *member

	for slot, m := range k.holders {
		was, _ := k.ord(v.maps[0], slot)

		if m == nil {
			missing++

			putOrd(v.maps[0], slot, was, true)

			continue
		}

		putOrd(v.maps[0], slot, m.disk.index, false)

		if m.filled {
			filled++
			filling = m
		}
	}

	v.fresh = v.fresh && redundant && st.ResyncOffset != raid.MaxSectors

	dirty := redundant && st.ResyncOffset != raid.MaxSectors

	switch {
	case filled > 0:
		k.putRebuild(filling, filled)
	case dirty && st.ResyncOffset > 0 && missing == 0:
		k.putResync(st.ResyncOffset)

		dirty = false // it goes on from where it is
	default:
		k.endMigration()
	}

	k.putDirty(dirty)
	k.putFailedSlot()
}

// putDirty notes whether redundancy is wrong anywhere. Level 0 has none.
func (k *keeper) putDirty(dirty bool) {
	if !k.volume.geometry.Level.HasRedundancy() {
		return
	}

	var bits uint8
	if dirty {
		bits = volDirty
		if k.partialParity() != nil {
			bits |= volLogValid
		}
	}

	k.volume.head[offDirty] = bits
}

// endMigration has the volume be what its first map says.
func (k *keeper) endMigration() {
	v := k.volume
	v.head[offMigrating], v.head[offMigration] = 0, 0
	k.putFix(false)
	putWide(v.head[offUnit:], v.head[offUnitHigh:], 0)
	v.maps[0][offState] = k.state(v, v.maps[0])
}

// migrate has the volume become what its first map says, from what it is now.
func (k *keeper) migrate(kind uint8, fix bool, units uint64) {
	v := k.volume
	v.head[offMigrating], v.head[offMigration] = 1, kind
	k.putFix(fix)
	putWide(v.head[offUnit:], v.head[offUnitHigh:], units/unit(k.block))
	copy(v.maps[1], v.maps[0])
}

// putFix notes whether a verification repairs what it finds.
func (k *keeper) putFix(fix bool) {
	status := order.Uint32(k.volume.head[offVolStatus:]) &^ volFix
	if fix {
		status |= volFix
	}

	order.PutUint32(k.volume.head[offVolStatus:], status)
}

// putRebuild notes that members are being filled, and how far if it is one.
func (k *keeper) putRebuild(filling *member, filled int) {
	v := k.volume

	units := uint64(0)
	if filled == 1 {
		units = k.mapOf().rebuildPace(v.geometry.Level).units(filling.recovered)
	}

	k.migrate(migrationRebuild, false, units)

	for slot, m := range k.holders {
		if m != nil && m.filled {
			putOrd(v.maps[1], slot, m.disk.index, true)
		}
	}

	fresh := v.fresh
	v.fresh = false // a rebuild is of what is in sync
	v.maps[1][offState] = k.state(v, v.maps[1])
	v.maps[0][offState] = k.state(v, v.maps[0])
	v.fresh = fresh
}

// putResync notes how far all members are in sync.
func (k *keeper) putResync(done raid.Sectors) {
	v := k.volume
	units := k.mapOf().resyncPace(v.geometry.Level).units(done)

	if v.fresh {
		k.migrate(migrationInit, false, units)
	} else {
		k.migrate(migrationVerify, true, units)
	}

	v.maps[1][offState] = k.state(v, v.maps[1])
	v.maps[0][offState] = stateNormal
}

// mapOf returns what determines the pace of a sync.
func (k *keeper) mapOf() *Map {
	m := k.volume.maps[0]
	k.pace.Strip = uint32(order.Uint16(m[offStrip:])) * uint32(unit(k.block))
	k.pace.Members, k.pace.Domains = m[offMembers], m[offDomains]

	return &k.pace
}

// putFailedSlot notes the first slot that has no member, or one that is being
// filled.
func (k *keeper) putFailedSlot() {
	failed := uint8(noSlot)

	for slot, m := range slices.Backward(k.holders) {
		if m == nil || m.filled {
			failed = uint8(slot)
		}
	}

	for _, m := range k.volume.maps {
		m[offFailedSlot] = failed
	}
}

// writeLogs appends the writes that empty the logs of partial parity of those that
// get a slot and were added: they must be empty before anybody looks at them.
func (k *keeper) writeLogs() {
	from := len(k.writes)

	for i, m := range k.members {
		if m == nil || !m.added || !slices.Contains(k.holders, m) {
			continue
		}

		m.added = false

		if log := k.partialParity(); log != nil {
			k.writes = append(k.writes, metadata.Write{Member: metadata.MemberID(i), Sector: log.Sector, Data: k.empty})
		}
	}

	k.endStage(from)
}

// endStage makes a stage of the writes from the one given on, if there are any.
func (k *keeper) endStage(from int) {
	if from < len(k.writes) {
		k.stages = append(k.stages, k.writes[from:len(k.writes):len(k.writes)])
	}
}

// writeRecords appends the writes of the record, and of the spares' own.
func (k *keeper) writeRecords(st metadata.State) {
	from := len(k.writes)

	for i, m := range k.members {
		if k.writesTo(i, st) && !k.long(m.disk) {
			k.writes = append(k.writes, k.write(metadata.MemberID(i), m.disk))
		}
	}

	k.endStage(from)

	for i, m := range k.members {
		if k.writesTo(i, st) && k.long(m.disk) {
			k.writeLong(metadata.MemberID(i), m.disk)
		}
	}
}

// writesTo reports whether a member gets a record.
func (k *keeper) writesTo(id int, st metadata.State) bool {
	record, ok := st.Members[metadata.MemberID(id)]

	return k.members[id] != nil && ok && record.State != raid.Faulty && !k.members[id].disk.lost
}

// long reports whether more than the first block of a disk's record is another.
func (k *keeper) long(d *disk) bool {
	return d.index >= 0 && k.extension > 0 && d.version != k.version
}

// write returns the write of a record's first block to a disk, or of a spare's.
func (k *keeper) write(id metadata.MemberID, d *disk) metadata.Write {
	w := metadata.Write{Member: id, Sector: d.size - 2*k.sectors(), Data: k.image[k.extension:][:k.block]}
	d.version = k.version

	if d.index < 0 {
		w.Data = d.spare
		d.version = 0
	}

	return w
}

// writeLong appends a stage with all of the record.
func (k *keeper) writeLong(id metadata.MemberID, d *disk) {
	from := len(k.writes)
	at := d.size - 2*k.sectors() - raid.Sectors(k.extension/raid.SectorSize)

	for data := k.image[:k.extension+k.block]; len(data) > 0; {
		n := min(len(data), metadata.WriteMax)
		k.writes = append(k.writes, metadata.Write{Member: id, Sector: at, Data: data[:n]})
		at += raid.Sectors(n / raid.SectorSize)
		data = data[n:]
	}

	d.version = k.version
	k.endStage(from)
}
