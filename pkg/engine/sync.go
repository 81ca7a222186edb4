package engine

import (
	"fmt"
	"slices"

	"raid-assembler/pkg/raid"
)

// next starts whatever the array needs most and can have now: redundancy for a
// slot that lacks it, then redundancy that is right, then what was asked for.
//
//nolint:gocyclo // one table of what goes before what, in order
func (a *Array) next() []Effect {
	if a.stopping || a.readOnly || a.state == raid.Broken || !a.level.HasRedundancy() {
		return nil
	}

	filling, vacant := a.choose(raid.Recovering), a.choose(raid.Missing, raid.Faulty)

	switch now := a.sync.Action; { // ordered
	case now == raid.Recover:
		return nil
	case filling != raid.NoSlot:
		return append(a.endSync(), a.recover(filling)...) // what was going on goes on from there later
	case vacant != raid.NoSlot && len(a.spares) > 0 && !a.spareKnown():
		return nil
	case vacant != raid.NoSlot && len(a.spares) > 0:
		return append(a.endSync(), a.activate(vacant)...)
	case now == raid.Resync:
		return nil
	case a.canResync():
		return append(a.endSync(), a.start(
			Sync{Action: raid.Resync, Slot: raid.NoSlot, From: a.resynced, To: a.syncSize}, NoteResyncStart)...)
	case now == raid.Replace:
		return nil
	case a.successor.State == raid.InSync:
		return a.succeeded()
	case a.successor.Device != None:
		return append(a.endSync(), a.start(
			Sync{Action: raid.Replace, Slot: a.heir, From: a.successor.Recovered, To: a.size}, NoteReplaceStart)...)
	case now != raid.Idle:
		return nil
	case a.wanted.Action != raid.Idle:
		wanted := a.wanted
		a.wanted = idle

		return a.start(wanted, noteOf(wanted.Action, 0))
	case vacant != raid.NoSlot:
		return []Effect{Report{Note: NoteNoSpare, Device: None, Slot: vacant}}
	default:
		return nil
	}
}

// start starts a sync.
func (a *Array) start(s Sync, note Note) []Effect {
	a.sync = s
	device := None

	if s.Action == raid.Replace {
		device = a.successor.Device
	}

	return []Effect{Report{Note: note, Device: device, Slot: s.Slot}, StartSync{}}
}

// noteOf returns the note of a check or a repair: 0 for its start, 1 for its
// end, 2 for its failure.
func noteOf(action raid.SyncAction, step Note) Note {
	if action == raid.Repair {
		return NoteRepairStart + step
	}

	return NoteCheckStart + step
}

// choose returns the slot in one of the states given that, filled, leaves the
// fewest members whose loss would break the array; NoSlot if there is none.
func (a *Array) choose(states ...raid.MemberState) raid.Slot {
	best, fewest := raid.NoSlot, 0

	for slot, m := range a.members {
		if !slices.Contains(states, m.State) {
			continue
		}

		critical := 0

		for other := range raid.Slot(len(a.members)) {
			if a.breaks(other, raid.Slot(slot)) {
				critical++
			}
		}

		if best == raid.NoSlot || critical < fewest {
			best, fewest = raid.Slot(slot), critical
		}
	}

	return best
}

// canResync reports whether redundancy is wrong and there is some to be made
// right.
func (a *Array) canResync() bool { return a.resynced != raid.MaxSectors && a.hasTwice() }

// hasTwice reports whether there is redundancy to be compared with something: a
// parity array that lacks a member has none to spare.
func (a *Array) hasTwice() bool {
	if a.level.HasParity() {
		return a.Degraded() == 0
	}

	return len(a.members)-a.Degraded() > 1
}

// spareKnown reports whether the spares are on disk what they are: nothing but spares.
// One that came as a member was lost may be that member. If it were filled with what
// another slot has, and a crash came before the loss is recorded, it would be a member
// again, and hold that.
func (a *Array) spareKnown() bool { return a.durable >= a.arrived }

// activate puts the first spare to work in slot. The superblocks say so before
// it counts for anything; until then it is as good as a spare.
func (a *Array) activate(slot raid.Slot) []Effect {
	device := a.spares[0]
	a.spares = a.spares[1:]

	if old := a.members[slot].Device; old != None {
		a.retired = append(a.retired, old)
	}

	a.members[slot] = Member{Device: device, State: raid.Recovering}
	recorded := a.writeSuperblocks()
	a.since = a.seq

	return append(append(append([]Effect{SetMember{Slot: slot}}, recorded...),
		Report{Note: NoteSpareActive, Device: device, Slot: slot}), a.recover(slot)...)
}

// recover fills the recovering member of slot from where it is.
func (a *Array) recover(slot raid.Slot) []Effect {
	m := a.members[slot]
	a.sync = Sync{
		Action: raid.Recover, Slot: slot, From: m.Recovered, To: a.size, ByBitmap: m.ByBitmap,
		sole: a.sole() && m.Recovered == 0 && !m.ByBitmap,
	}

	return []Effect{Report{Note: NoteRecoverStart, Device: m.Device, Slot: slot}, StartSync{}}
}

// syncReached moves the position, and ends the sync when it has covered all.
// Positions in between become durable with the next superblocks, which flush
// before they are written: behind the data, never ahead of it.
func (a *Array) syncReached(offset raid.Sectors) []Effect {
	switch a.sync.Action {
	case raid.Recover:
		// By the bitmap, what is above the position may be right, and what is
		// below is as right as before.
		a.members[a.sync.Slot].Recovered = offset
	case raid.Replace:
		a.successor.Recovered = offset
	case raid.Resync:
		a.resynced = offset
	case raid.Check, raid.Repair:
	case raid.Idle:
		return nil // the last slab of a sync that was stopped
	}

	if offset < a.sync.To {
		return nil
	}

	switch a.sync.Action {
	case raid.Recover, raid.Replace:
		return a.filled()
	case raid.Resync:
		a.resynced = raid.MaxSectors
		effects := append(a.endSync(), a.writeSuperblocks()...)

		return append(append(effects, Report{Note: NoteResyncDone, Device: None, Slot: raid.NoSlot}), a.next()...)
	case raid.Check, raid.Repair:
		note := noteOf(a.sync.Action, 1)

		return append(append(a.endSync(), Report{Note: note, Device: None, Slot: raid.NoSlot}), a.next()...)
	case raid.Idle:
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

// filled makes a filled member one that counts, once it is recorded that it
// has the slot. Else, after a crash in the midst of the record, a survivor that
// missed it would not even know of the member that another one counts on.
func (a *Array) filled() []Effect {
	if a.sync.filled = a.durable < a.since; a.sync.filled {
		return []Effect{StopSync{}}
	}

	if a.sync.Action == raid.Replace {
		return a.replaced()
	}

	slot := a.sync.Slot
	m := &a.members[slot]
	m.State, m.ByBitmap = raid.InSync, false

	if a.sync.sole && a.Degraded() == 0 {
		a.resynced = raid.MaxSectors // what was just computed is redundant by construction
	}

	effects := append(a.endSync(), SetMember{Slot: slot})

	return append(append(effects, a.writeSuperblocks()...),
		append([]Effect{Report{Note: NoteRecoverDone, Device: m.Device, Slot: slot}}, a.next()...)...)
}

// replaced has it recorded that the successor holds everything, and then who has
// the slot. In one record, a crash in the midst of it could leave the old member
// out and the successor without a word that it is full: a dirty array would be
// degraded by that, and lost if it has parity.
func (a *Array) replaced() []Effect {
	if a.successor.State == raid.InSync {
		return a.succeeded()
	}

	a.successor.State = raid.InSync
	effects := append([]Effect{SetSuccessor{}, StopSync{}}, a.writeSuperblocks()...)
	a.since, a.sync.filled = a.seq, true

	return effects
}

// succeeded gives the slot to the successor. The old member misses all that is
// written from now on, so that none of it may be acknowledged before that is
// recorded.
func (a *Array) succeeded() []Effect {
	slot := a.heir
	a.retired = append(a.retired, a.members[slot].Device)
	a.members[slot] = Member{Device: a.successor.Device, State: raid.InSync}
	a.successor, a.heir = nobody, raid.NoSlot

	effects := append(a.endSync(), SetSuccessor{}, SetMember{Slot: slot})
	effects = append(effects, a.writeUnsafe()...)

	return append(append(effects,
		Report{Note: NoteReplaceDone, Device: a.members[slot].Device, Slot: slot}), a.next()...)
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
		a.members[slot] = nobody
		a.barred = append(a.barred, device)

		return append(append(append(a.endSync(), SetMember{Slot: slot}), a.writeSuperblocks()...),
			append([]Effect{Report{Note: NoteRecoverFailed, Device: device, Slot: slot}}, a.next()...)...)
	case raid.Replace:
		slot, device := a.heir, a.successor.Device
		a.successor, a.heir = nobody, raid.NoSlot
		a.barred = append(a.barred, device)

		return append(append(append(a.endSync(), SetSuccessor{}), a.writeSuperblocks()...),
			append([]Effect{Report{Note: NoteReplaceFailed, Device: device, Slot: slot}}, a.next()...)...)
	case raid.Resync:
		return append(a.endSync(), Report{Note: NoteResyncFailed, Device: None, Slot: raid.NoSlot})
	case raid.Check, raid.Repair:
		return a.endRequested()
	case raid.Idle:
	}

	return nil
}

// endSync stops the sync that goes on, if any.
func (a *Array) endSync() []Effect {
	if a.sync.Action == raid.Idle {
		return nil
	}

	a.sync = idle

	return []Effect{StopSync{}}
}

// endRequested ends a check or a repair before it is done.
func (a *Array) endRequested() []Effect {
	a.wanted = idle

	action := a.sync.Action
	if action != raid.Check && action != raid.Repair {
		return nil
	}

	return append(a.endSync(), Report{Note: noteOf(action, 2), Device: None, Slot: raid.NoSlot})
}

// MaySync returns why a check or a repair cannot be asked for now, or nil.
func (a *Array) MaySync(action raid.SyncAction) error {
	switch {
	case action == raid.Idle:
		return nil
	case action != raid.Check && action != raid.Repair:
		return fmt.Errorf("engine: a %s begins by itself where it is needed", action)
	case !a.level.HasRedundancy():
		return fmt.Errorf("engine: %v has no redundancy to %s", a.level, action)
	case a.readOnly:
		return fmt.Errorf("engine: no %s of a read-only array", action)
	case a.state == raid.Broken || !a.hasTwice():
		return fmt.Errorf("engine: nothing to %s: %d of %d members are missing or not in sync",
			action, a.Degraded(), len(a.members))
	case a.wanted.Action != raid.Idle || a.sync.Action == raid.Check || a.sync.Action == raid.Repair:
		return fmt.Errorf("engine: a check or a repair goes on already")
	default:
		return nil
	}
}

func (a *Array) syncRequested(ev SyncRequested) []Effect {
	if a.MaySync(ev.Action) != nil {
		return nil
	}

	if ev.Action == raid.Idle {
		return append(a.endRequested(), a.next()...)
	}

	a.wanted = Sync{
		Action: ev.Action, Slot: raid.NoSlot, From: max(0, ev.Range.From), To: min(ev.Range.To, a.syncSize),
	}

	return a.next()
}

// MayReplace returns why the member of slot cannot be replaced by a spare now,
// or nil.
func (a *Array) MayReplace(slot raid.Slot, spare DeviceID) error {
	switch {
	case slot < 0 || int(slot) >= len(a.members) || !a.inSync(slot):
		return fmt.Errorf("engine: slot %d has no member in sync", slot)
	case !a.level.HasRedundancy():
		return fmt.Errorf("engine: %v keeps no record of who replaces whom", a.level)
	case a.readOnly || a.state == raid.Broken || a.stopping:
		return fmt.Errorf("engine: no replacement while the array is %s", a.State())
	case a.successor.Device != None:
		return fmt.Errorf("engine: slot %d is being replaced already", a.heir)
	case !a.spareKnown():
		return fmt.Errorf("engine: what has become of members is being recorded: try again")
	case len(a.spares) == 0 || spare != None && !slices.Contains(a.spares, spare):
		return fmt.Errorf("engine: no such spare")
	default:
		return nil
	}
}

func (a *Array) replaceRequested(ev ReplaceRequested) []Effect {
	if a.MayReplace(ev.Slot, ev.Spare) != nil {
		return nil
	}

	spare := ev.Spare
	if spare == None {
		spare = a.spares[0]
	}

	a.spares = without(a.spares, spare)
	a.successor, a.heir = Member{Device: spare, State: raid.Recovering}, ev.Slot
	effects := append([]Effect{SetSuccessor{}}, a.writeSuperblocks()...)
	a.since = a.seq

	return append(effects, a.next()...)
}

// Record is what the superblocks are to say now.
type Record struct {
	ResyncOffset raid.Sectors // 0 while dirty, else where redundancy is right
	Members      []Member     // by slot
	Successor    Member
	Heir         raid.Slot
	Spares       []DeviceID
	Retired      []DeviceID // faulty
}

// Record returns what the superblocks are to say now.
func (a *Array) Record() Record {
	r := Record{
		ResyncOffset: a.resynced, Members: a.members, Successor: a.successor, Heir: a.heir,
		Spares: a.Spares(), Retired: a.Retired(),
	}
	if a.state != raid.Clean && a.level.HasRedundancy() {
		r.ResyncOffset = 0
	}

	return r
}
