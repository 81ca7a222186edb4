package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"raid-assembler/lab/internal/exercise"
)

// device is a block device or a file, past the page cache.
type device struct {
	path    string
	fd      int
	sectors int64
	unit    int64 // of the device's own sectors, in ours
}

const pieceMax = 1 << 20

func openDevice(path string) (*device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}

	d := &device{path: path, fd: fd, unit: 1}

	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("size of %s: %w", path, err), unix.Close(fd))
	}

	// A file has no such thing.
	if sector, err := unix.IoctlGetInt(fd, unix.BLKSSZGET); err == nil {
		d.unit = int64(sector) / exercise.SectorSize
	}

	d.sectors = size / exercise.SectorSize

	return d, nil
}

func (d *device) close() { _ = unix.Close(d.fd) }

// buffer returns memory that is aligned as direct I/O wants it.
func buffer() ([]byte, error) {
	p, err := unix.Mmap(-1, 0, pieceMax, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}

	return p, nil
}

// walk calls f with all of the device, one piece after the other.
func (d *device) walk(f func(first int64, p []byte) error) error {
	p, err := buffer()
	if err != nil {
		return err
	}

	const piece = pieceMax / exercise.SectorSize

	for first := int64(0); first < d.sectors; first += piece {
		if err := f(first, p[:min(piece, d.sectors-first)*exercise.SectorSize]); err != nil {
			return err
		}
	}

	return unix.Munmap(p)
}

func (d *device) readAt(p []byte, first int64) error {
	n, err := unix.Pread(d.fd, p, first*exercise.SectorSize)
	if err != nil || n != len(p) {
		return fmt.Errorf("read of %d bytes at sector %d: %d, %w", len(p), first, n, err)
	}

	return nil
}

func (d *device) writeAt(p []byte, first int64) error { return d.write(p, first, 0) }

func (d *device) write(p []byte, first int64, flags int) error {
	n, err := unix.Pwritev2(d.fd, [][]byte{p}, first*exercise.SectorSize, flags)
	if err != nil || n != len(p) {
		return fmt.Errorf("write of %d bytes at sector %d: %d, %w", len(p), first, n, err)
	}

	return nil
}

func (d *device) flush() error {
	if err := unix.Fsync(d.fd); err != nil {
		return fmt.Errorf("flush: %w", err)
	}

	return nil
}

// zero has the device zero a range by itself.
func (d *device) zero(first, count int64) error {
	err := unix.Fallocate(d.fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE,
		first*exercise.SectorSize, count*exercise.SectorSize)
	if err != nil {
		return fmt.Errorf("zeroing of %d sectors at %d: %w", count, first, err)
	}

	return nil
}

// discard discards a range, where the device can.
func (d *device) discard(first, count int64) error {
	out, err := exec.Command("blkdiscard", "-f", "-o", strconv.FormatInt(first*exercise.SectorSize, 10),
		"-l", strconv.FormatInt(count*exercise.SectorSize, 10), d.path).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("not supported")) {
		return fmt.Errorf("discard of %d sectors at %d: %w: %s", count, first, err, out)
	}

	return nil
}

// openBoth opens the device and reads its model.
func openBoth(o options) (*device, *exercise.Model, error) {
	f, err := os.Open(o.model)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()

	m, err := exercise.ReadModel(f)
	if err != nil {
		return nil, nil, err
	}

	d, err := openDevice(o.path)
	if err != nil {
		return nil, nil, err
	}

	if d.sectors != int64(len(m.Sectors)) {
		d.close()

		return nil, nil, fmt.Errorf("%s has %d sectors, its model %d", o.path, d.sectors, len(m.Sectors))
	}

	return d, m, nil
}

// saveModel replaces the model in one step, since the power may fail.
func saveModel(path string, m *exercise.Model) error {
	var data bytes.Buffer
	if err := m.Write(&data); err != nil {
		return err
	}

	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}

	_, err = f.Write(data.Bytes())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}

	if err := os.Rename(path+".new", path); err != nil {
		return err
	}

	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}

	return errors.Join(dir.Sync(), dir.Close())
}
