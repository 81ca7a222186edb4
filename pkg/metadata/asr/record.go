package asr

import (
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Record implements [metadata.Keeper]. It does not allocate once every device was
// written.
//
// Of a table with up to seven lines only the first sector is written, which is there
// or is not. A disk that was added is found once its reserved block is there, which
// is written when its table is.
func (k *keeper) Record(st metadata.State) [][]metadata.Write {
	changed := k.settle(st)
	if changed {
		k.seq++
		order.PutUint16(k.array[offSeq:], k.seq)

		for _, line := range k.slots {
			order.PutUint16(line[offSeq:], k.seq)
		}
	}

	k.count++

	open := byte(openNo)
	if st.ResyncOffset != raid.MaxSectors && k.geometry.Level.HasRedundancy() {
		open = openYes
	}

	spare := k.firstSpare(st)
	k.writes, k.blocks = k.writes[:0], k.blocks[:0]

	for i, m := range k.members {
		record, ok := st.Members[metadata.MemberID(i)]
		if m == nil || !ok || record.State == raid.Faulty {
			continue
		}

		m.image[offOpen] = open
		k.name(m, spare)
		m.stamp(changed)
		k.put(m)
		k.writes = append(k.writes, m.write(metadata.MemberID(i)))

		if m.block != nil {
			k.blocks = append(k.blocks, metadata.Write{Member: metadata.MemberID(i), Sector: m.blockAt, Data: m.block})
			m.block = nil
		}
	}

	k.stages = [...][]metadata.Write{k.writes, k.blocks}
	if len(k.blocks) == 0 {
		return k.stages[:1]
	}

	return k.stages[:]
}

// settle makes the lines say st, and reports whether they said anything else.
func (k *keeper) settle(st metadata.State) bool {
	clear(k.holders)

	for i, m := range k.members {
		if m == nil {
			continue
		}

		record, ok := st.Members[metadata.MemberID(i)]
		m.spare = true

		// There is no word for one that is to replace another: it is a spare until
		// the other is gone.
		if ok && !record.Replacement && (record.State == raid.InSync || record.State == raid.Recovering) {
			if k.holders[record.Slot] != nil {
				panic(fmt.Sprintf("asr: two members in slot %d", record.Slot))
			}

			k.holders[record.Slot], m.spare = m, false
		}
	}

	// What is striped has no member that could be left out.
	if !k.geometry.Level.HasRedundancy() {
		return false
	}

	changed, missing, filled := false, 0, 0

	for slot, m := range k.holders {
		line := k.slots[slot]
		state := byte(memberFailed)
		drive := order.Uint32(line[offMagic:])

		switch {
		case m == nil:
			missing++
		case k.recovering(st, m):
			state, drive = memberRebuilding, m.drive
			filled++
		default:
			state, drive = memberOptimal, m.drive
		}

		changed = changed || line[offState] != state || order.Uint32(line[offMagic:]) != drive
		line[offState] = state
		order.PutUint32(line[offMagic:], drive)
	}

	return k.settleArray(st, missing, filled) || changed
}

// settleArray makes the line of the array say how it is, and reports whether it
// said anything else.
func (k *keeper) settleArray(st metadata.State, missing, filled int) bool {
	state, flags := byte(arrayOptimal), k.array[offFlags]

	switch {
	case missing > 0:
		state = arrayDegraded
	case filled > 0:
		state = arrayRebuilding
	case st.ResyncOffset == raid.MaxSectors:
		flags |= built
	}

	size := uint32(k.geometry.Size)
	changed := k.array[offState] != state || k.array[offFlags] != flags || k.size != size
	k.array[offState], k.array[offFlags], k.size = state, flags, size

	return changed
}

// recovering reports whether st says that a device is being filled.
func (k *keeper) recovering(st metadata.State, m *member) bool {
	for i, other := range k.members {
		if other == m {
			return st.Members[metadata.MemberID(i)].State == raid.Recovering
		}
	}

	return false
}

// firstSpare returns the spare that the members name, or nil.
func (k *keeper) firstSpare(st metadata.State) *member {
	for i, m := range k.members {
		if record, ok := st.Members[metadata.MemberID(i)]; m != nil && ok && m.spare && record.State != raid.Faulty {
			return m
		}
	}

	return nil
}

// name has the table of a spare name the array, and that of a member the spare.
func (k *keeper) name(m, spare *member) {
	array := order.Uint32(k.array[offMagic:])
	drive, id := uint32(0), byte(0)

	switch {
	case m.spare:
	case spare != nil:
		drive, id = spare.drive, spare.pair[lineSize+offID+3]
	case order.Uint32(m.image[offSpareArray:]) != array && order.Uint32(m.image[offSpareArray:]) != poolMagic:
		return // what it says is nothing of ours
	default:
		array = 0
	}

	m.image[offSpareID] = id
	order.PutUint32(m.image[offSpareDrive:], drive)
	order.PutUint32(m.image[offSpareArray:], array)
}

// stamp notes in a table that it is later than others.
func (m *member) stamp(changed bool) {
	at := m.image[offTimestamp:]
	if stamp := order.Uint32(at); changed && stamp != 0 && stamp != 1<<32-1 {
		order.PutUint32(at, stamp+1)
	}
}

// put puts the lines into the table of a device.
func (k *keeper) put(m *member) {
	end := headSize
	for _, part := range [...][]byte{m.before, k.array, k.lines, m.after} {
		end += copy(m.image[end:], part)
	}

	if m.spare {
		end += copy(m.image[end:], m.pair)
	}

	lines := (end - headSize) / lineSize
	clear(m.image[end:max(end, headSize+m.lines*lineSize)])

	m.lines = max(m.lines, lines)
	order.PutUint16(m.image[offCount:], uint16(lines))
	order.PutUint16(m.image[offSum:], sum(m.image))
	stamp{k.count, k.seq}.put(m.image, m.drive)
}

// write returns the write of a device whose table is right.
func (m *member) write(id metadata.MemberID) metadata.Write {
	size := (headSize + m.lines*lineSize + raid.SectorSize - 1) / raid.SectorSize * raid.SectorSize
	m.lines = int(order.Uint16(m.image[offCount:]))

	return metadata.Write{Member: id, Sector: m.at, Data: m.image[:size]}
}
