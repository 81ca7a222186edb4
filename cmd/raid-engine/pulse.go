package main

import (
	"bytes"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// An engine tells its guardian now and then that all its arrays are served, and the
// guardian looks whether it has. It counts looks and not time: while the machine is
// suspended, or so busy that nobody is heard, neither of them runs.
const (
	beatEvery = 500 * time.Millisecond
	lookEvery = 250 * time.Millisecond

	stoppedMax = 2 // looks at which it is stopped, by a signal or a debugger
	missedMax  = int(10 * time.Second / lookEvery)
	unbornMax  = int(time.Minute / lookEvery) // before it was heard first
)

// What an engine says, in a byte each.
const (
	alive  byte = iota + 1
	served      // once: what was left to it is served, or was tried
)

// beat tells the guardian for as long as there is one that arrays are served, each
// time that answers returns. It does not return while an array's thread is stuck.
func beat(to io.Writer, answers func()) {
	for range time.Tick(beatEvery) {
		answers()

		if _, err := to.Write([]byte{alive}); err != nil {
			return
		}
	}
}

// hear counts what an engine says, and has ready called when it serves, until it has ended.
func hear(from io.ReadCloser, beats *atomic.Uint64, ready func()) {
	defer func() { _ = from.Close() }()

	buf := make([]byte, 64)

	for {
		n, err := from.Read(buf)
		beats.Add(uint64(n))

		if bytes.IndexByte(buf[:n], served) >= 0 {
			ready()
		}

		if err != nil {
			return
		}
	}
}

// pulse is what a guardian knows of the life of its engine.
type pulse struct {
	beats   uint64 // at the last look
	missed  int    // looks since one was heard
	stopped int    // looks in a row at which it was stopped
}

// look takes what there is to be seen, and says why the engine has to be killed, if it
// has to: who waits for its disks waits for as long as it hangs.
func (p *pulse) look(beats uint64, stopped bool) (why string) {
	if p.missed++; beats != p.beats {
		p.beats, p.missed = beats, 0
	}

	if p.stopped++; !stopped {
		p.stopped = 0
	}

	switch {
	case p.stopped >= stoppedMax:
		return "it was stopped"
	case p.beats > 0 && p.missed >= missedMax:
		return "an array was not served any more"
	case p.missed >= unbornMax:
		return "it did not begin to serve"
	default:
		return ""
	}
}

// stopped reports whether a child is stopped, so that none of its threads run.
func stopped(child *os.Process) bool {
	var info unix.Siginfo

	err := unix.Waitid(unix.P_PID, child.Pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)

	return err == nil && info.Signo == int32(unix.SIGCHLD)
}
