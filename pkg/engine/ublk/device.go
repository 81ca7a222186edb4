package ublk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// openPoll is how often OpenDevice looks for what it waits for.
const openPoll = 5 * time.Millisecond

// Device is the server's hold on a device until its queues have their own. Opening it is what makes the process the
// server: neither the descriptor nor its mappings work in another one.
type Device struct {
	file *os.File
	info DevInfo
}

// OpenDevice opens the server side of the device that info, as granted by AddDev or told by DevInfo, describes. It
// waits until ctx ends for a node that is not there yet, and, with EBUSY, for another server to let go: one that died
// in the midst of a recovery may still have transfers in its ring, of which Linux before 6.16 tells StartUserRecovery
// nothing.
func OpenDevice(ctx context.Context, info DevInfo) (*Device, error) {
	for {
		// Blocking, so that os keeps the descriptor out of its poller.
		fd, err := unix.Open(info.ID.ServerPath(), unix.O_RDWR|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return &Device{file: os.NewFile(uintptr(fd), info.ID.ServerPath()), info: info}, nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY):
			return nil, fmt.Errorf("ublk: open %s: %w", info.ID.ServerPath(), err)
		default:
			select {
			case <-time.After(openPoll):
			case <-ctx.Done():
				return nil, fmt.Errorf("ublk: open %s: %w: %w", info.ID.ServerPath(), err, context.Cause(ctx))
			}
		}
	}
}

// Close closes the plain descriptor, when every queue has its own hold. The queues keep the device open as a
// registered file of their rings, and that is the fence: the driver lets no successor in before the last reference to
// the device is gone, and a ring drops its files only after the last operation in it, member writes included, has
// ended. Without it, writes of a killed server could land after those of its successor.
func (d *Device) Close() error { return d.file.Close() }
