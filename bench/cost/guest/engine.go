package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
)

// name is what each array is called in its turn.
const name = "bench"

// engine is raid-engine, started without systemd.
type engine struct {
	pid int // of the process that serves
}

// startEngine starts it and waits until it answers.
func startEngine() (*engine, error) {
	cmd := exec.Command("/run/raid-engine.bin")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr

	// As its unit does; a child has the priority of the thread that starts it.
	runtime.LockOSThread()

	if err := errors.Join(
		unix.Setpriority(unix.PRIO_PROCESS, 0, -20), cmd.Start(), unix.Setpriority(unix.PRIO_PROCESS, 0, 0),
	); err != nil {
		return nil, err
	}

	runtime.UnlockOSThread()

	e := &engine{}

	err := errors.New("not asked")
	for range 100 {
		if err = e.call("List", nil, nil); err == nil {
			break
		}

		time.Sleep(20 * time.Millisecond)
	}

	if err != nil {
		return nil, err
	}

	e.pid, err = childOf(cmd.Process.Pid)

	return e, err
}

// childOf finds the child of a process, whichever thread started it.
func childOf(parent int) (int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}

	for _, path := range stats {
		if fields := statFields(path); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}

	return 0, fmt.Errorf("process %d has no child", parent)
}

// statFields returns the fields of /proc/PID/stat from the state on, which is
// the first.
func statFields(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}

	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// call calls a method, on a connection of its own: none stays open for long, as
// the engine sees time.
func (e *engine) call(method string, in, out any) error {
	client, err := varlink.Dial(api.EngineSocket)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()

	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // idle time runs fast in here
	defer cancel()

	return client.Call(ctx, api.EngineInterface+"."+method, in, out)
}

// start has the engine run an array, and returns its device.
func (e *engine) start(uuid string, disks []string) (string, error) {
	in := api.StartParameters{UUID: uuid, Name: name}

	for i, disk := range disks {
		in.Members = append(in.Members, api.StartMember{Device: disk, Serial: filepath.Base(disk), Slot: &i})
	}

	var out api.ArrayReply
	if err := e.call("Start", in, &out); err != nil {
		return "", err
	}

	return out.Array.Device, nil
}

func (e *engine) stop() error { return e.call("Stop", api.ArrayParameters{Array: name}, nil) }

// use is what the engine's process has used.
type use struct{ switches, preempted, faults int64 }

// use returns what e has used; nothing for none.
func (e *engine) use() (u use) {
	if e == nil {
		return u
	}

	if fields := statFields(fmt.Sprintf("/proc/%d/stat", e.pid)); len(fields) > 8 {
		u.faults, _ = strconv.ParseInt(fields[7], 10, 64)
	}

	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", e.pid))
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has ended
		}

		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)

			switch key {
			case "voluntary_ctxt_switches":
				u.switches += n
			case "nonvoluntary_ctxt_switches":
				u.preempted += n
			}
		}
	}

	return u
}
