package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"raid-assembler/pkg/guard"
	"raid-assembler/pkg/journal"
)

// guardEvery is how often it is looked whether the guard was turned on or off.
const guardEvery = time.Second

// guarded is a guard with what it is to protect, whether there is one or not.
type guarded struct {
	log   func(journal.Event)
	warn  func(string)
	paths chan []string // the newest
}

func newGuarded(log func(journal.Event), warn func(string)) *guarded {
	return &guarded{log: log, warn: warn, paths: make(chan []string, 1)}
}

// isGuarded reports whether there is a guard.
func isGuarded() bool {
	_, err := os.Stat(guard.Pin)

	return err == nil
}

// protect has the devices protected, and no others. It does not wait.
func (g *guarded) protect(paths []string) {
	select {
	case <-g.paths:
	default:
	}

	g.paths <- paths
}

// run keeps the guard informed, until ctx ends.
func (g *guarded) run(ctx context.Context) {
	var (
		now   *guard.Guard
		seen  os.FileInfo
		paths []string
		look  = time.NewTicker(guardEvery)
	)

	defer look.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case paths = <-g.paths:
		case <-look.C:
			info, err := os.Stat(guard.Pin)
			if err != nil {
				seen = nil

				continue
			}

			if seen != nil && os.SameFile(info, seen) {
				continue
			}

			seen = info
			now = g.open(now)
		}

		if now == nil {
			continue
		}

		if err := now.Protect(paths); err != nil {
			g.warn(fmt.Sprintf("the guard does not protect all members: %v", err))
		}
	}
}

// open opens the guard that is there in place of an old one, and has told what it refuses.
func (g *guarded) open(old *guard.Guard) *guard.Guard {
	if old != nil {
		_ = old.Close() // it was only told
	}

	now, err := guard.Open()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			g.warn(err.Error())
		}

		return nil
	}

	go func() {
		for {
			r, err := now.Next()
			if err != nil {
				return
			}

			g.log(journal.Event{
				Kind: journal.WriteRefused, Member: r.Device,
				Reason: fmt.Sprintf("process %d (%s) was to open it for writing", r.Process, r.Command),
				Message: fmt.Sprintf("%s is a member: process %d (%s) may not write to it",
					r.Device, r.Process, r.Command),
			})
		}
	}()

	return now
}
