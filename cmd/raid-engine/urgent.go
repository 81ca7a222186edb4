package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Where the host swaps to arrays, nobody finds memory while they are not served, but for
// what the kernel keeps back: of that, threads with a real-time policy are given a half,
// others nothing (6.12, mm/page_alloc.c, gfp_to_alloc_flags). So the guardian has such a
// policy, and an engine until its arrays have been served for a while.

// settled is how long arrays are served before nothing is urgent any more.
const settled = 10 * time.Second

// The lowest real-time priority, in turns; and the usual policy.
var (
	urgent = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}
	calm   = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: -20}
)

// schedule gives all threads of this process a policy, which those that they start
// inherit, and engines. Threads of the kernel that work for a ring are among them.
func schedule(attr unix.SchedAttr) {
	for more := true; more; {
		var err error
		if more, err = scheduleAll(attr); err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "raid-engine: threads are scheduled as they were: %v\n", err)

			return
		}
	}
}

// scheduleAll gives it to those that there are, and reports whether one had another.
func scheduleAll(attr unix.SchedAttr) (changed bool, err error) {
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
		if errors.Is(err, unix.ESRCH) || err == nil && now.Policy == attr.Policy {
			continue // it has ended, or it has it
		}

		if err == nil {
			err = unix.SchedSetAttr(id, &attr, 0)
		}

		if err != nil && !errors.Is(err, unix.ESRCH) {
			return false, err
		}

		changed = true
	}

	return changed, nil
}
