package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/uring"
)

// workload is what is done to a device.
type workload struct {
	name   string
	size   int // of each request, in bytes; 0 for one row of chunks
	write  bool
	random bool
	depth  int
	count  int // of requests that are counted
}

// The smallest requests show what a request costs, the largest what a byte does.
var workloads = []workload{
	{"4 KiB random read", 4 << 10, false, true, 32, 8192},
	{"4 KiB random write", 4 << 10, true, true, 32, 8192},
	{"64 KiB random write", 64 << 10, true, true, 8, 1024},
	{"64 KiB sequential write", 64 << 10, true, false, 8, 2048},
	{"full-stripe write", 0, true, true, 4, 512},
	{"768 KiB write", 768 << 10, true, true, 4, 128},
}

// loader does requests on a device, as lean as can be: what it costs itself is
// in the figures of both contenders.
type loader struct {
	ring   *uring.Ring
	arena  *uring.Arena
	file   *os.File
	size   int64 // of the device
	random *rand.Rand
}

// newLoader opens the device. The calling goroutine stays on its thread.
func newLoader(path string) (*loader, error) {
	runtime.LockOSThread()

	file, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}

	size, err := file.Seek(0, 2)
	if err != nil {
		return nil, err
	}

	l := &loader{file: file, size: size, random: rand.New(rand.NewPCG(1, 2))}

	if l.arena, err = uring.NewArena(uring.ArenaConfig{Size: 8 << 20}); err != nil {
		return nil, err
	}

	if l.ring, err = uring.New(uring.Config{Entries: 64}); err != nil {
		return nil, err
	}

	for i, b := 0, l.arena.Bytes(); i < len(b); i++ {
		b[i] = byte(l.random.Uint32())
	}

	if err := l.ring.RegisterBuffers([][]byte{l.arena.Bytes()}); err != nil {
		return nil, err
	}

	if err := l.ring.RegisterFiles(1); err != nil {
		return nil, err
	}

	return l, l.ring.UpdateFile(0, int(file.Fd()))
}

func (l *loader) close() error {
	if err := l.ring.Close(); err != nil {
		return err
	}

	runtime.UnlockOSThread()

	return l.file.Close()
}

// run does n requests of a workload and returns how long they took.
func (l *loader) run(w workload, n int) (time.Duration, error) {
	var (
		batch  [64]uring.CQE
		blocks = l.size / int64(w.size)
		issued int
		done   int
	)

	issue := func(tag int) {
		block := int64(issued) % blocks
		if w.random {
			block = l.random.Int64N(blocks)
		}

		buf := l.arena.Bytes()[tag*w.size : (tag+1)*w.size]
		sqe := l.ring.SQE()

		if w.write {
			sqe.PrepWriteFixed(uring.Slot(0), buf, uint64(block)*uint64(w.size), 0)
		} else {
			sqe.PrepReadFixed(uring.Slot(0), buf, uint64(block)*uint64(w.size), 0)
		}

		sqe.UserData = uint64(tag)
		issued++
	}

	began := time.Now()

	for tag := range min(w.depth, n) {
		issue(tag)
	}

	for done < n {
		if err := l.ring.SubmitAndWait(1); err != nil {
			return 0, err
		}

		for _, cqe := range batch[:l.ring.Reap(batch[:])] {
			if int(cqe.Res) != w.size {
				return 0, fmt.Errorf("%s: request ended with %d", w.name, cqe.Res)
			}

			done++

			if issued < n {
				issue(int(cqe.UserData))
			}
		}
	}

	return time.Since(began), nil
}
