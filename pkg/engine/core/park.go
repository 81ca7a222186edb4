package core

import (
	"slices"

	"raid-assembler/pkg/engine/stripe"
)

// Spares are memory to go on with, in place of what an operation that was given
// up may use still: a read that ends after all writes to its memory, and a write
// that begins after all writes what is there by then.
type Spares struct {
	Requests [][]byte // each as long as the memory of any request
	Scratch  [][]byte // as Config.Scratch
	Records  [][]byte // as Config.Records
	Logs     [][]byte // as Config.Logs
}

// parked is memory that nobody may have before the operations in it have ended.
type parked struct {
	old, to []byte    // what is used in its place
	shelf   *[][]byte // where it goes then
}

// memories is whose memory is where.
//
// Memory is parked for writes as well, although the member that they go to is
// faulty by then: not all that is written is held back until that is recorded.
// A member that is mended, or put right by a repair, would after a crash be in
// sync again, with somebody else's content where nobody was writing.
type memories struct {
	requests [][]byte // by tag: all of the memory that the tag has
	moved    []bool   // by tag: it has other memory than its request came with
	scratch  [][]byte // all that the data path has
	parked   []parked
}

func newMemories(cfg *Config) memories {
	return memories{
		requests: make([][]byte, cfg.Depth), moved: make([]bool, cfg.Depth),
		scratch: slices.Clone(cfg.Scratch),
	}
}

// park has what is in memory that an operation uses go on elsewhere. Reports
// whether there was memory for that.
func (c *Core) park(data []byte) bool {
	m := &c.memories

	in := func(memory []byte) bool { return stripe.Within(memory, data) >= 0 }

	if len(data) == 0 || slices.ContainsFunc(m.parked, func(p parked) bool { return in(p.old) }) {
		return true
	}

	if tag := slices.IndexFunc(m.requests, in); tag >= 0 {
		old := m.requests[tag]

		to := c.replace(&c.cfg.Spares.Requests, old)
		if to == nil {
			return false
		}

		c.path.Move(old, to)
		m.requests[tag], m.moved[tag] = to, true

		return true
	}

	if i := slices.IndexFunc(m.scratch, in); i >= 0 {
		old := m.scratch[i]

		to := c.replace(&c.cfg.Spares.Scratch, old)
		if to == nil {
			return false
		}

		c.path.Move(old, to)
		m.scratch[i] = to

		return true
	}

	if i := slices.IndexFunc(c.cfg.Records, in); i >= 0 {
		to := c.replace(&c.cfg.Spares.Records, c.cfg.Records[i])
		if to == nil {
			return false
		}

		c.cfg.Records[i] = to

		return true
	}

	if i := slices.IndexFunc(c.cfg.Logs, in); i >= 0 {
		old := c.cfg.Logs[i]

		to := c.replace(&c.cfg.Spares.Logs, old)
		if to == nil {
			return false
		}

		c.path.Move(old, to)
		c.cfg.Logs[i] = to

		return true
	}

	return false // nobody knows what else would use it
}

// replace takes memory off a shelf for old, which is parked, or returns nil.
func (c *Core) replace(shelf *[][]byte, old []byte) []byte {
	i := slices.IndexFunc(*shelf, func(spare []byte) bool { return len(spare) >= len(old) })
	if i < 0 {
		return nil
	}

	to := (*shelf)[i]
	*shelf = slices.Delete(*shelf, i, i+1)

	for i := range c.memories.parked {
		// What goes on in memory that is parked now goes on in its successor.
		if p := &c.memories.parked[i]; &p.to[0] == &old[0] {
			p.to = to
		}
	}

	c.memories.parked = append(c.memories.parked, parked{old: old, to: to, shelf: shelf})

	return to
}

// follow copies what a read has brought to where its memory was moved to while
// it was under way.
func (c *Core) follow(data []byte) {
	for _, p := range c.memories.parked {
		if from := stripe.Within(p.old, data); from >= 0 {
			copy(p.to[from:], data)
		}
	}
}

// unpark gives parked memory back in which no operation is any more.
func (c *Core) unpark() {
	m := &c.memories
	m.parked = slices.DeleteFunc(m.parked, func(p parked) bool {
		for i := range c.flights {
			if f := &c.flights[i]; f.flying && stripe.Within(p.old, f.Data) >= 0 {
				return false
			}
		}

		*p.shelf = append(*p.shelf, p.old)

		return true
	})
}
