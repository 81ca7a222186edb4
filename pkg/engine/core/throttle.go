package core

import (
	"cmp"
	"math/bits"
	"time"

	"raid-assembler/pkg/raid"
)

// Speed is how fast a sync may be, in sectors of each member a second.
type Speed struct {
	Min raid.Sectors // what it gets whatever clients do
	Max raid.Sectors // what it gets when nobody else wants anything
}

// usualSpeed is md's: 1000 and 200000 KiB/s.
var usualSpeed = Speed{Min: 2000, Max: 400000}

// bounded returns s with what it leaves open. Of a usual bound and one that was
// set, the latter is meant.
func (s Speed) bounded() Speed {
	switch {
	case s.Min == 0:
		s.Max = max(cmp.Or(s.Max, usualSpeed.Max), 1)
		s.Min = min(usualSpeed.Min, s.Max)
	case s.Max < s.Min:
		s.Max = max(s.Min, usualSpeed.Max)
	}

	return s
}

const (
	// slabMax is how much of a component is synced at a time when nobody waits
	// for it. Beside clients it is slabBeside at first, and never below slabMin.
	slabMax    raid.Sectors = 4096
	slabBeside raid.Sectors = 512
	slabMin    raid.Sectors = 128
	// shareMin of what a sync makes alone it gets beside clients as well.
	shareMin = 0.28
	// steerEvery is how often the pace is set anew, by what clients have had
	// since.
	steerEvery = 500 * time.Millisecond
	// holdFor is how long slabs stay as large as they had to become.
	holdFor = 8 * time.Second
	// listenEvery and listenFor are when no slab is begun beside clients, so that
	// it is known how fast they are alone.
	listenEvery = 2 * time.Second
	listenFor   = 40 * time.Millisecond
	// tooMuch and little are how much longer the slowest of the clients' requests
	// may take beside a sync than alone, and when they hardly notice it.
	tooMuch = 1.2
	little  = 1.08
)

// throttle is the pace of a sync: as fast as it is allowed to be while nobody
// else wants the members. Beside clients, which it listens to, slabs are shorter
// and lie apart: as short and as far apart as keeps the slowest of the clients'
// requests about as fast as they are between slabs, but for a share that it has
// in any case.
type throttle struct {
	limits Speed

	nextAt  time.Time // not before
	beganAt time.Time // the slab under way
	slab    raid.Sectors
	target  float64      // sectors a second, beside clients
	best    float64      // what slabs make when they are not held up: it forgets slowly
	busy    bool         // clients were, when the last slab ended
	synced  raid.Sectors // since the pace was last steered
	holdAt  time.Time    // slabs are not made smaller before

	mark     uint32   // odd during a slab, even between two
	marks    []uint32 // by tag: when its request was begun
	began    []time.Time
	beside   latencies // of requests during slabs
	between  latencies // of the others
	steerAt  time.Time
	listenAt time.Time

	pace pace
}

func newThrottle(depth int) throttle {
	return throttle{
		limits: usualSpeed, slab: slabMax, marks: make([]uint32, depth), began: make([]time.Time, depth),
	}
}

// start begins a sync.
func (t *throttle) start(now time.Time) {
	t.nextAt, t.steerAt, t.listenAt = now, now.Add(steerEvery), now.Add(listenEvery)
	t.mark &^= 1
	t.beside, t.between = latencies{}, latencies{}
	t.best, t.target, t.slab, t.synced, t.busy, t.holdAt = 0, 0, slabMax, 0, false, now
	t.pace = pace{}
	t.pace.add(now, 0)
}

// due reports whether the next slab may be begun.
func (t *throttle) due(now time.Time) bool { return !now.Before(t.nextAt) }

// slabBegan says that a slab is under way.
func (t *throttle) slabBegan(now time.Time) {
	t.beganAt = now
	t.mark |= 1
}

// slabEnded says that n sectors were synced, and whether clients are busy. It
// sets when the next slab may begin.
func (t *throttle) slabEnded(now time.Time, n raid.Sectors, busy bool) {
	t.mark = (t.mark | 1) + 1
	t.pace.add(now, n)

	if took := now.Sub(t.beganAt).Seconds(); took > 0 {
		t.best = max(t.best*0.99, float64(n)/took)
	}

	t.synced += n
	rate := float64(t.limits.Max)

	if busy != t.busy {
		t.busy, t.slab = busy, slabBeside
		t.synced, t.steerAt = 0, now.Add(steerEvery)
	}

	if busy {
		t.steer(now)
		rate = min(rate, t.target)
	} else {
		t.slab = min(slabMax, t.slab*2)
	}

	// From when it began: what it took is part of what its share is.
	t.nextAt = t.beganAt.Add(time.Duration(float64(n) / rate * float64(time.Second)))

	if t.nextAt.Before(now) {
		t.nextAt = now
	}

	if busy && !now.Before(t.listenAt) {
		t.listenAt = now.Add(listenEvery)
		t.nextAt = laterOf(t.nextAt, now.Add(listenFor))
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}

	return b
}

// requestBegan and requestEnded tell of the clients' requests.
func (t *throttle) requestBegan(now time.Time, tag int) {
	t.began[tag], t.marks[tag] = now, t.mark
}

func (t *throttle) requestEnded(now time.Time, tag int) {
	took := now.Sub(t.began[tag])

	if mark := t.marks[tag]; mark&1 == 0 && mark == t.mark {
		t.between.add(took)
	} else {
		t.beside.add(took)
	}
}

// steer sets the target and the size of slabs, by what the sync has made and by
// how long requests took. What a seek costs is the same for a small slab and a
// large one: if the share is not made, slabs grow.
func (t *throttle) steer(now time.Time) {
	alone := min(t.best, float64(t.limits.Max))
	least := max(float64(t.limits.Min), alone*shareMin)
	most := max(least, alone)
	t.target = min(most, max(least, t.target))

	late := now.Sub(t.steerAt)
	if late < 0 {
		return
	}

	made := float64(t.synced) / (steerEvery + late).Seconds()
	t.synced, t.steerAt = 0, now.Add(steerEvery)

	worse, known := slowdown(&t.between, &t.beside)
	t.between.fade()
	t.beside.fade()

	switch {
	case made < t.target*0.9 && (made < least*0.9 || known && worse < little):
		t.slab, t.holdAt = min(slabMax, t.slab*2), now.Add(holdFor)
	case !known:
	case worse > tooMuch && t.target > least:
		t.target = max(least, t.target*0.8)
	case worse > tooMuch && !now.Before(t.holdAt):
		t.slab = max(slabMin, t.slab/2)
	case worse < little:
		t.target = min(most, t.target*1.1)
	}
}

// latencies counts how long requests took, in eighths of octaves of
// microseconds.
type latencies struct {
	counts [256]uint32
	n      uint32
}

func (l *latencies) add(d time.Duration) {
	us := uint64(max(d.Microseconds(), 8))
	octave := bits.Len64(us) - 1
	i := min(octave*8+int(us>>(octave-3)&7), len(l.counts)-1)
	l.counts[i]++
	l.n++
}

// fade has what was counted before weigh half as much as what comes.
func (l *latencies) fade() {
	l.n = 0

	for i := range l.counts {
		l.counts[i] /= 2
		l.n += l.counts[i]
	}
}

// enough is how many requests it takes to say how slow the slowest are.
const enough = 40

// slowdown returns how much longer the slowest requests take with those that
// met a slab than without them: the slowest hundredth, or of few the slowest
// twentieth.
func slowdown(without, beside *latencies) (ratio float64, known bool) {
	n := without.n + beside.n
	if without.n < enough || beside.n == 0 {
		return 0, false
	}

	per := uint32(20)
	if without.n >= 500 {
		per = 100
	}

	var nothing latencies

	return bound(without, beside, n/per) / bound(without, &nothing, without.n/per), true
}

// bound returns what no more than rank requests of both took longer than, in
// microseconds.
func bound(a, b *latencies, rank uint32) float64 {
	var above uint32

	for i := len(a.counts) - 1; i >= 0; i-- {
		if above += a.counts[i] + b.counts[i]; above > rank {
			return float64(uint64(8+i%8)<<(i/8)) / 8
		}
	}

	return 1
}

// pace is how fast a sync has been of late: md's marks.
type pace struct {
	at   [paceMarks]time.Time
	done [paceMarks]raid.Sectors
	last int // the newest mark
	all  raid.Sectors
}

const (
	paceMarks = 10
	paceEvery = 3 * time.Second
)

// add counts what was synced.
func (p *pace) add(now time.Time, n raid.Sectors) {
	p.all += n

	if p.at[p.last].IsZero() {
		p.at[p.last] = now
	}

	if now.Sub(p.at[p.last]) >= paceEvery {
		p.last = (p.last + 1) % paceMarks
		p.at[p.last], p.done[p.last] = now, p.all
	}
}

// rate returns the mean in sectors a second, of half a minute at most.
func (p *pace) rate(now time.Time) raid.Sectors {
	oldest := (p.last + 1) % paceMarks
	if p.at[oldest].IsZero() {
		oldest = 0
	}

	elapsed := now.Sub(p.at[oldest]).Seconds()
	if elapsed <= 0 {
		return 0
	}

	return raid.Sectors(float64(p.all-p.done[oldest]) / elapsed)
}
