package core

import (
	"cmp"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

const (
	// checkpointEvery is how much time of a sync a crash may cost.
	checkpointEvery = 5 * time.Second
	// busyFor is how long after the last request clients still count as busy.
	busyFor = 100 * time.Millisecond
)

// minGrain is what positions of a sync are multiples of: whole blocks of any
// device.
const minGrain raid.Sectors = 8

// wrongMax is how many ranges that were not redundant are remembered.
const wrongMax = 64

// syncer drives a resync or a recovery, slab by slab.
type syncer struct {
	on         bool
	job        engine.Sync
	generation int // of the job; a slab of an older one counts for nothing
	slab       int // generation of the slab under way
	at         raid.Sectors
	spent      bool // scratch memory was used since Spent has said so
	checkpoint time.Time
	after      time.Time // nothing is synced before
	throttle   throttle
	turn       turn

	mismatch raid.Sectors
	last     Wrong
}

// Wrong is what the last resync, check or repair found not to be redundant.
type Wrong struct {
	Action  raid.SyncAction // Idle if there was none
	Done    bool            // it has covered all that it was asked for
	Sectors raid.Sectors    // in all
	Where   []raid.Range    // the first of them, as in stripe.Slab
	Slots   []raid.Slot     // of each, whose content was wrong, or NoSlot if nobody can know
}

// compares reports whether a sync compares what is redundant.
func compares(a raid.SyncAction) bool { return a == raid.Resync || a == raid.Check || a == raid.Repair }

// startSync begins what the array says.
func (c *Core) startSync() {
	s := &c.syncer
	s.job = c.array.Syncing()
	s.generation++
	s.on, s.spent, s.at, s.mismatch = true, true, s.job.From, 0

	if compares(s.job.Action) {
		s.last = Wrong{Action: s.job.Action}
	}

	if c.bits != nil {
		c.bits.BeginSync()
	}

	s.checkpoint = c.now
	c.startPace()
}

// startPace has the next slab be begun as soon as one may be.
func (c *Core) startPace() { c.throttle.start(laterOf(c.now, c.syncer.after)) }

// syncClock begins the next slab when it is time.
func (c *Core) syncClock() {
	s := &c.syncer
	c.takeSlab()
	c.passTurn()

	if !s.on || c.path.Syncing() || c.stopping || !c.takeTurn() || !s.throttle.due(c.now) {
		return
	}

	if c.now.Sub(s.checkpoint) >= checkpointEvery {
		s.checkpoint = c.now
		c.step(engine.CheckpointDue{})
	}

	if at := c.unmarked(s.at); at > s.at {
		c.skipped(at)

		return
	}

	end := min(s.job.To, s.at+c.slabSize())
	s.slab = s.generation
	s.throttle.slabBegan(c.now)
	c.path.SyncSlab(s.job.Action, s.job.Slot, s.at, end)
}

// Spent reports once after a sync, when the array is at rest, that nothing is in the
// scratch memory that somebody wants.
func (c *Core) Spent() bool {
	s := &c.syncer
	if !s.spent || !c.still(safeMode) {
		return false
	}

	s.spent = false

	return true
}

// restMin is how long nothing was done for clients when an array is at rest.
const restMin = 5 * time.Second

// Resting reports whether nothing has been done for a while, or waits to be, so that nobody
// wants what is in the memory of requests, of parity and of records.
func (c *Core) Resting() bool {
	waiting := len(c.held) + len(c.marker.waiting) + len(c.answers) + len(c.due)

	return waiting == 0 && !c.recorder.active && !c.NeedsTime() && c.still(restMin)
}

// still reports whether nothing is in flight, and nothing was asked by clients for so long.
func (c *Core) still(d time.Duration) bool {
	busy := c.syncer.on || c.path.Syncing() || c.writing+c.reading+c.InFlight() > 0

	return !busy && c.now.Sub(c.lastAny) >= d
}

// slabSize is a whole number of chunks.
func (c *Core) slabSize() raid.Sectors {
	chunk := c.grain()
	slab := cmp.Or(c.cfg.Slab, c.throttle.slab)

	return max(chunk, slab/chunk*chunk)
}

// takeSlab takes what became of the last slab.
func (c *Core) takeSlab() {
	s := &c.syncer

	slab, ended := c.path.TakeSlab()
	if !ended || s.slab != s.generation || !s.on {
		return
	}

	if !slab.OK {
		c.step(engine.SyncFailed{})

		return
	}

	s.mismatch += slab.Mismatched

	if compares(s.job.Action) {
		s.last.take(slab)
	}

	busy := c.writing+c.reading > 0 || c.now.Sub(c.lastAny) < busyFor
	s.throttle.slabEnded(c.now, slab.To-slab.From, busy)
	c.reached(slab.To)
}

// take adds what a slab found.
func (w *Wrong) take(slab stripe.Slab) {
	w.Sectors += slab.Mismatched

	for i := 0; i < len(slab.Where) && len(w.Where) < wrongMax; i++ {
		w.Where = append(w.Where, slab.Where[i])
		w.Slots = append(w.Slots, slab.Wrong[i])
	}
}

// reached moves the position of the sync.
func (c *Core) reached(at raid.Sectors) {
	c.syncer.at = at

	if compares(c.syncer.job.Action) {
		c.syncer.last.Done = at >= c.syncer.job.To
	}

	if c.syncer.job.Action == raid.Resync {
		c.synced(at)
	}

	c.step(engine.SyncReached{Offset: at})
}

// skipped moves the position of the sync over what has no marks, and tells the
// data path, which has not been there: what is written there from now on is
// for the member that is filled as well.
func (c *Core) skipped(at raid.Sectors) {
	job := c.syncer.job
	c.reached(at)

	if job.Action == raid.Recover {
		c.setMember(job.Slot)
	} else {
		c.path.SetResynced(c.array.Resynced())
	}
}

// Progress is how far a sync has come.
type Progress struct {
	Action      raid.SyncAction
	Done, Total raid.Sectors  // of the component
	Rate        raid.Sectors  // per second, of late
	Left        time.Duration // at that rate; negative if nobody can tell
	// Delayed is the array that the sync waits for, as both use one device.
	Delayed string
}

// progress returns how far the sync that goes on has come.
func (c *Core) progress() Progress {
	s := &c.syncer
	if !s.on {
		return Progress{Action: raid.Idle}
	}

	p := Progress{
		Action: s.job.Action, Done: s.at, Total: s.job.To, Left: -1,
		Rate: s.throttle.pace.rate(c.now), Delayed: s.turn.holder,
	}
	if p.Rate > 0 {
		p.Left = time.Duration(float64(p.Total-p.Done) / float64(p.Rate) * float64(time.Second))
	}

	return p
}

// SetSpeed says between which bounds the array is synced from now on; 0 is the
// usual one.
func (c *Core) SetSpeed(s Speed) { c.throttle.limits = s.bounded() }

// Speed returns between which bounds the array is synced.
func (c *Core) Speed() Speed { return c.throttle.limits }
