package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fileMax is how long the file of fsx gets.
const fileMax = 1 << 20

// tortured is a file, and what it should hold.
type tortured struct {
	rng    *rand.Rand
	f      *os.File
	direct int // a descriptor past the page cache
	want   []byte
	page   []byte // for I/O past the page cache
}

// fsx reads, writes, maps, truncates, punches, zeroes and syncs a file at random
// and checks what it reads, as the program of that name does.
func fsx(o options) (string, error) {
	f, err := os.OpenFile(o.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()

	direct, err := unix.Open(o.path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", o.path, err)
	}
	defer func() { _ = unix.Close(direct) }()

	page, err := buffer()
	if err != nil {
		return "", err
	}

	x := &tortured{rng: rand.New(rand.NewPCG(o.seed, 0)), f: f, direct: direct, page: page}
	steps := []func() error{
		x.write, x.write, x.write, x.read, x.read, x.readMapped, x.writeMapped, x.truncate, x.punch,
		x.zeroRange, x.sync, x.writeDirect, x.readDirect,
	}

	n := 0
	for began := time.Now(); (o.ops == 0 || n < o.ops) && (o.period == 0 || time.Since(began) < o.period); n++ {
		step := x.rng.IntN(len(steps))
		if err := steps[step](); err != nil {
			return "", fmt.Errorf("step %d (%d): %w", n, step, err)
		}
	}

	// What the disks hold counts, not what is in memory.
	if err := errors.Join(x.sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		return "", err
	}

	got, err := os.ReadFile(o.path)
	if err != nil {
		return "", err
	}

	if len(got) != len(x.want) {
		return "", fmt.Errorf("at the end: a file of %d bytes, want %d", len(got), len(x.want))
	}

	return fmt.Sprintf("%d steps", n), x.compare("at the end", got, 0)
}

// compare returns an error unless got is what the file should hold at a place.
func (x *tortured) compare(what string, got []byte, at int) error {
	for i, want := range x.want[at:min(at+len(got), len(x.want))] {
		if got[i] != want {
			return fmt.Errorf("%s: byte %d is %#x, want %#x", what, at+i, got[i], want)
		}
	}

	if at+len(got) > len(x.want) {
		return fmt.Errorf("%s: %d bytes at %d, of a file of %d", what, len(got), at, len(x.want))
	}

	return nil
}

// extent chooses a range within limit, in multiples of unit.
func (x *tortured) extent(limit, unit int) (at, n int) {
	if limit < unit {
		return 0, 0
	}

	n = (1 + x.rng.IntN(min(limit, 1<<17)/unit)) * unit

	return x.rng.IntN((limit-n)/unit+1) * unit, n
}

// grow makes room in what the file should hold.
func (x *tortured) grow(end int) {
	if end > len(x.want) {
		x.want = append(x.want, make([]byte, end-len(x.want))...)
	}
}

// noise puts something new at a place of the file, in what it should hold.
func (x *tortured) noise(at, n int) []byte {
	x.grow(at + n)

	p := x.want[at : at+n]

	word := x.rng.Uint64()
	for i := range p {
		p[i] = byte(word >> (i % 8 * 8))
	}

	return p
}

func (x *tortured) write() error {
	at, n := x.extent(fileMax, 1)
	_, err := x.f.WriteAt(x.noise(at, n), int64(at))

	return err
}

func (x *tortured) read() error {
	at, n := x.extent(len(x.want), 1)
	got := make([]byte, n)

	if _, err := x.f.ReadAt(got, int64(at)); err != nil {
		return err
	}

	return x.compare("read", got, at)
}

// mapped calls f with the file's content in memory.
func (x *tortured) mapped(f func(p []byte) error) error {
	if len(x.want) == 0 {
		return nil
	}

	p, err := unix.Mmap(int(x.f.Fd()), 0, len(x.want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}

	return errors.Join(f(p), unix.Munmap(p))
}

func (x *tortured) readMapped() error {
	return x.mapped(func(p []byte) error {
		at, n := x.extent(len(x.want), 1)

		return x.compare("read of the mapping", p[at:at+n], at)
	})
}

func (x *tortured) writeMapped() error {
	return x.mapped(func(p []byte) error {
		at, n := x.extent(len(x.want), 1)
		copy(p[at:], x.noise(at, n))

		return nil
	})
}

func (x *tortured) truncate() error {
	size := x.rng.IntN(fileMax)
	x.grow(size)
	x.want = x.want[:size]

	return x.f.Truncate(int64(size))
}

func (x *tortured) punch() error {
	return x.clear(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
}

func (x *tortured) zeroRange() error {
	return x.clear(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
}

func (x *tortured) clear(mode uint32) error {
	at, n := x.extent(len(x.want), 1)
	if n == 0 {
		return nil
	}

	clear(x.want[at : at+n])

	return unix.Fallocate(int(x.f.Fd()), mode, int64(at), int64(n))
}

func (x *tortured) sync() error { return x.f.Sync() }

func (x *tortured) writeDirect() error {
	at, n := x.extent(fileMax, 4096)
	copy(x.page, x.noise(at, n))

	_, err := unix.Pwrite(x.direct, x.page[:n], int64(at))

	return err
}

func (x *tortured) readDirect() error {
	at, n := x.extent(len(x.want), 4096)
	if n == 0 {
		return nil
	}

	if _, err := unix.Pread(x.direct, x.page[:n], int64(at)); err != nil {
		return err
	}

	return x.compare("direct read", x.page[:n], at)
}
