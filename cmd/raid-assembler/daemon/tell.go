package daemon

import (
	"fmt"
	"path"
	"strings"

	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// tell puts the decisions into the journal that are not what was decided last.
func (d *Daemon) tell() {
	said := make(map[string]string, len(d.said))

	for _, dec := range d.decisions {
		key := fmt.Sprint(dec.Array, dec.Device, dec.Serial)
		text := dec.String()

		// An action and a wish to leave it alone may concern one device.
		said[key] += text

		if !strings.Contains(d.said[key], text) {
			d.cfg.Log(d.event(dec))
		}
	}

	d.said = said
}

func (d *Daemon) event(dec policy.Decision) journal.Event {
	ev := journal.Event{
		Kind: kind(dec), Member: dec.Device, Serial: dec.Serial, Reason: dec.Reason, Message: d.sentence(dec),
	}

	if !dec.Array.IsZero() {
		ev.Array, ev.UUID = d.nameOf(dec.Array), dec.Array.String()
	}

	return ev
}

// kind returns the kind of event that a decision is.
func kind(dec policy.Decision) journal.Kind {
	switch dec.Action {
	case policy.Start, policy.AddSpare, policy.FailMember, policy.RemoveMember, policy.Prove,
		policy.Replace:
		return journal.Decision
	case policy.Wait:
		return journal.Waiting
	case policy.LeaveAlone, policy.Refuse:
	}

	switch dec.Cause {
	case policy.Cloned:
		return journal.CloneFound
	case policy.Diverged, policy.Conflict:
		return journal.ConflictFound
	case policy.Stale:
		return journal.MemberStale
	case policy.Flapping:
		return journal.MemberFlaps
	case policy.Held, policy.Unneeded, policy.Chosen, policy.NotBlank, policy.Worn:
		return journal.Decision
	case policy.Unsettled:
		return journal.ArrayRefused
	case policy.Corrupt, policy.Unreadable, policy.InUse, policy.Unserved, policy.Missing, policy.Hole:
	}

	if dec.Action == policy.Refuse {
		return journal.ArrayRefused
	}

	return journal.DeviceIgnored
}

// sentence says what was decided, and why.
func (d *Daemon) sentence(dec policy.Decision) string {
	array := "no array"
	if !dec.Array.IsZero() {
		array = d.nameOf(dec.Array)
	}

	return Sentence(dec, array)
}

// Sentence says what was decided, and why; array is what its array is called.
func Sentence(dec policy.Decision, array string) string {
	device := dec.Device
	if dec.Serial != "" {
		device += fmt.Sprintf(" (serial %s)", dec.Serial)
	}

	switch dec.Action {
	case policy.Start:
		return fmt.Sprintf("%s is to be started with %s: %s", array, memberList(dec.Members), dec.Reason)
	case policy.Wait:
		return fmt.Sprintf("%s waits: %s", array, dec.Reason)
	case policy.Refuse:
		return fmt.Sprintf("%s is not started: %s", array, dec.Reason)
	case policy.AddSpare:
		return fmt.Sprintf("%s is to be given %s: %s", array, device, dec.Reason)
	case policy.FailMember:
		return fmt.Sprintf("%s of %s is to be failed: %s", device, array, dec.Reason)
	case policy.Replace:
		return fmt.Sprintf("%s of %s is to be replaced: %s", device, array, dec.Reason)
	case policy.Prove:
		return fmt.Sprintf("%s is read, to see whether it is blank, for %s: %s", device, array, dec.Reason)
	case policy.RemoveMember:
		return fmt.Sprintf("%s is to be let go of %s: %s", array, device, dec.Reason)
	case policy.LeaveAlone:
	}

	if dec.Device == "" {
		return fmt.Sprintf("%s is left alone: %s", array, dec.Reason)
	}

	return fmt.Sprintf("%s of %s is left alone: %s", device, array, dec.Reason)
}

// memberList names members by slot, then the spares.
func memberList(members []policy.Member) string {
	words := make([]string, len(members))

	for i, m := range members {
		words[i] = fmt.Sprintf("%s as %d", path.Base(m.Path), m.Slot)
		if m.Slot == raid.NoSlot {
			words[i] = path.Base(m.Path) + " as spare"
		}
	}

	return strings.Join(words, ", ")
}

// tellFailed puts into the journal that the engine did not do what was decided.
func (d *Daemon) tellFailed(uuid raid.UUID, err error) {
	d.cfg.Log(journal.Event{
		Kind: journal.ArrayRefused, Array: d.nameOf(uuid), UUID: uuid.String(), Reason: err.Error(),
		Message: fmt.Sprintf("raid-engine does not do what was decided about %s: %v", d.nameOf(uuid), err),
	})
}
