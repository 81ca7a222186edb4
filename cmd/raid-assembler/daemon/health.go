package daemon

import (
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/roster"
)

// healthWindow is how long what a member did wrong counts.
const healthWindow = time.Hour

// askAgain is how long it takes before the engine is asked for the second time to
// replace a member.
const askAgain = time.Minute

// health is how members of running arrays fare, by [memberKey].
type health map[string]condition

// condition is how a member fares.
type condition struct {
	counts []count   // what the engine counted, oldest first, from which it counts
	asked  int       // how often it was asked to be replaced
	until  time.Time // before which that is not asked for again
}

type count struct {
	at              time.Time
	errors, belated int
}

// note takes in what the engine has counted.
func (h *health) note(arrays []api.Array, now time.Time) {
	next := make(health)

	for _, a := range arrays {
		for _, m := range a.Members {
			if m.Device == "" {
				continue
			}

			c := (*h)[memberKey(a, m)]
			c.counts = addCount(c.counts, count{now, m.Errors, m.Belated})
			next[memberKey(a, m)] = c
		}
	}

	*h = next
}

// ask notes that a member is about to be asked to be replaced, how often that was
// before, and how long it is not asked for again, whether the engine does it, refuses,
// or says nothing of it: the pause doubles.
func (h *health) ask(key string, now time.Time) (before int, pause time.Duration) {
	c, known := (*h)[key]
	if !known {
		return 0, 0
	}

	before, pause = c.asked, healthWindow
	if before < 6 {
		pause = min(pause, askAgain<<before)
	}

	c.asked, c.until = before+1, now.Add(pause)
	(*h)[key] = c

	return before, pause
}

// addCount adds what was counted now to what was before.
func addCount(counts []count, now count) []count {
	// What it counts from is to be as old as the window, if it can be.
	for len(counts) > 1 && now.at.Sub(counts[1].at) >= healthWindow {
		counts = counts[1:]
	}

	if len(counts) == 0 {
		return []count{now} // nobody knows how long ago that was
	}

	last := counts[len(counts)-1]

	switch {
	case now.errors < last.errors || now.belated < last.belated:
		return []count{{at: now.at}, now} // it was given to the array anew
	case now.errors != last.errors || now.belated != last.belated:
		return append(counts, now)
	case now.at.Sub(last.at) >= healthWindow:
		return []count{now}
	default:
		return counts
	}
}

// recent returns what a member did wrong within the window.
func (h *health) recent(key string) (errors, belated int) {
	counts := (*h)[key].counts
	if len(counts) == 0 {
		return 0, 0
	}

	first, last := counts[0], counts[len(counts)-1]

	return last.errors - first.errors, last.belated - first.belated
}

// asks notes which of decisions, that are about to be carried out, ask for a member to
// be replaced, and says so if they have done that before.
func (d *Daemon) asks(todo []policy.Decision, now time.Time) {
	for _, dec := range todo {
		if dec.Action != policy.Replace {
			continue
		}

		before, pause := d.health.ask(dec.Array.String()+" "+dec.Device+" "+dec.Serial, now)
		d.after(pause, d.hint)

		if before > 0 {
			d.cfg.Log(journal.Event{
				Kind: journal.Decision, Array: d.nameOf(dec.Array), UUID: dec.Array.String(),
				Member: dec.Device, Serial: dec.Serial, Reason: dec.Reason,
				Message: fmt.Sprintf("%s of %s is a member still: "+
					"its replacement is asked for again, and no more for %v",
					diskName(Disk{Path: dec.Device, Serial: dec.Serial}), d.nameOf(dec.Array), pause),
			})
		}
	}
}

// wearOut takes in that the engine replaces a member for what it did wrong: it is not
// used again unasked.
func (d *Daemon) wearOut(dec policy.Decision) {
	dk := d.disks[dec.Device]
	if dk == nil || dk.Serial != dec.Serial {
		return
	}

	// Without a serial nobody knows it again once it was unplugged.
	if dk.Serial == "" {
		d.shun(dk, "it was replaced by a spare: "+dec.Fault)

		return
	}

	d.members.roster.WearOut(roster.Worn{
		Serial: dk.Serial, Array: dec.Array.String(), Reason: dec.Fault, Since: time.Now().UTC().Truncate(time.Second),
	})

	d.members.news = true
	d.syncMembers()
}

// forgive has a device used again: the operator wants that.
func (d *Daemon) forgive(dk *disk) {
	d.shuns.forget(dk.Seq)

	if d.members.roster.Trust(dk.Serial) {
		d.members.news = true
		d.syncMembers()
	}
}

// worn says what a disk did wrong that was replaced, or returns the empty string.
func (d *Daemon) worn(dk *disk) string {
	if w := d.members.roster.Worn(dk.Serial); w != nil {
		return fmt.Sprintf("%s, on %s", w.Reason, w.Since.Format(time.RFC3339))
	}

	return ""
}

// stillServes forgets that members are worn which are at work all the same: the
// operator gave them to another array, or nothing came of their replacement.
func (d *Daemon) stillServes(a api.Array, now time.Time) {
	replacing := slices.ContainsFunc(a.Members, func(m api.Member) bool { return m.Replaces })

	for _, m := range a.Members {
		w := d.members.roster.Worn(m.Serial)
		if w == nil || m.State == string(raid.Faulty) {
			continue
		}

		waits := replacing || now.Before(d.health[memberKey(a, m)].until)
		if w.Array != a.UUID || m.State == string(raid.InSync) && !waits {
			d.members.roster.Trust(m.Serial)
			d.members.news = true
		}
	}
}
