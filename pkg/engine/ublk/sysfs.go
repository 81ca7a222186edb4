package ublk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// setQueue writes queue attributes below /sys/block. Each write may wait until the queue is frozen, that is, for I/O.
// It also ends the throttling of write-back, which the members have themselves, and which costs every request a
// percent or two.
func (c *Controller) setQueue(cmd Command) error {
	if cmd.Queue == nil {
		return fmt.Errorf("no queue attributes: %w", unix.EINVAL)
	}
	q := *cmd.Queue
	if q.IOTimeout.Milliseconds() <= 0 {
		return fmt.Errorf("I/O timeout of %v, want a millisecond or more: %w", q.IOTimeout, unix.EINVAL)
	}
	stable := "0"
	if q.StableWrites {
		stable = "1"
	}
	dir := filepath.Join(c.sysfs, filepath.Base(cmd.Device.BlockPath()), "queue")
	return errors.Join(
		writeAttribute(filepath.Join(dir, "scheduler"), q.Scheduler),
		writeAttribute(filepath.Join(dir, "io_timeout"), strconv.FormatInt(q.IOTimeout.Milliseconds(), 10)),
		writeAttribute(filepath.Join(dir, "stable_writes"), stable),
		writeOptional(filepath.Join(dir, "wbt_lat_usec"), "0"),
	)
}

// writeOptional writes a file that not every kernel has.
func writeOptional(path, value string) error {
	if err := writeAttribute(path, value); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeAttribute writes a file that must exist, in one system call.
func writeAttribute(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
