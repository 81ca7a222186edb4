package md1

import (
	"bytes"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// catchUp has members that are not where the freshest one is brought there
// before the first record. Power may have failed when some of them had been
// written; if it fails again in the midst of the first record, those that had
// not would be two records behind, which is how a member looks that was away
// while the array was written to. And a stray spare that is far ahead must not
// have the count run ahead of all others at once.
//
// What they are brought to is the freshest superblock itself, so that this may
// be cut off as well: it is what was being written.
func (k *keeper) catchUp(raws []*Raw) {
	for number := range k.maxDev {
		k.roles[number] = raid.RoleSpare
		if number < len(k.like.DevRoles) {
			k.roles[number] = k.like.DevRoles[number]
		}
	}

	for i, m := range k.members {
		raw := raws[i]

		_, slotted := k.roles[m.number].Slot()
		unaware := slotted && k.roles[m.number] != ownRole(raw)

		// Only the next record says how much of a spare is right that does not
		// know yet that it was put to work.
		if unaware {
			continue
		}

		record := metadata.MemberRecord{State: raid.InSync}
		if raw.FeatureMap&FeatureRecoveryOffset != 0 {
			record = metadata.MemberRecord{State: raid.Recovering, Recovered: sectorsOf(raw.RecoveryOffset)}
			record.ByBitmap = raw.FeatureMap&FeatureRecoveryBitmap != 0
		}

		_, m.slotted = ownRole(raw).Slot()
		record.Replacement = raw.FeatureMap&FeatureReplacement != 0

		// One at a time, or a power cut leaves one that was behind two behind.
		if raw.Events != k.like.Events {
			m.late[0] = k.level(metadata.MemberID(i), record, k.like.Events)
		}

		if k.events != k.like.Events { // the bitmap is ahead
			m.late[1] = k.level(metadata.MemberID(i), record, k.events)
		}

		m.slotted = false // no record has said so
	}
}

// level returns the write that brings a member to the freshest superblock, with
// the event count given.
func (k *keeper) level(id metadata.MemberID, record metadata.MemberRecord, events uint64) []metadata.Write {
	m, next := k.members[id], k.events
	k.events = events

	k.update(m, record, metadata.State{
		ResyncOffset: sectorsOf(k.like.ResyncOffset), Now: timeOf(k.like.Utime),
	})

	k.events = next

	return []metadata.Write{{Member: id, Sector: m.at, Data: bytes.Clone(m.image[:written(k.maxDev, m.block)])}}
}

// ownRole returns the role that a superblock gives its own member.
func ownRole(raw *Raw) raid.Role { return raw.role(raw.DevNumber) }

// role returns the role that a superblock gives a number.
func (r *Raw) role(number uint32) raid.Role {
	if number < uint32(len(r.DevRoles)) {
		return r.DevRoles[number]
	}

	return raid.RoleSpare
}

// inSyncBy reports whether a superblock says that its own member holds a slot
// and is right everywhere.
func inSyncBy(raw *Raw) bool {
	_, slotted := ownRole(raw).Slot()

	return slotted && raw.FeatureMap&FeatureRecoveryOffset == 0
}
