package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/host"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
)

// shutdownMax is how long arrays may take to stop.
const shutdownMax = 80 * time.Second

// processorsMin is how many threads may run at once when there is no array: those that
// answer requests, watch, and collect memory.
const processorsMin = 6

// processors lets one more thread run at once for each array, however few processors there
// are: a queue thread that comes back from the kernel must never wait for what something else
// holds. Each takes memory.
func processors(arrays int) {
	if n := processorsMin + arrays; n > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
}

func init() {
	// The main thread stays out of the way: it is the one thread that the
	// runtime parks instead of ending, so no array may live on it.
	runtime.LockOSThread()
}

// prepare has this process be as an engine is to be, before it has anything to do.
func prepare() {
	runtime.GOMAXPROCS(processorsMin)
	debug.SetTraceback("none") // a reader that has stopped must not keep a dying process alive

	lockMemory(collectAt)
}

// takeOverMax is how long those who ask for arrays wait until the engine has taken over
// what the one before has left: until then they would find arrays missing.
const takeOverMax = 4 * time.Second

// serve is the engine: it waits for its turn, and runs arrays until it is told to end.
func serve(runDir string) error {
	prepare()

	control, keep, listener, err := inherited()
	if err != nil {
		return err
	}

	log := journal.New(journal.Options{Identifier: "raid-engine"})
	defer closeLog(log)

	kept := crashlog.NewKeeper(keep)

	files, err := kept.All()
	if err != nil {
		return err // the guardian has ended, or had no use for it
	}

	left, arrays := inherit(files)

	// For all of them now: it halts all threads, and would wait for those that serve by then.
	processors(len(arrays))

	h := host.New(host.Config{
		Control: ublk.Control{Commander: ublk.NewClient(control)},
		Formats: scan.Formats(), RunDir: runDir, Tell: log.Log, Logs: kept, Left: left,
		Threads: processors,
	})

	server, err := varlink.NewServer(varlink.Service{
		Vendor: "raid-assembler", Product: "raid-engine", Version: version,
	}, varlink.Options{}, h.Interface())
	if err != nil {
		return err
	}

	return runArrays(h, server, listener, arrays, log)
}

// runArrays takes arrays over and serves until it is told to end.
func runArrays(
	h *host.Host, server *varlink.Server, listener net.Listener, arrays []host.Served, log *journal.Logger,
) error {
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer cancel()

	serving, stopServing := context.WithCancel(context.Background())
	defer stopServing()

	pulse := os.NewFile(pulseFD, "pulse")
	taken, alone, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)

	go func() {
		takeOver(ctx, h, arrays)
		close(taken)

		ended <- server.Serve(serving, listener)
	}()
	go func() {
		beat(pulse, h.Answers)
		close(alone)
	}()
	go hold(h)

	// Whoever restarts an engine again and again cuts no take-over off.
	select {
	case <-taken:
	case <-ctx.Done():
	case <-alone:
		return errors.New("the guardian died before all was taken over")
	case err := <-h.Failed():
		return err
	}

	if err := ready(log, pulse); err != nil {
		return err
	}

	// Whichever ends first ends the engine, but for the guardian: without one this serves on
	// what it serves, and no more, since nobody carries control commands out or keeps what
	// the next engine needs. Who asks for more waits for that one.
	for {
		select {
		case <-alone:
			log.Log(journal.Event{
				Kind:    journal.EngineAlone,
				Message: "the guardian died; its engine serves on until there is another one",
			})
			stopServing()

			alone, ended = nil, nil
		case <-ctx.Done():
			return stop(h, log)
		case err := <-h.Failed():
			return err
		case err := <-ended:
			return errors.Join(errors.New("the socket is not served any more"), err)
		}
	}
}

// ready tells the journal and the guardian that arrays are served.
func ready(log *journal.Logger, pulse io.Writer) error {
	log.Log(journal.Event{
		Kind:    journal.EngineStarted,
		Message: fmt.Sprintf("raid-engine %s is ready", version),
	})

	if _, err := pulse.Write([]byte{served}); err != nil {
		return fmt.Errorf("tell the guardian: %w", err)
	}

	return nil
}

// restEvery is how often arrays that nobody uses are looked for.
const restEvery = 10 * time.Second

// hold has arrays hold their memory while the host swaps to a disk, and those that nobody
// uses give back what they have used. The heap does once nobody uses any.
func hold(h *host.Host) {
	swaps, rests := time.Tick(wantEvery), time.Tick(restEvery)

	for {
		select {
		case <-swaps:
			if hostSwaps() {
				h.Hold()
			}
		case <-rests:
			h.Rest()

			if !h.Used() {
				debug.FreeOSMemory()
			}
		}
	}
}

// inherit returns what engines that died or handed over have left: what they were
// writing, and which arrays they served.
func inherit(files map[string]*os.File) (left map[raid.UUID]*crashlog.Left, arrays []host.Served) {
	left = make(map[raid.UUID]*crashlog.Left)

	for name, file := range files {
		var err error

		if name == host.ServedFile {
			arrays, err = host.ReadServed(io.NewSectionReader(file, 0, math.MaxInt64))
			err = errors.Join(err, file.Close())
		} else {
			err = inheritLog(left, name, file)
		}

		if err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "raid-engine: %s, of the engine before, is no use: %v\n", name, err)
		}
	}

	return left, arrays
}

// inheritLog reads a crash log, whose name is the UUID of its array.
func inheritLog(left map[raid.UUID]*crashlog.Left, name string, file *os.File) error {
	uuid, err := raid.ParseUUID(name)
	if err != nil {
		return err
	}

	l, err := crashlog.Read(file)
	if err == nil {
		left[uuid] = l
	}

	return err
}

// takeOver takes arrays over, and is in a hurry for a while after it. It does not wait for one
// that takes long.
func takeOver(ctx context.Context, h *host.Host, arrays []host.Served) {
	done := make(chan struct{})

	go func() {
		h.TakeOver(ctx, arrays)
		close(done)
		time.Sleep(settled)

		if err := calm(); err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "raid-engine: with real-time threads: %v\n", err)
		}
	}()

	select {
	case <-done:
	case <-time.After(takeOverMax):
	}
}

// stop ends all arrays, as systemd asked.
func stop(h *host.Host, log *journal.Logger) error {
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

	if keep, err = unixConn(os.NewFile(keepFD, "logs")); err != nil {
		return nil, nil, nil, fmt.Errorf("this is for raid-engine itself to run: %w", err)
	}

	socket := os.NewFile(listenerFD, "varlink")
	listener, err = net.FileListener(socket)

	return control, keep, listener, errors.Join(err, socket.Close())
}
