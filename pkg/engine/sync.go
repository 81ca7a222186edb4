package engine

import "raid-assembler/pkg/raid"

// next starts whatever the array needs most and can have now: redundancy for a
// slot that lacks it, then redundancy that is right.
func (a *Array) next() []Effect {
	if a.sync.Action == raid.Recover || a.stopping || a.state == raid.Broken || !a.level.HasRedundancy() {
		return nil
	}

	slot, vacant := a.vacant()

	switch {
	case vacant && len(a.spares) > 0:
		return append(a.endSync(), a.activate(slot)...) // a resync goes on from there later
	case a.sync.Action != raid.Idle:
		return nil
	case a.canResync():
		a.sync = Sync{Action: raid.Resync, Slot: raid.NoSlot, From: a.resynced}

		return []Effect{Report{Note: NoteResyncStart, Device: None, Slot: raid.NoSlot}, StartSync{}}
	case vacant:
		return []Effect{Report{Note: NoteNoSpare, Device: None, Slot: slot}}
	default:
		return nil
	}
}

// vacant returns the first slot without a working member.
func (a *Array) vacant() (raid.Slot, bool) {
	for slot, m := range a.members {
		if m.State == raid.Missing || m.State == raid.Faulty {
			return raid.Slot(slot), true
		}
	}

	return raid.NoSlot, false
}

// canResync reports whether redundancy is wrong and there is some to be made
// right: a parity array that lacks a member has none to spare.
func (a *Array) canResync() bool {
	if a.resynced == raid.MaxSectors {
		return false
	}

	if a.level.HasParity() {
		return a.Degraded() == 0
	}

	return len(a.members)-a.Degraded() > 1
}

// activate puts the first spare to work in slot. The superblocks say so before
// it counts for anything; until then it is as good as a spare.
func (a *Array) activate(slot raid.Slot) []Effect {
	device := a.spares[0]
	a.spares = a.spares[1:]
	a.members[slot] = Member{Device: device, State: raid.Recovering}
	a.sync = Sync{Action: raid.Recover, Slot: slot, sole: a.sole()}
	recorded := a.writeSuperblocks()
	a.sync.since = a.seq

	return append([]Effect{SetMember{Slot: slot}}, append(recorded,
		Report{Note: NoteSpareActive, Device: device, Slot: slot},
		Report{Note: NoteRecoverStart, Device: device, Slot: slot},
		StartSync{})...)
}

// syncReached moves the position, and ends the sync when it has covered all.
// Positions in between become durable with the next superblocks, which flush
// before they are written: behind the data, never ahead of it.
func (a *Array) syncReached(offset raid.Sectors) []Effect {
	switch a.sync.Action {
	case raid.Recover:
		a.members[a.sync.Slot].Recovered = offset

		if offset >= a.size {
			return a.recovered()
		}
	case raid.Resync:
		a.resynced = offset

		if offset >= a.size {
			a.resynced = raid.MaxSectors
			a.sync = Sync{Action: raid.Idle}

			return append(append([]Effect{StopSync{}}, a.writeSuperblocks()...),
				append([]Effect{Report{Note: NoteResyncDone, Device: None, Slot: raid.NoSlot}}, a.next()...)...)
		}
	case raid.Idle: // the last slab of a sync that was stopped
	}

	return nil
}

// checkpoint records the position of the sync that goes on.
func (a *Array) checkpoint() []Effect {
	if a.sync.Action == raid.Idle || a.state == raid.Broken || a.durable != a.seq {
		return nil
	}

	return a.writeSuperblocks()
}

// recovered makes a filled member one that counts, once it is recorded that it
// has the slot. Else, after a crash in the midst of the record, a survivor that
// missed it would not even know of the member that another one counts on.
func (a *Array) recovered() []Effect {
	if a.sync.filled = a.durable < a.sync.since; a.sync.filled {
		return []Effect{StopSync{}}
	}

	slot := a.sync.Slot
	m := &a.members[slot]
	m.State = raid.InSync

	if a.sync.sole && a.Degraded() == 0 {
		a.resynced = raid.MaxSectors // what was just computed is redundant by construction
	}

	a.sync = Sync{Action: raid.Idle}

	return append(append([]Effect{StopSync{}, SetMember{Slot: slot}}, a.writeSuperblocks()...),
		append([]Effect{Report{Note: NoteRecoverDone, Device: m.Device, Slot: slot}}, a.next()...)...)
}

// syncFailed gives up on the sync. A member that could not be filled is set
// aside: tried again, it would fail again.
func (a *Array) syncFailed() []Effect {
	if a.state == raid.Broken {
		return nil
	}

	switch a.sync.Action {
	case raid.Recover:
		slot := a.sync.Slot
		device := a.members[slot].Device
		a.members[slot] = Member{Device: None, State: raid.Missing}
		a.barred = append(a.barred, device)
		a.sync = Sync{Action: raid.Idle}

		return append(append([]Effect{StopSync{}, SetMember{Slot: slot}}, a.writeSuperblocks()...),
			append([]Effect{Report{Note: NoteRecoverFailed, Device: device, Slot: slot}}, a.next()...)...)
	case raid.Resync:
		a.sync = Sync{Action: raid.Idle}

		return []Effect{StopSync{}, Report{Note: NoteResyncFailed, Device: None, Slot: raid.NoSlot}}
	case raid.Idle:
	}

	return nil
}

// endSync stops the sync that goes on, if any.
func (a *Array) endSync() []Effect {
	if a.sync.Action == raid.Idle {
		return nil
	}

	a.sync = Sync{Action: raid.Idle}

	return []Effect{StopSync{}}
}

// Record is what the superblocks are to say now.
type Record struct {
	ResyncOffset raid.Sectors // 0 while dirty, else where redundancy is right
	Members      []Member     // by slot
	Spares       []DeviceID
}

// Record returns what the superblocks are to say now.
func (a *Array) Record() Record {
	r := Record{ResyncOffset: a.resynced, Members: a.members, Spares: a.Spares()}
	if a.state != raid.Clean && a.level.HasRedundancy() {
		r.ResyncOffset = 0
	}

	return r
}
