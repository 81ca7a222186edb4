// Package engine decides for one running array: when its superblocks must be
// written and what they say, when writes may be let through and acknowledged,
// when redundancy is made right again and by which spare.
//
// [Array] is the whole of that decision logic and does no I/O: [Array.Step]
// takes an [Event] and returns the [Effect]s to carry out, in order. The data
// path and the keeper of the metadata live in the packages below; package core
// joins them, and package loop does what that says.
package engine

import (
	"fmt"

	"raid-assembler/pkg/raid"
)

// DeviceID names a device that was given to the array; see metadata.MemberID.
type DeviceID int

// None is the device of a slot that has none.
const None DeviceID = -1

// Member is one slot of the array and what holds it.
type Member struct {
	Device    DeviceID
	State     raid.MemberState
	Recovered raid.Sectors // while Recovering: below it, the member is right
}

// Array is the state machine of one array. It is not safe for concurrent use.
//
// Invariants, checked after every Step:
//
//   - durable <= seq
//   - state is Broken if and only if more members are gone than the level
//     survives
//   - state is Active only if the superblocks on disk say dirty, for levels
//     that can be dirty at all
//   - at most one member is recovering, and only while a sync fills it or the
//     array is broken
//   - a device holds one slot or is a spare, never both
type Array struct {
	level   raid.Level
	size    raid.Sectors // of the component: what a sync covers
	state   raid.ArrayState
	members []Member   // by slot
	spares  []DeviceID // ready to take a slot
	barred  []DeviceID // spares whose filling was given up; not tried again

	seq     uint64 // of the newest superblocks asked for
	durable uint64 // of the newest superblocks known to be on disk
	dirty   bool   // what the durable superblocks say
	unsafe  uint64 // seq of the newest superblocks that record a failure

	resynced raid.Sectors // below it redundancy is right; MaxSectors for all
	sync     Sync
	stopping bool
	stopped  bool
}

// Sync is what an array does to its redundancy.
type Sync struct {
	Action raid.SyncAction
	Slot   raid.Slot    // Recover: the slot that is filled
	From   raid.Sectors // where it started
	sole   bool         // Recover: only one member could be the source throughout
	since  uint64       // Recover: seq of the record that says so first
	filled bool         // Recover: but for that record, it has ended
}

// Setup is what an array is when it is started.
type Setup struct {
	Level    raid.Level
	Size     raid.Sectors
	Members  []Member // by slot
	Spares   []DeviceID
	Resynced raid.Sectors
}

// NewArray returns an array as its superblocks describe it. Its first Step must
// be [Started].
func NewArray(s Setup) *Array {
	a := &Array{
		level: s.Level, size: s.Size, state: raid.Clean, resynced: s.Resynced,
		members: append([]Member(nil), s.Members...),
		spares:  append([]DeviceID(nil), s.Spares...),
		sync:    Sync{Action: raid.Idle},
	}

	if !a.level.HasRedundancy() {
		a.resynced = raid.MaxSectors
	}

	// What was in flight when the array was not stopped cleanly may have reached
	// the source of a recovery and not the member that is filled.
	for slot := range a.members {
		if m := &a.members[slot]; m.State == raid.Recovering {
			m.Recovered = min(m.Recovered, a.resynced)
		}
	}

	if a.broken() {
		a.state = raid.Broken
	}

	return a
}

// State returns the state of the array.
func (a *Array) State() raid.ArrayState { return a.state }

// Members returns the slots, by number. The caller must not change them.
func (a *Array) Members() []Member { return a.members }

// Spares returns the devices that wait for a slot, those included that could
// not be filled.
func (a *Array) Spares() []DeviceID {
	return append(append([]DeviceID(nil), a.spares...), a.barred...)
}

// Syncing returns what goes on now.
func (a *Array) Syncing() Sync { return a.sync }

// Resynced returns the component offset below which redundancy is right.
func (a *Array) Resynced() raid.Sectors { return a.resynced }

// Degraded returns how many slots lack a member in sync.
func (a *Array) Degraded() int {
	n := 0

	for _, m := range a.members {
		if m.State != raid.InSync {
			n++
		}
	}

	return n
}

// MayAcknowledge reports whether writes that have ended may be acknowledged:
// not while a failure that they missed is not on the survivors' disks. Else a
// crash could bring the failed member back as if it were fresh. If the array
// is broken before that, they never may.
func (a *Array) MayAcknowledge() bool { return a.durable >= a.unsafe }

// MayWrite reports whether writes may be submitted to members.
func (a *Array) MayWrite() bool {
	return a.state == raid.Active && (a.dirty || !a.level.HasRedundancy())
}

// Step advances the array by ev and returns what must be done, in order.
func (a *Array) Step(ev Event) []Effect {
	effects := a.step(ev)
	a.check()

	return effects
}

func (a *Array) step(ev Event) []Effect {
	switch ev := ev.(type) {
	case Started:
		return a.started()
	case WriteArrived:
		return a.writeArrived()
	case WentIdle:
		return a.wentIdle()
	case MemberFailed:
		return a.memberFailed(ev.Device)
	case SpareAdded:
		return a.spareAdded(ev.Device)
	case DeviceRemoved:
		return a.deviceRemoved(ev.Device)
	case SuperblocksDurable:
		return a.superblocksDurable(ev.Seq)
	case SyncReached:
		return a.syncReached(ev.Offset)
	case CheckpointDue:
		return a.checkpoint()
	case SyncFailed:
		return a.syncFailed()
	case Stopping:
		return a.stop()
	default:
		panic(fmt.Sprintf("engine: unknown event %T", ev))
	}
}

// broken reports whether more members are gone than the level survives. A
// recovering member does not count: it is right in part only.
func (a *Array) broken() bool {
	return a.Degraded() > a.level.Redundancy(len(a.members))
}

// slotOf returns the slot that device holds.
func (a *Array) slotOf(device DeviceID) (raid.Slot, bool) {
	for slot, m := range a.members {
		if m.Device == device && device != None {
			return raid.Slot(slot), true
		}
	}

	return raid.NoSlot, false
}

func (a *Array) check() {
	if a.durable > a.seq {
		panic(fmt.Sprintf("engine: durable %d exceeds %d", a.durable, a.seq))
	}

	if a.broken() != (a.state == raid.Broken) {
		panic(fmt.Sprintf("engine: state %v with %d members gone", a.state, a.Degraded()))
	}

	if a.state == raid.Active && a.level.HasRedundancy() && !a.dirty {
		panic("engine: active with clean superblocks")
	}

	recovering := 0
	seen := make(map[DeviceID]bool)

	for _, m := range a.members {
		if m.State == raid.Recovering {
			recovering++
		}

		if m.Device != None && seen[m.Device] {
			panic(fmt.Sprintf("engine: device %d holds two slots", m.Device))
		}

		seen[m.Device] = true
	}

	if recovering > 1 {
		panic(fmt.Sprintf("engine: %d members are recovering", recovering))
	}

	for _, d := range a.Spares() {
		if seen[d] {
			panic(fmt.Sprintf("engine: spare %d holds a slot", d))
		}
	}
}
