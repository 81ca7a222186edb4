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
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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
	keepFD     = 5 // where what the next engine needs is kept
	pulseFD    = 6 // where it is told that arrays are served
)

// Engines that die soon are started again after a pause, which grows: whatever kills
// one may kill the next. None is given up: who waits for its disks has nobody else.
const (
	soon     = time.Second
	pauseMin = 50 * time.Millisecond
	pauseMax = time.Second
)

// pauseAfter returns how long to wait after an engine that has lived so long, if the
// pause before it was last.
func pauseAfter(lived, last time.Duration) time.Duration {
	if lived >= soon {
		return 0
	}

	return min(max(2*last, pauseMin), pauseMax)
}

// guardian runs engines, one after the other.
type guardian struct {
	runDir     string
	listener   *os.File
	controller *ublk.Controller
	kept       *shelf
	log        *journal.Logger
	signals    <-chan os.Signal
	wanted     <-chan struct{} // heard when an engine is to stand by

	orphans orphans // serve until the first engine can
	next    *engine // that stands by, or nil
	pause   time.Duration
}

// guard runs engines until one ends as asked.
func guard(runDir string, when standbyWhen) error {
	if err := withoutHugePages(); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: with huge pages, which take memory: %v\n", err)
	}

	runtime.LockOSThread() // where engines end with the guardian, it is with the thread that started them
	lockMemory(guardianCollectAt)

	if err := hurry(); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: without memory that the kernel keeps back: %v\n", err)
	}

	held := received()

	listener, err := listen(runDir, held)
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

	left, err := findOrphans()
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: without engines that a guardian before has left: %v\n", err)
	}

	g := guardian{
		orphans: left, runDir: runDir, listener: listener, controller: controller, kept: newShelf(held), log: log,
		signals: signals, wanted: want(when),
	}
	defer g.dismiss()

	for {
		began := time.Now()

		asked, err := g.one()
		if asked {
			return err
		}

		log.Log(journal.Event{
			Kind: journal.EngineDied, Reason: fmt.Sprint(err),
			Message: fmt.Sprintf("the engine died: %v; the next one takes its arrays over", err),
		})

		g.pause = pauseAfter(time.Since(began), g.pause)

		select {
		case <-time.After(g.pause):
		case <-signals:
			return err
		}
	}
}

// one runs one engine: the one that stands by, or a new one. Reports whether its end was
// asked for.
func (g *guardian) one() (asked bool, err error) {
	e := g.next
	g.next = nil

	if e == nil || e.ended() {
		e.dismiss()

		if e, err = g.spawn(); err != nil {
			return true, err
		}
	}

	if err := g.orphans.end(e); err != nil {
		e.dismiss()

		return false, err
	}

	e.begin()
	asked, err = g.watch(e)
	e.dismiss()

	return asked, err
}

// dismiss ends the engine that stands by.
func (g *guardian) dismiss() { g.next.dismiss() }

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

// lines are the guardian's ends of what connects it with its engine.
type lines struct {
	control *net.UnixConn // for control commands
	keep    *net.UnixConn // for what the next engine needs
	pulse   *os.File
}

// theirs are the engine's ends, in the order of its descriptors.
type theirs struct{ control, keep, pulse *os.File }

func (t theirs) close() { _, _, _ = t.control.Close(), t.keep.Close(), t.pulse.Close() }

// connect makes what is to connect the guardian with an engine. Where it fails nothing
// is left open.
func connect() (ours lines, its theirs, err error) {
	defer func() {
		if err != nil {
			its.close()
			ours.close()
		}
	}()

	if ours.control, its.control, err = socketPair(unix.SOCK_STREAM); err != nil {
		return ours, its, err
	}

	if ours.keep, its.keep, err = socketPair(unix.SOCK_SEQPACKET); err != nil {
		return ours, its, err
	}

	ours.pulse, its.pulse, err = os.Pipe()

	return ours, its, err
}

func (l lines) close() {
	for _, c := range []*net.UnixConn{l.control, l.keep} {
		if c != nil {
			_ = c.Close()
		}
	}

	_ = l.pulse.Close()
}

// engine is a process that serves arrays, or waits for its turn to.
type engine struct {
	*os.Process

	begin  func()        // has it serve
	waits  chan struct{} // closed when it needs nothing more to serve
	died   chan error
	gone   chan struct{} // closed when it has died
	beats  atomic.Uint64
	cancel context.CancelFunc
	served sync.WaitGroup // what it asks of the guardian
}

// spawn starts an engine, which waits for its turn. Its control commands are carried out,
// and what the next one needs is kept.
func (g *guardian) spawn() (*engine, error) {
	ours, its, err := connect()
	if err != nil {
		return nil, err
	}

	cmd := exec.Command("/proc/self/exe", "--run-dir", g.runDir, "serve")
	cmd.Args[0] = "raid-engine"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{its.control, g.listener, its.keep, its.pulse}
	if !ofSystemd() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL} // no guardian follows, which would end it
	}

	err = cmd.Start()
	its.close() // the engine has its own

	if err != nil {
		ours.close()

		return nil, err
	}

	ctx, cancel := context.WithCancel(context.Background())
	turn := make(chan struct{})
	e := &engine{
		Process: cmd.Process, begin: sync.OnceFunc(func() { close(turn) }), waits: make(chan struct{}),
		died: make(chan error, 1), gone: make(chan struct{}), cancel: cancel,
	}

	prepared := sync.OnceFunc(func() { close(e.waits) })

	// Their ends are the engine's, which is told below.
	e.served.Go(func() { _ = ublk.ServeControl(ctx, ours.control, g.controller) })
	e.served.Go(func() {
		_ = crashlog.Serve(ours.keep, g.kept, func() {
			prepared()
			<-turn
		})
	})
	e.served.Go(func() { hear(ours.pulse, &e.beats, func() { notify("READY=1", nil) }) })

	go func() {
		e.died <- cmd.Wait()
		close(e.gone)
	}()

	return e, nil
}

// ended reports whether e has died.
func (e *engine) ended() bool {
	select {
	case <-e.gone:
		return true
	default:
		return false
	}
}

// dismiss has e end, if there is one, and waits until it has.
func (e *engine) dismiss() {
	if e == nil {
		return
	}

	_ = e.Kill() // it may have ended
	<-e.gone
	e.begin() // nobody waits any more
	e.cancel()
	e.served.Wait()
}

// watch passes signals on to an engine and kills it when it hangs, until it is dead. Once
// it serves, another one stands by where that is wanted. Reports whether the end was asked
// for.
func (g *guardian) watch(e *engine) (asked bool, err error) {
	var (
		p    pulse
		hung string
		look = time.NewTicker(lookEvery)
		rest = time.NewTicker(restEvery)
	)

	defer look.Stop()
	defer rest.Stop()

	for {
		select {
		case sig := <-g.signals:
			asked = true

			notify("STOPPING=1", nil)

			if err := e.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return true, err
			}
		case <-look.C:
			if why := p.look(e.beats.Load(), stopped(e.Process)); why != "" && hung == "" {
				hung = why
				_ = e.Kill() // it may just have ended
			}
		case <-rest.C:
			giveBack()
		case <-g.wanted:
			if e.beats.Load() > uint64(settled/beatEvery) && !asked {
				g.standBy()
			}
		case err := <-e.died:
			if hung != "" {
				return asked, fmt.Errorf("%s, and it was killed: %w", hung, err)
			}

			// An engine ends well only if somebody asked it to, be it behind
			// the guardian's back.
			return asked || err == nil, err
		}
	}
}

// giveBack gives what the heap has no use for back, but where the host swaps: there may be
// no memory when the engine dies.
func giveBack() {
	if !hostSwaps() {
		debug.FreeOSMemory()
	}
}

// standBy sees to it that an engine stands by.
func (g *guardian) standBy() {
	if g.next != nil && !g.next.ended() {
		return
	}

	g.next.dismiss()

	var err error
	if g.next, err = g.spawn(); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: no engine stands by: %v\n", err)
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
