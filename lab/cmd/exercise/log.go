package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"raid-assembler/lab/internal/exercise"
)

// promiseLog is where a run notes what is durable, one record a block. It is
// written past the page cache into a file whose blocks are there already, so
// that a record which has returned survives. A nil log forgets.
type promiseLog struct {
	mu   sync.Mutex
	fd   int
	page []byte
	next int64
}

const (
	record     = 512
	recordsMax = 2048
)

func createLog(path string) (*promiseLog, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // a nil log is one that forgets
	}

	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}

	_, err = f.Write(make([]byte, record*recordsMax))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}

	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_DIRECT|unix.O_DSYNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}

	page, err := buffer()
	if err != nil {
		return nil, err
	}

	return &promiseLog{fd: fd, page: page[:record]}, nil
}

func (l *promiseLog) flushed(before exercise.Gen) error { return l.note("flushed", before) }

func (l *promiseLog) durable(g exercise.Gen) error { return l.note("durable", g) }

func (l *promiseLog) note(what string, g exercise.Gen) error {
	if l == nil {
		return nil
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	// What is not noted was not promised.
	if l.next >= recordsMax {
		return nil
	}

	clear(l.page)
	copy(l.page, fmt.Sprintf("%s %d\n", what, g))

	if n, err := unix.Pwrite(l.fd, l.page, l.next*record); err != nil || n != record {
		return fmt.Errorf("log: %d, %w", n, err)
	}

	l.next++

	return nil
}

// readLog returns what a log promises.
func readLog(path string) (exercise.Promise, error) {
	p := exercise.Promise{Durable: make(map[exercise.Gen]bool)}

	f, err := os.Open(path)
	if err != nil {
		return p, err
	}
	defer func() { _ = f.Close() }()

	page := make([]byte, record)

	for {
		if _, err := io.ReadFull(f, page); errors.Is(err, io.EOF) || page[0] == 0 {
			return p, nil
		} else if err != nil {
			return p, err
		}

		var (
			what string
			g    exercise.Gen
		)

		if _, err := fmt.Sscanf(strings.TrimRight(string(page), "\x00"), "%s %d\n", &what, &g); err != nil {
			return p, fmt.Errorf("log: %w in %q", err, page[:32])
		}

		switch what {
		case "flushed":
			p.Flushed = max(p.Flushed, g)
		case "durable":
			p.Durable[g] = true
		default:
			return p, fmt.Errorf("log: %q", page[:32])
		}
	}
}
