package core

import (
	"time"

	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// againEvery is the pause before an operation is asked for again.
const againEvery = 50 * time.Millisecond

// repeater asks again for operations that the kernel could not carry out for reasons
// of its own: it had no memory, or a signal came. It is no fault of the device, which
// has as long for all attempts together as for any operation.
type repeater struct {
	again   []int // IDs of flights
	againAt time.Duration
}

// Again says that an operation did not go, for no fault of the device. It is asked
// for once more in a while.
func (c *Core) Again(id int) {
	r := &c.repeater

	if len(r.again) == 0 {
		r.againAt = c.deadliner.waited + againEvery
	}

	r.again = append(r.again, id)
}

// Part says that only so many bytes of an operation were done, in whole sectors, and has
// the rest be asked for: that fails if the device has become shorter, and is asked for
// again if it was for want of memory.
func (c *Core) Part(id, done int) {
	f := &c.flights[id]
	if f.late {
		c.Complete(id, stripe.Gone)

		return
	}

	f.done += int32(done)
	c.asked = append(c.asked, int32(id))
}

// rest is what is left to do of an operation.
func (f *flight) rest() Operation {
	o, done := f.Operation, raid.Sectors(f.done/raid.SectorSize)
	o.Data = o.Data[f.done:]
	o.Sector += done
	o.Sectors -= done

	return o
}

// askAgain asks for what did not go. What was given up meanwhile ends.
func (c *Core) askAgain() {
	r := &c.repeater
	if len(r.again) == 0 {
		return
	}

	due, rest := c.deadliner.waited >= r.againAt, r.again[:0]

	for _, id := range r.again {
		switch {
		case c.flights[id].late:
			c.Complete(id, stripe.Gone)
		case due:
			c.asked = append(c.asked, int32(id))
		default:
			rest = append(rest, id)
		}
	}

	r.again = rest
}
