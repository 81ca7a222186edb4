package loop

import (
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/raid"
)

const (
	// slabSectors is how much of a component is synced at a time, while
	// clients wait for that range.
	slabSectors raid.Sectors = 1024
	// checkpointEvery is how much time of a sync a crash may cost.
	checkpointEvery = 5 * time.Second
	// busyFor is how long after the last request clients still count as busy.
	busyFor = 100 * time.Millisecond
)

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
}

// startSync begins what the array says.
func (l *Loop) startSync() {
	s := &l.syncer
	s.job = l.array.Syncing()
	s.generation++
	s.on, s.at, s.mismatch = true, s.job.From, 0
	s.began, s.beganAt, s.checkpoint, s.nextAt = l.now, s.at, l.now, l.now
}

// syncClock begins the next slab when it is time. While clients are busy it
// takes a slab per tick, and all it can get otherwise.
func (l *Loop) syncClock() {
	s := &l.syncer
	l.takeSlab()

	if !s.on || l.path.Syncing() || l.now.Before(s.nextAt) || l.stopping {
		return
	}

	if l.now.Sub(s.checkpoint) >= checkpointEvery {
		s.checkpoint = l.now
		l.step(engine.CheckpointDue{})
	}

	end := min(l.cfg.Setup.Size, s.at+l.slabSize())
	s.slab = s.generation
	l.path.SyncSlab(s.job.Action, s.job.Slot, s.at, end)
}

// slabSize is a whole number of chunks.
func (l *Loop) slabSize() raid.Sectors {
	chunk := max(l.cfg.Chunk, 8)

	return max(chunk, slabSectors/chunk*chunk)
}

// takeSlab takes what became of the last slab.
func (l *Loop) takeSlab() {
	s := &l.syncer

	slab, ended := l.path.TakeSlab()
	if !ended || s.slab != s.generation || !s.on {
		return
	}

	if !slab.OK {
		l.step(engine.SyncFailed{})

		return
	}

	s.at = slab.To
	s.mismatch += slab.Mismatched

	if l.writing+l.reading > 0 || l.now.Sub(l.lastAny) < busyFor {
		s.nextAt = l.now.Add(tickEvery)
	}

	l.step(engine.SyncReached{Offset: s.at})
}

// Progress is how far a sync has come.
type Progress struct {
	Action      raid.SyncAction
	Done, Total raid.Sectors // of the component
	Rate        raid.Sectors // per second
}

// progress returns how far the sync that goes on has come, at the mean rate
// since it began.
func (l *Loop) progress() Progress {
	s := &l.syncer
	if !s.on {
		return Progress{Action: raid.Idle}
	}

	p := Progress{Action: s.job.Action, Done: s.at, Total: l.cfg.Setup.Size}
	if elapsed := l.now.Sub(s.began).Seconds(); elapsed > 0 {
		p.Rate = raid.Sectors(float64(s.at-s.beganAt) / elapsed)
	}

	return p
}
