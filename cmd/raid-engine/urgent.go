package main

import (
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// settled is how long arrays are served before another engine is made to stand by.
const settled = 10 * time.Second

// urgent is the lowest real-time priority, in turns.
var urgent = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}

// hurry makes all threads of this process real-time ones, and so those that they start, and
// engines. Where the host swaps to arrays, nobody finds memory while these are not served,
// but for what the kernel keeps back: half of that is for such threads alone (6.12,
// mm/page_alloc.c, gfp_to_alloc_flags). The threads that serve arrays do without, later.
func hurry() error {
	for more := true; more; {
		var err error
		if more, err = hurryAll(); err != nil {
			return err
		}
	}

	return nil
}

// hurryAll does it to those that there are, and reports whether one was not yet.
func hurryAll() (changed bool, err error) {
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return false, err
	}

	for _, task := range tasks {
		id, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return false, err
		}

		now, err := unix.SchedGetAttr(id, 0)
		if errors.Is(err, unix.ESRCH) || err == nil && now.Policy == urgent.Policy {
			continue // it has ended, or it is
		}

		if err == nil {
			err = unix.SchedSetAttr(id, &urgent, 0)
		}

		if err != nil && !errors.Is(err, unix.ESRCH) {
			return false, err
		}

		changed = true
	}

	return changed, nil
}
