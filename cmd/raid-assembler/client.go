package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
)

// errUnreachable says that nobody listens where a daemon should.
var errUnreachable = errors.New("cannot be reached")

// callAssembler calls a method of the daemon.
func (p *program) callAssembler(ctx context.Context, method string, in, out any) error {
	return call(ctx, p.assemblerSocket, api.AssemblerInterface+"."+method, in, out)
}

// call calls one method. Returns an error wrapping [errUnreachable] if nothing
// was asked.
func call(ctx context.Context, socket, method string, in, out any) error {
	client, err := varlink.Dial(socket)
	if err != nil {
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			err = errno // the rest repeats the path
		}

		return fmt.Errorf("%s %w: %s: %w", daemonName(socket), errUnreachable, socket, err)
	}

	defer func() { _ = client.Close() }()

	return client.Call(ctx, method, in, out)
}

// daemonName returns who listens at a socket: its directory is named after it.
func daemonName(socket string) string { return filepath.Base(filepath.Dir(socket)) }

// answer returns the exit code that an error of a call stands for, and the
// error without what only programs want to know.
func answer(err error) (exitCode, error) {
	refusal, answered := errors.AsType[*varlink.Error](err)

	switch {
	case err == nil:
		return exitDone, nil
	case errors.Is(err, errUnreachable):
		return exitFailed, err
	case !answered:
		// The request may have been carried out or not.
		return exitUnknown, err
	case errors.Is(err, varlink.ErrPermissionDenied):
		return exitRefused, errors.New("refused: only root may do this")
	}

	name := refusal.Name[strings.LastIndexByte(refusal.Name, '.')+1:]
	reason := refusal.Reason()

	switch {
	case reason == "":
		return exitFailed, err
	case name == api.ErrRefused:
		return exitRefused, errors.New("refused: " + reason)
	case name == api.ErrNotFound:
		return exitRefused, errors.New(reason)
	default:
		return exitFailed, errors.New(reason)
	}
}

// deviceArguments returns devices as the daemon can find them: what is a path
// here must be one there, and there it is relative to nothing. What has no
// slash is a serial.
func deviceArguments(args []string) []string {
	devices := make([]string, len(args))

	for i, arg := range args {
		devices[i] = arg

		if !strings.Contains(arg, "/") {
			continue
		}

		if path, err := filepath.Abs(arg); err == nil {
			devices[i] = path
		}

		if path, err := filepath.EvalSymlinks(devices[i]); err == nil {
			devices[i] = path
		}
	}

	return devices
}
