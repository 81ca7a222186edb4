package uring

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Wake lets any goroutine wake a thread that waits in its ring: the thread keeps a read of an eventfd in flight, and
// Signal completes it. Signals that come before the read is armed again are not lost, they make one completion.
type Wake struct {
	fd    int
	arena *Arena
	count []byte // where the kernel puts the eventfd's counter; nobody reads it
}

// NewWake makes an eventfd and the memory to read it into.
func NewWake() (*Wake, error) {
	arena, err := NewArena(ArenaConfig{Size: 8, Populate: true})
	if err != nil {
		return nil, err
	}
	count, err := arena.Block(8)
	if err != nil {
		return nil, errors.Join(err, arena.Close())
	}
	// Not EFD_NONBLOCK: the read would end at once with EAGAIN and not wait.
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("uring: make eventfd: %w", err), arena.Close())
	}
	return &Wake{fd: fd, arena: arena, count: count}, nil
}

// Arm prepares the read that Signal completes, once.
func (w *Wake) Arm(s *SQE) { s.PrepRead(FD(w.fd), w.count, 0) }

// one is the increment of an eventfd: a 1 in either byte order is not 0.
var one = [8]byte{1}

// Signal completes the armed read, or the next one to be armed. It is safe for concurrent use, before Close.
func (w *Wake) Signal() error {
	if _, err := unix.Write(w.fd, one[:]); err != nil {
		return fmt.Errorf("uring: signal eventfd: %w", err)
	}
	return nil
}

// Close releases the eventfd. The ring in which it was armed must be closed, or its read completed, before.
func (w *Wake) Close() error {
	return errors.Join(unix.Close(w.fd), w.arena.Close())
}
