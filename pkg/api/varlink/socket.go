package varlink

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Peer is the process that connected, as the kernel saw it then.
type Peer struct {
	PID   int
	UID   uint32
	GID   uint32
	Known bool // false for a connection that is not a unix socket
}

// Root reports whether the peer is known to be root.
func (p Peer) Root() bool { return p.Known && p.UID == 0 }

func (p Peer) String() string {
	if !p.Known {
		return "unknown peer"
	}

	return fmt.Sprintf("process %d of user %d", p.PID, p.UID)
}

// peerOf asks the kernel who is at the other end of conn.
func peerOf(conn net.Conn) Peer {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}
	}

	raw, err := unix.SyscallConn()
	if err != nil {
		return Peer{}
	}

	var creds *syscall.Ucred

	controlErr := raw.Control(func(fd uintptr) {
		creds, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if controlErr != nil || err != nil {
		return Peer{}
	}

	return Peer{PID: int(creds.Pid), UID: creds.Uid, GID: creds.Gid, Known: true}
}

// ActivationListener returns the listener that systemd passed under name, the
// FileDescriptorName of its socket unit. Files are those that systemd
// passed, called by their names; the one that is used is closed.
//
// Returns an error wrapping [fs.ErrNotExist] if there is none of that name.
func ActivationListener(files []*os.File, name string) (net.Listener, error) {
	for _, file := range files {
		if file.Name() != name {
			continue
		}

		l, err := net.FileListener(file)
		if err != nil {
			return nil, fmt.Errorf("varlink: socket %q from systemd: %w", name, err)
		}

		_ = file.Close() // the listener has its own

		return l, nil
	}

	return nil, fmt.Errorf("varlink: no socket %q from systemd: %w", name, fs.ErrNotExist)
}

// Listen listens at path, where systemd has not made the socket: in an
// initramfs, or in a test. Mode says who may connect; it holds from the start,
// since the socket is made where nobody else can reach it and then moved.
//
// Returns an error wrapping [syscall.EADDRINUSE] if something listens there.
func Listen(path string, mode fs.FileMode) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()

		return nil, fmt.Errorf("varlink: listen at %s: %w", path, syscall.EADDRINUSE)
	}

	private, err := os.MkdirTemp(filepath.Dir(path), ".new")
	if err != nil {
		return nil, fmt.Errorf("varlink: %w", err)
	}

	defer func() { _ = os.RemoveAll(private) }()

	fresh := filepath.Join(private, "s")

	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("varlink: %w", err)
	}

	// What is at path when this listener closes may be its successor's.
	l.SetUnlinkOnClose(false)

	err = os.Chmod(fresh, mode)
	if err == nil {
		err = os.Rename(fresh, path)
	}

	if err != nil {
		_ = l.Close()

		return nil, fmt.Errorf("varlink: %w", err)
	}

	return l, nil
}
