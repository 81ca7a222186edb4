package core

import (
	"cmp"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/raid"
)

const (
	// slabSectors is how much of a component is synced at a time.
	slabSectors raid.Sectors = 1024
	// syncPause is between two slabs while clients are busy.
	syncPause = 50 * time.Millisecond
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
	nextAt     time.Time // not before
	checkpoint time.Time

	began    time.Time
	beganAt  raid.Sectors
	mismatch raid.Sectors
	last     Wrong
}

// Wrong is what a sync found not to be redundant.
type Wrong struct {
	Action  raid.SyncAction
	Sectors raid.Sectors // in all
	Where   []raid.Range // the first of them, as in stripe.Slab
	Slots   []raid.Slot  // of each, whose content was wrong, or NoSlot if nobody can know
}

// startSync begins what the array says.
func (c *Core) startSync() {
	s := &c.syncer
	s.job = c.array.Syncing()
	s.generation++
	s.on, s.at, s.mismatch = true, s.job.From, 0
	s.last = Wrong{Action: s.job.Action}

	if c.bits != nil {
		c.bits.BeginSync()
	}
	s.began, s.beganAt, s.checkpoint, s.nextAt = c.now, s.at, c.now, c.now
}

// syncClock begins the next slab when it is time. While clients are busy it
// takes a slab per pause, and all it can get otherwise.
func (c *Core) syncClock() {
	s := &c.syncer
	c.takeSlab()

	if !s.on || c.path.Syncing() || c.now.Before(s.nextAt) || c.stopping {
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
	c.path.SyncSlab(s.job.Action, s.job.Slot, s.at, end)
}

// slabSize is a whole number of chunks.
func (c *Core) slabSize() raid.Sectors {
	chunk := c.grain()
	slab := cmp.Or(c.cfg.Slab, slabSectors)

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
	s.last.Sectors = s.mismatch

	for i := 0; i < len(slab.Where) && len(s.last.Where) < wrongMax; i++ {
		s.last.Where = append(s.last.Where, slab.Where[i])
		s.last.Slots = append(s.last.Slots, slab.Wrong[i])
	}

	if c.writing+c.reading > 0 || c.now.Sub(c.lastAny) < busyFor {
		s.nextAt = c.now.Add(syncPause)
	}

	c.reached(slab.To)
}

// reached moves the position of the sync.
func (c *Core) reached(at raid.Sectors) {
	c.syncer.at = at

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
	Done, Total raid.Sectors // of the component
	Rate        raid.Sectors // per second
}

// progress returns how far the sync that goes on has come, at the mean rate
// since it began.
func (c *Core) progress() Progress {
	s := &c.syncer
	if !s.on {
		return Progress{Action: raid.Idle}
	}

	p := Progress{Action: s.job.Action, Done: s.at, Total: s.job.To}
	if elapsed := c.now.Sub(s.began).Seconds(); elapsed > 0 {
		p.Rate = raid.Sectors(float64(s.at-s.beganAt) / elapsed)
	}

	return p
}
