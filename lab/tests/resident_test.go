package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
)

// traceOn has the kernel count the system calls and page faults of each thread, and traced
// prints them: thread, what it is and its number or address, how many.
const (
	traceOn = `cd /sys/kernel/tracing
for e in raw_syscalls/sys_enter:id exceptions/page_fault_user:ip.hex exceptions/page_fault_kernel:ip.hex; do
	echo "hist:keys=common_pid,${e#*:}:size=8192" >events/${e%:*}/trigger
done`
	traced = `cd /sys/kernel/tracing
for e in raw_syscalls/sys_enter exceptions/page_fault_user exceptions/page_fault_kernel; do
	sed -n "s/^{ common_pid: *\([0-9]*\), [a-z]*: *\([0-9a-fx]*\) } hitcount: *\([0-9]*\)$/\1 $(basename $e):\2 \3/p" events/$e/hist
	grep -q '^ *Dropped: 0$' events/$e/hist
done`
)

// runtimeCalls are what the runtime of Go asks of the kernel: to wake a thread or wait, and to
// come back from a signal by which it interrupts one.
var runtimeCalls = map[string]string{
	"sys_enter:15": "rt_sigreturn", "sys_enter:24": "sched_yield", "sys_enter:35": "nanosleep", "sys_enter:39": "getpid",
	"sys_enter:202": "futex", "sys_enter:234": "tgkill", "sys_enter:281": "epoll_pwait",
}

// faultsMax is how many page faults a thread may have meanwhile. What the heap takes beyond what
// it had is not there yet: the runtime gives free memory back to the kernel even if it is locked.
const faultsMax = 64

// TestResident has the kernel trace the threads of arrays that are in use on a host that swaps
// to a disk, while they are written to, a member of each fails, that is recorded, and a spare
// takes its place: no system call but io_uring's and the runtime's own, no fault of the kernel
// in memory of theirs, and few of their own.
func TestResident(t *testing.T) {
	takesLong(t)

	f := newFleet(t, tortured, false)
	spares := f.plugSpares(false)

	swap := f.MustPlug(lab.Disk{Serial: "swap", Size: 64 << 20})
	f.create()
	f.engineStarts()
	f.each(mountScript)
	f.MustShell("mkswap -q " + swap.MustDev() + "; swapon " + swap.MustDev())

	for _, k := range f.kinds {
		f.MustShell("raid-assembler add --force " + k.name + " " + spares[k.name].MustDev())
	}

	f.bear(burden{"being traced", 90, func() {
		time.Sleep(20 * time.Second) // the memory of arrays in use is held by now
		f.MustShell(traceOn)
		f.each("set -- $D\nraid-assembler fail $A $2 >/dev/null")
		f.awaitAll("whole, with a spare", whole)
		time.Sleep(5 * time.Second)
	}})

	seen, threads := f.MustShell(traced), strings.Fields(f.MustShell(arrayThreads))
	if len(threads) != len(f.kinds) {
		t.Fatalf("threads of arrays are %v, want %d", threads, len(f.kinds))
	}

	for _, thread := range threads {
		f.judgeTrace(seen, thread[strings.LastIndex(thread, "/")+1:])
	}
}

// judgeTrace fails if a thread has done what it may not.
func (f *fleet) judgeTrace(seen, thread string) {
	f.t.Helper()

	entered, faults := 0, 0

	for line := range strings.Lines(seen) {
		var (
			who, what string
			n         int
		)

		if _, err := fmt.Sscan(line, &who, &what, &n); err != nil {
			f.t.Fatalf("%q: %v", line, err)
		}

		name, ours := runtimeCalls[what]

		switch {
		case who != thread:
		case what == "sys_enter:426":
			entered = n
		case strings.HasPrefix(what, "page_fault_user:"):
			faults += n
		case ours:
			f.t.Logf("thread %s: %d of %s", thread, n, name)
		default:
			f.t.Errorf("thread %s: %d of %s", thread, n, what)
		}
	}

	f.t.Logf("thread %s: %d of io_uring_enter, %d page faults", thread, entered, faults)

	if entered < 1000 || faults > faultsMax {
		f.t.Errorf("thread %s has entered the kernel %d times, and had %d page faults, want 1000 at least, and %d at most",
			thread, entered, faults, faultsMax)
	}
}
