package uring

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrArenaFull is wrapped when an [Arena] has too little room left.
var ErrArenaFull = errors.New("arena is full")

// ArenaConfig is how an arena is made.
type ArenaConfig struct {
	Size     int      // in bytes, rounded up to pages
	Populate bool     // fault everything in now, not on the first use
	File     *os.File // shared memory to use, such as a memfd that another process holds too; nil for private memory
}

// Arena is memory outside the Go heap: aligned to pages, never moved, unknown to the collector, and so fit for
// O_DIRECT and for operations in flight. Blocks are handed out and never taken back. It is not safe for concurrent
// use.
type Arena struct {
	mem    []byte
	fd     int // of the file behind it, or -1
	used   int
	blocks []int // where each begins
}

// NewArena maps an arena.
func NewArena(cfg ArenaConfig) (*Arena, error) {
	page := os.Getpagesize()
	size := (cfg.Size + page - 1) / page * page
	a := &Arena{fd: -1}
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if cfg.File != nil {
		var err error
		if a.fd, err = unix.FcntlInt(cfg.File.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("uring: duplicate a descriptor: %w", err)
		}
		flags = unix.MAP_SHARED
	}
	if cfg.Populate {
		flags |= unix.MAP_POPULATE
	}
	var err error
	if a.mem, err = unix.Mmap(a.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		return nil, errors.Join(fmt.Errorf("uring: map arena of %d bytes: %w", size, err), a.closeFile())
	}
	return a, nil
}

// SharedMemory returns memory that others can be given, as a file without a name: size bytes of zeroes, which take
// room when they are used. It is never swapped out, whoever has it and whether anybody does: who reads it may be the
// one that swap is to be served by. The kernel's memfd is, once no process is left that has locked it; it is what
// those get who may not mount.
func SharedMemory(name string, size int) (*os.File, error) {
	fd, err := unswapped()
	if err != nil {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("uring: shared memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if err := file.Truncate(int64(size)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// unswapped makes a file without a name in a file system of its own, which is mounted nowhere, without swap (Linux
// 6.4, Documentation/filesystems/tmpfs.rst) and without a limit of its own.
func unswapped() (int, error) {
	tmpfs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(tmpfs) }()
	if err := errors.Join(unix.FsconfigSetFlag(tmpfs, "noswap"), unix.FsconfigSetString(tmpfs, "size", "0"),
		unix.FsconfigCreate(tmpfs)); err != nil {
		return -1, err
	}
	mount, err := unix.Fsmount(tmpfs, unix.FSMOUNT_CLOEXEC,
		unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(mount) }()
	return unix.Openat(mount, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
}

// Block returns a block of n bytes that begins on a page of its own. Without a file behind the arena it is zero.
// Returns an error wrapping [ErrArenaFull] if the room that is left is too small.
func (a *Arena) Block(n int) ([]byte, error) {
	if n < 0 || n > len(a.mem)-a.used {
		return nil, fmt.Errorf("uring: block of %d bytes, %d left: %w", n, len(a.mem)-a.used, ErrArenaFull)
	}
	block := a.mem[a.used : a.used+n : a.used+n]
	page := os.Getpagesize()
	a.blocks = append(a.blocks, a.used)
	a.used = (a.used + n + page - 1) / page * page
	return block, nil
}

// Timespec returns room for the argument of [SQE.PrepTimeout], in a block of its own.
func (a *Arena) Timespec() (*Timespec, error) {
	block, err := a.Block(int(unsafe.Sizeof(Timespec{})))
	if err != nil {
		return nil, err
	}
	return (*Timespec)(unsafe.Pointer(unsafe.SliceData(block))), nil
}

// Pages is the size of the arena in pages.
func (a *Arena) Pages() int { return len(a.mem) / os.Getpagesize() }

// Page returns the number of the page that buf lies in, and the whole page; nil if it lies in more than one, or in
// none of the arena's.
func (a *Arena) Page(buf []byte) (number int, page []byte) {
	size := os.Getpagesize()
	at := a.Offset(buf)
	if at < 0 || at%size+len(buf) > size {
		return 0, nil
	}
	number = at / size
	return number, a.mem[number*size : (number+1)*size : (number+1)*size]
}

// Holder returns the number of the block that buf is a part of, counted from the first that was handed out, and all
// pages of the block; nil if there is no such block.
func (a *Arena) Holder(buf []byte) (number int, block []byte) {
	at := a.Offset(buf)
	next, _ := slices.BinarySearch(a.blocks, at+1)
	if at < 0 || next == 0 {
		return 0, nil
	}
	from, to := a.blocks[next-1], a.used
	if next < len(a.blocks) {
		to = a.blocks[next]
	}
	if at+len(buf) > to {
		return 0, nil
	}
	return next - 1, a.mem[from:to:to]
}

// Offset returns where in the arena buf begins, or -1 if it is empty or not there.
func (a *Arena) Offset(buf []byte) int {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(buf))) - uintptr(unsafe.Pointer(unsafe.SliceData(a.mem)))
	if len(buf) == 0 || at >= uintptr(len(a.mem)) {
		return -1
	}
	return int(at)
}

// Bytes is the whole arena.
func (a *Arena) Bytes() []byte { return a.mem }

// Release gives the memory of a block back to the kernel: it is zero from now on, and takes room when it is used
// again. Preconditions: no operation in it is in flight, and no part of it is registered with a ring.
func (a *Arena) Release(block []byte) error {
	var err error
	if a.fd >= 0 {
		const hole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		err = unix.Fallocate(a.fd, hole, int64(a.Offset(block)), int64(len(block)))
	} else {
		err = unix.Madvise(block, unix.MADV_DONTNEED_LOCKED)
	}
	if err != nil {
		return fmt.Errorf("uring: release %d bytes: %w", len(block), err)
	}
	return nil
}

// Populate faults in what a block of an arena lacks, and may take as long as the kernel needs to find memory.
func Populate(block []byte) error {
	if err := unix.Madvise(block, unix.MADV_POPULATE_WRITE); err != nil {
		return fmt.Errorf("uring: populate %d bytes: %w", len(block), err)
	}
	return nil
}

// Close unmaps the arena. A block that is used after it ends the process with a fault.
func (a *Arena) Close() error {
	err := errors.Join(unix.Munmap(a.mem), a.closeFile())
	*a = Arena{fd: -1}
	if err != nil {
		return fmt.Errorf("uring: unmap arena: %w", err)
	}
	return nil
}

func (a *Arena) closeFile() error {
	if a.fd < 0 {
		return nil
	}
	return unix.Close(a.fd)
}

// Set sets a duration for [SQE.PrepTimeout].
func (t *Timespec) Set(d time.Duration) { t.Sec, t.Nsec = int64(d/time.Second), int64(d%time.Second) }
