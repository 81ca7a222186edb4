package core

import (
	"cmp"
	"fmt"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// passEvery is how often marks are cleared, unless the bitmap says so itself.
const passEvery = 5 * time.Second

// marker writes the blocks of the write-intent bitmap: what writes wait for at
// once, all that they wait for in one write of each block, and what is cleared
// in passes, before each of which the members are flushed.
//
// No block is being written while a record is: that may write it as well.
type marker struct {
	bits *intent.Map // nil if the array has no bitmap

	waiting []stripe.Request // writes that are not marked on disk yet
	prints  []raid.Range     // of the writes that were begun, by tag

	blocks []int // being written
	left   int   // operations of that
	failed []engine.DeviceID

	draining bool // new writes are held until the bitmap is another

	flushing int // operations of the pass under way
	spoilt   bool
	lazy     bool // a pass has cleared something
	lastPass time.Time
}

// newMarker returns the marker of an array that is as its setup says.
func newMarker(cfg *Config, degraded bool) marker {
	var m marker

	if b := cfg.Keeper.Bitmap(); b != nil && cfg.Setup.Level.HasRedundancy() {
		start := cfg.Setup.Resynced
		if degraded {
			start = 0 // they tell what the absent members missed
		}

		m.bits = intent.NewMap(b, start)
		m.waiting, m.prints = make([]stripe.Request, 0, cfg.Depth), make([]raid.Range, cfg.Depth)
		m.blocks = make([]int, 0, len(cfg.Records))
	}

	return m
}

// mark gives a write to the data path when it is marked on disk. Without that
// order a crash leaves redundancy wrong where no resync looks.
func (c *Core) mark(r stripe.Request) {
	if c.bits != nil {
		c.prints[r.Tag] = c.path.Footprint(r)

		marked := c.bits.Begin(c.prints[r.Tag]) && c.array.MayAcknowledge()
		if !marked && !c.broken(ruleMarked) {
			c.marker.waiting = append(c.marker.waiting, r)

			return
		}
	}

	c.submit(r)
}

// unmark ends a write that was marked. What a member missed, or may have, stays
// marked until it has been synced.
func (c *Core) unmark(tag int) {
	if c.bits != nil {
		c.bits.End(c.prints[tag], c.array.Degraded() > 0)
	}
}

// releaseMarked gives the writes to the data path that are marked by now.
//
// None of them may go on while a failure is not recorded: the marks may be on
// the survivors only, and a crash would bring the other one back in sync, and
// with it perhaps its bitmap as the array's, in which they are not.
func (c *Core) releaseMarked() {
	if !c.array.MayAcknowledge() {
		return
	}

	kept := c.marker.waiting[:0]

	for _, r := range c.marker.waiting {
		if c.bits.Durable(c.prints[r.Tag]) {
			c.submit(r)
		} else {
			kept = append(kept, r)
		}
	}

	c.marker.waiting = kept
}

// markClock begins what there is to write of the bitmap, and the pass that is
// due.
func (c *Core) markClock() {
	if c.bits == nil || c.array.State() == raid.Broken || c.array.State() == raid.ReadOnly {
		return
	}

	m := &c.marker
	if m.left == 0 && !c.recorder.active {
		c.writeMarks()
	}

	every := cmp.Or(c.cfg.Keeper.Bitmap().Info().Sleep, passEvery)
	if m.flushing == 0 && !m.lazy && c.now.Sub(m.lastPass) >= every && c.passable() && !c.stopping {
		m.lastPass, m.spoilt = c.now, false
		c.flushMembers(passing)
	}
}

// passable reports whether a pass over the marks could clear any: those of a
// degraded array are what its absent members missed.
func (c *Core) passable() bool { return c.bits != nil && c.array.Degraded() == 0 && !c.bits.Idle() }

// writeMarks writes all blocks that are due, as many as there are buffers for,
// or else those that can wait.
func (c *Core) writeMarks() {
	m := &c.marker
	next, lazy := c.bits.Due, false

	if _, due := next(); !due {
		if !m.lazy {
			return
		}

		next, lazy = c.bits.Lazy, true
	}

	used := 0

	for {
		block, ok := next()
		if lazy {
			m.lazy = ok
		}

		if full := used > 0 && used+len(c.array.Members())+1 > len(c.cfg.Records); !ok || full {
			break
		}

		m.blocks = append(m.blocks, block)

		for _, w := range c.bits.Write(block) {
			if device, ok := c.devices[w.Member]; ok && c.inUse(device) {
				c.writeMark(w, device, c.cfg.Records[used])
				used++
			}
		}
	}

	if m.left == 0 && len(m.blocks) > 0 {
		c.marksWritten() // nobody is left to write them to
	}
}

func (c *Core) writeMark(w metadata.Write, device engine.DeviceID, buf []byte) {
	buf = buf[:len(w.Data)]
	copy(buf, w.Data)
	c.marker.left++
	c.operate(Operation{
		Device: device, Op: stripe.Write, Sector: w.Sector, Data: buf, FUA: true, Record: true,
	}, marking)
}

// inUse reports whether a device is a working member, or is to be one.
func (c *Core) inUse(id engine.DeviceID) bool {
	for _, m := range c.array.Members() {
		if m.Device == id {
			return m.State == raid.InSync || m.State == raid.Recovering
		}
	}

	_, m := c.array.Successor()

	return m.Device == id
}

// marked takes the end of the write of a block.
func (c *Core) marked(device engine.DeviceID, fault stripe.Fault) {
	m := &c.marker
	if fault != stripe.None {
		m.failed = append(m.failed, device)
	}

	if m.left--; m.left == 0 {
		c.marksWritten()
	}
}

// marksWritten lets those go on that waited, without the members that could not
// be written.
func (c *Core) marksWritten() {
	m := &c.marker
	failed := m.failed
	m.failed = nil

	for _, d := range failed {
		c.step(engine.MemberFailed{Device: d})
	}

	for _, block := range m.blocks {
		c.bits.Written(block)
	}

	m.blocks = m.blocks[:0]
	c.releaseMarked()

	if c.recorder.blocked {
		c.recorder.blocked = false
		c.flushed()
	}
}

// passed takes the end of a flush. What was written before the pass began is
// on disk when all have ended.
func (c *Core) passed(device engine.DeviceID, fault stripe.Fault) {
	m := &c.marker
	if fault != stripe.None {
		m.spoilt = true
		c.step(engine.MemberFailed{Device: device})
	}

	if m.flushing--; m.flushing == 0 && !m.spoilt {
		c.bits.Tick(c.cfg.Keeper.Events(), c.array.Degraded() > 0)
		m.lazy = true
	}
}

// unmarked returns how far from at on a sync finds nothing that it has to pass:
// at itself if there is something right there, or if it is not one that goes by
// marks.
func (c *Core) unmarked(at raid.Sectors) raid.Sectors {
	job := &c.syncer.job

	switch {
	case c.bits == nil:
		return at
	case job.Action == raid.Resync:
		next, ok := c.bits.Needed(at)
		if !ok {
			return job.To
		}

		return max(at, next.From-next.From%c.grain())
	case job.Action == raid.Recover && job.ByBitmap:
		return c.unmissed(at)
	default:
		return at
	}
}

// unmissed is unmarked for the recovery of a member that has been here before.
func (c *Core) unmissed(at raid.Sectors) raid.Sectors {
	var (
		known raid.Range // from where on the next mark was looked for, and where it is
		none  bool       // there is no mark from there on
	)

	for at < c.syncer.job.To {
		end := min(c.syncer.job.To, at+c.slabSize())
		r := raid.Range{From: at, To: end}

		if c.cfg.Setup.Level == raid.Level10 {
			end = min(end, c.cfg.Geometry.SectionEnd(at))
			r = c.cfg.Geometry.Span(at, end)
		}

		if r.From < known.From || r.From > known.To && !none || known == (raid.Range{}) && !none {
			next, ok := c.bits.Marked(r.From)
			known, none = raid.Range{From: r.From, To: next.From}, !ok
		}

		if !none && known.To < r.To {
			return at
		}

		at = end
	}

	return at
}

// grain is what positions of a sync are multiples of.
func (c *Core) grain() raid.Sectors { return max(c.cfg.Chunk, minGrain) }

// synced tells the marker how far a sync has come.
func (c *Core) synced(to raid.Sectors) {
	if c.bits != nil && c.array.Degraded() == 0 {
		c.bits.Synced(to)
	}
}

// Rechunk has a bit of the bitmap stand for another chunk. Returns an error if
// that cannot be, and otherwise whether it was done: no write may be in flight
// then, so that those that come are held until it is asked for again, or given up
// with a chunk of 0.
func (c *Core) Rechunk(chunk raid.Sectors) (done bool, err error) {
	if err := c.mayRechunk(); err != nil || chunk == 0 {
		c.undrain()

		return false, err
	}

	m := &c.marker
	m.draining = true

	if c.writing+len(m.waiting)+m.left+m.flushing > 0 || c.recorder.active || c.path.Syncing() {
		return false, nil
	}

	defer c.undrain()

	if err := c.cfg.Keeper.Bitmap().Rechunk(chunk); err != nil {
		return false, err
	}

	start := raid.MaxSectors
	if c.array.Degraded() > 0 {
		start = 0
	}

	m.bits, m.lazy = intent.NewMap(c.cfg.Keeper.Bitmap(), start), false
	c.step(engine.RecordNeeded{})

	return true, nil
}

// mayRechunk says why the bitmap cannot become another now, if so.
func (c *Core) mayRechunk() error {
	switch state := c.array.State(); {
	case c.bits == nil:
		return fmt.Errorf("core: the array has no bitmap")
	case state == raid.Broken || state == raid.ReadOnly || c.closed:
		return fmt.Errorf("core: the array is %s", state)
	case c.array.Resynced() != raid.MaxSectors || c.syncer.on:
		return fmt.Errorf("core: a sync goes on that the bitmap tells where to look: wait for its end")
	default:
		return nil
	}
}

// undrain lets the writes go on that were held for the bitmap.
func (c *Core) undrain() {
	if !c.marker.draining {
		return
	}

	c.marker.draining = false

	switch {
	case len(c.held) == 0:
	case c.array.State() == raid.Broken:
		c.refuse()
	case c.array.MayWrite():
		c.release()
	default:
		c.step(engine.WriteArrived{})
	}
}
