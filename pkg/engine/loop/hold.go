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
	})
}

// relax gives the memory for parity and comparisons back that a sync has used, and that is
// not to be held. Requests take anew what they need of it.
func (l *Loop) relax() {
	if l.holds || !l.core.Spent() {
		return
	}

	for _, piece := range l.scratch {
		if l.pins.forget(piece) == nil {
			_ = l.arena.Release(piece)
		}
	}
}
