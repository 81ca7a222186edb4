package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Agent is the connection to the guest agent.
type Agent struct {
	mu   sync.Mutex // one command at a time; the agent has one thread
	conn net.Conn
	r    *bufio.Reader
	last int // number of the last command
}

func newAgent(conn net.Conn) *Agent { return &Agent{conn: conn, r: bufio.NewReader(conn)} }

// Exit is how a command in the guest ended.
type Exit struct {
	Exited    bool   `json:"exited"`
	Code      int    `json:"exitcode"`
	Signal    int    `json:"signal"`
	Stdout    []byte `json:"out-data"`
	Stderr    []byte `json:"err-data"`
	Truncated bool   `json:"out-truncated"`
}

// Sync waits until the agent answers, as it does once the guest is up.
func (a *Agent) Sync(ctx context.Context) error {
	for ctx.Err() == nil {
		// The byte 0xff makes the agent forget half a command that a guest
		// which has since been restarted was still reading.
		if err := a.send([]byte{0xff}); err != nil {
			return err
		}

		attempt, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		err := a.execute(attempt, "guest-ping", args{}, nil)

		cancel()

		if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return err
		}
	}

	return fmt.Errorf("qemu: guest agent does not answer: %w", ctx.Err())
}

// Start starts a program in the guest and returns its process id.
func (a *Agent) Start(ctx context.Context, argv []string, stdin []byte) (int, error) {
	request := args{"path": argv[0], "arg": argv[1:], "capture-output": true}
	if stdin != nil {
		request["input-data"] = stdin
	}

	var started struct {
		PID int `json:"pid"`
	}

	err := a.execute(ctx, "guest-exec", request, &started)

	return started.PID, err
}

// Poll asks how the program that Start started is doing.
func (a *Agent) Poll(ctx context.Context, pid int) (Exit, error) {
	var exit Exit
	err := a.execute(ctx, "guest-exec-status", args{"pid": pid}, &exit)

	return exit, err
}

// execute runs one command of the agent. A command that has been given up on
// may still be answered; the number in each answer tells whose it is.
func (a *Agent) execute(ctx context.Context, command string, arguments, result any) error {
	a.mu.Lock()
	defer a.mu.Unlock()

	a.last++

	request, err := json.Marshal(args{"execute": command, "arguments": arguments, "id": a.last})
	if err != nil {
		return fmt.Errorf("qemu: agent: %s: %w", command, err)
	}

	if err := a.send(append(request, '\n')); err != nil {
		return err
	}

	r, err := a.receive(ctx)

	switch {
	case err != nil:
		return fmt.Errorf("qemu: agent: %s: %w", command, err)
	case r.Error != nil:
		return fmt.Errorf("qemu: agent: %s: %s", command, r.Error.Desc)
	case result == nil:
		return nil
	}

	if err := json.Unmarshal(r.Return, result); err != nil {
		return fmt.Errorf("qemu: agent: %s: %w", command, err)
	}

	return nil
}

func (a *Agent) send(request []byte) error {
	if err := a.conn.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		return fmt.Errorf("qemu: agent: %w", err)
	}

	if _, err := a.conn.Write(request); err != nil {
		return fmt.Errorf("qemu: agent: %w", err)
	}

	return nil
}

// receive returns the answer to the last command.
func (a *Agent) receive(ctx context.Context) (response, error) {
	if err := a.conn.SetReadDeadline(time.Time{}); err != nil {
		return response{}, err
	}

	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)

		_ = a.conn.SetReadDeadline(time.Now()) // a connection that is closed does not need it
	})

	defer func() {
		if !stop() {
			<-ended
		}
	}()

	for {
		line, err := a.r.ReadBytes('\n')
		if err != nil {
			return response{}, err
		}

		var r response
		if json.Unmarshal(line, &r) == nil && r.ID == a.last {
			return r, nil
		}
	}
}
