package varlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"time"
)

// connection is one peer that is served.
type connection struct {
	server *Server
	conn   net.Conn
	peer   Peer
}

// serve answers the calls that arrive on conn, one after the other, until the
// peer hangs up, is idle for too long, breaks the protocol, or ctx ends.
func (s *Server) serve(ctx context.Context, conn net.Conn, peer Peer) {
	c := &connection{server: s, conn: conn, peer: peer}
	requests := make(chan request)

	callCtx, hangUp := context.WithCancel(ctx)

	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(requests)
		c.read(callCtx, requests, hangUp)
	}()

	defer func() {
		hangUp()
		_ = conn.Close()
		<-read
	}()

	idle := time.NewTimer(s.opts.IdleTimeout)
	defer idle.Stop()

	for {
		select {
		case req, ok := <-requests:
			if !ok || c.answer(callCtx, req) != nil {
				return
			}

			idle.Reset(s.opts.IdleTimeout)
		case <-idle.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// read hands over requests until the stream ends. While a call is served it
// reads on, because that is how a peer is seen to hang up, and then the call
// is told so.
func (c *connection) read(ctx context.Context, requests chan<- request, hangUp func()) {
	r := newReader(c.conn)

	for {
		message, err := r.next()

		var req request
		if err == nil {
			req, err = parseRequest(message)
		}

		// A peer that has only finished its side still reads the answers.
		if errors.Is(err, io.EOF) && stillReads(c.conn) {
			return
		}

		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				c.server.opts.Log(fmt.Sprintf("varlink: %s: %v", c.peer, err))
			}

			hangUp()

			return
		}

		select {
		case requests <- req:
		case <-ctx.Done():
			return
		}
	}
}

// stillReads reports whether the peer has not closed its socket: writing
// nothing fails only if nobody is left to read it.
func stillReads(conn net.Conn) bool {
	_, err := conn.Write(nil)

	return err == nil
}

// answer serves one call. Returns an error if the connection is of no more
// use.
func (c *connection) answer(ctx context.Context, req request) error {
	send := c.send
	if req.Oneway {
		send = func(reply) error { return nil }
	}

	call := &Call{
		Method:     req.Method,
		Peer:       c.peer,
		More:       req.More && !req.Oneway,
		parameters: req.Parameters,
		send:       send,
	}

	parameters, err := c.dispatch(ctx, call, req.Upgrade)
	if err != nil {
		return send(errorReply(err))
	}

	return send(reply{Parameters: parameters})
}

// errorReply returns the reply that tells of err, which is or wraps an *Error.
func errorReply(err error) reply {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		panic(fmt.Sprintf("varlink: untyped error %v", err))
	}

	parameters := e.Parameters
	if len(parameters) == 0 {
		parameters = json.RawMessage("{}")
	}

	return reply{Error: e.Name, Parameters: parameters}
}

// dispatch runs the method that call names and returns its reply. Every error
// it returns wraps an *Error.
func (c *connection) dispatch(ctx context.Context, call *Call, upgrade bool) (json.RawMessage, error) {
	i, method, err := c.server.find(call.Method)
	if err != nil {
		return nil, err
	}

	if !c.server.opts.Authorize(c.peer, method.Access) {
		c.server.opts.Log(fmt.Sprintf("varlink: %s may not call %s", c.peer, call.Method))

		return nil, ErrPermissionDenied
	}

	if method.Handle == nil || upgrade {
		return nil, NewError(ErrMethodNotImplemented.Name, map[string]string{"method": call.Method})
	}

	out, err := c.guarded(ctx, method.Handle, call)
	if err == nil {
		var parameters json.RawMessage
		if parameters, err = encodeParameters(out); err == nil {
			return parameters, nil
		}
	}

	if _, ok := errors.AsType[*Error](err); ok {
		return nil, err
	}

	return nil, NewError(i.Name+".Failed", reason{err.Error()})
}

// guarded calls handle and makes an error of its panic: a fault in one method
// must not take the arrays with it.
func (c *connection) guarded(ctx context.Context, handle Handler, call *Call) (out any, err error) {
	defer func() {
		if r := recover(); r != nil {
			c.server.opts.Log(fmt.Sprintf("varlink: %s: panic: %v\n%s", call.Method, r, debug.Stack()))
			out, err = nil, fmt.Errorf("internal error: %v", r)
		}
	}()

	return handle(ctx, call)
}

// send writes one reply. Returns an error if the peer has gone or does not
// read.
func (c *connection) send(r reply) error {
	message, err := encode(r)
	if err != nil {
		return err
	}

	if err := c.conn.SetWriteDeadline(time.Now().Add(c.server.opts.WriteTimeout)); err != nil {
		return err
	}

	// Part of the message may have gone out. Whatever came after it would be
	// read as its end.
	if _, err := c.conn.Write(message); err != nil {
		return errors.Join(err, c.conn.Close())
	}

	return c.conn.SetWriteDeadline(time.Time{})
}
