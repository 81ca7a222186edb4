package core

import (
	"slices"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// Health is what a device has done wrong since it was given to the array.
type Health struct {
	Errors  int           // operations of which sectors could not be read or written
	Belated int           // operations that took more than a quarter of what they may
	Slow    time.Duration // for how long it has been much slower than its peers
}

// belatedPart is the part of its deadline that a device may take unnoticed.
const belatedPart = 4

// examine counts what an operation that has ended tells of its device. One that ended
// since the device is gone tells nothing: whoever pulls it, or takes it out, ends all
// that is under way.
func (c *Core) examine(f flight, fault stripe.Fault) {
	took := c.deadliner.waited - f.since
	if fault == stripe.None && took < expireEvery || fault == stripe.Gone || !c.employs(f.Device) {
		return
	}

	h := &c.health[f.Device]

	if fault == stripe.Medium {
		h.Errors++
	}

	if took > c.deadline(f.Device)/belatedPart {
		h.Belated++
	}
}

// employs reports whether the array works with a device: what it has given up, for
// whatever reason, does no wrong any more.
func (c *Core) employs(id engine.DeviceID) bool {
	_, successor := c.array.Successor()

	return successor.Device == id || slices.ContainsFunc(c.array.Members(), func(m engine.Member) bool {
		return m.Device == id && (m.State == raid.InSync || m.State == raid.Recovering)
	})
}

// healths returns what devices have done wrong, of those that did.
func (c *Core) healths() map[engine.DeviceID]Health {
	all := make(map[engine.DeviceID]Health)

	for id := range c.disks {
		h := c.health[id]
		if p := c.slowness.pulses[id]; p.slow {
			h.Slow = c.now.Sub(p.since)
		}

		if h != (Health{}) {
			all[id] = h
		}
	}

	return all
}
