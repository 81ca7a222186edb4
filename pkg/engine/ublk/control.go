package ublk

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Op names a control command, in the socket protocol and in errors.
type Op string

// The control commands. SetQueue is a write to sysfs, which like them may wait for I/O and so must not come from the
// engine.
const (
	OpFeatures          Op = "features"
	OpAddDev            Op = "add_dev"
	OpSetParams         Op = "set_params"
	OpDevInfo           Op = "dev_info"
	OpStartDev          Op = "start_dev"
	OpStopDev           Op = "stop_dev"
	OpDelDev            Op = "del_dev"
	OpDelDevAsync       Op = "del_dev_async"
	OpStartUserRecovery Op = "start_user_recovery"
	OpEndUserRecovery   Op = "end_user_recovery"
	OpSetQueue          Op = "set_queue"
)

// Command is one control command with its arguments.
type Command struct {
	Op     Op               `json:"op"`
	Device DeviceID         `json:"device"`
	PID    int              `json:"pid,omitempty"`    // of OpStartDev and OpEndUserRecovery
	Info   *DevInfo         `json:"info,omitempty"`   // of OpAddDev
	Params *Params          `json:"params,omitempty"` // of OpSetParams
	Queue  *QueueAttributes `json:"queue,omitempty"`  // of OpSetQueue
}

// Reply is what a command that succeeded says.
type Reply struct {
	Features Features `json:"features,omitempty"` // of OpFeatures
	Info     DevInfo  `json:"info"`               // of OpAddDev and OpDevInfo
}

// Commander carries out control commands: a [Controller], a [Client], or what a test needs. It must be safe for
// concurrent use: OpStartDev returns only when the queues of the device are served.
type Commander interface {
	Do(ctx context.Context, c Command) (Reply, error)
}

// Control is the control commands as methods, whoever carries them out. Errors of the driver wrap their unix.Errno.
// When ctx ends first, nothing is undone: the error wraps the cause, and [ErrPending] unless the driver gave up.
type Control struct{ Commander }

// Features asks what the running driver can do.
func (c Control) Features(ctx context.Context) (Features, error) {
	r, err := c.Do(ctx, Command{Op: OpFeatures})
	return r.Features, err
}

// AddDev adds a device and returns it as granted, which may be less than what was asked.
func (c Control) AddDev(ctx context.Context, info DevInfo) (DevInfo, error) {
	r, err := c.Do(ctx, Command{Op: OpAddDev, Device: info.ID, Info: &info})
	return r.Info, err
}

// SetParams describes the device to clients. EACCES once it has started.
func (c Control) SetParams(ctx context.Context, id DeviceID, p Params) error {
	return c.do(ctx, Command{Op: OpSetParams, Device: id, Params: &p})
}

// DevInfo asks for the current state of a device. ENODEV if there is none.
func (c Control) DevInfo(ctx context.Context, id DeviceID) (DevInfo, error) {
	r, err := c.Do(ctx, Command{Op: OpDevInfo, Device: id})
	return r.Info, err
}

// StartDev makes the block device appear. It returns when every tag was fetched by the server, whose process is pid,
// and partition tables were read: the server must be serving.
func (c Control) StartDev(ctx context.Context, id DeviceID, pid int) error {
	return c.do(ctx, Command{Op: OpStartDev, Device: id, PID: pid})
}

// StopDev flushes, waits for all requests and removes the block device, whether clients have it open or not.
func (c Control) StopDev(ctx context.Context, id DeviceID) error {
	return c.do(ctx, Command{Op: OpStopDev, Device: id})
}

// DelDev removes the device and waits until nobody has any part of it open.
func (c Control) DelDev(ctx context.Context, id DeviceID) error {
	return c.do(ctx, Command{Op: OpDelDev, Device: id})
}

// DelDevAsync is DelDev without the wait: the number is free again later.
func (c Control) DelDevAsync(ctx context.Context, id DeviceID) error {
	return c.do(ctx, Command{Op: OpDelDevAsync, Device: id})
}

// StartUserRecovery prepares a device whose server died for the next one. EBUSY until everything that the dead one
// had open, its ring included, is gone: try again. EBUSY for ever if the device was never live with a server, which
// DevInfo tells from that: it says Quiesced when there is something to recover, in the end. Such a device can be
// stopped and deleted only.
//
// A device that is prepared already stays so: whoever did that died before it had fetched a tag, of which Linux before
// 6.16 says EINVAL, whether its ring is gone or not: for that OpenDevice waits.
func (c Control) StartUserRecovery(ctx context.Context, id DeviceID) error {
	err := c.do(ctx, Command{Op: OpStartUserRecovery, Device: id})
	if !errors.Is(err, unix.EINVAL) {
		return err
	}

	if info, infoErr := c.DevInfo(ctx, id); infoErr == nil && info.State == Quiesced {
		return nil
	}

	return err
}

// EndUserRecovery lets requests through to the new server, whose process is pid, when it has fetched every tag.
func (c Control) EndUserRecovery(ctx context.Context, id DeviceID, pid int) error {
	return c.do(ctx, Command{Op: OpEndUserRecovery, Device: id, PID: pid})
}

// SetQueue sets attributes of a started block device.
func (c Control) SetQueue(ctx context.Context, id DeviceID, q QueueAttributes) error {
	return c.do(ctx, Command{Op: OpSetQueue, Device: id, Queue: &q})
}

func (c Control) do(ctx context.Context, cmd Command) error {
	_, err := c.Do(ctx, cmd)
	return err
}

// commandError says which command met err, in the words that every Commander uses.
func commandError(c Command, err error) error {
	if c.Op == OpFeatures {
		return fmt.Errorf("ublk: %s: %w", c.Op, err)
	}
	return fmt.Errorf("ublk: %s of device %d: %w", c.Op, c.Device, err)
}
