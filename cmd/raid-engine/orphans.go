package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// orphans are the engines of a guardian that died, as descriptors of processes. One that
// serves arrays goes on with them until the next engine needs nothing more to take them
// over: whoever starts a guardian may have to wait for a page that only it can read.
type orphans []int

// ofSystemd reports whether this is the main process of a unit of systemd, so that nobody
// else's processes are in its control group, and it is started again when it dies.
func ofSystemd() bool { return os.Getenv("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid()) }

// findOrphans returns those that are left in the control group of this process.
func findOrphans() (orphans, error) {
	if !ofSystemd() {
		return nil, nil
	}

	host := os.DirFS("/")

	pids, err := groupOf(host)
	if err != nil {
		return nil, err
	}

	opened := make(map[int]int)

	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}

		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			opened[pid] = fd
		} else if !errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
	}

	// One may have ended meanwhile, and its number be somebody else's.
	if pids, err = groupOf(host); err != nil {
		return nil, err
	}

	var found orphans

	for pid, fd := range opened {
		if slices.Contains(pids, pid) {
			found = append(found, fd)
		} else {
			_ = unix.Close(fd)
		}
	}

	return found, nil
}

// groupOf returns the processes of the control group that this one is in.
func groupOf(host fs.FS) ([]int, error) {
	text, err := fs.ReadFile(host, "proc/self/cgroup")
	if err != nil {
		return nil, err
	}

	_, group, found := strings.Cut("\n"+string(text), "\n0::/")
	if !found {
		return nil, fmt.Errorf("no control group of version 2 in %q", text)
	}

	group, _, _ = strings.Cut(group, "\n")

	text, err = fs.ReadFile(host, path.Join("sys/fs/cgroup", group, "cgroup.procs"))
	if err != nil {
		return nil, err
	}

	var pids []int

	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("processes of %s: %w", group, err)
		}

		pids = append(pids, pid)
	}

	return pids, nil
}

// end kills them once the next engine waits for its turn, and returns when they are dead: what
// they leave is not to change any more. If that engine dies before, they serve on.
func (o *orphans) end(next *engine) error {
	if len(*o) == 0 {
		return nil
	}

	select {
	case <-next.waits:
	case <-next.gone:
		return nil
	}

	for _, fd := range *o {
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end the engine of a guardian before: %w", err)
		}
	}

	for _, fd := range *o {
		if err := awaitEnd(fd); err != nil {
			return fmt.Errorf("await the end of the engine of a guardian before: %w", err)
		}

		_ = unix.Close(fd)
	}

	*o = nil

	return nil
}

// awaitEnd returns when a process is dead, whose descriptor can be read then.
func awaitEnd(fd int) error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
