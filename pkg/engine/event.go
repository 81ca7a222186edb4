package engine

import "raid-assembler/pkg/raid"

// Event is something that happened outside the array.
//
//sumtype:decl
type Event interface{ event() }

// The events.
type (
	// Started says that the data path is ready. It comes first, and once.
	Started struct{}
	// WriteArrived says that a write waits to be let through.
	WriteArrived struct{}
	// WentIdle says that no write has been in flight for the safe-mode delay.
	WentIdle struct{}
	// MemberFailed says that a device was given up on, or is to be.
	MemberFailed struct{ Device DeviceID }
	// SpareAdded says that a device is ready to take a slot.
	SpareAdded struct{ Device DeviceID }
	// MemberReturned says that a device is back that was in sync in a slot which
	// is vacant, and that the bitmap marks all that it missed.
	MemberReturned struct {
		Device DeviceID
		Slot   raid.Slot
	}
	// DeviceRemoved says that a faulty device or a spare is let go of.
	DeviceRemoved struct{ Device DeviceID }
	// SuperblocksDurable says that the superblocks as they were at Seq have
	// reached stable storage on every working member.
	SuperblocksDurable struct{ Seq uint64 }
	// SyncReached says how far the sync that goes on has come. Its data was
	// written, but perhaps not flushed.
	SyncReached struct{ Offset raid.Sectors }
	// CheckpointDue says that the position of the sync should be recorded, so
	// that a crash does not cost all of it.
	CheckpointDue struct{}
	// SyncFailed says that the sync cannot go on: what it needs cannot be
	// read.
	SyncFailed struct{}
	// SyncRequested asks for a check or a repair of the range given, in the unit
	// of a resync, or with Idle for the end of one. MaySync says whether that
	// can be.
	SyncRequested struct {
		Action raid.SyncAction
		Range  raid.Range
	}
	// ReplaceRequested asks for a spare to be filled with what is in Slot, and
	// then to take its place. MayReplace says whether that can be.
	ReplaceRequested struct {
		Slot  raid.Slot
		Spare DeviceID // None for any
	}
	// RecordNeeded says that what the metadata is to say has changed beside what
	// the array knows, and that no write may be acknowledged before that is
	// recorded: sectors of a member hold no valid data, or the bitmap is another.
	RecordNeeded struct{}
	// ReadOnlySet says that nothing is to be written from now on, or that
	// something may be again. Preconditions of On: no write is in flight.
	ReadOnlySet struct{ On bool }
	// Stopping says that no request is in flight, and none will come.
	Stopping struct{}
)

func (Started) event()            {}
func (WriteArrived) event()       {}
func (WentIdle) event()           {}
func (MemberFailed) event()       {}
func (SpareAdded) event()         {}
func (MemberReturned) event()     {}
func (DeviceRemoved) event()      {}
func (SuperblocksDurable) event() {}
func (SyncReached) event()        {}
func (CheckpointDue) event()      {}
func (SyncFailed) event()         {}
func (SyncRequested) event()      {}
func (ReplaceRequested) event()   {}
func (RecordNeeded) event()       {}
func (ReadOnlySet) event()        {}
func (Stopping) event()           {}

// Effect is something to be done outside the array.
//
//sumtype:decl
type Effect interface{ effect() }

// The effects.
type (
	// WriteSuperblocks asks for the members to be flushed, then for the
	// superblocks to be written and made durable with what [Array.Record] says
	// at that time, and to be answered with [SuperblocksDurable].
	WriteSuperblocks struct{ Seq uint64 }
	// ReleaseWrites lets the waiting writes through.
	ReleaseWrites struct{}
	// Acknowledge lets the writes be acknowledged that have ended.
	Acknowledge struct{}
	// FailWrites fails the waiting writes, and those that may not be
	// acknowledged: they never will be.
	FailWrites struct{}
	// SetMember says what holds a slot, from now on.
	SetMember struct{ Slot raid.Slot }
	// SetSuccessor says who is to take over which slot, from now on.
	SetSuccessor struct{}
	// StartSync starts what [Array.Syncing] says.
	StartSync struct{}
	// StopSync ends the sync that goes on; its last slab may still come.
	StopSync struct{}
	// Report asks for something to be told.
	Report struct {
		Note   Note
		Device DeviceID
		Slot   raid.Slot
	}
	// Stopped says that the superblocks are as they should stay.
	Stopped struct{}
)

func (WriteSuperblocks) effect() {}
func (ReleaseWrites) effect()    {}
func (Acknowledge) effect()      {}
func (FailWrites) effect()       {}
func (SetMember) effect()        {}
func (SetSuccessor) effect()     {}
func (StartSync) effect()        {}
func (StopSync) effect()         {}
func (Report) effect()           {}
func (Stopped) effect()          {}

// Note is a kind of [Report].
type Note uint8

// The notes.
const (
	NoteFailed        Note = iota // a member failed
	NoteBroken                    // and it was one too many
	NoteSpareActive               // a spare was put to work
	NoteNoSpare                   // degraded, and no spare to take the slot
	NoteRecoverStart              // recovery goes on from an offset
	NoteRecoverDone               // the member is in sync
	NoteRecoverFailed             // it could not be filled
	NoteResyncStart
	NoteResyncDone
	NoteResyncFailed
	NoteReplaceStart  // a successor is filled, from an offset
	NoteReplaceDone   // and has taken over the slot
	NoteReplaceFailed // or could not be filled
	NoteCheckStart
	NoteCheckDone
	NoteCheckFailed // or was stopped
	NoteRepairStart
	NoteRepairDone
	NoteRepairFailed // or was stopped
	NoteReturned     // a member is back and is given what it missed
	NoteBadBlocks    // sectors of a member hold no valid data; the data path tells, not the Array
	NoteSlow         // a member is much slower than its peers, and is read no more than has to be
	NoteSlowEnd      // it no longer is
)

func (n Note) String() string {
	return [...]string{
		"failed", "broken", "spare-active", "no-spare", "recover-start", "recover-done",
		"recover-failed", "resync-start", "resync-done", "resync-failed",
		"replace-start", "replace-done", "replace-failed", "check-start", "check-done", "check-failed",
		"repair-start", "repair-done", "repair-failed", "returned", "bad-blocks",
		"slow", "slow-end",
	}[n]
}

// Starts reports whether n says that a sync begins.
func (n Note) Starts() bool {
	return n == NoteRecoverStart || n == NoteResyncStart || n == NoteReplaceStart ||
		n == NoteCheckStart || n == NoteRepairStart
}
