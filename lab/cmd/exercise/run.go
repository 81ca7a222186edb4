package main

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/lab/internal/exercise"
)

// numbered is an operation and the generation that it writes.
type numbered struct {
	exercise.Op

	gen  exercise.Gen
	safe exercise.Gen // of a flush: all before it were done when the flush began
}

// runner does operations, several at a time but never two that overlap.
type runner struct {
	d   *device
	m   *exercise.Model
	log *promiseLog
	bad error // the first thing that went wrong

	mu     sync.Mutex
	room   sync.Cond
	flying map[exercise.Gen]numbered
}

// exert does operations and keeps the model true.
func exert(o options) (string, error) {
	d, m, err := openBoth(o)
	if err != nil {
		return "", err
	}
	defer d.close()

	stream, err := exercise.NewStream(o.mix, o.seed, d.sectors, d.unit)
	if err != nil {
		return "", err
	}

	r := &runner{d: d, m: m, flying: make(map[exercise.Gen]numbered)}
	r.room.L = &r.mu

	if r.log, err = createLog(o.log); err != nil {
		return "", err
	}

	began := m.Last
	if err := r.all(stream, o); err != nil {
		return "", err
	}

	return fmt.Sprintf("%d operations", m.Last-began), saveModel(o.model, m)
}

// all hands the operations of stream to as many workers as may run.
func (r *runner) all(stream *exercise.Stream, o options) error {
	work := make(chan numbered)

	var workers sync.WaitGroup

	for range o.depth {
		p, err := buffer()
		if err != nil {
			return err
		}

		workers.Go(func() {
			for n := range work {
				r.finish(n, r.do(n, p))
			}
		})
	}

	for i, began := 0, time.Now(); o.ops == 0 || i < o.ops; i++ {
		if o.period > 0 && time.Since(began) > o.period {
			break
		}

		n := numbered{Op: stream.Next(), gen: r.m.Last + 1}
		if !r.begin(&n, o.depth) {
			break
		}

		work <- n
	}

	close(work)
	workers.Wait()

	return r.bad
}

// begin waits until nothing overlaps the operation any more, and notes it.
func (r *runner) begin(n *numbered, depth int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()

	for r.bad == nil && (len(r.flying) >= depth || r.overlaps(n.Op)) {
		r.room.Wait()
	}

	n.safe = n.gen
	for gen := range r.flying {
		n.safe = min(n.safe, gen)
	}

	r.flying[n.gen] = *n
	r.m.Apply(n.Op, n.gen)

	return r.bad == nil
}

func (r *runner) overlaps(op exercise.Op) bool {
	for _, other := range r.flying {
		if op.Overlaps(other.Op) {
			return true
		}
	}

	return false
}

func (r *runner) finish(n numbered, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()

	if err != nil && r.bad == nil {
		r.bad = fmt.Errorf("operation %d: %w", n.gen, err)
	}

	delete(r.flying, n.gen)
	r.room.Broadcast()
}

// do does one operation.
func (r *runner) do(n numbered, p []byte) error {
	p = p[:n.Count*exercise.SectorSize]

	switch n.Kind {
	case exercise.Flush:
		if err := r.d.flush(); err != nil {
			return err
		}

		return r.log.flushed(n.safe)
	case exercise.Zero:
		return r.d.zero(n.First, n.Count)
	case exercise.Discard:
		return r.d.discard(n.First, n.Count)
	case exercise.Write:
		exercise.Fill(p, n.First, n.gen, 0)

		if !n.Durable {
			return r.d.writeAt(p, n.First)
		}

		if err := r.d.write(p, n.First, unix.RWF_DSYNC); err != nil {
			return err
		}

		return r.log.durable(n.gen)
	case exercise.Read:
		if err := r.d.readAt(p, n.First); err != nil {
			return err
		}

		return r.m.Check(p, n.First)
	default:
		return fmt.Errorf("kind %d", n.Kind)
	}
}
