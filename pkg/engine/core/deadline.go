package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
)

// Deadlines are how long a member may take for one operation before it is
// failed.
type Deadlines struct {
	Usual    time.Duration // 0: 30 s
	FailFast time.Duration // of members that are to fail fast; 0: 5 s
}

const (
	usualDeadline    = 30 * time.Second
	failFastDeadline = 5 * time.Second
	// expireEvery is how often it is looked for operations that take too long.
	expireEvery = 100 * time.Millisecond
	// glance is how much of the time since the clock was looked at last counts.
	// When this thread did not run, because the machine was suspended, moved or
	// out of memory, nobody knows whether the members did.
	glance = time.Second
)

// deadliner fails members that do not answer.
//
// An operation that was given up is over for all but its memory, which is
// parked, and its number; both are free again when it ends after all. What a
// write of it does to the member then, that member has been out of the array
// since: whoever wants it back opens it anew, which nobody can before the last
// operation of the old one has ended, and fills it.
type deadliner struct {
	waited  time.Duration // a clock that stands still while nobody looks
	lookAt  time.Duration
	flying  int // operations that are waited for
	late    int // operations that were given up
	leaving bool
	silent  map[engine.DeviceID]bool
	overdue []engine.DeviceID // in expire
	refused []int             // transfers with a silent device
}

// elapse moves the clock of the deadlines on.
func (c *Core) elapse(now time.Time) {
	if !c.now.IsZero() {
		c.deadliner.waited += max(0, min(glance, now.Sub(c.now)))
	}
}

// deadline returns how long a device may take.
func (c *Core) deadline(id engine.DeviceID) time.Duration {
	if c.disks[id].FailFast {
		return cmp.Or(c.cfg.Deadlines.FailFast, failFastDeadline)
	}

	return cmp.Or(c.cfg.Deadlines.Usual, usualDeadline)
}

// expire fails the members that do not answer, all of them or none: an array
// that could not do without them has nothing to gain from giving up on them,
// and a controller that is reset, say, holds up all of its disks. Once the
// array is being stopped it does not wait for them either.
func (c *Core) expire() {
	d := &c.deadliner
	if d.flying == 0 || d.waited < d.lookAt {
		return
	}

	d.lookAt = d.waited + expireEvery
	d.overdue = d.overdue[:0]

	for i := range c.flights {
		if f := &c.flights[i]; f.flying && !f.late && d.waited-f.since >= c.deadline(f.Device) {
			d.overdue = append(d.overdue, f.Device)
		}
	}

	if len(d.overdue) == 0 {
		return
	}

	lost := func(id engine.DeviceID) bool { return slices.Contains(d.overdue, id) }
	broken := !c.array.Survives(func(engine.DeviceID) bool { return false })

	if c.array.Survives(lost) || broken || d.leaving {
		for _, id := range d.overdue {
			c.giveUp(id)
		}
	}
}

// giveUp fails a device that does not answer, and all that is under way on it.
func (c *Core) giveUp(id engine.DeviceID) {
	d := &c.deadliner

	if !d.silent[id] {
		d.silent[id] = true
		c.cause[id] = fmt.Sprintf("no answer for %v", c.deadline(id))
		c.step(engine.MemberFailed{Device: id})
	}

	for i := range c.flights {
		f := &c.flights[i]
		if !f.flying || f.late || f.Device != id || f.kind != probing && !c.park(f.Data) {
			continue // without memory to go on with there is nothing but to wait
		}

		f.late = true
		d.flying--
		d.late++
		c.over(*f, stripe.Gone)
	}
}

// refuseSilent ends the transfers that were asked of devices that do not answer.
func (c *Core) refuseSilent() {
	for _, id := range c.deadliner.refused {
		c.path.Complete(id, stripe.Gone)
	}

	c.deadliner.refused = c.deadliner.refused[:0]
}

// Leave says whether the array is to be stopped for good as soon as can be: then
// members that do not answer are not waited for, although that may break it. One
// that is handed over waits: its requests are better answered late than with an
// error.
func (c *Core) Leave(on bool) { c.deadliner.leaving = on }

// Late returns how many operations were given up and have not ended. Their
// memory is in use.
func (c *Core) Late() int { return c.deadliner.late }

// InFlight returns how many operations have not ended in all.
func (c *Core) InFlight() int { return c.deadliner.flying + c.deadliner.late }
