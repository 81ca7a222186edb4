package loop

import (
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/raid"
)

// safeMode is how long an array without a write in flight stays dirty.
const safeMode = 200 * time.Millisecond

// stillBusy is how long after its last request an array counts as in use.
const stillBusy = 250 * time.Millisecond

// answer is what a request that has ended is owed.
type answer struct {
	tag uint16
	ok  bool
}

// requests is what the loop knows of the client's requests.
//
// Every request is in one place: held here because the array is not dirty yet,
// in the data path, or ended and held until a failure is recorded.
type requests struct {
	held      []stripe.Request // writes that wait for the superblocks to say dirty
	kinds     [Depth]stripe.Op // by tag
	answers   []answer         // of requests that have ended
	writing   int              // writes in the data path
	reading   int              // other requests there
	lastWrite time.Time
	lastAny   time.Time
	frozen    bool // being handed over: what comes is for the next engine
}

// arrived takes a request from the queue.
func (l *Loop) arrived(req ublk.Request) error {
	if l.frozen {
		return nil
	}

	r := stripe.Request{
		Tag: int(req.Tag), Sector: raid.Sectors(req.Start), Data: req.Buf, FUA: req.FUA,
	}
	l.lastAny = l.now

	switch req.Op {
	case ublk.Read:
		r.Op = stripe.Read
	case ublk.Write:
		r.Op = stripe.Write
	case ublk.Flush:
		r.Op, r.Sector, r.Data = stripe.Flush, 0, nil
	case ublk.Discard, ublk.WriteZeroes:
		return l.queue.Commit(req.Tag, unix.EOPNOTSUPP)
	default:
		return l.queue.Commit(req.Tag, unix.EOPNOTSUPP)
	}

	l.kinds[r.Tag] = r.Op

	if r.Op != stripe.Flush && (req.Sectors == 0 ||
		uint64(req.Sectors) > uint64(l.cfg.Geometry.ArraySectors()) ||
		req.Start > uint64(l.cfg.Geometry.ArraySectors())-uint64(req.Sectors)) {
		return l.queue.Commit(req.Tag, unix.EIO) // the kernel never asks for it
	}

	if r.Op == stripe.Write && !l.array.MayWrite() {
		l.held = append(l.held, r)
		l.step(engine.WriteArrived{})

		return nil
	}

	l.submit(r)

	return nil
}

// submit gives a request to the data path.
func (l *Loop) submit(r stripe.Request) {
	if r.Op == stripe.Write {
		l.writing++
	} else {
		l.reading++
	}

	l.path.Submit(r)
}

// release lets the writes through that waited for the superblocks.
func (l *Loop) release() {
	for _, r := range l.held {
		l.submit(r)
	}

	l.held = l.held[:0]
}

// refuse fails the writes that wait.
func (l *Loop) refuse() {
	for _, r := range l.held {
		l.answers = append(l.answers, answer{tag: uint16(r.Tag)})
	}

	l.held = l.held[:0]
}

// ended takes what the data path has finished.
func (l *Loop) ended(res stripe.Result) error {
	l.lastAny = l.now

	if res.Op == stripe.Write {
		l.writing--
		l.lastWrite = l.now
	} else {
		l.reading--
	}

	l.answers = append(l.answers, answer{tag: uint16(res.Tag), ok: res.OK})

	return nil
}

// answer commits what has ended and is due.
func (l *Loop) answer() error {
	kept := l.answers[:0]

	for _, a := range l.answers {
		errno, due := l.verdict(a)
		if !due {
			kept = append(kept, a)

			continue
		}

		if err := l.queue.Commit(a.tag, errno); err != nil {
			return err
		}
	}

	l.answers = kept

	return nil
}

// verdict returns what a request that has ended is answered with, and whether
// it is due: writes and flushes wait until the failures that they missed are
// recorded, which a broken array will never do.
func (l *Loop) verdict(a answer) (errno unix.Errno, due bool) {
	switch {
	case l.kinds[a.tag] != stripe.Read && !l.array.MayAcknowledge():
		return unix.EIO, l.array.State() == raid.Broken
	case !a.ok:
		return unix.EIO, true
	default:
		return 0, true
	}
}

// transfer asks the ring for a transfer of the data path.
func (l *Loop) transfer(t *stripe.Transfer) {
	// A device that was removed since has no file, and the transfer fails.
	id := engine.DeviceID(t.Device)
	file := uring.Slot(fileSlot(id))
	offset := uint64((l.disks[id].Offset + t.Sector).Bytes())
	sqe := l.entry()

	switch t.Op {
	case stripe.Read:
		sqe.PrepRead(file, t.Data, offset)
	case stripe.Write:
		flags := uint32(0)
		if t.FUA {
			flags = unix.RWF_DSYNC
		}

		sqe.PrepWrite(file, t.Data, offset, flags)
	case stripe.Flush:
		sqe.PrepFsync(file)
	}

	sqe.UserData = kindTransfer | uint64(t.ID)
}

// transferred takes the result of a transfer back to the data path.
func (l *Loop) transferred(id int, res int32) {
	op, want := l.path.Expected(id)
	l.path.Complete(id, member.Outcome(op, res, want))
}

// clock does what is due by time alone.
func (l *Loop) clock() {
	idle := l.writing == 0 && len(l.held) == 0

	if idle && l.array.State() == raid.Active && l.now.Sub(l.lastWrite) >= safeMode {
		l.step(engine.WentIdle{})
	}

	l.syncClock()

	over := l.queue.Stopped() || (l.frozen && len(l.answers) == 0)
	if over && !l.stopping && idle && l.reading == 0 && !l.path.Syncing() {
		l.stopping = true
		l.step(engine.Stopping{})
	} else if over && !l.stopping {
		l.syncer.on = false // its last slab ends first
	}
}

// needsTick reports whether something is to happen by time.
func (l *Loop) needsTick() bool {
	return l.array.State() == raid.Active || l.syncer.on || (l.frozen && !l.stopped)
}
