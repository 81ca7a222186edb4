package engine

import (
	"fmt"
	"slices"

	"raid-assembler/pkg/raid"
)

// started decides what there is to make right from the start.
func (a *Array) started() []Effect {
	if a.state == raid.Broken {
		return []Effect{FailWrites{}}
	}

	if filling := a.choose(raid.Recovering); filling != raid.NoSlot && !a.readOnly {
		return append(a.writeSuperblocks(), a.recover(filling)...)
	}

	// One mirror alone cannot differ from another. If there is one that is being
	// filled, this waits until it is: a crash while it is recorded could leave
	// the position beside it that was not to be trusted.
	if a.level == raid.Level1 && a.Degraded() == len(a.members)-1 {
		a.resynced = raid.MaxSectors
	}

	return a.next()
}

// sole reports whether what recovery computes can be wrong in no way that a
// resync would mend: there is only one source for it.
func (a *Array) sole() bool {
	if a.level == raid.Level10 {
		return false // it depends on the chunk
	}

	return a.Degraded() == a.geo.Redundancy()
}

// writeArrived marks the array dirty before its first write.
func (a *Array) writeArrived() []Effect {
	switch {
	case a.state == raid.Broken || a.readOnly:
		return []Effect{FailWrites{}}
	case !a.level.HasRedundancy():
		a.state = raid.Active

		return []Effect{ReleaseWrites{}}
	case a.state == raid.Clean:
		a.state = raid.WritePending

		return a.writeSuperblocks()
	case a.MayWrite():
		return []Effect{ReleaseWrites{}}
	default:
		return nil // held until the superblocks are durable
	}
}

// wentIdle marks the array clean: nothing is in flight, and WriteSuperblocks
// flushes what was written before.
func (a *Array) wentIdle() []Effect {
	if a.state != raid.Active || a.durable != a.seq {
		return nil
	}

	a.state = raid.Clean

	if !a.level.HasRedundancy() {
		return nil
	}

	return a.writeSuperblocks()
}

// memberFailed records the failure on the other members before any further
// write is acknowledged. Without that order a crash could bring the failed
// member back as if it were fresh, and with it data that the array has since
// replaced.
//
// The failure that breaks an array is not recorded: nobody could use the record,
// and without it all that is needed to go on is that the member comes back.
func (a *Array) memberFailed(device DeviceID) []Effect {
	if device == a.successor.Device && device != None {
		return a.successorFailed()
	}

	slot, ok := a.slotOf(device)
	if !ok {
		return a.spareFailed(device)
	}

	m := &a.members[slot]
	if m.State != raid.InSync && m.State != raid.Recovering {
		return nil
	}

	m.State = raid.Faulty
	effects := []Effect{SetMember{Slot: slot}, Report{Note: NoteFailed, Device: device, Slot: slot}}
	promoted := slot == a.heir
	full := promoted && a.successor.State == raid.InSync // all is there that this one had

	if !full && a.broken() {
		a.state = raid.Broken
		// So no write is acknowledged any more: this member may have missed it,
		// and where others have it still, they would not be told apart.
		a.unsafe = a.seq + 1
		effects = append(effects, Report{Note: NoteBroken, Device: device, Slot: slot})
		effects = append(append(effects, a.endSync()...), FailWrites{})

		if a.stopping {
			effects = append(effects, Stopped{})
		}

		return effects
	}

	effects = append(effects, a.interrupt(slot)...)

	if promoted {
		effects = append(effects, a.promote()...)
	}

	effects = append(effects, a.writeUnsafe()...)

	if promoted {
		a.since = a.seq
	}

	if full {
		effects = append(effects, Report{Note: NoteReplaceDone, Device: a.members[slot].Device, Slot: slot})
	}

	return append(effects, a.next()...)
}

// interrupt ends the sync that cannot go on without the member of slot.
func (a *Array) interrupt(slot raid.Slot) []Effect {
	switch a.sync.Action {
	case raid.Recover, raid.Replace:
		if a.sync.Slot == slot {
			return a.endSync()
		}
	case raid.Resync:
		if !a.canResync() {
			return a.endSync()
		}
	case raid.Check, raid.Repair:
		return a.endRequested()
	case raid.Idle:
	}

	return nil
}

// promote has the successor of a member that failed recover in its place, from
// where it is.
func (a *Array) promote() []Effect {
	slot := a.heir
	a.retired = append(a.retired, a.members[slot].Device)
	a.members[slot] = a.successor
	a.successor, a.heir = nobody, raid.NoSlot

	return []Effect{SetSuccessor{}, SetMember{Slot: slot}}
}

// successorFailed goes on with the member that was to be replaced. The failure
// is recorded before a write is acknowledged that the successor missed: it
// could be brought back by a crash, and taken for right below its position.
func (a *Array) successorFailed() []Effect {
	slot, device := a.heir, a.successor.Device
	a.successor, a.heir = nobody, raid.NoSlot
	a.retired = append(a.retired, device)
	effects := []Effect{SetSuccessor{}, Report{Note: NoteFailed, Device: device, Slot: slot}}

	if a.sync.Action == raid.Replace {
		effects = append(effects, a.endSync()...)
	}

	effects = append(effects, Report{Note: NoteReplaceFailed, Device: device, Slot: slot})

	if a.state == raid.Broken {
		return effects
	}

	return append(append(effects, a.writeUnsafe()...), a.next()...)
}

// MayFail returns why a device cannot be taken out on purpose, or nil.
func (a *Array) MayFail(device DeviceID) error {
	slot, ok := a.slotOf(device)
	if !ok || !a.inSync(slot) || a.state == raid.Broken || !a.breaks(slot, raid.NoSlot) {
		return nil
	}

	return fmt.Errorf("engine: without slot %d there is content that no member holds: %d of %d members are in sync",
		slot, len(a.members)-a.Degraded(), len(a.members))
}

// spareFailed lets go of a spare that does not answer.
func (a *Array) spareFailed(device DeviceID) []Effect {
	n := len(a.spares) + len(a.barred)
	a.spares = without(a.spares, device)
	a.barred = without(a.barred, device)

	if n == len(a.spares)+len(a.barred) || a.state == raid.Broken {
		return nil
	}

	return append(a.writeSuperblocks(), Report{Note: NoteFailed, Device: device, Slot: raid.NoSlot})
}

func without(list []DeviceID, device DeviceID) []DeviceID {
	return slices.DeleteFunc(list, func(d DeviceID) bool { return d == device })
}

func (a *Array) spareAdded(device DeviceID) []Effect {
	a.spares = append(a.spares, device)
	a.arrived = a.seq

	if a.state == raid.Broken {
		return nil
	}

	// Its place is recorded even if it stays a spare.
	effects := a.next()
	if len(effects) > 0 && hasWrite(effects) {
		return effects
	}

	return append(a.writeSuperblocks(), effects...)
}

// memberReturned gives a device its slot back. As with a spare that is put to
// work, the superblocks say so before it counts for anything. Preconditions: the
// slot is vacant.
func (a *Array) memberReturned(device DeviceID, slot raid.Slot) []Effect {
	if a.state == raid.Broken {
		a.spares = append(a.spares, device)

		return nil
	}

	if old := a.members[slot].Device; old != None {
		a.retired = append(a.retired, old)
	}

	a.members[slot] = Member{Device: device, State: raid.Recovering, ByBitmap: true}
	effects := append([]Effect{SetMember{Slot: slot}}, a.writeSuperblocks()...)
	a.since = a.seq

	return append(append(effects, Report{Note: NoteReturned, Device: device, Slot: slot}), a.next()...)
}

func hasWrite(effects []Effect) bool {
	return slices.ContainsFunc(effects, func(e Effect) bool {
		_, ok := e.(WriteSuperblocks)

		return ok
	})
}

// recordNeeded records them.
func (a *Array) recordNeeded() []Effect {
	if a.state == raid.Broken {
		return nil
	}

	return a.writeUnsafe()
}

// readOnlySet ends all writing with a record that says so, or lets it begin
// again.
func (a *Array) readOnlySet(on bool) []Effect {
	if a.readOnly == on || a.state == raid.Broken || a.stopping {
		return nil
	}

	if on {
		effects := append(a.endRequested(), a.endSync()...)

		if a.state != raid.Clean {
			a.state = raid.Clean

			if a.level.HasRedundancy() {
				effects = append(effects, a.writeSuperblocks()...)
			}
		}

		a.readOnly = true

		return effects
	}

	a.readOnly = false

	var effects []Effect

	if a.owing {
		a.owing = false
		effects = a.writeUnsafe()
	}

	return append(effects, a.next()...)
}

// deviceRemoved forgets a device that is no longer used. Preconditions: it is
// faulty or a spare.
func (a *Array) deviceRemoved(device DeviceID) []Effect {
	var effects []Effect

	if slot, ok := a.slotOf(device); ok {
		if a.members[slot].State != raid.Faulty {
			return nil
		}

		a.members[slot] = nobody
		effects = append(effects, SetMember{Slot: slot})
	}

	a.spares = without(a.spares, device)
	a.barred = without(a.barred, device)
	a.retired = without(a.retired, device)

	if a.state == raid.Broken {
		return effects
	}

	return append(effects, a.writeSuperblocks()...)
}

func (a *Array) superblocksDurable(seq uint64) []Effect {
	if a.state == raid.Broken {
		return nil // it may be durable on members that are gone, and nowhere else
	}

	known := a.spareKnown()
	a.durable = max(a.durable, seq)

	var effects []Effect

	if a.durable >= a.unsafe {
		effects = append(effects, Acknowledge{})
	}

	if a.sync.filled && a.durable >= a.since {
		return append(effects, a.filled()...)
	}

	if !known && a.spareKnown() {
		effects = append(effects, a.next()...)
	}

	if a.durable != a.seq {
		return effects // an older write; a newer one is under way
	}

	a.dirty = a.state != raid.Clean

	switch {
	case a.stopping && a.state == raid.Clean && !a.stopped:
		a.stopped = true

		return append(effects, Stopped{})
	case a.state == raid.Clean:
		return effects
	default:
		a.state = raid.Active

		return append(effects, ReleaseWrites{})
	}
}

// stop ends the sync and marks the array clean, for the last time.
func (a *Array) stop() []Effect {
	a.stopping = true

	if a.state == raid.Broken {
		return []Effect{Stopped{}}
	}

	effects := a.endSync()

	if !a.level.HasRedundancy() || a.readOnly {
		return append(effects, Stopped{})
	}

	a.state = raid.Clean

	return append(effects, a.writeSuperblocks()...)
}

// writeSuperblocks moves the array to its next record. One that is read-only
// owes it.
func (a *Array) writeSuperblocks() []Effect {
	if a.readOnly {
		a.owing = true

		return nil
	}

	a.seq++

	return []Effect{WriteSuperblocks{Seq: a.seq}}
}

// writeUnsafe is writeSuperblocks for what must be recorded before any write is
// acknowledged.
func (a *Array) writeUnsafe() []Effect {
	effects := a.writeSuperblocks()
	a.unsafe = a.seq

	return effects
}
