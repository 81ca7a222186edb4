package core

import (
	"math/rand/v2"
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// shared is the metadata of a container: who is writing it.
type shared struct {
	t      *testing.T
	writer string
	left   int // writes of the record under way
}

// sharer is a keeper of an array of a container. Its records have two stages.
type sharer struct {
	*keeper

	name string
	all  *shared
}

func (k sharer) Record(st metadata.State) [][]metadata.Write {
	if k.all.left > 0 {
		k.all.t.Fatalf("%s records while %d writes of the record of %s are under way", k.name, k.all.left, k.all.writer)
	}

	stages := k.keeper.Record(st)
	k.all.writer = k.name

	for _, stage := range stages {
		k.all.left += len(stage)
	}

	return stages
}

// tenant is an array of a container.
type tenant struct {
	*Core

	sharer sharer
	ops    []Operation
	woken  int
}

// newTenants returns mirrors of two in one container.
func newTenants(t *testing.T, n int) []*tenant {
	t.Helper()

	var (
		all       = &shared{t: t}
		container Container
		tenants   []*tenant
	)

	for i := range n {
		c, k := newMirror(t, 2)
		k.early = 1
		a := &tenant{Core: c, sharer: sharer{k, string(rune('a' + i)), all}}
		a.cfg.Keeper = a.sharer
		a.cfg.Seat = container.Join(func() { a.woken++ })
		tenants = append(tenants, a)
	}

	return tenants
}

func (n *tenant) collect() {
	n.Advance()
	n.ops = append(n.ops, n.operations()...)
}

// end ends one operation.
func (n *tenant) end(i int, fault stripe.Fault) {
	o := n.ops[i]
	n.ops = append(n.ops[:i], n.ops[i+1:]...)

	if o.Record && o.Op == stripe.Write {
		n.sharer.all.left--
	}

	n.Complete(o.ID, fault)
	n.collect()
}

// TestRecordsOfAContainer has arrays go from clean to dirty and back as chance
// has it. Their records never overlap, and none is left waiting: an array is
// advanced when something of it ends, or when it is woken, and not else.
func TestRecordsOfAContainer(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tenants := newTenants(t, 3)
		now, waited := time.Unix(1e9, 0), 0

		for range 1000 {
			a := tenants[rng.IntN(len(tenants))]
			now = now.Add(time.Duration(rng.IntN(300)) * time.Millisecond)
			a.SetTime(now)

			switch rng.IntN(4) {
			case 0:
				a.step(engine.WriteArrived{})
				a.lastWrite = now
				a.collect()
			case 1:
				a.collect() // it may have become clean
			default:
				if len(a.ops) > 0 {
					a.end(rng.IntN(len(a.ops)), stripe.None)
				}
			}

			wake(tenants)

			if a.recorder.queued {
				waited++
			}
		}

		for rest := true; rest; {
			rest = false

			for _, a := range tenants {
				for ; len(a.ops) > 0; rest = true {
					a.end(0, stripe.None)
				}
			}

			wake(tenants)
		}

		for _, a := range tenants {
			if a.recorder.active || len(a.sharer.records) < 10 {
				t.Errorf("seed %d: %s has made %d records, one is under way: %v",
					seed, a.sharer.name, len(a.sharer.records), a.recorder.active)
			}
		}

		if waited < 100 {
			t.Errorf("seed %d: an array waited for another %d times only", seed, waited)
		}
	}
}

// wake advances those who are to be.
func wake(tenants []*tenant) {
	for _, a := range tenants {
		if a.woken > 0 {
			a.woken = 0
			a.collect()
		}
	}
}

// TestTurnOfABrokenArray breaks an array that records, and one that waits to.
// Neither keeps the others waiting, nor has the turn afterwards.
func TestTurnOfABrokenArray(t *testing.T) {
	for _, tt := range []struct {
		name   string
		breaks int // which of the arrays
	}{{"that records", 0}, {"that waits", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			tenants := newTenants(t, 3)

			for i, a := range tenants {
				a.step(engine.WriteArrived{})

				// The flushes.
				for a.collect(); len(a.ops) > 0 && a.ops[0].Op == stripe.Flush; {
					a.end(0, stripe.None)
				}

				if a.recorder.queued != (i > 0) {
					t.Fatalf("%s waits: %v", a.sharer.name, a.recorder.queued)
				}
			}

			broken := tenants[tt.breaks]
			broken.step(engine.MemberFailed{Device: 0})
			broken.step(engine.MemberFailed{Device: 1})
			broken.collect()

			if tt.breaks == 0 {
				broken.sharer.all.left = len(broken.ops) // the second stage is not written
			}

			if broken.recorder.queued {
				t.Errorf("%s waits for a record, and it is broken", broken.sharer.name)
			}

			for range 20 {
				for _, a := range tenants {
					if len(a.ops) > 0 {
						a.end(0, stripe.None)
					}
				}

				wake(tenants)
			}

			for _, a := range tenants {
				if a.recorder.active || a != broken && len(a.sharer.records) == 0 {
					t.Errorf("%s has made %d records, one is under way: %v", a.sharer.name, len(a.sharer.records), a.recorder.active)
				}
			}

			if got := broken.array.State(); got != raid.Broken {
				t.Errorf("%s is %s", broken.sharer.name, got)
			}

			if !tenants[2].cfg.Seat.Take() {
				t.Error("somebody has the turn still")
			}
		})
	}
}

// TestContainerAllocatesNothing once all have joined.
func TestContainerAllocatesNothing(t *testing.T) {
	var c Container

	seats := []*Seat{c.Join(func() {}), c.Join(func() {}), c.Join(func() {})}

	if n := testing.AllocsPerRun(100, func() {
		for _, s := range seats {
			s.Take()
		}

		for _, s := range seats {
			s.Release()
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// counting is a crash log of which only the event count matters.
type counting struct {
	CrashLog

	events uint64
}

func (c *counting) Events(n uint64) { c.events = n }

// TestCountOfAContainer: where arrays count their records together, the crash logs of
// all know how many there are; and of an array that has left, nobody's log is touched.
func TestCountOfAContainer(t *testing.T) {
	var (
		c      Container
		events uint64 = 4
		count         = func() uint64 { return events }
		one           = c.Join(func() {})
		logs   [3]counting
	)

	one.countFor(&logs[0], count)

	two, without := c.Join(func() {}), c.Join(func() {}) // one has no log
	two.countFor(&logs[1], count)

	check := func(want ...uint64) {
		t.Helper()

		for i, n := range want {
			if logs[i].events != n {
				t.Errorf("log %d has event count %d, want %d", i, logs[i].events, n)
			}
		}
	}

	check(4, 4)

	for _, s := range []*Seat{one, two, without} {
		events++

		if !s.Take() {
			t.Fatal("the turn is nobody's, and not given")
		}

		s.counted()
		s.Release()
		check(events, events)
	}

	two.Leave()

	events++

	one.counted()
	check(events, events-1)
}
