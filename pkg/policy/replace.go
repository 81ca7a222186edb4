package policy

import (
	"fmt"

	"raid-assembler/pkg/raid"
)

// failing is a member that does more wrong than it may.
type failing struct {
	member *RunningMember
	text   string // what
}

// worst returns the member that is to be replaced first, if any is: of an array that
// lacks none and fills none, for those come first.
func (t *tender) worst(v View, cfg Config) failing {
	var worst failing

	filled := t.filled()
	if !t.takes() || len(filled) == 0 || len(t.vacant()) > 0 {
		return failing{}
	}

	limits := cfg.choice(v, filled[0].Superblock).Limits

	for i := range t.array.Members {
		m := &t.array.Members[i]
		if m.State == raid.Recovering {
			return failing{}
		}

		text := limits.exceeded(m)
		if m.State == raid.InSync && text != "" && (worst.member == nil || m.Errors > worst.member.Errors) {
			worst = failing{m, text}
		}
	}

	return worst
}

// exceeded says which of the limits a member exceeds, or returns the empty string.
func (l Limits) exceeded(m *RunningMember) string {
	switch {
	case l.Errors > 0 && m.Errors > l.Errors:
		return fmt.Sprintf("more than %d of its operations failed within an hour", l.Errors)
	case l.Belated > 0 && m.Belated > l.Belated:
		return fmt.Sprintf("more than %d of its operations took very long within an hour", l.Belated)
	case l.Slow > 0 && m.Slow > l.Slow:
		return fmt.Sprintf("it has been much slower than its peers for more than %v", l.Slow)
	default:
		return ""
	}
}

// replace decides to have the worst member replaced, if the engine has a spare and was
// not asked for that a moment ago.
func (t *tender) replace() []Decision {
	m := t.failing.member
	if m == nil || m.Asked || t.ready() == t.given {
		return nil
	}

	return []Decision{{
		Action: Replace, Array: t.array.UUID, Name: t.array.Name, Device: m.Path, Serial: m.Serial,
		Fault: t.failing.text, Reason: t.failing.text + ": it is copied to a spare while it can be",
	}}
}

// release decides to let go of members that were replaced for what they did wrong:
// nobody is to fall back on them, and whoever looks is to see why.
func (t *tender) release() []Decision {
	var ds []Decision

	for i, m := range t.array.Members {
		d := t.attached[i]
		if d == nil || d.Worn == "" || m.State != raid.Faulty || m.Slot != raid.NoSlot || t.array.State == raid.Broken {
			continue
		}

		ds = append(ds, Decision{
			Action: RemoveMember, Array: t.array.UUID, Name: t.array.Name, Device: m.Path, Serial: m.Serial,
			Reason: "a spare has taken its place: " + d.Worn,
		})
	}

	return ds
}

// worn says why a device is not used that was replaced for what it did wrong.
func (d *Device) worn() why {
	return because(Worn, "it is worn, and a spare was to take its place: %s; raid-assembler add gives it back", d.Worn)
}

// needs returns how many spares the array has a use for.
func (t *tender) needs() int {
	n := len(t.vacant())
	if t.failing.member != nil {
		n++
	}

	return n
}

// need says what it has a use for them for.
func (t *tender) need() string {
	if m := t.failing.member; m != nil {
		return fmt.Sprintf("the member in slot %d is failing (%s)", m.Slot, t.failing.text)
	}

	vacant := t.vacant()

	return fmt.Sprintf("%s %s vacant", slotNames(vacant), are(vacant))
}
