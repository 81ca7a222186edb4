// Package uring is io_uring for one locked thread: a pair of rings in memory that the kernel shares, the operations
// that a block server needs, memory for O_DIRECT, and a way to wake the thread.
//
// It allocates nothing for an operation, holds no locks, starts no goroutines, and keeps no table of what is in
// flight: a completion is known by the 64 bits of user data that its submission carried.
//
// It does not run the loop. Its owner does, on one thread:
//
//	runtime.LockOSThread()
//	ring, err := uring.New(uring.Config{Entries: 256})
//	for {
//		err = ring.SubmitAndWait(1)
//		for _, cqe := range batch[:ring.Reap(batch)] {
//			... sqe := ring.SQE(); sqe.PrepWrite(...); sqe.UserData = ...
//		}
//	}
package uring

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// retryPause is how long a submission waits for the kernel to find memory. Failing instead would turn a moment's
// shortage, which our own write-out may be about to end, into a failed array.
const retryPause = time.Millisecond

// Config is how a ring is made. The zero value of a field is a usable default, except for Entries.
type Config struct {
	Entries   uint32 // of the submission ring; the kernel rounds up to a power of two
	CQEntries uint32 // of the completion ring; 0 means twice Entries
	SQE128    bool   // entries of 128 bytes, for commands with a payload of more than 16
}

// Ring is a submission and a completion ring. It belongs to the thread that made it, which must be locked to its
// goroutine: nothing but Close may be called from another. It is not safe for concurrent use.
type Ring struct {
	fd     int
	flags  uint32
	sq     submission
	cq     completion
	sqRing []byte
	cqRing []byte
	sqes   []byte
	kept   []int
}

// modes are the ways to run completions, best first. Older kernels reject what they do not know with EINVAL.
var modes = []uint32{
	setupSubmitAll | setupSingleIssuer | setupDeferTaskrun, // 6.1: completions run when we wait, never between
	setupSubmitAll | setupCoopTaskrun,                      // 5.19: no interrupt to deliver them
	0,
}

// New makes a ring in the best mode that the running kernel has.
//
// Preconditions: the calling goroutine is locked to its thread.
func New(cfg Config) (*Ring, error) { return newRing(cfg, modes) }

func newRing(cfg Config, modes []uint32) (*Ring, error) {
	var p params
	fd, errno := -1, unix.EINVAL
	for _, mode := range modes {
		p = params{Flags: mode | setupCQSize, CQEntries: cfg.CQEntries}
		if p.CQEntries == 0 {
			p.CQEntries = 2 * cfg.Entries
		}
		if cfg.SQE128 {
			p.Flags |= setupSQE128
		}
		if fd, errno = setup(cfg.Entries, &p); errno != unix.EINVAL {
			break
		}
	}
	if errno != 0 {
		return nil, fmt.Errorf("uring: set up %d entries, %d completions: %w", cfg.Entries, p.CQEntries, errno)
	}
	r := &Ring{fd: fd, flags: p.Flags}
	if err := r.mapRings(&p); err != nil {
		return nil, errors.Join(fmt.Errorf("uring: map rings: %w", err), r.Close())
	}
	return r, nil
}

// Deferred reports whether the kernel completes operations, and does what commands of drivers left to be done, only
// while it is asked to wait: between two calls of SubmitAndWait nothing happens to the memory of operations that have
// been reaped, or are a driver's to begin with.
func (r *Ring) Deferred() bool { return r.flags&setupDeferTaskrun != 0 }

func (r *Ring) mapRings(p *params) (err error) {
	shift := uint(6)
	if p.Flags&setupSQE128 != 0 {
		shift = 7
	}
	for _, m := range []struct {
		mem    *[]byte
		off    int64
		length uint32
	}{
		{&r.sqRing, offSQRing, p.SQ.Array + 4*p.SQEntries},
		{&r.cqRing, offCQRing, p.CQ.CQEs + uint32(unsafe.Sizeof(CQE{}))*p.CQEntries},
		{&r.sqes, offSQEs, p.SQEntries << shift},
	} {
		const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
		if *m.mem, err = unix.Mmap(r.fd, m.off, int(m.length), prot, flags); err != nil {
			return err
		}
	}
	r.sq = newSubmission(r.sqRing, p.SQ, r.sqes, shift)
	r.cq = newCompletion(r.cqRing, p.CQ)
	return nil
}

// Close gives the ring back to the kernel, which lets the operations in flight end in its own time: memory and files
// that they use must outlive them. No method may be called after it.
func (r *Ring) Close() error {
	var errs []error
	for _, mem := range [][]byte{r.sqRing, r.cqRing, r.sqes} {
		if mem != nil {
			errs = append(errs, unix.Munmap(mem))
		}
	}
	errs = append(errs, unix.Close(r.fd))
	for _, fd := range r.kept {
		errs = append(errs, unix.Close(fd))
	}
	*r = Ring{fd: -1}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("uring: close: %w", err)
	}
	return nil
}

// Keep has the ring close a descriptor when it is closed itself.
func (r *Ring) Keep(fd int) { r.kept = append(r.kept, fd) }

// Entries is the size of the submission ring.
func (r *Ring) Entries() int { return int(r.sq.entries) }

// SQE returns the next free entry, cleared, or nil if the ring is full: then Submit makes room. What it returned is
// submitted by the next Submit or SubmitAndWait, whatever it contains.
func (r *Ring) SQE() *SQE { return r.sq.next() }

// Submit starts the prepared operations without waiting for any. What the kernel cannot take now stays prepared for
// the next Submit or SubmitAndWait, and is no error.
func (r *Ring) Submit() error {
	n := r.sq.publish()
	if n == 0 {
		return nil
	}
	// A raw system call keeps the scheduler out: it does not wait.
	_, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, 0, 0, 0)
	if errno != 0 && !transient(errno) {
		return fmt.Errorf("uring: submit %d entries: %w", n, errno)
	}
	return nil
}

// SubmitAndWait starts the prepared operations and waits until at least n completions are ready. It also lets the
// kernel run what it has deferred to this thread, with n = 0 too. It returns with fewer if the kernel takes no more
// before some are reaped.
func (r *Ring) SubmitAndWait(n int) error {
	if r.sq.publish() > 1 && r.submitBusy(n) {
		return nil
	}
	for {
		prepared := r.sq.publish()
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(prepared), uintptr(n),
			enterGetEvents, 0, 0)
		ready := r.cq.ready()
		switch {
		case errno != 0 && !transient(errno):
			return fmt.Errorf("uring: submit %d entries and wait for %d: %w", prepared, n, errno)
		case errno == 0 || errno == unix.EINTR:
			// A signal, or entries that were taken in part, end the call before it has waited.
			if r.sq.publish() == 0 && ready >= uint32(n) {
				return nil
			}
		case ready > 0:
			return nil
		default:
			// No memory for a request, and nothing that the caller could do about it.
			pause := unix.NsecToTimespec(retryPause.Nanoseconds())
			_ = unix.Nanosleep(&pause, nil) // ending early is as good
		}
	}
}

// submitBusy starts the prepared operations, has the kernel run what it has deferred, and reports whether n completions
// are ready by then. They are when there is much to do, and then the runtime need not know of the call, which would
// have another thread go on in the place of this one if it took long.
func (r *Ring) submitBusy(n int) bool {
	_, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.sq.publish()), 0,
		enterGetEvents, 0, 0)
	return errno == 0 && r.sq.publish() == 0 && r.cq.ready() >= uint32(n) // else the call that waits sees what is amiss
}

// Reap moves completions that are ready into batch, oldest first, and returns their number. It enters the kernel only
// when the completion ring has overflown; only SubmitAndWait runs what was deferred to this thread.
func (r *Ring) Reap(batch []CQE) int {
	n := r.cq.reap(batch)
	if n == 0 && r.sq.overflown() {
		_, _, _ = unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 0, enterGetEvents, 0, 0)
		n = r.cq.reap(batch) // if the call was refused, the next wait flushes
	}
	return n
}

// WarmUp runs n operations that do nothing, so that the kernel's memory for requests is allocated before the first
// real one needs it. Nothing else may be in flight.
func (r *Ring) WarmUp(n int) error {
	var batch [32]CQE
	n = min(n, r.Entries())
	for range n {
		sqe := r.SQE()
		if sqe == nil {
			return fmt.Errorf("uring: warm up with %d entries: ring is in use", n)
		}
		sqe.PrepNop()
	}
	for done := 0; done < n; {
		if err := r.SubmitAndWait(1); err != nil {
			return err
		}
		done += r.Reap(batch[:])
	}
	return nil
}

// transient reports whether entering the kernel may succeed later as it is.
func transient(errno unix.Errno) bool {
	return errno == unix.EINTR || errno == unix.EAGAIN || errno == unix.EBUSY
}

func setup(entries uint32, p *params) (int, unix.Errno) {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	return int(fd), errno
}
