package loop

import "raid-assembler/pkg/engine/uring"

// Hold has all memory be there that requests may use, registered with the ring, however
// busy the array was so far: while memory is reclaimed by writing to this array, none may
// be needed for that. Memory that is used only once a member does not answer is left out.
func (l *Loop) Hold() error {
	if err := l.Do(func() { l.holds = true }); err != nil {
		return err
	}

	for _, block := range l.own {
		if err := uring.Populate(block); err != nil {
			return err
		}
	}

	return l.Do(func() {
		for _, block := range l.own {
			_, _ = l.pins.find(block) // which goes without, if it must
		}

		for _, tick := range l.ticks {
			tick.Set(0) // each has a page
		}
	})
}

// relax gives the memory for parity and comparisons back that a sync has used, and that is
// not to be held. Requests take anew what they need of it.
func (l *Loop) relax() {
	if !l.holds && l.core.Spent() {
		l.release(l.scratch)
	}
}

// Rests reports whether the array is at rest, with memory that requests have used and that
// is not to be held.
func (l *Loop) Rests() (rests bool) {
	err := l.Do(func() { rests = l.rests() })

	return err == nil && rests
}

// In other modes of the ring the kernel may fill the buffer of a request that has not been seen yet.
func (l *Loop) rests() bool {
	return !l.holds && l.ring.Deferred() && l.pins.any() && l.core.Resting()
}

// Release gives the memory back that requests have used, if the array is at rest still. The
// next ones take anew what they need of it.
func (l *Loop) Release() error { return l.Do(l.rest) }

func (l *Loop) rest() {
	if l.rests() {
		l.release(l.own)
	}
}

func (l *Loop) release(blocks [][]byte) {
	for _, block := range blocks {
		if l.pins.forget(block) == nil {
			_ = l.arena.Release(block)
		}
	}
}
