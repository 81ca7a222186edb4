// Package loop is the thread of one array. It joins the state machine (package
// engine), the data path (package stripe), the metadata keeper, the ublk queue
// and the members in one ring and one loop, so that a request is taken, split,
// written, recorded and answered without another thread having a say.
//
// Whoever holds a write owns the superblock buffer and the entry of the ring
// that its record needs: there is no second process to wait for.
package loop

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Sizes of the I/O path of one array. Its memory is their product: the
// buffers of requests, Depth x MaxIO, and of parity, pieces x pieceSize.
const (
	Depth     = 64
	MaxIO     = 256 << 10
	pieceSize = 128 << 10
	pieces    = 48
	// SlotMax is the highest number of a device that an array ever has.
	SlotMax    = 255
	recordSize = 8 << 10 // the most that one write of a record holds
	recordOps  = SlotMax + 1
)

// The kinds of completions, in the top byte of their user data.
const (
	kindQueue    = 1 << 56
	kindTransfer = 2 << 56
	kindRecord   = 3 << 56
	kindWake     = 4 << 56
	kindTick     = 5 << 56
	kindMask     = 0xff << 56
)

// tickEvery is how often the loop looks at the clock while it has a reason to.
const tickEvery = 50 * time.Millisecond

// Device is a device of the array.
type Device struct {
	ID     engine.DeviceID
	Member *member.Device
	Offset raid.Sectors // of the data area
}

// Notice is something to be told: an [engine.Report] and what it is about.
type Notice struct {
	engine.Report
	Member     *member.Device // nil if it is about no device
	Offset     raid.Sectors   // of the component, where it matters
	Mismatched raid.Sectors   // by the last resync: what was not redundant
	Cause      string
}

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
	// Notify is called in the array's thread and must not block.
	Notify func(Notice)
}

// Loop is a running array.
type Loop struct {
	cfg   Config
	array *engine.Array
	path  *stripe.Path
	disks map[engine.DeviceID]Device

	device ublk.DeviceID
	info   ublk.DevInfo
	server *ublk.Device
	arena  *uring.Arena
	ring   *uring.Ring
	queue  *ublk.Queue
	wake   *uring.Wake
	tick   *uring.Timespec
	mail   chan func()
	done   chan struct{} // closed when the thread has ended
	err    error         // why, after done

	wakeMu     sync.Mutex
	wakeClosed bool // by wakeMu

	requests
	recorder
	syncer

	cause    map[engine.DeviceID]string // why a device was failed on purpose
	ticking  bool
	leaving  bool // the wake is not to be armed again
	asleep   bool // and it has completed
	stopping bool
	stopped  bool
	now      time.Time
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
	if err := l.cfg.Control.StopDev(ctx, l.device); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}

	select {
	case <-l.done:
	case <-ctx.Done():
		return fmt.Errorf("loop: stop: %w", context.Cause(ctx))
	}

	return errors.Join(l.err, l.cfg.Control.DelDev(ctx, l.device))
}

// HandOver ends the service without ending the device: requests in flight are
// finished, those that come wait in the kernel for the next engine, and the
// superblocks say clean.
func (l *Loop) HandOver(ctx context.Context) error {
	if err := l.Do(func() { l.frozen = true }); err != nil {
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

		l.err = err
		ready <- err

		return
	}

	ready <- nil

	if l.err = l.serve(); l.err == nil {
		l.err = l.tearDown()
	}

	// After an error all stays as it is, with I/O in flight in its memory: the
	// process ends, and the next one takes the device over.
}

// fileSlot is the place of a device in the ring's table of files.
func fileSlot(id engine.DeviceID) int { return int(id) + 1 }

// serve runs until the array has stopped and nothing of it is in the ring.
func (l *Loop) serve() error {
	var batch [256]uring.CQE

	for {
		if err := l.ring.SubmitAndWait(1); err != nil {
			return err
		}

		l.now = time.Now()

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

		if l.finished() {
			return nil
		}
	}
}

// finished reports whether the thread may end, and sees to it that it soon
// may when the array has stopped.
func (l *Loop) finished() bool {
	if !l.stopped || l.recorder.active || (!l.queue.Stopped() && !l.frozen) {
		return false
	}

	if !l.leaving {
		// The wake's read must not be left to a ring that is gone.
		l.leaving = true
		_ = l.wake.Signal() // an eventfd that cannot be written ends the read too
	}

	return l.asleep
}

func (l *Loop) tearDown() error {
	var errs []error

	if l.frozen && !l.queue.Stopped() {
		// The queue's commands end with the ring, and the device finds itself
		// without a server, which is what handing over means.
		return l.ring.Close()
	}

	errs = append(errs, l.queue.Close(), l.ring.Close(), l.closeWake())
	for _, d := range l.disks {
		errs = append(errs, d.Member.Close())
	}

	return errors.Join(append(errs, l.arena.Close())...)
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
		if state == ublk.Serving {
			return l.arrived(req)
		}
	case kindTransfer:
		l.transferred(int(value), cqe.Res)
	case kindRecord:
		l.recorded(int(value), cqe.Res)
	case kindWake:
		if l.leaving {
			l.asleep = true
		} else {
			l.armWake()
		}
	case kindTick:
		l.ticking = false
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

// pump moves what has completed on, until there is nothing left to do but
// wait.
func (l *Loop) pump() error {
	for {
		for _, f := range l.path.Failures() {
			l.step(engine.MemberFailed{Device: engine.DeviceID(f.Device)})
		}

		for _, res := range l.path.Results() {
			if err := l.ended(res); err != nil {
				return err
			}
		}

		l.clock()

		transfers := l.path.Transfers()
		for i := range transfers {
			l.transfer(&transfers[i])
		}

		if len(transfers) == 0 && l.settled() {
			break
		}
	}

	if err := l.answer(); err != nil {
		return err
	}

	if l.needsTick() && !l.ticking {
		l.ticking = true
		l.tick.Set(tickEvery)

		sqe := l.entry()
		sqe.PrepTimeout(l.tick, 0)
		sqe.UserData = kindTick
	}

	return nil
}

// settled reports whether the data path has nothing more to say by itself.
func (l *Loop) settled() bool { return !l.path.Pending() }

// HandedOver reports whether the device was left to the next engine. It is
// meaningful after Done.
func (l *Loop) HandedOver() bool { return l.frozen }
