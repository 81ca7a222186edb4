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
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/journal"
)

// The descriptors that the guardian gives to the engine.
const (
	controlFD  = 3
	listenerFD = 4
)

// An engine that dies this often within a while is not started again: whatever
// kills it will kill the next one, and somebody must look.
const (
	deathsMax = 5
	deathsIn  = time.Minute
)

// guard runs engines, one after the other, until one ends as asked.
func guard(runDir string) error {
	listener, err := listen(runDir)
	if err != nil {
		return err
	}

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
		asked, err := runEngine(runDir, listener, controller, signals)
		if asked {
			return err
		}

		now := time.Now()
		deaths = append(deaths, now)

		log.Log(journal.Event{
			Kind: journal.EngineDied, Reason: fmt.Sprint(err),
			Message: fmt.Sprintf("the engine died: %v; the next one takes its arrays over", err),
		})

		if len(deaths) >= deathsMax && now.Sub(deaths[len(deaths)-deathsMax]) < deathsIn {
			return fmt.Errorf("the engine died %d times within %v: %w", deathsMax, deathsIn, err)
		}
	}
}

// listen returns the socket that systemd made, or makes it.
func listen(runDir string) (*os.File, error) {
	l, err := varlink.ActivationListener(activation.Files(true), "varlink")
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
	runDir string, listener *os.File, controller *ublk.Controller, signals <-chan os.Signal,
) (asked bool, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return true, err
	}

	cmd := exec.Command("/proc/self/exe", "--run-dir", runDir, "serve")
	cmd.Args[0] = "raid-engine"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs, listener}

	if err := cmd.Start(); err != nil {
		return true, errors.Join(err, ours.Close(), theirs.Close())
	}

	_ = theirs.Close() // the engine has its own

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	served := make(chan struct{})

	go func() {
		defer close(served)

		_ = ublk.ServeControl(ctx, ours, controller) // its end is the engine's, which is told below
	}()

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
			<-served

			// An engine ends well only if somebody asked it to, be it behind
			// the guardian's back.
			return asked || err == nil, err
		}
	}
}

// socketPair returns two connected sockets.
func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}

	file := os.NewFile(uintptr(fds[0]), "control")
	theirs = os.NewFile(uintptr(fds[1]), "control")

	ours, err = net.FileConn(file)

	return ours, theirs, errors.Join(err, file.Close())
}
