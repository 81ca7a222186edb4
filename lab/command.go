package lab

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Result is what a command in the guest left behind.
type Result struct {
	Stdout   string
	Stderr   string
	ExitCode int // 128 and more: killed by that signal plus 128
}

// errOff says that there is no guest to talk to.
var errOff = errors.New("lab: the guest's power is off")

// shell is how scripts are run: a step that fails ends the script.
var shell = []string{"/bin/bash", "-euo", "pipefail", "-c"}

// Run runs a program in the guest, as root. That it fails is not an error, but
// an exit code.
func (g *Guest) Run(ctx context.Context, argv ...string) (Result, error) {
	return g.run(ctx, argv, nil)
}

// Shell runs a bash script in the guest, for two minutes at most. It stops at
// the first command that fails (set -euo pipefail).
func (g *Guest) Shell(script string) (Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()

	return g.ShellContext(ctx, script)
}

// ShellContext is Shell with another limit of time.
func (g *Guest) ShellContext(ctx context.Context, script string) (Result, error) {
	return g.Run(ctx, append(shell, script)...)
}

func (g *Guest) run(ctx context.Context, argv []string, stdin []byte) (Result, error) {
	j, err := g.start(ctx, argv, stdin)
	if err != nil {
		return Result{}, err
	}

	return j.Wait(ctx)
}

// Job is a command that runs in the guest.
type Job struct {
	g    *Guest
	pid  int
	argv []string
}

// Go starts a bash script in the guest, as Shell does, and does not wait for it.
func (g *Guest) Go(script string) (*Job, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()

	// In a session of its own, so that Kill gets its children as well.
	return g.start(ctx, append(append([]string{"setsid"}, shell...), script), nil)
}

func (g *Guest) start(ctx context.Context, argv []string, stdin []byte) (*Job, error) {
	if g.m == nil {
		return nil, errOff
	}

	pid, err := g.m.Agent.Start(ctx, argv, stdin)
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", abbreviate(argv), err)
	}

	return &Job{g, pid, argv}, nil
}

// Wait waits until the command ends.
func (j *Job) Wait(ctx context.Context) (Result, error) {
	// Short commands are noticed at once, long ones are not disturbed much.
	const pauseMin, pauseMax = 2 * time.Millisecond, 100 * time.Millisecond

	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		r, done, err := j.Poll(ctx)
		if done || err != nil {
			return r, err
		}

		select {
		case <-ctx.Done():
			j.Kill()

			return Result{}, fmt.Errorf("lab: %s: still running: %w", abbreviate(j.argv), ctx.Err())
		case <-time.After(pause):
		}
	}
}

// Poll reports whether the command has ended. After it has said so once, the
// guest has forgotten the command.
func (j *Job) Poll(ctx context.Context) (r Result, done bool, err error) {
	if j.g.m == nil {
		return Result{}, false, errOff
	}

	exit, err := j.g.m.Agent.Poll(ctx, j.pid)
	if err != nil {
		return Result{}, false, fmt.Errorf("lab: %s: %w", abbreviate(j.argv), err)
	}

	r = Result{Stdout: string(exit.Stdout), Stderr: string(exit.Stderr), ExitCode: exit.Code}
	if exit.Signal != 0 {
		r.ExitCode = 128 + exit.Signal
	}

	if exit.Truncated {
		return r, exit.Exited, fmt.Errorf("lab: %s: more output than the guest agent keeps", abbreviate(j.argv))
	}

	return r, exit.Exited, nil
}

// Kill kills the command.
func (j *Job) Kill() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	pid := strconv.Itoa(j.pid)
	// It may have ended by itself, and only Go gives it a process group.
	_, _ = j.g.Run(ctx, "sh", "-c", "kill -KILL -- -"+pid+" || kill -KILL "+pid)
}

// WaitFor waits until a bash script succeeds in the guest, trying again and
// again. The error holds the output of a last try.
func (g *Guest) WaitFor(timeout time.Duration, script string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout+commandTimeout)
	defer cancel()

	loop := "until ( " + script + "\n) >/dev/null 2>&1; do sleep 0.05; done"

	r, err := g.Run(ctx, "timeout", fmt.Sprintf("%.3f", timeout.Seconds()), "bash", "-c", loop)
	if err != nil || r.ExitCode == 0 {
		return err
	}

	r, err = g.ShellContext(ctx, script)
	if err != nil {
		return err
	}

	return fmt.Errorf("lab: not within %v: %s\n%s%s", timeout, strings.TrimSpace(script), r.Stdout, r.Stderr)
}

// Journal returns what journalctl prints with the given arguments.
func (g *Guest) Journal(args ...string) (string, error) {
	return g.output(append([]string{"journalctl", "--no-pager", "--quiet"}, args...))
}

// MonotonicNow returns how long the guest has been up, in microseconds: the
// clock of the journal's __MONOTONIC_TIMESTAMP.
func (g *Guest) MonotonicNow() (int64, error) {
	out, err := g.output([]string{"cat", "/proc/uptime"})
	if err != nil {
		return 0, err
	}

	seconds, _, _ := strings.Cut(out, " ")

	up, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		return 0, fmt.Errorf("lab: /proc/uptime: %w", err)
	}

	return int64(up * 1e6), nil
}

// output runs a program that must succeed and returns what it prints.
func (g *Guest) output(argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()

	r, err := g.Run(ctx, argv...)

	return r.Stdout, checked(argv, r, err)
}

// checked makes an error of an exit code.
func checked(argv []string, r Result, err error) error {
	if err != nil || r.ExitCode == 0 {
		return err
	}

	return fmt.Errorf("lab: %s: exit code %d\n%s%s", abbreviate(argv), r.ExitCode, r.Stdout, r.Stderr)
}

// abbreviate names a command in messages, in which its script has no place.
func abbreviate(argv []string) string {
	const limit = 200

	s := strings.Join(argv, " ")
	if len(s) > limit {
		s = s[:limit] + "..."
	}

	return s
}
