package rescue

import (
	"fmt"

	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// logMax is how much of a partial parity log is read: md's are of 1 MiB at
// most.
const logMax = 8 << 20

// patch is parity that is right, where that on a member may not be.
type patch struct {
	slot   raid.Slot
	offset int64 // of the component, in bytes
	data   []byte
}

// replayLogs reads the partial parity logs of an array that was not stopped
// cleanly: what they have is read instead of the parity that they are about.
// It notes whether they tell all that was being written.
func (a *Array) replayLogs(logs map[raid.Slot]*metadata.PPL) {
	if a.Superblock.Level != raid.Level5 || a.Superblock.Clean() {
		return
	}

	a.logged = a.Superblock.ResyncOffset == 0 // else not all of it was ever redundant
	used := false

	for slot := range raid.Slot(len(a.slots)) {
		if !a.slots[slot].present() {
			continue // nor is the parity that its log is about
		}

		inUse, err := a.replayLog(slot, logs[slot])
		used = used || inUse

		if err != nil {
			a.logged = false
		}
	}

	a.logged = a.logged && used
}

// replayLog reads a log, and reports whether it was in use.
func (a *Array) replayLog(slot raid.Slot, log *metadata.PPL) (inUse bool, err error) {
	if log == nil {
		return false, fmt.Errorf("slot %d has no log", slot)
	}

	area := make([]byte, min(log.Size.Bytes(), logMax))
	if n, err := a.slots[slot].source.ReadAt(area, log.Sector.Bytes()); n < len(area) {
		return false, err
	}

	whole := func(s raid.Slot) bool { return a.slots[s].whole() }

	found := intent.RecoverPPL(a.layout, slot,
		intent.PPLArea{Bytes: area, Signature: log.Signature, Ring: log.Ring}, whole)
	if found.Mismatches > 0 {
		return found.InUse, fmt.Errorf("slot %d has a log of which %d parts are not right", slot, found.Mismatches)
	}

	for _, redo := range found.Redo {
		at := redo.Component.From.Bytes()

		sum, err := redo.Sum(func(p []byte, s raid.Slot) error { return a.readMember(p, s, at) })
		if err != nil {
			return found.InUse, err
		}

		a.patches = append(a.patches, patch{slot: slot, offset: at, data: sum})
	}

	return found.InUse, nil
}

// mend puts what logs have in place of what was read from a member.
func (a *Array) mend(read []byte, slot raid.Slot, offset int64) {
	for _, p := range a.patches {
		if p.slot != slot {
			continue
		}

		from, to := max(offset, p.offset), min(offset+int64(len(read)), p.offset+int64(len(p.data)))
		if from < to {
			copy(read[from-offset:], p.data[from-p.offset:to-p.offset])
		}
	}
}
