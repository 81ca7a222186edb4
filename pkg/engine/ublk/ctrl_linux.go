package ublk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/uring"
)

// cancelGrace is how long a command may take to notice that it was cancelled. What waits for a server or for others
// to let go of a device does so at once; what waits for I/O does not.
const cancelGrace = 500 * time.Millisecond

// Controller carries out control commands in the kernel. It belongs into the guardian: see the package comment. It is
// safe for concurrent use.
type Controller struct {
	file  *os.File
	sysfs string
}

// NewController opens the control device. Returns an error wrapping fs.ErrNotExist if the module ublk_drv is not
// loaded: nothing loads it by itself.
func NewController() (*Controller, error) {
	file, err := os.OpenFile(ctrlPath, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("ublk: open control device (is ublk_drv loaded?): %w", err)
	}
	return &Controller{file: file, sysfs: "/sys/block"}, nil
}

// Close closes the control device. Commands that are pending keep what they need.
func (c *Controller) Close() error { return c.file.Close() }

// Do carries out one command. When ctx ends, the driver is asked to give up, which it can while it waits for a server
// or for somebody to close a device; the error wraps the cause, and [ErrPending] if the command goes on regardless.
func (c *Controller) Do(ctx context.Context, cmd Command) (Reply, error) {
	type result struct {
		reply Reply
		err   error
	}
	done := make(chan result, 1)
	go func() {
		// The kernel runs the command in a worker of this very thread, and cancels it if the thread ends. The thread
		// is not given back: it ends with the goroutine, and takes the worker with it.
		runtime.LockOSThread()
		reply, err := c.run(ctx, cmd)
		done <- result{reply, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		select {
		case r = <-done:
		case <-time.After(cancelGrace):
			r.err = fmt.Errorf("%w: %w", ErrPending, context.Cause(ctx))
		}
	}
	if r.err != nil {
		return Reply{}, commandError(cmd, r.err)
	}
	return r.reply, nil
}

func (c *Controller) run(ctx context.Context, cmd Command) (Reply, error) {
	if cmd.Op == OpSetQueue {
		return Reply{}, c.setQueue(cmd)
	}
	req, err := newRequest(cmd)
	if err != nil {
		return Reply{}, err
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(req)
	req.payload.Addr = uint64(uintptr(unsafe.Pointer(&req.buf)))
	res, err := execute(ctx, int(c.file.Fd()), req)
	switch {
	case err != nil:
		return Reply{}, err
	case res == -int32(unix.EINTR) || res == -int32(unix.ECANCELED):
		return Reply{}, fmt.Errorf("%w: %w", unix.Errno(-res), context.Cause(ctx))
	case res < 0:
		return Reply{}, unix.Errno(-res)
	}
	return req.reply(cmd.Op), nil
}

// request is a control command in the kernel's terms. The kernel writes to buf while the command runs.
type request struct {
	op      uint32
	payload ctrlCmd
	buf     [8]uint64
}

// opcodes are the commands that the driver carries out.
var opcodes = map[Op]uint32{
	OpFeatures:          cmdGetFeatures,
	OpAddDev:            cmdAddDev,
	OpSetParams:         cmdSetParams,
	OpDevInfo:           cmdGetDevInfo,
	OpStartDev:          cmdStartDev,
	OpStopDev:           cmdStopDev,
	OpDelDev:            cmdDelDev,
	OpDelDevAsync:       cmdDelDevAsync,
	OpStartUserRecovery: cmdStartUserRecovery,
	OpEndUserRecovery:   cmdEndUserRecovery,
}

func newRequest(cmd Command) (*request, error) {
	op, ok := opcodes[cmd.Op]
	if !ok {
		return nil, fmt.Errorf("unknown command: %w", unix.EINVAL)
	}
	req := &request{op: op, payload: ctrlCmd{DevID: uint32(cmd.Device), QueueID: noQueue, Data: uint64(cmd.PID)}}
	switch cmd.Op {
	case OpFeatures:
		req.payload.DevID = 0
		req.payload.Len = 8
	case OpDevInfo:
		req.payload.Len = uint16(unsafe.Sizeof(devInfo{}))
	case OpAddDev:
		if cmd.Info == nil {
			return nil, fmt.Errorf("no device info: %w", unix.EINVAL)
		}
		info, err := cmd.Info.encode()
		if err != nil {
			return nil, err
		}
		// The driver refuses a number that differs between the two structures.
		req.payload.DevID = info.DevID
		req.payload.Len = uint16(unsafe.Sizeof(info))
		*(*devInfo)(unsafe.Pointer(&req.buf)) = info
	case OpSetParams:
		if cmd.Params == nil {
			return nil, fmt.Errorf("no parameters: %w", unix.EINVAL)
		}
		params, err := cmd.Params.encode()
		if err != nil {
			return nil, err
		}
		req.payload.Len = paramsLen
		*(*paramsABI)(unsafe.Pointer(&req.buf)) = params
	case OpStartDev, OpStopDev, OpDelDev, OpDelDevAsync, OpStartUserRecovery, OpEndUserRecovery, OpSetQueue:
		// No buffer.
	}
	return req, nil
}

func (req *request) reply(op Op) Reply {
	if op == OpFeatures {
		return Reply{Features: Features(req.buf[0])}
	}
	if op == OpAddDev || op == OpDevInfo {
		return Reply{Info: (*devInfo)(unsafe.Pointer(&req.buf)).decode()}
	}
	return Reply{}
}

// User data of the three operations in a control ring.
const (
	udCommand = iota
	udWake
	udCancel
)

// execute runs one command in a ring of its own, on the calling thread, and returns its result.
func execute(ctx context.Context, fd int, req *request) (int32, error) {
	ring, err := uring.New(uring.Config{Entries: 4, SQE128: true})
	if err != nil {
		return 0, err
	}
	wake, err := uring.NewWake()
	if err != nil {
		return 0, errors.Join(err, ring.Close())
	}
	signalled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(signalled)
		_ = wake.Signal() // without it the command is not cancelled, and Do says so
	})
	res, err := wait(ring, wake, fd, req)
	if !stop() {
		<-signalled
	}
	return res, errors.Join(err, ring.Close(), wake.Close())
}

// wait submits the command, cancels it if the wake-up comes first, and waits until it has ended.
func wait(ring *uring.Ring, wake *uring.Wake, fd int, req *request) (int32, error) {
	sqe := ring.SQE()
	wake.Arm(sqe)
	sqe.UserData = udWake
	sqe = ring.SQE()
	sqe.PrepCommand(uring.FD(fd), req.op)
	sqe.UserData = udCommand
	*(*ctrlCmd)(unsafe.Pointer(unsafe.SliceData(ring.Payload(sqe)))) = req.payload
	for {
		if err := ring.SubmitAndWait(1); err != nil {
			return 0, err
		}
		var batch [4]uring.CQE
		for _, cqe := range batch[:ring.Reap(batch[:])] {
			switch cqe.UserData {
			case udCommand:
				return cqe.Res, nil
			case udWake:
				sqe := ring.SQE()
				sqe.PrepCancel(udCommand)
				sqe.UserData = udCancel
			default: // whether the cancellation took is seen in the command's own result
			}
		}
	}
}
