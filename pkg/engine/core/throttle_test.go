package core

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// disk is a model of a member: one operation at a time, in order of arrival.
type disk struct {
	seek func(*rand.Rand) time.Duration // of one that does not follow its predecessor
	rate float64                        // sectors a second
	free time.Time                      // when it has nothing to do
	next raid.Sectors                   // follows what was last
}

func (d *disk) run(rng *rand.Rand, now time.Time, at, n raid.Sectors) time.Time {
	if d.free.Before(now) {
		d.free = now
	}

	took := time.Duration(float64(n) / d.rate * float64(time.Second))
	if at != d.next {
		took += d.seek(rng)
	}

	d.free, d.next = d.free.Add(took), at+n

	return d.free
}

// load is what clients do meanwhile: so many at a time, each of which thinks for
// a while before its next request.
type load struct {
	depth int
	think time.Duration
	size  raid.Sectors
}

// outcome is what a while of it comes to.
type outcome struct {
	p99  time.Duration // of the clients
	rate raid.Sectors  // of the sync, a second
}

// simulate runs clients and a sync on a disk for a while, of which the first
// 9 seconds do not count.
func simulate(d disk, l load, sync bool) outcome {
	rng := rand.New(rand.NewPCG(1, 2))
	start := time.Unix(1e9, 0)
	now, end := start, start.Add(24*time.Second)
	warm := start.Add(9 * time.Second)
	t := newThrottle(max(l.depth, 1))
	t.start(now)

	type client struct {
		begin, done time.Time // begin is in the future while it thinks
		flying      bool
	}

	clients := make([]client, l.depth)
	for i := range clients {
		clients[i].begin = now.Add(time.Duration(rng.Int64N(int64(l.think + 1))))
	}

	var (
		took   []time.Duration
		synced raid.Sectors
		slab   bool
		slabAt time.Time
		at     raid.Sectors
	)

	for now.Before(end) {
		// The next thing that happens.
		next := end

		for _, c := range clients {
			if c.flying {
				next = earlier(next, c.done)
			} else {
				next = earlier(next, c.begin)
			}
		}

		if slab {
			next = earlier(next, slabAt)
		} else if sync {
			next = earlier(next, laterOf(now, t.nextAt))
		}

		now = laterOf(now, next)

		if slab && !slabAt.After(now) {
			slab = false
			t.slabEnded(now, t.slab, l.depth > 0)

			if now.After(warm) {
				synced += t.slab
			}
		}

		for i := range clients {
			c := &clients[i]
			if c.flying && !c.done.After(now) {
				t.requestEnded(now, i)

				if c.begin.After(warm) {
					took = append(took, now.Sub(c.begin))
				}

				*c = client{begin: now.Add(time.Duration(rng.Int64N(int64(2*l.think + 1))))}
			}

			if !c.flying && !c.begin.After(now) {
				t.requestBegan(now, i)
				c.flying, c.begin = true, now
				c.done = d.run(rng, now, raid.Sectors(rng.Int64N(1<<30)), l.size)
			}
		}

		if sync && !slab && t.due(now) {
			t.slabBegan(now)

			slab, slabAt = true, d.run(rng, now, at, t.slab)
			at += t.slab
		}
	}

	o := outcome{rate: synced / 15}

	if len(took) > 0 {
		slices.Sort(took)
		o.p99 = took[len(took)*99/100]
	}

	return o
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}

	return b
}

func newSSD() disk {
	return disk{
		rate: 1 << 20, // 512 MiB/s
		seek: func(rng *rand.Rand) time.Duration { return time.Duration(60+rng.IntN(80)) * time.Microsecond },
	}
}

func newHDD() disk {
	return disk{
		rate: 300 << 10, // 150 MiB/s
		seek: func(rng *rand.Rand) time.Duration { return time.Duration(2000+rng.IntN(12000)) * time.Microsecond },
	}
}

// TestThrottle runs a sync beside clients and alone, on models of disks: clients
// keep most of their speed, and the sync gets a quarter of what it gets alone.
// These disks do one thing at a time, so that whoever comes during a slab waits
// for it, and a busy one has no quarter left to give.
func TestThrottle(t *testing.T) {
	for _, tt := range []struct {
		name  string
		disk  disk
		load  load
		worst float64 // p99 of clients with and without
		share float64 // of what a sync gets alone
	}{
		{"flash, one client", newSSD(), load{1, 200 * time.Microsecond, 8}, 2.6, 0.24},
		{"flash, four clients", newSSD(), load{4, time.Millisecond, 8}, 1.7, 0.24},
		{"flash, busy", newSSD(), load{16, time.Millisecond, 8}, 1.35, 0.15},
		{"flash, large requests", newSSD(), load{4, time.Millisecond, 256}, 1.3, 0.24},
		{"disk, one client", newHDD(), load{1, 5 * time.Millisecond, 8}, 2.5, 0.24},
		{"disk, four clients", newHDD(), load{4, 50 * time.Millisecond, 8}, 2, 0.24},
		{"disk, busy", newHDD(), load{8, 20 * time.Millisecond, 8}, 1.6, 0.12},
	} {
		without, alone := simulate(tt.disk, tt.load, false), simulate(tt.disk, load{}, true)
		both := simulate(tt.disk, tt.load, true)
		worse := float64(both.p99) / float64(without.p99)
		share := float64(both.rate) / float64(alone.rate)
		t.Logf("%-22s p99 %7v, %7v beside a sync: %.2f; sync %3d MiB/s alone, %3d beside: %.2f", tt.name,
			without.p99.Round(time.Microsecond), both.p99.Round(time.Microsecond), worse, alone.rate>>11, both.rate>>11, share)

		if worse > tt.worst || share < tt.share {
			t.Errorf("%s: clients' p99 is %.2f times what it was, want %.2f at most; the sync keeps %.2f of its rate, want %.2f",
				tt.name, worse, tt.worst, share, tt.share)
		}
	}
}

// TestSpeedLimits has a sync keep to its bounds, alone and beside clients that
// suffer from it.
func TestSpeedLimits(t *testing.T) {
	now := time.Unix(1e9, 0)
	th := newThrottle(1)
	th.limits = Speed{Min: 1 << 11, Max: 20 << 11}

	run := func(busy bool, took time.Duration) raid.Sectors {
		th.start(now)

		began, sum := now, raid.Sectors(0)
		for now.Sub(began) < 20*time.Second {
			now = laterOf(now, th.nextAt)

			for range 100 {
				th.requestBegan(now, 0)
				th.requestEnded(now.Add(time.Millisecond), 0)
			}

			th.slabBegan(now)
			th.requestBegan(now, 0)
			n := th.slab
			now = now.Add(took)
			th.requestEnded(now.Add(time.Second), 0)
			th.slabEnded(now, n, busy)
			sum += n
		}

		if rate := th.pace.rate(now); rate < sum/22 || rate > sum/18 {
			t.Errorf("rate() = %d sectors a second, want about %d", rate, sum/20)
		}

		return sum / raid.Sectors(now.Sub(began)/time.Second)
	}

	if rate := run(false, time.Millisecond); rate > th.limits.Max*11/10 || rate < th.limits.Max*9/10 {
		t.Errorf("alone: %d sectors a second, want about %d", rate, th.limits.Max)
	}

	// A slab of a second, whatever its size: a share of that is less than the least.
	if rate := run(true, time.Second); rate < th.limits.Min/2 || rate > th.limits.Min*5 {
		t.Errorf("beside clients: %d sectors a second, want about %d", rate, th.limits.Min)
	}
}

func TestSpeedBounded(t *testing.T) {
	for _, tt := range []struct{ in, want Speed }{
		{Speed{}, usualSpeed},
		{Speed{Min: 5}, Speed{5, usualSpeed.Max}},
		{Speed{Max: 5}, Speed{5, 5}},
		{Speed{Max: 1 << 30}, Speed{usualSpeed.Min, 1 << 30}},
		{Speed{Min: 1 << 30}, Speed{1 << 30, 1 << 30}},
		{Speed{5, 7}, Speed{5, 7}},
	} {
		if got := tt.in.bounded(); got != tt.want {
			t.Errorf("%+v: bounded() = %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

// turns has one array at a time.
type turns struct{ holder string }

func (t *turns) Take() string { return t.holder }
func (t *turns) Release()     { t.holder = "released" }

// TestSyncAfter has a resync leave an array to its clients at first.
func TestSyncAfter(t *testing.T) {
	const after = 3 * time.Second

	c, _ := newMirror(t, 2)
	cfg := c.cfg
	cfg.Setup.Resynced, cfg.SyncAfter = 0, after

	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	began := time.Unix(1e9, 0)
	c.Start(began)

	for c.Advance(); !c.path.Syncing(); c.Advance() {
		pause := c.Alarm()
		if pause < tickEvery/2 && c.now.Add(tickEvery).Before(began.Add(after)) {
			t.Fatalf("%v after the start the time is to be told in %v", c.now.Sub(began), pause)
		}

		c.SetTime(c.now.Add(max(pause, time.Millisecond)))
	}

	if waited := c.now.Sub(began); waited < after || waited > after+tickEvery {
		t.Errorf("the resync began after %v, want %v", waited, after)
	}
}

// TestTurns has a resync wait for another array, and tells its successor.
func TestTurns(t *testing.T) {
	c, _ := newMirror(t, 2)
	others := &turns{holder: "other"}
	c.cfg.Turns = others
	c.syncer.job.To = 100
	c.syncer.on = true
	c.syncer.job.Action = raid.Resync
	c.syncer.throttle.start(c.now)

	wait := func() {
		c.SetTime(c.now.Add(turnEvery))
		c.Advance()
	}

	if wait(); c.path.Syncing() || c.Status().Sync.Delayed != "other" {
		t.Fatalf("Status().Sync = %+v, syncing %v, want it to wait", c.Status().Sync, c.path.Syncing())
	}

	others.holder = ""

	if wait(); !c.path.Syncing() || c.Status().Sync.Delayed != "" {
		t.Fatalf("Status().Sync = %+v, syncing %v, want it to go on", c.Status().Sync, c.path.Syncing())
	}

	for c.syncer.on = false; c.path.Syncing(); {
		c.turn(nil)
	}

	if c.Advance(); others.holder != "released" {
		t.Errorf("the turn is kept by an array that does not sync")
	}
}
