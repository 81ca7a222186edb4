package policy

import (
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/raid"
)

// Last is what an array was when it last ran.
type Last struct {
	Events  uint64    // that its members in sync had
	Seen    time.Time // when that was
	Members []LastMember
	// Copied says that it is known from a copy which may be long out of date, so that
	// somebody may have had the array go back since: nobody is waited for then but who is
	// missing by the superblocks as well.
	Copied bool
}

// since says when that was, and how well it is known.
func (l Last) since() string {
	text := "last seen " + l.Seen.UTC().Format(time.RFC3339)
	if l.Copied {
		text += ", says the copy in the initramfs"
	}

	return text
}

// LastMember is a disk that was in sync then.
type LastMember struct {
	Serial string // empty if nobody knows: it cannot be waited for
	Slot   raid.Slot
}

// compare finds out whether what is here, whose freshest superblock is best, is older
// than the array was when it last ran, and who was in sync then and is not here: they
// are missing, whatever best says of their slots. If all are here, nobody else has
// anything newer: they were set back together, from an image perhaps.
func (c *count) compare(last Last, best *Superblock, devices []Device) {
	if best.Events >= last.Events {
		return
	}

	c.last = last

	for _, m := range last.Members {
		here := slices.ContainsFunc(devices, func(d Device) bool {
			return d.of(best.Array) && d.Serial == m.Serial && d.fault() == (why{})
		})
		unmissed := last.Copied && !slices.Contains(c.missing, m.Slot)

		if !here && !unmissed && m.Serial != "" {
			c.newer = append(c.newer, m.Slot)
		}
	}

	c.missing = slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.missing, c.newer))))
}

// awaits reports whether there is somebody to wait for: no deadline ends that for those
// who are newer.
func (c count) awaits(left time.Duration) bool {
	return len(c.newer) > 0 || len(c.missing) > 0 && left > 0
}

// behindFor says whom an array waits for that was left behind.
func (c count) behindFor(best *Superblock) string {
	return fmt.Sprintf("%s missing, and newer: the array was at event %d when it last ran on this machine (%s), "+
		"and what is here was left behind at event %d: plug that in, or go back to what is here, and lose what "+
		"was written since, with raid-assembler assemble --force %v", c.named(c.newer), c.last.Events,
		c.last.since(), best.Events, best.Array)
}

// aged says of an array that is started that it is older than it was, if so.
func (c count) aged(best *Superblock) string {
	if c.last.Events == 0 {
		return ""
	}

	return fmt.Sprintf("; they are at event %d, and the array was at event %d when it last ran on this machine",
		best.Events, c.last.Events)
}

// evidence is what is remembered of the array, a sentence a line.
func (l Last) evidence() []string {
	if l.Events == 0 {
		return nil
	}

	words := make([]string, len(l.Members))
	for i, m := range l.Members {
		words[i] = fmt.Sprintf("slot %d (serial %s)", m.Slot, m.Serial)
	}

	return []string{fmt.Sprintf("When it last ran on this machine (%s) it was at event %d: in sync were %s.",
		l.since(), l.Events, list(words))}
}
