package main

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// halt holds a thread by its number, and none beside it, until its process is killed:
// to whoever waits for it, it hangs.
func halt(o options) (string, error) {
	runtime.LockOSThread() // the one that traces

	tid, err := strconv.Atoi(o.path)
	if err != nil {
		return "", err
	}

	if err := errors.Join(unix.PtraceSeize(tid), unix.PtraceInterrupt(tid)); err != nil {
		return "", fmt.Errorf("halt thread %d: %w", tid, err)
	}

	for {
		var status unix.WaitStatus

		_, err := unix.Wait4(tid, &status, unix.WALL, nil)

		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", err
		case status.Signaled():
			return fmt.Sprintf("it was ended by %v", status.Signal()), nil
		case status.Exited():
			return "", errors.New("it ended by itself")
		}
	}
}
