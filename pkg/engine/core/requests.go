package core

import (
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// safeMode is how long an array without a write in flight stays dirty.
const safeMode = 200 * time.Millisecond

// requests is what is known of the clients' requests.
//
// Every request is in one place: held here because the array is not dirty yet,
// held by the marker, in the data path, or ended and held until a failure is recorded.
type requests struct {
	held      []stripe.Request // writes that wait for the superblocks to say dirty
	kinds     []stripe.Op      // by tag
	answers   []Answer         // of requests that have ended
	due       []Answer         // to be taken by Answers
	writing   int              // writes in the data path
	reading   int              // other requests there
	lastWrite time.Time
	lastAny   time.Time
}

func newRequests(depth int) requests {
	return requests{
		held: make([]stripe.Request, 0, depth), kinds: make([]stripe.Op, depth),
		answers: make([]Answer, 0, depth), due: make([]Answer, 0, depth),
	}
}

// Submit takes a request of a client. Preconditions: its tag is free, and its
// data is whole sectors. All of the data's capacity is memory of the tag.
func (c *Core) Submit(r stripe.Request) {
	c.lastAny = c.now
	c.kinds[r.Tag] = r.Op
	c.memories.requests[r.Tag], c.memories.moved[r.Tag] = r.Data[:cap(r.Data)], false

	if r.Op != stripe.Flush && !within(r, c.cfg.Geometry.ArraySectors()) {
		c.answers = append(c.answers, Answer{Tag: r.Tag}) // the kernel never asks for it

		return
	}

	switch {
	case r.Op == stripe.Flush && c.broken(ruleFlush):
		c.answers = append(c.answers, Answer{Tag: r.Tag, OK: true})
	case !changes(r.Op):
		c.submit(r)
	case c.marker.draining:
		c.held = append(c.held, r)
	case c.broken(ruleDirty) && c.array.State() != raid.Broken:
		c.step(engine.WriteArrived{})
		c.mark(r)
	case c.array.MayWrite():
		c.mark(r)
	default:
		c.held = append(c.held, r)
		c.step(engine.WriteArrived{})
	}
}

// changes reports whether an operation changes what is in the array.
func changes(op stripe.Op) bool {
	return op == stripe.Write || op == stripe.Discard || op == stripe.WriteZeroes
}

// within reports whether r moves something, and all of it is in the array.
func within(r stripe.Request, size raid.Sectors) bool {
	n := r.Sectors + raid.Sectors(len(r.Data)/raid.SectorSize)

	return n > 0 && n <= size && r.Sector >= 0 && r.Sector <= size-n
}

// submit gives a request to the data path.
func (c *Core) submit(r stripe.Request) {
	if changes(r.Op) {
		c.writing++
	} else {
		c.reading++
	}

	c.throttle.requestBegan(c.now, r.Tag)
	c.path.Submit(r)
}

// release lets the writes through that waited for the superblocks.
func (c *Core) release() {
	for _, r := range c.held {
		c.mark(r)
	}

	c.held = c.held[:0]
}

// refuse fails the writes that wait.
func (c *Core) refuse() {
	for _, r := range c.held {
		c.answers = append(c.answers, Answer{Tag: r.Tag})
	}

	c.held = c.held[:0]

	for _, r := range c.marker.waiting {
		c.unmark(r.Tag)
		c.answers = append(c.answers, Answer{Tag: r.Tag})
	}

	c.marker.waiting = c.marker.waiting[:0]
}

// ended takes what the data path has finished.
func (c *Core) ended(res stripe.Result) {
	c.lastAny = c.now

	if c.syncer.on && res.Op != stripe.Flush {
		c.throttle.requestEnded(c.now, res.Tag)
	}

	if changes(res.Op) {
		c.unmark(res.Tag)
		c.writing--
		c.lastWrite = c.now
	} else {
		c.reading--
	}

	c.answers = append(c.answers, Answer{Tag: res.Tag, OK: res.OK})
}

// answer gives what has ended and is due.
func (c *Core) answer() {
	kept := c.answers[:0]

	for _, a := range c.answers {
		ok, due := c.verdict(a)
		if due {
			if c.memories.moved[a.Tag] {
				a.Memory = c.memories.requests[a.Tag]
			}

			c.due = append(c.due, Answer{Tag: a.Tag, OK: ok, Memory: a.Memory})
		} else {
			kept = append(kept, a)
		}
	}

	c.answers = kept
}

// verdict returns what a request that has ended is answered with, and whether
// it is due: writes and flushes wait until the failures that they missed are
// recorded, which a broken array will never do.
func (c *Core) verdict(a Answer) (ok, due bool) {
	if c.kinds[a.Tag] != stripe.Read && !c.array.MayAcknowledge() && !c.broken(ruleFailure) {
		return false, c.array.State() == raid.Broken
	}

	return a.OK, true
}
