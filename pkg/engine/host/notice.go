package host

import (
	"fmt"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/raid"
)

// story is how a kind of notice is told: who stands for the member, and at for
// the offset in MiB.
type story struct {
	kind    journal.Kind
	message func(array, who string, at int64) string
	reason  string // unless the notice has its own
}

var stories = map[engine.Note]story{
	engine.NoteFailed: {journal.MemberFailed, func(array, who string, _ int64) string {
		return fmt.Sprintf("%s of %s failed", who, array)
	}, "input/output error"},
	engine.NoteBroken: {journal.ArrayBroken, func(array, who string, _ int64) string {
		return fmt.Sprintf("%s is broken: %s was one too many", array, who)
	}, ""},
	engine.NoteSpareActive: {journal.SpareActivated, func(array, who string, _ int64) string {
		return fmt.Sprintf("spare %s is put to work in %s", who, array)
	}, ""},
	engine.NoteNoSpare: {journal.NoSpareLeft, func(array, _ string, _ int64) string {
		return fmt.Sprintf("%s is degraded and has no spare", array)
	}, ""},
	engine.NoteRecoverStart: {journal.RecoveryStarted, func(array, who string, at int64) string {
		return fmt.Sprintf("recovery of %s onto %s starts at %d MiB", array, who, at)
	}, ""},
	engine.NoteRecoverDone: {journal.RecoveryFinished, func(array, who string, _ int64) string {
		return fmt.Sprintf("%s of %s is in sync", who, array)
	}, ""},
	engine.NoteRecoverFailed: {journal.RecoveryFinished, func(array, who string, at int64) string {
		return fmt.Sprintf("recovery of %s onto %s was given up at %d MiB", array, who, at)
	}, "what it needs cannot be read"},
	engine.NoteResyncStart: {journal.ResyncStarted, func(array, _ string, _ int64) string {
		return fmt.Sprintf("resync of %s starts", array)
	}, "the array was not stopped cleanly"},
	engine.NoteResyncDone: {journal.ResyncFinished, func(array, _ string, _ int64) string {
		return fmt.Sprintf("resync of %s is done", array)
	}, ""},
	engine.NoteResyncFailed: {journal.ResyncFinished, func(array, _ string, at int64) string {
		return fmt.Sprintf("resync of %s was given up at %d MiB", array, at)
	}, "what it needs cannot be read"},
	engine.NoteReturned: {journal.MemberReturned, func(array, who string, _ int64) string {
		return fmt.Sprintf("%s is back in %s", who, array)
	}, "the bitmap tells what it missed"},
	engine.NoteBadBlocks: {journal.BadBlocksFound, func(array, who string, at int64) string {
		return fmt.Sprintf("%s of %s has bad blocks at %d MiB", who, array, at)
	}, ""},
	engine.NoteSlow: {journal.MemberSlow, func(array, who string, _ int64) string {
		return fmt.Sprintf("%s of %s is slow, and others are read in its place", who, array)
	}, ""},
	engine.NoteSlowEnd: {journal.MemberSteady, func(array, who string, _ int64) string {
		return fmt.Sprintf("%s of %s is as fast as its peers again", who, array)
	}, ""},
	engine.NoteReplaceStart: {journal.ReplaceStarted, func(array, who string, at int64) string {
		return fmt.Sprintf("%s of %s is filled to replace its member, from %d MiB", who, array, at)
	}, ""},
	engine.NoteReplaceDone: {journal.ReplaceFinished, func(array, who string, _ int64) string {
		return fmt.Sprintf("%s of %s has replaced its member", who, array)
	}, ""},
	engine.NoteReplaceFailed: {journal.ReplaceFinished, func(array, who string, at int64) string {
		return fmt.Sprintf("replacement by %s of %s was given up at %d MiB", who, array, at)
	}, "it cannot be filled"},
	engine.NoteCheckStart: {journal.CheckStarted, func(array, _ string, _ int64) string {
		return fmt.Sprintf("check of %s starts", array)
	}, "it was asked for"},
	engine.NoteCheckDone: {journal.CheckFinished, func(array, _ string, _ int64) string {
		return fmt.Sprintf("check of %s is done", array)
	}, "all is redundant"},
	engine.NoteCheckFailed: {journal.CheckFinished, func(array, _ string, at int64) string {
		return fmt.Sprintf("check of %s ended at %d MiB", array, at)
	}, "it was stopped, or a member failed"},
	engine.NoteRepairStart: {journal.RepairStarted, func(array, _ string, _ int64) string {
		return fmt.Sprintf("repair of %s starts", array)
	}, "it was asked for"},
	engine.NoteRepairDone: {journal.RepairFinished, func(array, _ string, _ int64) string {
		return fmt.Sprintf("repair of %s is done", array)
	}, "all was redundant"},
	engine.NoteRepairFailed: {journal.RepairFinished, func(array, _ string, at int64) string {
		return fmt.Sprintf("repair of %s ended at %d MiB", array, at)
	}, "it was stopped, or a member failed"},
}

// notice puts what the engine says into the journal.
func (h *Host) notice(uuid raid.UUID, r *running, n loop.Notice) {
	s := stories[n.Note]
	ev := journal.Event{Kind: s.kind, Array: r.name, UUID: uuid.String(), Reason: n.Cause}
	who := "a member"

	if d := n.Member; d != nil {
		ev.Member, ev.Serial = d.Path, d.Serial
		who = fmt.Sprintf("%s (serial %s)", d.Path, d.Serial)
	}

	if n.Slot != raid.NoSlot {
		ev.Slot = &n.Slot
		who += fmt.Sprintf(" in slot %d", n.Slot)
	}

	if ev.Reason == "" {
		ev.Reason = s.reason
	}

	switch {
	case n.Mismatched == 0:
	case n.Note == engine.NoteResyncDone || n.Note == engine.NoteRepairDone:
		ev.Reason = fmt.Sprintf("%d KiB were not redundant and are now", n.Mismatched/2)
	case n.Note == engine.NoteCheckDone || n.Note == engine.NoteCheckFailed:
		// That it was looked for is one thing, that it was found another.
		found := ev
		found.Kind = journal.MismatchFound
		found.Reason = fmt.Sprintf("%d KiB of each member do not agree with the others", n.Mismatched/2)
		found.Message = fmt.Sprintf("%s is not redundant everywhere: %s", r.name, found.Reason)
		h.cfg.Tell(found)

		if n.Note == engine.NoteCheckDone {
			ev.Reason = found.Reason
		}
	case n.Note == engine.NoteBadBlocks:
		ev.Reason = fmt.Sprintf("%d sectors of its data area, from %d on", n.Mismatched, n.Offset)
	}

	ev.Message = s.message(r.name, who, n.Offset.Bytes()>>20)
	h.cfg.Tell(ev)

	// What happened at once is told before anybody looks what has become of it.
	if len(r.notices) == 0 {
		h.touch()
	}

	if n.Note == engine.NoteFailed && n.Member != nil {
		h.failBeside(r, n)
	}
}
