package member

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The partitions of a device are looked for so often, for somebody may just have a look at
// one, as udev does at each that appears.
const (
	hideTries = 25
	hidePause = 200 * time.Millisecond
)

// HidePartitions has the kernel forget the partitions of d while it is claimed: they would
// be a way to write to it. One that is in use stays. Returns when they are gone, or d is
// let go of, or it was tried for a while.
func (d *Device) HidePartitions() error {
	var err error

	for range hideTries {
		shared := d.Share() // so that the descriptor stays what it is
		if shared == nil {
			return nil
		}

		err = errors.Join(hidePartitions(shared.fd), shared.Close())
		if err == nil {
			return nil
		}

		time.Sleep(hidePause)
	}

	return fmt.Errorf("member: %s: %w", d.Path, err)
}

// hidePartitions has the kernel forget what partitions of a device are not in use.
func hidePartitions(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}

	device := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))

	files, err := filepath.Glob(device + "/*/partition")
	if err != nil {
		return err
	}

	var errs []error

	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it is gone
		}

		number, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
		if err == nil {
			err = deletePartition(fd, int32(number))
		}

		if err != nil && !errors.Is(err, unix.ENXIO) {
			errs = append(errs, fmt.Errorf("forget partition %s: %w", filepath.Base(filepath.Dir(file)), err))
		}
	}

	return errors.Join(errs...)
}

// blkpgPartition is struct blkpg_partition of include/uapi/linux/blkpg.h.
type blkpgPartition struct {
	_      [2]int64 // start and length
	number int32
	_      [128]byte // names
}

// blkpgArgument is struct blkpg_ioctl_arg of the same.
type blkpgArgument struct {
	op, flags, size int32
	data            *blkpgPartition
}

// deletePartition has the kernel forget a partition, which is not in use.
func deletePartition(fd int, number int32) error {
	const (
		blkPG       = 0x1269
		opPartition = 2 // BLKPG_DEL_PARTITION
	)

	p := blkpgPartition{number: number}
	arg := blkpgArgument{op: opPartition, size: int32(unsafe.Sizeof(p)), data: &p}

	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), blkPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}

	return nil
}
