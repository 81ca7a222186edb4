package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/host"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/scan"
)

// shutdownMax is how long arrays may take to stop.
const shutdownMax = 80 * time.Second

// processors is more than there are: a queue thread that comes back from the
// kernel must never wait for one that something else holds.
const processors = 16

func init() {
	// The main thread stays out of the way: it is the one thread that the
	// runtime parks instead of ending, so no array may live on it.
	runtime.LockOSThread()
}

// serve is the engine: it runs arrays until it is told to end.
func serve(runDir string, left []string) error {
	runtime.GOMAXPROCS(processors)
	debug.SetTraceback("none") // a reader that has stopped must not keep a dying process alive

	lockMemory()

	control, keep, listener, err := inherited()
	if err != nil {
		return err
	}

	log := journal.New(journal.Options{Identifier: "raid-engine"})
	defer closeLog(log)

	h := host.New(host.Config{
		Control: ublk.Control{Commander: ublk.NewClient(control)},
		Formats: scan.Formats(), RunDir: runDir, Tell: log.Log,
		Logs: crashlog.NewKeeper(keep), Left: inheritedLogs(left, leftFD),
	})

	server, err := varlink.NewServer(varlink.Service{
		Vendor: "raid-assembler", Product: "raid-engine", Version: version,
	}, varlink.Options{}, h.Interface())
	if err != nil {
		return err
	}

	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer cancel()

	serving, stopServing := context.WithCancel(context.Background())
	defer stopServing()

	served := make(chan error, 1)

	go func() { served <- server.Serve(serving, listener) }()
	go beat(os.NewFile(pulseFD, "pulse"), h.Answers)

	log.Log(journal.Event{
		Kind:    journal.EngineStarted,
		Message: fmt.Sprintf("raid-engine %s is ready", version),
	})

	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}

	// Whichever ends first ends the engine.
	select {
	case <-ctx.Done():
		return stop(h, log)
	case err := <-h.Failed():
		return err
	case err := <-served:
		return errors.Join(errors.New("the socket is not served any more"), err)
	}
}

// lockMemory has pages stay that were touched: with swap on an array of ours, who would
// bring them back?
func lockMemory() {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: memory is not locked: %v\n", err)
	}
}

// stop ends all arrays, as systemd asked.
func stop(h *host.Host, log *journal.Logger) error {
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)

	ctx, cancel := context.WithTimeout(context.Background(), shutdownMax)
	defer cancel()

	err := h.Shutdown(ctx)
	log.Log(journal.Event{
		Kind: journal.EngineStopped, Reason: fmt.Sprint(err),
		Message: "raid-engine has stopped its arrays",
	})

	return err
}

// inherited returns the sockets that the guardian gives its engine.
func inherited() (control, keep *net.UnixConn, listener net.Listener, err error) {
	if control, err = unixConn(os.NewFile(controlFD, "control")); err != nil {
		return nil, nil, nil, fmt.Errorf("this is for raid-engine itself to run: %w", err)
	}

	if keep, err = unixConn(os.NewFile(logsFD, "logs")); err != nil {
		return nil, nil, nil, fmt.Errorf("this is for raid-engine itself to run: %w", err)
	}

	socket := os.NewFile(listenerFD, "varlink")
	listener, err = net.FileListener(socket)

	return control, keep, listener, errors.Join(err, socket.Close())
}
