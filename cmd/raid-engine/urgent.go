package main

import (
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// settled is how long what an engine took over has been served before its threads become
// usual ones, and another engine is made to stand by.
const settled = 10 * time.Second

// urgent is the lowest real-time priority, in turns.
var urgent = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}

// hurry makes all threads of this process real-time ones, and so those that they start, and
// engines. Where the host swaps to arrays, nobody finds memory while these are not served,
// but for what the kernel keeps back: half of that is for such threads alone (6.12,
// mm/page_alloc.c, gfp_to_alloc_flags).
func hurry() error { return schedule(urgent) }

// calm makes them usual ones, and so those that they start. An array's thread computes parity
// at length; and when the runtime collects memory, its threads wait for the others without
// letting go of the processor, which real-time ones would take from those for most of a second.
func calm() error {
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}

	return schedule(unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(niceZero - nice)})
}

// niceZero is what the kernel returns for a priority of 0, and one less for each that is lower.
const niceZero = 20

// schedule gives all threads of this process a policy.
func schedule(as unix.SchedAttr) error {
	for more := true; more; {
		var err error
		if more, err = scheduleAll(as); err != nil {
			return err
		}
	}

	return nil
}

// scheduleAll gives it to those that there are, and reports whether one had another.
func scheduleAll(as unix.SchedAttr) (changed bool, err error) {
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
		if errors.Is(err, unix.ESRCH) || err == nil && now.Policy == as.Policy {
			continue // it has ended, or it is
		}

		if err == nil {
			err = unix.SchedSetAttr(id, &as, 0)
		}

		if err != nil && !errors.Is(err, unix.ESRCH) {
			return false, err
		}

		changed = true
	}

	return changed, nil
}
