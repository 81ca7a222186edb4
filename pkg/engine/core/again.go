package core

import (
	"time"

	"raid-assembler/pkg/engine/stripe"
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
			c.ops = append(c.ops, c.flights[id].Operation)
		default:
			rest = append(rest, id)
		}
	}

	r.again = rest
}
