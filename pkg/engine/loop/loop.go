// Package loop is the thread of one array. It carries out what package core
// says: the ublk queue, the members and what other threads ask for meet in one
// ring and one loop, so that a request is taken, split, written, recorded and
// answered without another thread having a say.
//
// Whoever holds a write owns the superblock buffer and the entry of the ring
// that its record needs: there is no second process to wait for.
package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Sizes of the I/O path of one array. Its memory is their product: the
// buffers of requests, Depth x MaxIO, and of parity, pieces x pieceSize. Where in
// it they lie is as much of the crash log's version as the log itself.
const (
	Depth      = 64
	MaxIO      = 256 << 10
	pieceSize  = 128 << 10
	pieces     = 48
	recordSize = metadata.WriteMax
	recordsMin = 32
)

// recordOps is how many writes of superblocks there is memory for: what goes to the members
// at a time, mostly.
func recordOps(slots int) int { return max(recordsMin, 4*(slots+1)) }

// The kinds of completions, in the top byte of their user data.
const (
	kindQueue  = 1 << 56
	kindMember = 2 << 56
	kindWake   = 3 << 56
	kindTick   = 4 << 56
	kindMask   = 0xff << 56
)

// coarse is how often the loop looks at the clock while it has any reason to;
// what has to be sooner has a timer of its own.
const coarse = 50 * time.Millisecond

// yieldEvery is how often the thread has the runtime schedule it anew. One that
// has not been for 10 ms the runtime interrupts, whatever it does, and its monitor
// wakes up some 1500 times a second to see what has come of that.
const yieldEvery = 8 * time.Millisecond

// Device is a device of the array.
type Device struct {
	ID     engine.DeviceID
	Member *member.Device
	Offset raid.Sectors // of the data area

	WriteMostly bool         // it is read only if no other can be
	FailFast    bool         // it is to answer soon, or be failed
	BadBlocks   []raid.Range // component sectors without valid data, ascending
}

// Notice is something to be told: an [engine.Report] and what it is about.
type Notice struct {
	engine.Report
	Member     *member.Device // nil if it is about no device
	Offset     raid.Sectors   // of the component, where it matters
	Mismatched raid.Sectors   // by the last resync: what was not redundant
	Cause      string         // why a device failed, if it is known
}

// Status is an array as it is now.
type Status = core.Status

// Progress is how far a sync has come.
type Progress = core.Progress

// Config is what an array is made of.
type Config struct {
	Geometry *geometry.Map
	Setup    engine.Setup
	Chunk    raid.Sectors
	Block    int // logical block size in bytes: the largest of the members'
	Devices  []Device
	Keeper   metadata.Keeper
	Control  ublk.Control
	// Recover is the device to take over from an engine that is gone, or
	// ublk.AnyDevice to make a new one.
	Recover ublk.DeviceID
	// Claim is called before the kernel announces the device.
	Claim func(id ublk.DeviceID) error
	// Keep is given the array's memory, for the next engine to have, and to know from it
	// what this one was writing when it died; nil if nobody is to.
	Keep func(*os.File) error
	// Left is what the engine before has left, nil if it is not known. All that it was
	// writing has been done again, if that is to be believed.
	Left *crashlog.Left
	// Turns is asked before anything is synced; nil if no device is shared.
	Turns core.Turns
	// Container is what the metadata is of; nil if that is of this array alone.
	Container *core.Container
	// Notify is called in the array's thread and must not block.
	Notify func(Notice)
}

// Loop is a running array.
type Loop struct {
	cfg   Config
	core  *core.Core
	seat  *core.Seat // in the container, or nil
	disks map[engine.DeviceID]*member.Device

	device  ublk.DeviceID
	info    ublk.DevInfo
	server  *ublk.Device
	arena   *uring.Arena
	own     [][]byte // the blocks of it that requests use, but for those in the place of what is parked
	scratch [][]byte // of these, what parity is computed in
	holds   bool     // see Hold
	log     *os.File // the memory, until it is kept; nil if it is private, or was kept before
	crash   *crashlog.Log
	ring    *uring.Ring
	pins    pins
	queue   *ublk.Queue
	tuning  sync.WaitGroup // of what sets the queue's attributes
	wake    *uring.Wake
	ticks   [2]*uring.Timespec // the coarse one, and a finer one
	mail    chan func()
	done    chan struct{} // closed when the thread has ended
	err     error         // why, after done
	late    bool          // after done: a member has not answered

	wakeMu     sync.Mutex
	wakeClosed bool // by wakeMu

	frozen  bool      // being handed over: what comes is for the next engine
	quiet   time.Time // since when nothing has come, if so
	now     time.Time // when the thread woke up
	ticking [2]bool
	leaving bool // the wake is not to be armed again
	asleep  bool // and it has completed
}

// Device returns the number of the array's block device.
func (l *Loop) Device() ublk.DeviceID { return l.device }

// Done is closed when the array is no longer served.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Err says why the array is no longer served, after Done; nil if it was
// stopped as asked.
func (l *Loop) Err() error { return l.err }

// ErrEnded says that the array is no longer served.
var ErrEnded = errors.New("loop: the array is no longer served")

// Do runs f in the array's thread and waits for it.
func (l *Loop) Do(f func()) error {
	ran := make(chan struct{})

	select {
	case l.mail <- func() { f(); close(ran) }:
	case <-l.done:
		return ErrEnded
	}

	if err := l.signal(); err != nil {
		return err
	}

	select {
	case <-ran:
		return nil
	case <-l.done:
		return ErrEnded
	}
}

// signal wakes the array's thread, if there is one. The number of a descriptor
// that was closed may be another file's.
func (l *Loop) signal() error {
	l.wakeMu.Lock()
	defer l.wakeMu.Unlock()

	if l.wakeClosed {
		return ErrEnded
	}

	return l.wake.Signal()
}

func (l *Loop) closeWake() error {
	l.wakeMu.Lock()
	defer l.wakeMu.Unlock()

	l.wakeClosed = true

	return l.wake.Close()
}

// Stop removes the block device, whether it is open or not, and waits until
// the superblocks say clean.
func (l *Loop) Stop(ctx context.Context) error {
	// The kernel waits until all requests are answered.
	leave := func(on bool) { _ = l.Do(func() { l.core.Leave(on) }) }
	leave(true)

	if err := l.cfg.Control.StopDev(ctx, l.device); err != nil && !errors.Is(err, unix.ENODEV) {
		leave(false)

		return err
	}

	select {
	case <-l.done:
	case <-ctx.Done():
		return fmt.Errorf("loop: stop: %w", context.Cause(ctx))
	}

	if l.late {
		// The kernel keeps the device open for as long as the ring, which is until
		// the last operation has ended.
		return errors.Join(l.err, l.cfg.Control.DelDevAsync(ctx, l.device))
	}

	return errors.Join(l.err, l.cfg.Control.DelDev(ctx, l.device))
}

// HandOver ends the service without ending the device: requests in flight are
// finished, those that come wait in the kernel for the next engine, and the
// superblocks say clean.
func (l *Loop) HandOver(ctx context.Context) error {
	// The guardian would be stuck in the kernel until all requests are answered, by an
	// engine that only the next guardian starts.
	l.tuning.Wait()

	if err := l.Do(func() { l.frozen, l.quiet = true, l.now; l.core.Close() }); err != nil {
		return err
	}

	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("loop: hand over: %w", context.Cause(ctx))
	}
}

// run is the array's thread.
func (l *Loop) run(ready chan<- error) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the array

	defer close(l.done)

	if err := l.setUp(); err != nil {
		if l.ring != nil {
			err = errors.Join(err, l.ring.Close())
		}

		l.leave()

		l.err = err
		ready <- err

		return
	}

	ready <- nil

	if l.err = l.serve(); l.err == nil {
		l.leave()
		l.err = l.tearDown()
	}

	// After an error all stays as it is, with I/O in flight in its memory: the
	// process ends, and the next one takes the device over.
}

// leave lets the other arrays of the container go on without this one.
func (l *Loop) leave() {
	if l.seat != nil {
		l.seat.Leave()
	}
}

// fileSlot is the place of a device in the ring's table of files.
func fileSlot(id engine.DeviceID) int { return int(id) + 1 }

// serve runs until the array has stopped and nothing of it is in the ring.
func (l *Loop) serve() error {
	var (
		batch   [256]uring.CQE
		yielded time.Time
	)

	for {
		if err := l.ring.SubmitAndWait(1); err != nil {
			return err
		}

		l.now = time.Now()
		l.core.SetTime(l.now)

		if l.now.Sub(yielded) >= yieldEvery {
			yielded = l.now

			runtime.Gosched()
		}

		for {
			n := l.ring.Reap(batch[:])
			for i := range n {
				if err := l.complete(batch[i]); err != nil {
					return err
				}
			}

			if n < len(batch) {
				break
			}
		}

		l.readMail()

		if err := l.pump(); err != nil {
			return err
		}

		l.relax()

		if l.finished() {
			return nil
		}
	}
}

// finished reports whether the thread may end, and sees to it that it soon
// may when the array has stopped.
func (l *Loop) finished() bool {
	if !l.core.Stopped() || (!l.queue.Stopped() && !l.abandonable()) {
		return false
	}

	if !l.leaving {
		// The wake's read must not be left to a ring that is gone.
		l.leaving = true
		_ = l.wake.Signal() // an eventfd that cannot be written ends the read too
	}

	return l.asleep
}

// quietMin is how long nothing is to come before a device is left to the next engine.
const quietMin = 100 * time.Millisecond

// abandonable reports whether the device may be left without a server. A request that
// the kernel is just about to give to the thread, as this ends, is lost on 6.12: the
// driver waits for its end for ever, and the device can neither be taken over nor be
// stopped. There is no such request when nothing comes any more, which is so in a
// while, since none is answered.
func (l *Loop) abandonable() bool {
	if !l.frozen {
		return false
	}

	left := quietMin - l.now.Sub(l.quiet)
	if left > 0 {
		l.armTick(1, left)
	}

	return left <= 0
}

func (l *Loop) tearDown() error {
	var errs []error

	if l.frozen && !l.queue.Stopped() {
		// The queue's commands end with the thread, and the device finds itself
		// without a server, which is what handing over means. The ring is left to
		// the end of the process: closed, it would be ended by another thread while
		// this one takes what the kernel has for it.
		return nil
	}

	errs = append(errs, l.queue.Close(), l.ring.Close(), l.closeWake())
	for _, d := range l.disks {
		errs = append(errs, d.Close())
	}

	if l.late = l.core.InFlight() > 0; !l.late {
		errs = append(errs, l.arena.Close())
	} // else a member that does not answer may use it yet, and it stays

	return errors.Join(errs...)
}

func (l *Loop) readMail() {
	for {
		select {
		case f := <-l.mail:
			f()
		default:
			return
		}
	}
}

// complete takes one completion.
func (l *Loop) complete(cqe uring.CQE) error {
	value := cqe.UserData &^ kindMask

	switch cqe.UserData & kindMask {
	case kindQueue:
		req, state := l.queue.HandleCQE(uint16(value), cqe.Res)

		switch state {
		case ublk.Serving:
			return l.arrived(req)
		case ublk.Answered:
		case ublk.Stopped:
			return l.tagStopped()
		}
	case kindMember:
		if member.Transient(cqe.Res) {
			l.core.Again(int(value))

			break
		}

		op, want := l.core.Expected(int(value))
		if member.Partial(cqe.Res, want) {
			l.core.Part(int(value), int(cqe.Res))

			break
		}

		fault := member.Outcome(op, cqe.Res, want)

		if fault == stripe.Gone {
			l.core.Blame(int(value), member.Reason(cqe.Res, want))
		}

		l.core.Complete(int(value), fault)
	case kindWake:
		if l.leaving {
			l.asleep = true
		} else {
			l.armWake()
		}
	case kindTick:
		l.ticking[value] = false
	}

	return nil
}

// tagStopped ends the array when the last tag has come back. A queue that
// failed is not one that was stopped: the device is there still, and its
// requests wait for an engine that serves them.
func (l *Loop) tagStopped() error {
	if err := l.queue.Err(); err != nil {
		return err
	}

	if l.queue.Stopped() {
		l.core.Close()
	}

	return nil
}

// entry returns a free entry of the ring, which it makes if there is none.
func (l *Loop) entry() *uring.SQE {
	for {
		if sqe := l.ring.SQE(); sqe != nil {
			return sqe
		}

		if err := l.ring.Submit(); err != nil {
			panic(fmt.Sprintf("loop: %v", err)) // the process ends, and the next one takes over
		}
	}
}

func (l *Loop) armWake() {
	sqe := l.entry()
	l.wake.Arm(sqe)
	sqe.UserData = kindWake
}

// pump carries out what is to be done, until there is nothing left but to wait.
func (l *Loop) pump() error {
	l.core.Advance()

	for o := range l.core.Operations {
		l.operate(o)
	}

	for _, a := range l.core.Answers() {
		if a.Memory != nil {
			l.queue.SetBuffer(uint16(a.Tag), a.Memory)
		}

		errno := unix.Errno(0)
		if !a.OK {
			errno = unix.EIO
		}

		if err := l.queue.Commit(uint16(a.Tag), errno); err != nil {
			return err
		}
	}

	if d := l.core.Alarm(); d > 0 {
		l.armTick(0, coarse)

		if d < coarse {
			l.armTick(1, d)
		}
	}

	return nil
}

// armTick has the clock be looked at, unless it is going to be.
func (l *Loop) armTick(which int, d time.Duration) {
	if l.ticking[which] {
		return
	}

	l.ticking[which] = true
	l.ticks[which].Set(d)

	sqe := l.entry()
	sqe.PrepTimeout(l.ticks[which], 0)
	sqe.UserData = kindTick | uint64(which)
}

// operate asks the ring for an operation on a member. One that was removed
// since has no file, and the operation fails.
func (l *Loop) operate(o *core.Operation) {
	file := uring.Slot(fileSlot(o.Device))
	offset := uint64(o.Sector.Bytes())
	sqe := l.entry()

	switch o.Op {
	case stripe.Read:
		if index, ok := l.pins.find(o.Data); ok {
			sqe.PrepReadFixed(file, o.Data, offset, index)
		} else {
			sqe.PrepRead(file, o.Data, offset)
		}
	case stripe.Write:
		flags := uint32(0)
		if o.FUA {
			flags = unix.RWF_DSYNC
		}

		if index, ok := l.pins.find(o.Data); ok {
			sqe.PrepWriteFixed(file, o.Data, offset, index)
			sqe.OpFlags = flags
		} else {
			sqe.PrepWrite(file, o.Data, offset, flags)
		}
	case stripe.Flush:
		sqe.PrepFsync(file)
	case stripe.Discard:
		// What is discarded reads as zeroes then, on every member alike: one that
		// came later and cannot unmap has to write them.
		mode := uint32(unix.FALLOC_FL_PUNCH_HOLE)
		if d := l.disks[o.Device]; d == nil || !d.Unmaps {
			mode = unix.FALLOC_FL_ZERO_RANGE
		}

		sqe.PrepFallocate(file, mode|unix.FALLOC_FL_KEEP_SIZE, offset, uint64(o.Sectors.Bytes()))
	case stripe.WriteZeroes:
		sqe.PrepFallocate(file, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, offset, uint64(o.Sectors.Bytes()))
	}

	sqe.UserData = kindMember | uint64(o.ID)
}

// HandedOver reports whether the device was left to the next engine. It is
// meaningful after Done.
func (l *Loop) HandedOver() bool { return l.frozen }
