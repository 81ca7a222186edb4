package varlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Client calls the methods of one service, one after the other. It is safe for
// concurrent use, but a stream keeps all others waiting and is better given a
// client of its own. After an error that is not an *[Error] the connection is
// closed, and every further call fails.
type Client struct {
	mu     sync.Mutex
	conn   net.Conn
	r      reader
	broken error
}

// Dial connects to the service that listens at path. It does not wait.
func Dial(path string) (*Client, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("varlink: %w", err)
	}

	return &Client{conn: conn, r: newReader(conn)}, nil
}

// Close hangs up; a call in progress fails.
func (c *Client) Close() error { return c.conn.Close() }

// Call calls method, with its interface, with the parameters in, and decodes
// the reply into out. Either may be nil.
//
// Returns an error that is an *[Error] if the service answered so.
func (c *Client) Call(ctx context.Context, method string, in, out any) error {
	return c.do(ctx, request{Method: method}, in, func(parameters json.RawMessage) error {
		if out == nil {
			return nil
		}

		return json.Unmarshal(parameters, out)
	})
}

// Stream calls method as Call does, and calls each for every reply until the
// last. If each returns an error the connection is closed and Stream returns
// that error.
func (c *Client) Stream(ctx context.Context, method string, in any, each func(json.RawMessage) error) error {
	return c.do(ctx, request{Method: method, More: true}, in, each)
}

func (c *Client) do(ctx context.Context, req request, in any, each func(json.RawMessage) error) error {
	parameters, err := encodeParameters(in)
	if err != nil {
		return fmt.Errorf("varlink: %s: %w", req.Method, err)
	}

	req.Parameters = parameters

	message, err := encode(req)
	if err != nil {
		return fmt.Errorf("varlink: %s: %w", req.Method, err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	if err := errors.Join(c.broken, ctx.Err()); err != nil {
		return fmt.Errorf("varlink: %s: %w", req.Method, err)
	}

	answer, err := c.exchange(ctx, req.More, message, each)
	if err != nil {
		// What is still to come belongs to this call; nobody can tell it from
		// the answer to the next.
		c.broken = net.ErrClosed
		_ = c.conn.Close()

		return fmt.Errorf("varlink: %s: %w", req.Method, err)
	}

	if answer != nil {
		return fmt.Errorf("varlink: %w", answer)
	}

	return nil
}

// exchange sends message and hands over the replies, until the last or the end
// of ctx. Returns the error reply, if there is one.
func (c *Client) exchange(
	ctx context.Context, more bool, message []byte, each func(json.RawMessage) error,
) (*Error, error) {
	// A deadline in the past is what wakes a read or a write.
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })

	answer, err := c.talk(more, message, each)
	if !stop() && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		return nil, ctx.Err()
	}

	return answer, err
}

func (c *Client) talk(more bool, message []byte, each func(json.RawMessage) error) (*Error, error) {
	if _, err := c.conn.Write(message); err != nil {
		return nil, err
	}

	for {
		text, err := c.r.next()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}

		if err != nil {
			return nil, err
		}

		var r reply
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("reply: %w", err)
		}

		if r.Error != "" {
			return &Error{Name: r.Error, Parameters: r.Parameters}, nil
		}

		if r.Continues && !more {
			return nil, errors.New("more than the one reply asked for")
		}

		if len(r.Parameters) == 0 {
			r.Parameters = json.RawMessage("{}")
		}

		if err := each(r.Parameters); err != nil {
			return nil, err
		}

		if !r.Continues {
			return nil, nil
		}
	}
}
