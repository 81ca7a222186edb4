package member

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// directBlock is the alignment that every device takes for direct I/O.
const directBlock = 4096

// Direct is a descriptor that is open for O_DIRECT: what is read through it
// comes from the device, whatever a cache has kept.
type Direct struct {
	FD   int
	Size int64 // in bytes
}

// ReadAt implements io.ReaderAt, at any alignment. What could not be read whole
// was not read at all: a reader that tells an empty device by what it got must
// not take a broken one for it.
func (d Direct) ReadAt(p []byte, off int64) (int, error) {
	start := off / directBlock * directBlock
	end := min((off+int64(len(p))+directBlock-1)/directBlock*directBlock, d.Size)

	if off < 0 || off+int64(len(p)) > end {
		return 0, fmt.Errorf("member: read %d bytes at %d of %d: beyond the end", len(p), off, d.Size)
	}

	copied := 0

	err := aligned(int(end-start), func(buf []byte) error {
		if err := d.fill(buf, start); err != nil {
			return err
		}

		copied = copy(p, buf[off-start:])

		return nil
	})
	if err != nil {
		return 0, err
	}

	return copied, nil
}

// fill reads whole logical blocks into memory that begins a page.
func (d Direct) fill(buf []byte, off int64) error {
	n, err := unix.Pread(d.FD, buf, off)
	if err == nil && n != len(buf) {
		err = fmt.Errorf("%d of %d bytes", n, len(buf))
	}

	if err != nil {
		return fmt.Errorf("member: read at %d: %w", off, err)
	}

	return nil
}

// WriteAt implements io.WriterAt, for whole logical blocks.
func (d Direct) WriteAt(p []byte, off int64) (int, error) {
	err := aligned(len(p), func(buf []byte) error {
		copy(buf, p)

		n, err := unix.Pwrite(d.FD, buf, off)
		if err == nil && n != len(buf) {
			err = fmt.Errorf("%d of %d bytes", n, len(buf))
		}

		if err != nil {
			return fmt.Errorf("member: write at %d: %w", off, err)
		}

		return nil
	})
	if err != nil {
		return 0, err
	}

	return len(p), nil
}

// aligned calls f with a buffer that begins a page.
func aligned(size int, f func(buf []byte) error) error {
	if size == 0 {
		return nil
	}

	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("member: memory: %w", err)
	}

	return errors.Join(f(mem), unix.Munmap(mem))
}
