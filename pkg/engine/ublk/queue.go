package ublk

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/uring"
)

// ReqOp is the operation of a request: the low byte of op_flags.
type ReqOp uint8

// The operations, UBLK_IO_OP_*.
const (
	Read        ReqOp = 0
	Write       ReqOp = 1
	Flush       ReqOp = 2
	Discard     ReqOp = 3
	WriteZeroes ReqOp = 5
)

func (o ReqOp) String() string {
	switch o {
	case Read:
		return "read"
	case Write:
		return "write"
	case Flush:
		return "flush"
	case Discard:
		return "discard"
	case WriteZeroes:
		return "write-zeroes"
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// Request is one request of a client. It is the server's until it is committed.
type Request struct {
	Tag     uint16
	Op      ReqOp
	FUA     bool   // of a Write: it must be on stable storage before it is committed
	NoUnmap bool   // of WriteZeroes: the blocks stay allocated
	Start   uint64 // sector; of a Flush it means nothing, and is 2^64-1
	Sectors uint32 // 0 for a Flush
	Buf     []byte // of a Read, to be filled; of a Write, the data: valid until Commit; its capacity is all the tag's
}

// State is what a completion meant for its tag.
type State uint8

const (
	// Serving means that the tag has a request, to be answered with Commit.
	Serving State = iota
	// Answered means that the queue has answered the request itself, because no buffer could hold it.
	Answered
	// Stopped means that the tag is back for good: the device was stopped, or the queue failed.
	Stopped
)

// QueueConfig is what a queue is made of. The ring must have a table of registered files and room for Depth entries
// besides what the member I/O needs.
type QueueConfig struct {
	ID       int          // of the queue, from 0
	Ring     *uring.Ring  // of the calling thread; the same that does the member I/O
	Slot     int          // in the ring's table of files, for the device: no successor gets it before the ring ends
	Arena    *uring.Arena // buffers for every tag come from here: see BufferSize
	UserData uint64       // combined with the tag in the user data of every command; its low 16 bits are 0
	NoScan   bool         // keep StartDev from reading partition tables: see Fetch
}

// tagState is where a tag is. A tag has exactly one command in the ring while fetching, and none otherwise.
type tagState uint8

const (
	tagIdle     tagState = iota // not fetched yet
	tagFetching                 // with the kernel, which has no request for it
	tagServing                  // a request of it is with the server
	tagStopped
)

// Queue is one hardware queue of a device, in copy mode. All its methods must be called on the thread of its ring.
//
// Invariants: fetching + serving + stopped + idle tags = depth; a tag's buffer belongs to the server while serving
// and to the kernel while fetching.
type Queue struct {
	ring     *uring.Ring
	id       uint16
	fd       int
	slot     int
	userData uint64
	maxIO    int
	noScan   bool
	mapping  []byte // read-only, shared with the driver
	descs    []ioDesc
	buffers  [][]byte
	sectors  []uint32 // of the request that a tag serves, if it moves data
	states   []tagState
	stopped  int
	err      error
}

// BufferSize is how much of the arena the queue of a device takes.
func BufferSize(info DevInfo) int { return info.Depth * pageUp(info.MaxIO) }

// NewQueue takes buffers for all tags of a queue and puts the device into the ring's table of files.
func NewQueue(dev *Device, cfg QueueConfig) (*Queue, error) {
	info := dev.info
	if cfg.UserData&0xffff != 0 || cfg.ID < 0 || cfg.ID >= info.Queues {
		return nil, fmt.Errorf("ublk: queue %d of %d with user data %#x: %w",
			cfg.ID, info.Queues, cfg.UserData, unix.EINVAL)
	}
	q := &Queue{
		ring: cfg.Ring, id: uint16(cfg.ID), slot: cfg.Slot, userData: cfg.UserData, noScan: cfg.NoScan,
		maxIO:   info.MaxIO,
		buffers: make([][]byte, info.Depth), sectors: make([]uint32, info.Depth), states: make([]tagState, info.Depth),
	}
	for tag := range q.buffers {
		var err error
		if q.buffers[tag], err = cfg.Arena.Block(info.MaxIO); err != nil {
			return nil, fmt.Errorf("ublk: buffer of tag %d: %w", tag, err)
		}
	}
	fd := int(dev.file.Fd())
	if err := cfg.Ring.UpdateFile(cfg.Slot, fd); err != nil {
		return nil, err
	}
	var err error
	if q.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("ublk: duplicate a descriptor: %w", err)
	}
	cfg.Ring.Keep(q.fd)
	return q, nil
}

// Fetch submits the first command of every tag, and then maps the request descriptors. The device can start when all
// queues have done so.
//
// Not the other way round: Linux before 6.16 lets one process only map descriptors until a recovery starts, and starts
// none for a server that died before a queue was fetched whole. Nobody could serve the device again.
//
// Before Linux 7.0, StartDev reads partition tables under the lock that recovery, stop and deletion need. If the
// server dies in that time, a device with recovery flags keeps the reads for a successor that can never come: neither
// the device nor the guardian's thread can be got rid of, short of a reboot. With
// NoScan the driver takes the server for an unprivileged one, as Fetch runs without CAP_SYS_ADMIN, and does not look
// for partitions, then or later: they are added from outside once the device is live (BLKPG, as partx does).
func (q *Queue) Fetch() error {
	restore := func() error { return nil }
	if q.noScan {
		var err error
		if restore, err = dropSysAdmin(); err != nil {
			return err
		}
	}
	if err := errors.Join(q.fetch(), restore()); err != nil {
		return err
	}
	return q.mapDescriptors()
}

func (q *Queue) fetch() error {
	for tag := range q.states {
		if err := q.command(ioFetchReq, uint16(tag), 0); err != nil {
			return err
		}
	}
	return q.ring.Submit()
}

func (q *Queue) mapDescriptors() error {
	descSize := int(unsafe.Sizeof(ioDesc{}))
	offset := int64(q.id) * int64(pageUp(maxDepth*descSize))
	const flags = unix.MAP_SHARED | unix.MAP_POPULATE
	var err error
	q.mapping, err = unix.Mmap(q.fd, offset, pageUp(len(q.states)*descSize), unix.PROT_READ, flags)
	if err != nil {
		return fmt.Errorf("ublk: map descriptors of queue %d: %w", q.id, err)
	}
	q.descs = unsafe.Slice((*ioDesc)(unsafe.Pointer(&q.mapping[0])), len(q.states))
	return nil
}

// HandleCQE takes the completion of one of the queue's commands: tag is the low 16 bits of its user data, res its
// result. The request is meaningful only with [Serving]. It allocates nothing.
func (q *Queue) HandleCQE(tag uint16, res int32) (Request, State) {
	if res != resOK {
		q.stop(tag, res)
		return Request{}, Stopped
	}
	d := &q.descs[tag]
	q.states[tag] = tagServing
	r := Request{
		Tag: tag, Op: d.op(), FUA: d.OpFlags&flagFUA != 0, NoUnmap: d.OpFlags&flagNoUnmap != 0,
		Start: d.StartSector, Sectors: d.Sectors,
	}
	q.sectors[tag] = 0
	if r.Op == Read || r.Op == Write {
		length := uint64(r.Sectors) << sectorShift
		if length > uint64(q.maxIO) {
			if err := q.Commit(tag, unix.EIO); err != nil {
				q.stop(tag, -int32(unix.EIO))
				return Request{}, Stopped
			}
			return Request{}, Answered
		}
		q.sectors[tag] = r.Sectors
		r.Buf = q.buffers[tag][:length]
	}
	return r, Serving
}

// Buffers are the memory of the tags.
func (q *Queue) Buffers() [][]byte { return slices.Clone(q.buffers) }

// SetBuffer gives tag other memory, as long as what it has. What the request that it serves has read is committed from
// there; the old memory is the caller's.
func (q *Queue) SetBuffer(tag uint16, buf []byte) { q.buffers[tag] = buf[:q.maxIO] }

// Commit prepares the answer to the request that tag serves, and the fetch of the next. errno 0 is success in full;
// there is no other: the driver takes a short write for a full one. The buffer is the kernel's from here on. An error
// means that the queue cannot go on; the process should end and be recovered.
func (q *Queue) Commit(tag uint16, errno unix.Errno) error {
	if q.states[tag] != tagServing {
		return fmt.Errorf("ublk: commit of tag %d, which serves no request: %w", tag, unix.EINVAL)
	}
	return q.command(ioCommitAndFetchReq, tag, q.result(tag, errno))
}

// result is what the driver gets for the request that tag serves: bytes if it moves data, 0, or a negative errno.
func (q *Queue) result(tag uint16, errno unix.Errno) int32 {
	switch errno {
	case 0:
		return int32(q.sectors[tag] << sectorShift)
	case unix.EAGAIN:
		// Clients would take it for a non-blocking request that may be tried again.
		return -int32(unix.EIO)
	}
	return -int32(errno)
}

// Stopped reports whether every tag is back, so that the queue can be closed.
func (q *Queue) Stopped() bool { return q.stopped == len(q.states) }

// Err is why the first tag that did not come back with the end of the device stopped, or nil.
func (q *Queue) Err() error { return q.err }

// Close unmaps the descriptors and takes the device out of the ring's table. The buffers stay the arena's. A queue
// that is not stopped would leave its tags without a server: there is no way back but recovery.
func (q *Queue) Close() error {
	err := errors.Join(unix.Munmap(q.mapping), q.ring.UpdateFile(q.slot, -1))
	q.mapping, q.descs = nil, nil
	if err != nil {
		return fmt.Errorf("ublk: close queue %d: %w", q.id, err)
	}
	return nil
}

func (q *Queue) command(op uint32, tag uint16, result int32) error {
	sqe := q.ring.SQE()
	if sqe == nil {
		if err := q.ring.Submit(); err != nil {
			return err
		}
		if sqe = q.ring.SQE(); sqe == nil {
			return fmt.Errorf("ublk: queue %d, tag %d: submission ring of %d entries stays full: %w",
				q.id, tag, q.ring.Entries(), unix.EBUSY)
		}
	}
	// Not by its slot: before Linux 6.13 a command by any slot keeps every file that leaves the table later open until
	// it completes, and these wait for as long as the device is idle. A member that was removed would stay claimed.
	sqe.PrepCommand(uring.FD(q.fd), op)
	sqe.UserData = q.userData | uint64(tag)
	*(*ioCmd)(unsafe.Pointer(unsafe.SliceData(q.ring.Payload(sqe)))) = ioCmd{
		Queue: q.id, Tag: tag, Result: result,
		Addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(q.buffers[tag])))),
	}
	q.states[tag] = tagFetching
	return nil
}

func (q *Queue) stop(tag uint16, res int32) {
	if q.states[tag] == tagStopped {
		return
	}
	q.states[tag] = tagStopped
	q.stopped++
	switch {
	case res == resAbort || q.err != nil:
	case res < 0:
		q.err = fmt.Errorf("ublk: queue %d, tag %d: %w", q.id, tag, unix.Errno(-res))
	default:
		q.err = fmt.Errorf("ublk: queue %d, tag %d: result %d: %w", q.id, tag, res, unix.EPROTO)
	}
}

// op is the operation of a descriptor.
func (d *ioDesc) op() ReqOp { return ReqOp(d.OpFlags) }

// dropSysAdmin takes CAP_SYS_ADMIN from the effective set of the calling thread, and returns how to give it back.
func dropSysAdmin() (restore func() error, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData // a set has 64 bits, in two halves
	if err := unix.Capget(&header, &before[0]); err != nil {
		return nil, fmt.Errorf("ublk: read capabilities: %w", err)
	}
	now := before
	now[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	if err := unix.Capset(&header, &now[0]); err != nil {
		return nil, fmt.Errorf("ublk: drop CAP_SYS_ADMIN: %w", err)
	}
	return func() error {
		if err := unix.Capset(&header, &before[0]); err != nil {
			return fmt.Errorf("ublk: take CAP_SYS_ADMIN back: %w", err)
		}
		return nil
	}, nil
}

func pageUp(n int) int {
	page := os.Getpagesize()
	return (n + page - 1) / page * page
}
