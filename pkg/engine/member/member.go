// Package member is one device of an array: how it is opened, and what the
// result of an operation on it means.
//
// The I/O itself goes through the ring of the array's thread; only what happens
// before the array runs is read here, directly.
package member

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// ErrBusy says that something else holds the device: the kernel's md, a
// mounted filesystem, device-mapper, another engine.
var ErrBusy = errors.New("in use by something else")

// Device is a member that is open for O_DIRECT and claimed: no other exclusive
// opener, md and mount included, gets it while it is open.
type Device struct {
	Path   string
	Serial string
	Size   raid.Sectors
	Block  int // logical block size in bytes
	// Unmaps says that the device can be told to give up what it holds, and to
	// read as zeroes there.
	Unmaps bool

	fd     int
	users  *atomic.Int32 // how many Devices there are of this descriptor
	closed atomic.Bool
}

// Open opens and claims the block device at path.
//
// Returns an error wrapping [ErrBusy] if something else has claimed it.
func Open(path, serial string) (*Device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_EXCL|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("member: open %s: %w", path, ErrBusy)
	}

	if err != nil {
		return nil, fmt.Errorf("member: open %s: %w", path, err)
	}

	// Nobody asks when a member was last read. Where the node is not ours the
	// kernel goes on noting it, with each read.
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NOATIME)
	}

	d := &Device{Path: path, Serial: serial, fd: fd, users: new(atomic.Int32)}
	d.users.Store(1)

	if err := d.measure(); err != nil {
		return nil, errors.Join(fmt.Errorf("member: %s: %w", path, err), unix.Close(fd))
	}

	return d, nil
}

// measure reads the size and the block size of d, which must be a block device.
func (d *Device) measure() error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return err
	}

	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return errors.New("not a block device")
	}

	block, err := unix.IoctlGetInt(d.fd, unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("block size: %w", err)
	}

	size, err := unix.Seek(d.fd, 0, unix.SEEK_END)
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}

	d.Size, d.Block = raid.Sectors(size/raid.SectorSize), block
	d.Unmaps = unmaps(unix.Major(st.Rdev), unix.Minor(st.Rdev))

	return nil
}

// unmaps reports whether a device zeroes without being sent zeroes. A partition
// is asked through the disk that it is on.
func unmaps(major, minor uint32) bool {
	device := fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)

	for _, queue := range []string{"queue", "../queue"} {
		text, err := os.ReadFile(device + "/" + queue + "/write_zeroes_max_bytes")
		if err == nil {
			n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)

			return err == nil && n > 0
		}
	}

	return false
}

// FD is the descriptor for the ring.
func (d *Device) FD() int { return d.fd }

// Gone reports whether the device was removed: the kernel sets its size to 0.
func (d *Device) Gone() bool {
	size, err := unix.Seek(d.fd, 0, unix.SEEK_END)

	return err != nil || size == 0
}

// Share returns d for another user, who has to close it too: an array that lies
// on the same device. Returns nil if it is closed already.
func (d *Device) Share() *Device {
	for {
		n := d.users.Load()
		if n == 0 {
			return nil
		}

		if d.users.CompareAndSwap(n, n+1) {
			return &Device{
				Path: d.Path, Serial: d.Serial, Size: d.Size, Block: d.Block, Unmaps: d.Unmaps,
				fd: d.fd, users: d.users,
			}
		}
	}
}

// Same reports whether d and other share the device.
func (d *Device) Same(other *Device) bool { return d.users != nil && d.users == other.users }

// Close lets go of the device, once; the last of those who share it closes it.
// Operations in flight end by themselves.
func (d *Device) Close() error {
	if d.closed.Swap(true) || d.users.Add(-1) > 0 {
		return nil
	}

	if err := unix.Close(d.fd); err != nil {
		return fmt.Errorf("member: close %s: %w", d.Path, err)
	}

	return nil
}

// Source is what a metadata module reads d through.
func (d *Device) Source() metadata.Source {
	return metadata.Source{ReaderAt: d, Size: d.Size, Block: d.Block, Serial: d.Serial}
}

// ReadAt reads past the page cache, at any alignment.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	n, err := Direct{FD: d.fd, Size: d.Size.Bytes()}.ReadAt(p, off)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", d.Path, err)
	}

	return n, nil
}

// Write writes whole logical blocks.
func (d *Device) Write(p []byte, at raid.Sectors) error {
	if _, err := (Direct{FD: d.fd, Size: d.Size.Bytes()}).WriteAt(p, at.Bytes()); err != nil {
		return fmt.Errorf("%s: %w", d.Path, err)
	}

	return nil
}

// Flush has what was written be on stable storage.
func (d *Device) Flush() error {
	if err := unix.Fdatasync(d.fd); err != nil {
		return fmt.Errorf("member: flush %s: %w", d.Path, err)
	}

	return nil
}

// edge is how much of either end of a device holds the metadata of all
// formats, or leads to it, and what is to be erased there: an anchor of DDF may be
// 257 sectors before the end, in a block of 4096 bytes.
const edge = 256 << 10

// Preload calls use with [Device.Source] with both ends of the device read already and
// what formats look for, and nothing else to be had: for threads that must not wait for
// a disk. It is good for no longer than that: the memory is not the collector's, who would
// set to work for that much, and keep a spare waiting.
func (d *Device) Preload(use func(metadata.Source) error, formats ...metadata.Format) error {
	size := d.Size.Bytes()
	each := min(edge, size)
	from := Direct{FD: d.fd, Size: size}

	return aligned(int(2*each), func(mem []byte) error {
		p := &preloaded{head: mem[:each], tail: mem[each:], size: size}
		defer func() { *p = preloaded{size: size} }()

		if err := errors.Join(from.fill(p.head, 0), from.fill(p.tail, size-each)); err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}

		src := d.Source()
		src.ReaderAt, p.more = p, d

		for _, f := range formats {
			_, _ = f.Probe(src) // whoever probes again will see
		}

		p.more = nil

		return use(src)
	})
}

// preloaded is both ends of a device, and pieces from between them.
type preloaded struct {
	head, tail []byte
	size       int64
	pieces     []piece
	more       io.ReaderAt // where further pieces are to be had; nil once all are read
}

// piece is what was read at an offset.
type piece struct {
	off  int64
	data []byte
}

func (p *preloaded) ReadAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	tail := p.size - int64(len(p.tail))

	switch {
	case off >= 0 && end <= int64(len(p.head)):
		return copy(b, p.head[off:end]), nil
	case off >= tail && end <= p.size:
		return copy(b, p.tail[off-tail:end-tail]), nil
	}

	for _, kept := range p.pieces {
		if off >= kept.off && end <= kept.off+int64(len(kept.data)) {
			return copy(b, kept.data[off-kept.off:]), nil
		}
	}

	if p.more == nil {
		return 0, fmt.Errorf("member: %d bytes at %d were not read in advance", len(b), off)
	}

	n, err := p.more.ReadAt(b, off)
	if n == len(b) {
		p.pieces = append(p.pieces, piece{off, bytes.Clone(b)})
	}

	return n, err
}

// Transient reports whether an operation failed for want of what the kernel needs for
// it, or because a signal came, which says nothing of the device. io_uring cancels
// requests if it cannot make a thread for them; EFAULT is what a request ends with whose
// memory is touched for the first time, and cannot be had.
func Transient(res int32) bool {
	switch unix.Errno(max(0, -res)) {
	case unix.EAGAIN, unix.EINTR, unix.ECANCELED, unix.ENOMEM, unix.ENOBUFS, unix.EFAULT:
		return true
	}

	return false
}

// Partial reports whether an operation did a part of what was wanted: the device ends
// there, or no memory could be had for the rest. Whoever asks for that finds out.
func Partial(res int32, want int) bool {
	return res > 0 && int(res) < want && res%raid.SectorSize == 0
}

// Reason is the result of an operation that failed, in words.
func Reason(res int32, want int) string {
	if res < 0 {
		return unix.Errno(-res).Error()
	}

	return fmt.Sprintf("%d of %d bytes", res, want)
}

// Outcome is what the result of an operation means for the member. A device
// that was removed answers writes with ENOSPC and reads with no bytes, since
// the kernel sets its size to 0. What is told of sectors is believed of no more
// than these; a flush is about all of them.
func Outcome(op stripe.Op, res int32, want int) stripe.Fault {
	if res >= 0 && (op == stripe.Flush || int(res) == want) {
		return stripe.None
	}

	switch unix.Errno(max(0, -res)) {
	case unix.EIO, unix.EILSEQ, unix.ENODATA:
		if op != stripe.Flush {
			return stripe.Medium
		}
	}

	return stripe.Gone
}
