package crashlog

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// The messages from an engine to whoever keeps its files, each answered by an empty one
// or by what went wrong.
const (
	opKeep = 'K' // and a name; the file comes along
	opDrop = 'D' // and a name
	opAll  = 'A' // answered, when it is the engine's turn, by an opFile for each file before
	opFile = 'F' // and a name; the file comes along
)

// messageMax bounds a message.
const messageMax = 512

// Keeper is the other end of a socket, where files are kept for the next engine: crash
// logs, and what else it needs. It is safe for concurrent use.
type Keeper struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

// NewKeeper speaks to the one that serves the other end of conn, a socket that keeps
// messages apart.
func NewKeeper(conn *net.UnixConn) *Keeper { return &Keeper{conn: conn} }

// Keep has a file be kept, in place of one of the same name.
func (k *Keeper) Keep(name string, file *os.File) error {
	return k.ask(opKeep, name, syscall.UnixRights(int(file.Fd())))
}

// Drop has a file be given up, if there is one.
func (k *Keeper) Drop(name string) error { return k.ask(opDrop, name, nil) }

// All waits until it is the turn of this engine, and returns the files that are kept, by
// name.
func (k *Keeper) All() (map[string]*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	if _, err := k.conn.Write([]byte{opAll}); err != nil {
		return nil, fmt.Errorf("crashlog: ask for all: %w", err)
	}

	all := make(map[string]*os.File)
	message, rights := make([]byte, messageMax), make([]byte, syscall.CmsgSpace(4))

	for {
		n, oobn, _, _, err := k.conn.ReadMsgUnix(message, rights)

		switch {
		case err != nil:
			return all, fmt.Errorf("crashlog: all: %w", err)
		case n == 0:
			return all, fmt.Errorf("crashlog: all: %w", io.ErrUnexpectedEOF)
		case message[0] != opFile:
			return all, answered(message[:n])
		}

		name := string(message[1:n])

		file, err := received(rights[:oobn], name)
		if err != nil {
			return all, err
		}

		all[name] = file
	}
}

func (k *Keeper) ask(op byte, name string, rights []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()

	if _, _, err := k.conn.WriteMsgUnix(append([]byte{op}, name...), rights, nil); err != nil {
		return fmt.Errorf("crashlog: %q: %w", name, err)
	}

	answer := make([]byte, messageMax)

	n, err := k.conn.Read(answer)
	if err != nil {
		return fmt.Errorf("crashlog: %q: %w", name, err)
	}

	return answered(answer[:n])
}

// answered returns what went wrong by an answer.
func answered(answer []byte) error {
	if len(answer) > 1 {
		return fmt.Errorf("crashlog: %s", answer[1:])
	}

	return nil
}

// Shelf is where files are kept.
type Shelf interface {
	Keep(name string, file *os.File) error
	Drop(name string) error
}

// Store is a shelf that can be looked into.
type Store interface {
	Shelf
	// All returns what is kept, by name.
	All() map[string]*os.File
}

// Serve does what an engine asks for on conn, until the other end closes, with nil, or
// the connection fails. It closes conn. It is called for an engine that waits for its turn, and
// returns when that has come.
func Serve(conn *net.UnixConn, store Store, turn func()) error {
	defer func() { _ = conn.Close() }()

	message, rights := make([]byte, messageMax), make([]byte, syscall.CmsgSpace(4))

	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(message, rights)

		switch {
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), err == nil && n == 0:
			return nil
		case err != nil:
			return fmt.Errorf("crashlog: %w", err)
		}

		if message[0] == opAll {
			turn()

			err = sendAll(conn, store.All())
		} else {
			err = serve(message[:n], rights[:oobn], store)
		}

		answer := []byte{0} // one byte, since an empty message looks like the end
		if err != nil {
			answer = append(answer, err.Error()...)
		}

		if _, err := conn.Write(answer[:min(len(answer), messageMax)]); err != nil {
			return nil // it is gone
		}
	}
}

func sendAll(conn *net.UnixConn, all map[string]*os.File) error {
	for name, file := range all {
		rights := syscall.UnixRights(int(file.Fd()))
		if _, _, err := conn.WriteMsgUnix(append([]byte{opFile}, name...), rights, nil); err != nil {
			return err
		}
	}

	return nil
}

func serve(message, rights []byte, shelf Shelf) error {
	name := string(message[1:])

	file, err := received(rights, name)
	if err != nil {
		return err
	}

	switch {
	case message[0] == opKeep && file != nil:
		return shelf.Keep(name, file)
	case message[0] == opDrop && file == nil:
		return shelf.Drop(name)
	default:
		return fmt.Errorf("crashlog: message %q is not understood", message)
	}
}

// received returns the file that came with a message, if one did.
func received(rights []byte, name string) (*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}

	parts, err := syscall.ParseSocketControlMessage(rights)
	if err != nil || len(parts) != 1 {
		return nil, fmt.Errorf("crashlog: %d control messages: %w", len(parts), err)
	}

	fds, err := syscall.ParseUnixRights(&parts[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("crashlog: %d files: %w", len(fds), err)
	}

	syscall.CloseOnExec(fds[0])

	return os.NewFile(uintptr(fds[0]), name), nil
}
