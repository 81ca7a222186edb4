package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Machine is a running QEMU. Its methods may be used concurrently.
type Machine struct {
	Agent *Agent
	Data  net.Conn // the host's end of [DataPort]

	dir    string // of the console
	qmp    *monitor
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{} // closed when the process is gone
	once   sync.Once
	ends   []net.Conn
}

// spawner starts processes on a thread that never ends: the kernel kills a
// child with Pdeathsig when the *thread* that started it ends, and a Go
// program's threads come and go.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())

	go func() {
		runtime.LockOSThread()

		for f := range work {
			f()
		}
	}()

	return work
})

// Start starts QEMU with its CPUs stopped. It dies with the calling process.
func Start(c Config) (*Machine, error) {
	m := &Machine{dir: c.Dir, done: make(chan struct{})}

	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close() // QEMU has its own
		}
	}()

	for range 3 {
		conn, file, err := socketPair()
		if err != nil {
			m.closeEnds()

			return nil, err
		}

		m.ends, theirs = append(m.ends, conn), append(theirs, file)
	}

	m.cmd = exec.Command(program, c.args()...)
	m.cmd.ExtraFiles = theirs // in the order of fdQMP, fdAgent, fdData
	m.cmd.Stderr = &m.stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	started := make(chan error)
	spawner() <- func() { started <- m.cmd.Start() }

	if err := <-started; err != nil {
		m.closeEnds()

		return nil, fmt.Errorf("qemu: %w", err)
	}

	go m.reap()

	m.Agent, m.Data = newAgent(m.ends[1]), m.ends[2]

	var err error
	if m.qmp, err = newMonitor(m.ends[0]); err != nil {
		m.Kill()

		return nil, fmt.Errorf("qemu: %w: %s", err, strings.TrimSpace(m.stderr.String()))
	}

	return m, nil
}

func (m *Machine) reap() {
	// How it ended does not matter: who waits wants it gone.
	_ = m.cmd.Wait()
	m.closeEnds()
	close(m.done)
}

func (m *Machine) closeEnds() {
	m.once.Do(func() {
		for _, c := range m.ends {
			_ = c.Close() // there is nobody at the other end
		}
	})
}

// Kill ends QEMU at once and waits until it is gone.
func (m *Machine) Kill() {
	_ = m.cmd.Process.Kill() // it may have ended by itself

	<-m.done
}

// Wait waits until QEMU has ended.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("qemu: still running: %w", ctx.Err())
	}
}

// Execute runs a QMP command. The answer goes to result, unless that is nil.
func (m *Machine) Execute(command string, arguments, result any) error {
	return m.qmp.execute(command, arguments, result)
}

// Continue lets the guest's CPUs run.
func (m *Machine) Continue() error { return m.Execute("cont", nil, nil) }

// Events returns a channel that gets the name of every event from now on, and
// is closed with QEMU. cancel ends that.
func (m *Machine) Events() (events <-chan string, cancel func()) { return m.qmp.subscribe() }

// Console returns what the guest has printed on its console, before a reset too.
func (m *Machine) Console() ([]byte, error) {
	said, err := os.ReadFile(filepath.Join(m.dir, consoleLog))
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}

	return said, nil
}

// Save writes the machine's state, without its memory, to a file. The memory
// is where [Config].RAM says. The machine cannot go on afterwards.
func (m *Machine) Save(ctx context.Context, path string) error {
	if err := m.Execute("stop", nil, nil); err != nil {
		return err
	}

	if err := m.ignoreShared(); err != nil {
		return err
	}

	if err := m.Execute("migrate", args{"uri": "exec:cat >'" + path + "'"}, nil); err != nil {
		return err
	}

	if err := m.migrated(ctx); err != nil {
		return err
	}

	// Quitting closes the root disk, so that its file holds all of it.
	if err := m.Execute("quit", nil, nil); err != nil {
		return err
	}

	return m.Wait(ctx)
}

// Restore reads what Save wrote. The machine must have been started with
// [Config].Incoming, and is left stopped.
func (m *Machine) Restore(ctx context.Context, path string) error {
	if err := m.ignoreShared(); err != nil {
		return err
	}

	if err := m.Execute("migrate-incoming", args{"uri": "exec:cat '" + path + "'"}, nil); err != nil {
		return err
	}

	return m.migrated(ctx)
}

// ignoreShared leaves memory that is backed by a file out of the saved state.
// A restored machine maps that file privately, which takes no time.
func (m *Machine) ignoreShared() error {
	return m.Execute("migrate-set-capabilities", args{
		"capabilities": []args{{"capability": "x-ignore-shared", "state": true}},
	}, nil)
}

func (m *Machine) migrated(ctx context.Context) error {
	for {
		var info struct {
			Status string `json:"status"`
			Error  string `json:"error-desc"`
		}
		if err := m.Execute("query-migrate", nil, &info); err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(m.stderr.String()))
		}

		switch info.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("qemu: migration %s: %s", info.Status, info.Error)
		}

		select {
		case <-ctx.Done():
			return fmt.Errorf("qemu: migration is %q: %w", info.Status, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// socketPair returns our end of a pair of connected sockets, and theirs.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("qemu: socket pair: %w", err)
	}

	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")

	conn, err := net.FileConn(ours) // duplicates the descriptor
	err = errors.Join(err, ours.Close())
	if err != nil {
		return nil, nil, fmt.Errorf("qemu: socket pair: %w", errors.Join(err, theirs.Close()))
	}

	return conn, theirs, nil
}
