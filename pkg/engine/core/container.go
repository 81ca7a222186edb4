package core

import (
	"slices"
	"sync"

	"raid-assembler/pkg/engine/crashlog"
)

// Container has the arrays whose metadata lies in the same sectors record one
// after the other. Its zero value is ready. It is safe for concurrent use, and
// nobody waits in it.
type Container struct {
	mu      sync.Mutex
	seats   []*Seat
	holder  *Seat   // whose turn it is, or nil
	waiting []*Seat // who asked for it meanwhile, in that order
}

// Seat is the place of one array in a [Container].
type Seat struct {
	container *Container
	wake      func()
	log       CrashLog // nil if the array has none
	events    func() uint64
}

// Join returns a place for another array. wake is called, in any thread, when
// the turn that it asked for has come; it must not wait.
func (c *Container) Join(wake func()) *Seat {
	c.mu.Lock()
	defer c.mu.Unlock()

	s := &Seat{container: c, wake: wake}

	// Nothing is allocated afterwards.
	c.seats = append(c.seats, s)
	c.waiting = slices.Grow(c.waiting, len(c.seats))

	return s
}

// countFor has a crash log have the event count of its array's superblocks from now
// on, which may change with each record of any array of the container.
func (s *Seat) countFor(log CrashLog, events func() uint64) {
	s.container.mu.Lock()
	defer s.container.mu.Unlock()

	s.log, s.events = log, events
	log.Events(events())
}

// Publish has a crash log take its place while no event counts change.
func (s *Seat) Publish(log *crashlog.Log) {
	s.container.mu.Lock()
	defer s.container.mu.Unlock()

	log.Publish()
}

// counted says that event counts have changed, in the turn of s.
func (s *Seat) counted() {
	s.container.mu.Lock()
	defer s.container.mu.Unlock()

	for _, other := range s.container.seats {
		if other.log != nil {
			other.log.Events(other.events())
		}
	}
}

// Take asks for the turn and reports whether it is ours, until Release. If not,
// it will be: ask again when woken.
func (s *Seat) Take() bool {
	c := s.container

	c.mu.Lock()
	defer c.mu.Unlock()

	switch {
	case c.holder == nil:
		c.holder = s
	case c.holder != s && !slices.Contains(c.waiting, s):
		c.waiting = append(c.waiting, s)
	}

	return c.holder == s
}

// Release gives the turn back, or asks for it no more.
func (s *Seat) Release() {
	if next := s.container.pass(s); next != nil {
		next.wake()
	}
}

// pass gives the turn of s, if it has it, to who has waited longest.
func (c *Container) pass(s *Seat) (next *Seat) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if i := slices.Index(c.waiting, s); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}

	if c.holder != s {
		return nil
	}

	c.holder = nil

	if len(c.waiting) > 0 {
		c.holder = c.waiting[0]
		c.waiting = slices.Delete(c.waiting, 0, 1)
	}

	return c.holder
}

// Leave gives the place up.
func (s *Seat) Leave() {
	s.Release()

	s.container.mu.Lock()
	defer s.container.mu.Unlock()

	s.container.seats = slices.DeleteFunc(s.container.seats, func(other *Seat) bool { return other == s })
}
