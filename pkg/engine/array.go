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

// DeviceID names a device that the array has. Once it is let go of, another one may have the name.
type DeviceID int

// None is the device of a slot that has none.
const None DeviceID = -1

// Member is one slot of the array and what holds it.
type Member struct {
	Device    DeviceID
	State     raid.MemberState
	Recovered raid.Sectors // while Recovering: below it, the member is right
	// ByBitmap says of a Recovering member that it was in sync in its slot
	// before, and lacks only what the bitmap marks.
	ByBitmap bool
}

// nobody holds a slot that is empty.
var nobody = Member{Device: None, State: raid.Missing}

// Array is the state machine of one array. It is not safe for concurrent use.
//
// Invariants, checked after every Step:
//
//   - durable <= seq
//   - state is Broken if and only if more members are gone than the array
//     survives
//   - state is Active only if the superblocks on disk say dirty, for levels
//     that can be dirty at all
//   - the slot that a recovery fills is held by a recovering member
//   - a device holds one slot, or is a successor, a spare or retired: one of
//     these
type Array struct {
	level     raid.Level
	geo       raid.Geometry
	size      raid.Sectors // of the component: what a recovery covers
	syncSize  raid.Sectors // what a resync covers
	state     raid.ArrayState
	members   []Member // by slot
	successor Member   // is being filled to take over the slot heir
	heir      raid.Slot
	spares    []DeviceID // ready to take a slot
	barred    []DeviceID // spares whose filling was given up; not tried again
	retired   []DeviceID // faulty, and another device has their slot

	seq     uint64 // of the newest superblocks asked for
	durable uint64 // of the newest superblocks known to be on disk
	dirty   bool   // what the durable superblocks say
	unsafe  uint64 // seq of the newest superblocks that record a failure

	resynced raid.Sectors // below it redundancy is right; MaxSectors for all
	sync     Sync
	wanted   Sync   // a check or a repair that was asked for, until it begins
	since    uint64 // seq of the record that first says who is filled now
	arrived  uint64 // seq of the newest superblocks when the last spare came

	readOnly bool
	owing    bool // something was not recorded because the array was read-only
	stopping bool
	stopped  bool
}

// Sync is what an array does to its redundancy.
type Sync struct {
	Action   raid.SyncAction
	Slot     raid.Slot    // Recover and Replace: the slot that is filled
	From, To raid.Sectors // where it started, and where it ends
	ByBitmap bool         // Recover: what the bitmap does not mark is there already
	sole     bool         // Recover: only one source is left of what it writes
	filled   bool         // Recover and Replace: but for the record of its start, it has ended
}

// idle is no sync at all.
var idle = Sync{Action: raid.Idle, Slot: raid.NoSlot}

// Setup is what an array is when it is started.
type Setup struct {
	Level  raid.Level
	Layout raid.Layout
	Size   raid.Sectors // of the component
	// SyncSize is what a resync covers, if not the component: a RAID10's goes
	// by sectors of the array.
	SyncSize raid.Sectors
	Members  []Member // by slot
	// Successor is being filled to take over the slot Heir, if HasSuccessor.
	Successor    Member
	Heir         raid.Slot
	HasSuccessor bool
	Spares       []DeviceID
	Resynced     raid.Sectors
	ReadOnly     bool
}

// NewArray returns an array as its superblocks describe it. Its first Step must
// be [Started].
func NewArray(s Setup) *Array {
	a := &Array{
		level: s.Level, geo: raid.Geometry{Level: s.Level, Layout: s.Layout, Disks: len(s.Members)},
		size: s.Size, syncSize: s.SyncSize, state: raid.Clean, resynced: s.Resynced, readOnly: s.ReadOnly,
		members:   append([]Member(nil), s.Members...),
		spares:    append([]DeviceID(nil), s.Spares...),
		successor: nobody, heir: raid.NoSlot, sync: idle, wanted: idle,
	}

	if s.SyncSize == 0 {
		a.syncSize = s.Size
	}

	if s.HasSuccessor {
		a.successor, a.heir = s.Successor, s.Heir
	}

	if !a.level.HasRedundancy() {
		a.resynced = raid.MaxSectors
	}

	// What was in flight when the array was not stopped cleanly may have reached
	// the source of a recovery and not the member that is filled.
	for slot := range a.members {
		a.distrust(&a.members[slot])
	}

	if a.successor.State == raid.InSync && a.resynced != raid.MaxSectors {
		a.successor.State, a.successor.Recovered = raid.Recovering, a.size // a resync goes past it
	}

	a.distrust(&a.successor)

	if a.broken() {
		a.state = raid.Broken
	}

	return a
}

// distrust takes the position of a member back to where redundancy is right.
// The two are counted differently where a resync does not go by component.
func (a *Array) distrust(m *Member) {
	switch {
	case m.State != raid.Recovering || a.resynced == raid.MaxSectors:
	case a.syncSize == a.size:
		m.Recovered = min(m.Recovered, a.resynced)
	default:
		m.Recovered = 0
	}
}

// State returns the state of the array.
func (a *Array) State() raid.ArrayState {
	if a.readOnly && a.state == raid.Clean {
		return raid.ReadOnly
	}

	return a.state
}

// Members returns the slots, by number. The caller must not change them.
func (a *Array) Members() []Member { return a.members }

// Successor returns the member that is being filled to take over a slot, and
// that slot. Its Device is None if there is none.
func (a *Array) Successor() (raid.Slot, Member) { return a.heir, a.successor }

// Retired returns the faulty devices whose slot another device has.
func (a *Array) Retired() []DeviceID { return append([]DeviceID(nil), a.retired...) }

// Spares returns the devices that wait for a slot, those included that could
// not be filled.
func (a *Array) Spares() []DeviceID {
	return append(append([]DeviceID(nil), a.spares...), a.barred...)
}

// Syncing returns what goes on now.
func (a *Array) Syncing() Sync { return a.sync }

// Vacant reports whether slot has no working member.
func (a *Array) Vacant(slot raid.Slot) bool {
	return a.members[slot].State == raid.Missing || a.members[slot].State == raid.Faulty
}

// Resynced returns the offset below which redundancy is right, in what a resync
// covers.
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
// is broken before that, they never may. A read-only array has nothing written
// that a failed member could have missed.
func (a *Array) MayAcknowledge() bool { return a.durable >= a.unsafe || a.readOnly }

// Settled reports whether the superblocks on disk say all that is known of members.
func (a *Array) Settled() bool { return a.durable == a.seq && !a.readOnly && a.state != raid.Broken }

// MayWrite reports whether writes may be submitted to members.
func (a *Array) MayWrite() bool {
	return !a.readOnly && a.state == raid.Active && (a.dirty || !a.level.HasRedundancy())
}

// Step advances the array by ev and returns what must be done, in order.
func (a *Array) Step(ev Event) []Effect {
	effects := a.step(ev)
	a.check()

	return effects
}

//nolint:gocyclo // a line for each event
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
	case MemberReturned:
		return a.memberReturned(ev.Device, ev.Slot)
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
	case SyncRequested:
		return a.syncRequested(ev)
	case ReplaceRequested:
		return a.replaceRequested(ev)
	case RecordNeeded:
		return a.recordNeeded()
	case ReadOnlySet:
		return a.readOnlySet(ev.On)
	case Stopping:
		return a.stop()
	default:
		panic(fmt.Sprintf("engine: unknown event %T", ev))
	}
}

// broken reports whether more members are gone than the array survives. A
// recovering member does not count: it is right in part only.
func (a *Array) broken() bool { return !a.geo.Survives(a.inSync) }

func (a *Array) inSync(slot raid.Slot) bool { return a.members[slot].State == raid.InSync }

// breaks reports whether the array would be broken if the member of lost was
// gone and that of gained was in sync; either may be NoSlot.
func (a *Array) breaks(lost, gained raid.Slot) bool {
	return !a.geo.Survives(func(slot raid.Slot) bool {
		return slot != lost && (slot == gained || a.inSync(slot))
	})
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

	if a.sync.Action == raid.Recover && a.members[a.sync.Slot].State != raid.Recovering {
		panic(fmt.Sprintf("engine: recovery of slot %d, which is %s", a.sync.Slot, a.members[a.sync.Slot].State))
	}

	if a.sync.Action == raid.Replace && (a.successor.Device == None || a.heir != a.sync.Slot) {
		panic(fmt.Sprintf("engine: slot %d is replaced by nobody", a.sync.Slot))
	}

	a.checkPlaces()
}

// checkPlaces panics if a device has two places.
func (a *Array) checkPlaces() {
	seen := make(map[DeviceID]bool)
	see := func(d DeviceID) {
		if d != None && seen[d] {
			panic(fmt.Sprintf("engine: device %d has two places", d))
		}

		seen[d] = true
	}

	for _, m := range a.members {
		see(m.Device)
	}

	see(a.successor.Device)

	for _, list := range [][]DeviceID{a.spares, a.barred, a.retired} {
		for _, d := range list {
			see(d)
		}
	}
}
