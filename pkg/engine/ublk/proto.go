package ublk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// maxMessage bounds a line of the protocol.
const maxMessage = 64 << 10

// ErrConnectionLost is wrapped when the other end of a control socket is gone. What it was asked before may still
// take effect.
var ErrConnectionLost = errors.New("control connection lost")

// message is one line of the control protocol, in JSON. A request has a command; a reply has the request's number
// and, if it failed, an error.
type message struct {
	ID      uint64       `json:"id"`
	Command *Command     `json:"command,omitempty"`
	Reply   *Reply       `json:"reply,omitempty"`
	Error   *remoteError `json:"error,omitempty"`
}

// remoteError is an error on its way to the other process: its text, and the parts of its chain that callers branch
// on.
type remoteError struct {
	Text    string     `json:"text"`
	Errno   unix.Errno `json:"errno,omitempty"`
	Pending bool       `json:"pending,omitempty"`
}

func (e *remoteError) Error() string { return e.Text }

func (e *remoteError) Unwrap() []error {
	var chain []error
	if e.Errno != 0 {
		chain = append(chain, e.Errno)
	}
	if e.Pending {
		chain = append(chain, ErrPending)
	}
	return chain
}

func newRemoteError(err error) *remoteError {
	e := &remoteError{Text: err.Error(), Pending: errors.Is(err, ErrPending)}
	_ = errors.As(err, &e.Errno) // stays 0 if there is none
	return e
}

// ServeControl carries out the commands that arrive on conn, each in its own goroutine: the reads of a partition scan
// are served while OpStartDev is pending, and what failed is stopped while something else hangs. It returns when the
// other end closes, with nil, or when the connection fails or ctx ends; then it cancels what is pending. It closes
// conn.
func ServeControl(ctx context.Context, conn io.ReadWriteCloser, commander Commander) error {
	ctx, cancel := context.WithCancelCause(ctx)
	out := encoder{enc: json.NewEncoder(conn)}
	var pending sync.WaitGroup
	err := serveMessages(ctx, conn, func(m message) {
		pending.Go(func() {
			answer := message{ID: m.ID}
			reply, err := commander.Do(ctx, *m.Command)
			if err != nil {
				answer.Error = newRemoteError(err)
			} else {
				answer.Reply = &reply
			}
			_ = out.send(answer) // if it cannot be sent, the reader finds out too, and ends
		})
	})
	cancel(ErrConnectionLost)
	pending.Wait()
	if err != nil {
		return fmt.Errorf("ublk: serve control commands: %w", err)
	}
	return nil
}

// serveMessages calls f for each request on conn, which it closes when ctx ends and when it returns.
func serveMessages(ctx context.Context, conn io.ReadWriteCloser, f func(message)) error {
	var closing error
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		closing = conn.Close()
	})
	err := readMessages(conn, func(m message) error {
		if m.Command == nil {
			return fmt.Errorf("request %d has no command: %w", m.ID, unix.EBADMSG)
		}
		f(m)
		return nil
	})
	if stop() {
		return errors.Join(err, conn.Close())
	}
	<-closed
	return errors.Join(context.Cause(ctx), closing)
}

// Client carries out control commands by asking the process at the other end of a socket. It is safe for concurrent
// use.
type Client struct {
	conn io.ReadWriteCloser
	out  encoder
	done chan struct{}

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message
	err     error // why there will be no more replies
}

// NewClient speaks the protocol on conn, which it owns from then on. Call Close to end its goroutine.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{
		conn: conn, out: encoder{enc: json.NewEncoder(conn)}, done: make(chan struct{}),
		waiting: make(map[uint64]chan message),
	}
	go func() {
		defer close(c.done)
		err := readMessages(conn, func(m message) error {
			c.deliver(m)
			return nil
		})
		c.fail(err)
	}()
	return c
}

// Close closes the connection; commands that wait for their reply fail.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Do asks for one command and waits for its end. When ctx ends first, the command goes on at the other end: the error
// wraps [ErrPending].
func (c *Client) Do(ctx context.Context, cmd Command) (Reply, error) {
	reply := make(chan message, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return Reply{}, commandError(cmd, c.err)
	}
	c.next++
	id := c.next
	c.waiting[id] = reply
	c.mu.Unlock()

	if err := c.out.send(message{ID: id, Command: &cmd}); err != nil {
		c.forget(id)
		return Reply{}, commandError(cmd, fmt.Errorf("%w: %w", ErrConnectionLost, err))
	}
	select {
	case m, ok := <-reply:
		switch {
		case !ok:
			return Reply{}, commandError(cmd, ErrConnectionLost)
		case m.Error != nil:
			return Reply{}, m.Error
		case m.Reply == nil:
			return Reply{}, commandError(cmd, fmt.Errorf("reply %d is empty: %w", id, unix.EBADMSG))
		}
		return *m.Reply, nil
	case <-ctx.Done():
		c.forget(id)
		return Reply{}, commandError(cmd, fmt.Errorf("%w: %w", ErrPending, context.Cause(ctx)))
	}
}

func (c *Client) deliver(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reply, ok := c.waiting[m.ID]; ok {
		delete(c.waiting, m.ID)
		reply <- m
	}
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = ErrConnectionLost
	if err != nil {
		c.err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	for id, reply := range c.waiting {
		delete(c.waiting, id)
		close(reply)
	}
}

// encoder sends messages from any goroutine, one at a time.
type encoder struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func (e *encoder) send(m message) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.enc.Encode(m)
}

// readMessages calls f for each message until the other end closes, f fails, or a line is no message.
func readMessages(r io.Reader, f func(message) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return fmt.Errorf("%.80q: %w", lines.Text(), err)
		}
		if err := f(m); err != nil {
			return err
		}
	}
	if err := lines.Err(); !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	return nil // it closed with messages from here unread
}
