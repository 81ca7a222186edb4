package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/pilebones/go-udev/netlink"
	"golang.org/x/sys/unix"
)

const (
	// receiveBufferBytes holds the events of a rack of disks that appear at
	// once; the kernel uses it only as far as it is filled. The default of
	// 208 KiB overflows at some 50 to 200 events.
	receiveBufferBytes = 64 << 20

	// messageBytesMax is more than udevd's largest event; what does not fit
	// counts as lost.
	messageBytesMax = 64 << 10

	// queueLen bounds the events held in this process. When the reader falls
	// behind, the rest waits in the kernel's buffer, and what overflows that
	// becomes a rescan.
	queueLen = 256
)

// Options says what to listen to. The zero value listens to all of udevd's
// events.
type Options struct {
	// Kernel asks for the kernel's own events instead of those that udevd
	// sends when it is done with a device. It is for hosts without udevd:
	// they come before the device's node and links are in place.
	Kernel bool

	// Subsystem, if not empty, is the only one whose events are delivered.
	Subsystem string

	// BufferBytes is the size of the receive buffer; 0 means 64 MiB.
	BufferBytes int
}

// Listener delivers events until its context ends. All its methods are safe
// for concurrent use.
type Listener struct {
	opts   Options
	file   *os.File
	events chan Event
	cancel context.CancelFunc
	done   chan struct{}

	bufferBytes int

	delivered, filtered, malformed, untrusted, overruns atomic.Uint64

	mu  sync.Mutex
	err error
}

// Listen subscribes to uevents in the network namespace of the calling thread,
// which must be the one that udevd runs in. Events that happen after it
// returns are not missed. They stop when ctx ends.
func Listen(ctx context.Context, opts Options) (*Listener, error) {
	if opts.BufferBytes == 0 {
		opts.BufferBytes = receiveBufferBytes
	}

	file, granted, err := open(opts)
	if err != nil {
		return nil, fmt.Errorf("uevent: %w", err)
	}

	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("uevent: %w", err), file.Close())
	}

	ctx, cancel := context.WithCancel(ctx)
	l := &Listener{
		opts:        opts,
		file:        file,
		events:      make(chan Event, queueLen),
		cancel:      cancel,
		done:        make(chan struct{}),
		bufferBytes: granted,
	}

	go l.run(ctx, raw)

	return l, nil
}

// Events returns the channel that events arrive on. It is closed when the
// listener has ended; Err then says why.
func (l *Listener) Events() <-chan Event { return l.events }

// Err returns why the listener has ended: nil if it has not, or if its context
// ended or Close was called.
func (l *Listener) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.err
}

// Close stops the listener and waits until it has ended.
func (l *Listener) Close() {
	l.cancel()
	<-l.done
}

// Stats returns the counters.
func (l *Listener) Stats() Stats {
	return Stats{
		Delivered:   l.delivered.Load(),
		Filtered:    l.filtered.Load(),
		Malformed:   l.malformed.Load(),
		Untrusted:   l.untrusted.Load(),
		Overruns:    l.overruns.Load(),
		BufferBytes: l.bufferBytes,
		BufferShort: l.bufferBytes < l.opts.BufferBytes,
	}
}

// open returns the socket, ready to be read through the runtime's poller, and
// the size of the receive buffer that was granted.
func open(opts Options) (*os.File, int, error) {
	fd, err := connect(opts.mode())
	if err != nil {
		return nil, 0, fmt.Errorf("subscribe: %w", err)
	}

	granted, err := prepare(fd, opts.BufferBytes)
	if err != nil {
		return nil, 0, errors.Join(err, unix.Close(fd))
	}

	return os.NewFile(uintptr(fd), "uevents"), granted, nil
}

func (o Options) mode() netlink.Mode {
	if o.Kernel {
		return netlink.KernelEvent
	}

	return netlink.UdevEvent
}

// connect returns a bound socket that children do not inherit. No child is
// started between the socket and the flag: its copy would hold the port and
// fill a buffer that nobody reads.
func connect(mode netlink.Mode) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()

	var conn netlink.UEventConn
	if err := conn.Connect(mode); err != nil {
		return -1, err
	}

	unix.CloseOnExec(conn.Fd)

	return conn.Fd, nil
}

// prepare makes fd fit for a daemon and returns the size of its receive
// buffer.
func prepare(fd, bufferBytes int) (int, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return 0, fmt.Errorf("set non-blocking: %w", err)
	}

	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return 0, fmt.Errorf("ask for credentials: %w", err)
	}

	// Without CAP_NET_ADMIN the limit of the host applies; the caller is told
	// by Stats.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferBytes); err != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferBytes); err != nil {
			return 0, fmt.Errorf("set receive buffer: %w", err)
		}
	}

	granted, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 0, fmt.Errorf("read receive buffer: %w", err)
	}

	return granted / 2, nil // the kernel doubles it for its own overhead
}

// run receives until ctx ends or the socket breaks.
func (l *Listener) run(ctx context.Context, raw syscall.RawConn) {
	defer close(l.done)
	defer close(l.events)
	defer l.cancel()

	// Closing is what wakes a read that waits. Twice does no harm.
	defer func() { _ = l.file.Close() }()
	defer context.AfterFunc(ctx, func() { _ = l.file.Close() })()

	err := l.receive(ctx, raw)
	if ctx.Err() != nil {
		return
	}

	l.mu.Lock()
	l.err = fmt.Errorf("uevent: receive: %w", err)
	l.mu.Unlock()
}

// receive delivers events until ctx ends or the socket fails.
//
// After an overrun the kernel drops events until its queue has been emptied,
// and says so only once. Were the rescan asked for at once, what is dropped
// between the rescan and the end of the queue would be lost for good. So the
// queue is emptied first, without waiting for the reader of the channel, and
// its events are thrown away: the rescan covers them.
func (l *Listener) receive(ctx context.Context, raw syscall.RawConn) error {
	var (
		r       = receiver{buf: make([]byte, messageBytesMax), oob: make([]byte, unix.CmsgSpace(unix.SizeofUcred))}
		overrun bool
	)

	for {
		m, err := r.next(raw, overrun)

		var ev Event

		switch {
		case errors.Is(err, unix.ENOBUFS):
			overrun = true
			l.overruns.Add(1)

			continue
		case errors.Is(err, unix.EAGAIN):
			overrun = false
			ev = Event{Action: ActionRescan}
		case err != nil:
			return err
		case overrun:
			continue
		default:
			var ok bool
			if ev, ok = l.accept(m); !ok {
				continue
			}
		}

		select {
		case l.events <- ev:
			l.delivered.Add(1)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// accept makes an event of a message. Returns false if there is none to
// deliver.
func (l *Listener) accept(m message) (Event, bool) {
	if !m.trusted(l.opts.mode()) {
		l.untrusted.Add(1)

		return Event{}, false
	}

	if m.truncated {
		l.overruns.Add(1)

		return Event{Action: ActionRescan}, true
	}

	parse := ParseUdev
	if l.opts.Kernel {
		parse = ParseKernel
	}

	ev, err := parse(m.data)
	if err != nil {
		l.malformed.Add(1)

		return Event{}, false
	}

	if l.opts.Subsystem != "" && ev.Subsystem != l.opts.Subsystem {
		l.filtered.Add(1)

		return Event{}, false
	}

	return ev, true
}

// message is one datagram and who sent it.
type message struct {
	data      []byte
	truncated bool
	from      unix.Sockaddr
	creds     *unix.Ucred // nil if the kernel gave none
}

// trusted reports whether m was multicast to the group of mode by the one who
// speaks there: the kernel, whose port is 0, or udevd, which is root. Without
// the check any process that may send could have devices probed or dropped.
func (m message) trusted(mode netlink.Mode) bool {
	from, ok := m.from.(*unix.SockaddrNetlink)
	if !ok || m.creds == nil || m.creds.Uid != 0 {
		return false
	}

	if from.Groups != uint32(mode) { // 0 if it was sent to this socket alone
		return false
	}

	return mode != netlink.KernelEvent || from.Pid == 0
}

// receiver holds the buffers that messages are read into.
type receiver struct {
	buf, oob []byte
}

// next reads one message, which is valid until the next call. It waits for
// one, or, if drain is true, returns EAGAIN when there is none.
func (r *receiver) next(raw syscall.RawConn, drain bool) (message, error) {
	var (
		n, oobn, flags int
		from           unix.Sockaddr
		err            error
	)

	waitErr := raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, from, err = unix.Recvmsg(int(fd), r.buf, r.oob, unix.MSG_CMSG_CLOEXEC)
			if !errors.Is(err, unix.EINTR) {
				return drain || !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil {
		return message{}, waitErr
	}

	if err != nil {
		return message{}, err
	}

	return message{
		data:      r.buf[:n],
		truncated: flags&unix.MSG_TRUNC != 0,
		from:      from,
		creds:     credentials(r.oob[:oobn]),
	}, nil
}

// credentials returns those that the kernel attached, or nil.
func credentials(oob []byte) *unix.Ucred {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}

	for i := range messages {
		if creds, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return creds
		}
	}

	return nil
}
