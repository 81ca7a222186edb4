package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/journal"
)

// The descriptors that the guardian gives to the engine.
const (
	controlFD  = 3
	listenerFD = 4
	logsFD     = 5 // where crash logs are kept
	leftFD     = 6 // the first of those that are, in the order of the arguments
)

// An engine that has died this often within a while is started again after a pause:
// whatever kills it may kill the next one. It never is given up: who waits for its
// disks has nobody else.
const (
	deathsMax  = 5
	deathsIn   = time.Minute
	deathPause = time.Second
)

// guard runs engines, one after the other, until one ends as asked.
func guard(runDir string) error {
	held := activation.Files(true)

	listener, err := listen(runDir, held)
	if err != nil {
		return err
	}

	logs := newShelf(held)

	// Inherited by the engine and all its threads: memory that they ask for is
	// never found by writing to a disk that only they can serve.
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0); errno != 0 {
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: without protection from memory reclaim: %v\n", errno)
	}

	controller, err := ublk.NewController()
	if err != nil {
		return fmt.Errorf("%w (modprobe ublk_drv; Linux 6.12 or newer)", err)
	}

	log := journal.New(journal.Options{Identifier: "raid-engine"})
	defer closeLog(log)

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)

	var deaths []time.Time

	for {
		asked, err := runEngine(runDir, listener, controller, logs, signals)
		if asked {
			return err
		}

		now := time.Now()
		deaths = append(deaths, now)

		log.Log(journal.Event{
			Kind: journal.EngineDied, Reason: fmt.Sprint(err),
			Message: fmt.Sprintf("the engine died: %v; the next one takes its arrays over", err),
		})

		if deaths = deaths[max(0, len(deaths)-deathsMax):]; len(deaths) < deathsMax || now.Sub(deaths[0]) > deathsIn {
			continue
		}

		select {
		case <-time.After(deathPause):
		case <-signals:
			return err
		}
	}
}

// listen returns the socket that systemd made, or makes it.
func listen(runDir string, held []*os.File) (*os.File, error) {
	l, err := varlink.ActivationListener(held, "varlink")
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(runDir, 0o755); err != nil {
			return nil, err
		}

		l, err = varlink.Listen(filepath.Join(runDir, api.EngineInterface), 0o600)
	}

	if err != nil {
		return nil, err
	}

	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("the socket is not a unix socket but %T", l)
	}

	return u.File()
}

// runEngine runs one engine, carries its control commands out and passes
// signals on. Reports whether its end was asked for.
func runEngine(
	runDir string, listener *os.File, controller *ublk.Controller, logs *shelf, signals <-chan os.Signal,
) (asked bool, err error) {
	control, theirControl, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return true, err
	}

	keep, theirKeep, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return true, errors.Join(err, control.Close(), theirControl.Close())
	}

	names, left := logs.all()
	cmd := exec.Command("/proc/self/exe", append([]string{"--run-dir", runDir, "serve"}, names...)...)
	cmd.Args[0] = "raid-engine"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = append([]*os.File{theirControl, listener, theirKeep}, left...)

	if err := cmd.Start(); err != nil {
		return true, errors.Join(err, control.Close(), theirControl.Close(), keep.Close(), theirKeep.Close())
	}

	_, _ = theirControl.Close(), theirKeep.Close() // the engine has its own

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// Their ends are the engine's, which is told below.
	var serving sync.WaitGroup

	serving.Go(func() { _ = ublk.ServeControl(ctx, control, controller) })
	serving.Go(func() { _ = crashlog.Serve(keep, logs) })

	died := make(chan error, 1)

	go func() { died <- cmd.Wait() }()

	for {
		select {
		case sig := <-signals:
			asked = true

			if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return true, err
			}
		case err := <-died:
			cancel()
			serving.Wait()

			// An engine ends well only if somebody asked it to, be it behind
			// the guardian's back.
			return asked || err == nil, err
		}
	}
}

// socketPair returns two connected sockets.
func socketPair(kind int) (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}

	theirs = os.NewFile(uintptr(fds[1]), "engine")

	ours, err = unixConn(os.NewFile(uintptr(fds[0]), "guardian"))

	return ours, theirs, err
}

// unixConn makes a connection of a file, which it closes.
func unixConn(file *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(file)

	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}

	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a %T is not a unix socket", conn), conn.Close())
	}

	return u, nil
}
