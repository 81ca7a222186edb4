package exercise

import (
	"errors"
	"fmt"
)

// Promise is what a run knew to be durable when the power failed.
type Promise struct {
	Flushed Gen          // all operations before this one
	Durable map[Gen]bool // and these
}

// possible is what a sector may hold after a power cut.
type possible struct {
	any    bool // it was discarded
	met    bool // what is there was written by an operation that may have been lost or not
	latest Gen  // of those that zeroed it, if that is what is there
}

// Outcome is what became of a device.
type Outcome struct {
	Kept  int // sectors with an operation that was not durable
	Lost  int // sectors with anything, in rows that were being written
	Wrong int // sectors with what they cannot hold
	Last  Gen // the last operation of which something is there
}

// Crash is a device after a power cut.
type Crash struct {
	base  *Model
	found []Gen
	what  map[int64]string // sectors that hold nothing known
	row   int64
	lost  map[int64]bool // rows that were being written
}

// NewCrash begins to look at a device that held base when the run began. All that
// is in one row of that many sectors may be lost while a part of it is written; 0
// if nothing may.
func NewCrash(base *Model, row int64) *Crash {
	return &Crash{
		base: base, found: make([]Gen, 0, len(base.Sectors)), what: make(map[int64]string),
		row: row, lost: make(map[int64]bool),
	}
}

// See takes in the sectors that come next on the device.
func (c *Crash) See(p []byte) {
	for ; len(p) > 0; p = p[SectorSize:] {
		sector := int64(len(c.found))

		g, ok := found(p[:SectorSize], sector, c.base.Pattern)
		if !ok {
			c.what[sector] = describe(p[:SectorSize], sector, c.base.Pattern)
		}

		c.found = append(c.found, g)
	}
}

// maxWrong bounds the sectors that an error names.
const maxWrong = 5

// Judge replays the operations of the run and returns an error unless each
// sector holds what it held after the last operation that was durable, or what a
// later one wrote. The model is afterwards what is there.
func (c *Crash) Judge(s *Stream, p Promise) (Outcome, error) {
	if len(c.found) != len(c.base.Sectors) {
		return Outcome{}, fmt.Errorf("exercise: %d sectors seen of %d", len(c.found), len(c.base.Sectors))
	}

	var out Outcome

	for _, g := range c.found {
		out.Last = max(out.Last, g.number())
	}

	end := max(out.Last, p.Flushed, c.base.Last)
	for g := range p.Durable {
		end = max(end, g)
	}

	may := make([]possible, len(c.found))
	for i, g := range c.base.Sectors {
		may[i].any = g == Unknown
	}

	// What zeroed or discarded something leaves no number behind: those that came
	// a little later may have done it as well.
	const beyond = 256

	for g := c.base.Last + 1; g <= end+beyond; g++ {
		c.replay(s.Next(), g, g < p.Flushed || p.Durable[g], may)
	}

	c.base.Last = end + beyond

	return c.verdict(may, out)
}

// replay does one operation of the run.
func (c *Crash) replay(op Op, g Gen, durable bool, may []possible) {
	if op.Kind == Read || op.Kind == Flush {
		return
	}

	for i := op.First; i < op.First+op.Count; i++ {
		if durable {
			may[i] = possible{}

			switch op.Kind {
			case Zero:
				c.base.Sectors[i] = g | zeroed
			case Discard:
				c.base.Sectors[i], may[i].any = Unknown, true
			case Read, Write, Flush:
				c.base.Sectors[i] = g
			}

			continue
		}

		if c.row > 0 {
			c.lost[i/c.row] = true
		}

		switch op.Kind {
		case Zero:
			if c.found[i] == zeroed {
				may[i].met, may[i].latest = true, g|zeroed
			}
		case Discard:
			may[i].any = true
		case Read, Write, Flush:
			may[i].met = may[i].met || c.found[i] == g
		}
	}
}

// verdict compares what is there with what may be.
func (c *Crash) verdict(may []possible, out Outcome) (Outcome, error) {
	var errs []error

	for i, g := range c.found {
		want := c.base.Sectors[i]

		switch what, odd := c.what[int64(i)]; {
		case !odd && g == want && g != zeroed, g == zeroed && want&zeroed != 0:
		case may[i].met:
			out.Kept++

			c.base.Sectors[i] = max(g, may[i].latest)
		case may[i].any:
			c.base.Sectors[i] = Unknown
		case c.row > 0 && c.lost[int64(i)/c.row]:
			out.Lost++

			c.base.Sectors[i] = Unknown
		default:
			if out.Wrong++; out.Wrong > maxWrong {
				continue
			}

			if !odd {
				what = fmt.Sprintf("generation %d (zeroed %t)", g.number(), g == zeroed)
			}

			errs = append(errs, fmt.Errorf("exercise: sector %d holds %s, want generation %d (zeroed %t) or later",
				i, what, want.number(), want&zeroed != 0))
		}
	}

	if out.Wrong > 0 {
		return out, fmt.Errorf("exercise: %d sectors are wrong: %w", out.Wrong, errors.Join(errs...))
	}

	return out, nil
}
