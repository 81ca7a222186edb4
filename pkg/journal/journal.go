// Package journal records events in the systemd journal, and never makes its
// caller wait for it.
//
// The journal may itself lie on an array. If it is slow, a program that waited
// for it could wait for itself, so events go through a queue that is made in
// advance and drained by one goroutine: when it is full, events are dropped and
// counted, and the journal is told how many as soon as it listens again. Where
// there is no journal, as in an initramfs, events go to standard error.
package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// Socket is where journald listens.
	Socket = "/run/systemd/journal/socket"

	// queueLen bounds the events that wait for the journal.
	queueLen = 256

	// blockedMax is how long one attempt waits for journald to take a record
	// before the socket is looked at anew.
	blockedMax = 100 * time.Millisecond

	// dialsMax bounds the attempts to hand over one record.
	dialsMax = 2
)

// Options say who logs, and where to.
type Options struct {
	Identifier string // SYSLOG_IDENTIFIER: raid-assembler or raid-engine

	// Socket is where journald listens; empty means [Socket].
	Socket string

	// Fallback is written to, a line an event, while nobody listens there;
	// nil means standard error. A write that hangs loses events, but keeps
	// nobody waiting.
	Fallback io.Writer

	// Prefixed makes lines begin with their priority, as <3>, for a reader
	// that understands that. Otherwise they begin with the identifier.
	Prefixed bool
}

// Logger records events. It is safe for concurrent use.
//
// Invariants:
//
//   - 0 <= count <= len(records)
//   - records[head] to records[head+count-1], modulo the length, wait to be
//     delivered, in this order; the goroutine alone reads them
type Logger struct {
	opts Options
	done chan struct{} // closed when the goroutine has ended

	// The goroutine must not wait for journald when quit has ended.
	quit     context.Context
	quitting context.CancelFunc

	mu        sync.Mutex
	wake      sync.Cond // of mu: there is something to deliver, or an end
	records   [][]byte
	head      int
	count     int
	lost      uint64 // since it was last reported
	lostTotal uint64
	closed    bool

	// Of the goroutine.
	conn *net.UnixConn // nil while nobody listens
	line []byte        // the last that fell back
}

// New returns a logger. Close ends it.
//
// If neither Fallback nor Prefixed is set, lines are prefixed where standard
// error is a stream to the journal.
func New(opts Options) *Logger {
	if opts.Socket == "" {
		opts.Socket = Socket
	}

	if opts.Fallback == nil {
		opts.Fallback = os.Stderr
		opts.Prefixed = opts.Prefixed || os.Getenv("JOURNAL_STREAM") != ""
	}

	l := &Logger{
		opts:    opts,
		done:    make(chan struct{}),
		records: make([][]byte, queueLen),
	}
	l.wake.L = &l.mu
	l.quit, l.quitting = context.WithCancel(context.Background())

	memory := make([]byte, queueLen*recordBytes)
	for i := range l.records {
		l.records[i] = memory[i*recordBytes : i*recordBytes : (i+1)*recordBytes]
	}

	go l.run()

	return l
}

// Log records ev. It does not wait for anything but other callers, and does
// not allocate.
func (l *Logger) Log(ev Event) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.lost > 0 && !l.closed {
		l.reportLost()
	}

	if l.lost > 0 || l.closed || l.count == len(l.records) {
		l.lost++
		l.lostTotal++

		return
	}

	l.put(ev)
}

// Lost returns how many events were dropped so far.
func (l *Logger) Lost() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.lostTotal
}

// Close delivers what waits, until ctx ends, and ends the logger. What is
// logged afterwards is lost.
//
// Returns an error wrapping that of ctx if something was not delivered.
func (l *Logger) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.wake.Signal()
	l.mu.Unlock()

	defer l.quitting()

	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()

		return fmt.Errorf("journal: %d events not delivered: %w", l.count, ctx.Err())
	}
}

// put appends ev to the queue. Preconditions: mu is held, and there is room.
func (l *Logger) put(ev Event) {
	i := (l.head + l.count) % len(l.records)
	l.records[i] = appendRecord(l.records[i][:0], l.opts.Identifier, ev)
	l.count++
	l.wake.Signal()
}

// reportLost puts the number of lost events where they are missing, if there
// is room for it and what comes next. Preconditions: mu is held.
func (l *Logger) reportLost() {
	if l.count+2 > len(l.records) {
		return
	}

	l.put(Event{Kind: MessagesLost, Message: strconv.FormatUint(l.lost, 10) + " messages lost"})
	l.lost = 0
}

// run delivers records until the logger is closed and none is left.
func (l *Logger) run() {
	defer close(l.done)
	defer l.hangUp()

	for {
		record, ok := l.next()
		if !ok || !l.deliver(record) {
			return
		}

		l.mu.Lock()
		l.head = (l.head + 1) % len(l.records)
		l.count--
		l.mu.Unlock()
	}
}

// next waits for the oldest record, which nobody changes until it has been
// taken out. Returns false at the end.
func (l *Logger) next() ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()

	for l.count == 0 {
		if l.lost > 0 {
			l.reportLost()

			continue
		}

		if l.closed {
			return nil, false
		}

		l.wake.Wait()
	}

	return l.records[l.head], true
}

// deliver hands record to journald, or writes it as a line if nobody listens.
// Returns false if it had to give up.
func (l *Logger) deliver(record []byte) bool {
	for dials := 0; ; {
		if l.conn == nil {
			conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: l.opts.Socket, Net: "unixgram"})
			if err != nil || dials == dialsMax {
				l.fallBack(record)

				return true
			}

			l.conn = conn
			dials++
		}

		err := l.send(record)

		switch {
		case err == nil:
			return true
		case l.quit.Err() != nil:
			return false
		case errors.Is(err, os.ErrDeadlineExceeded): // journald is there and does not read: try again
		case errors.Is(err, syscall.ENOBUFS):
			l.pause()
		default:
			l.hangUp() // it has gone, and may be back under the same name
		}
	}
}

// pause waits for memory.
func (l *Logger) pause() {
	timer := time.NewTimer(blockedMax)
	defer timer.Stop()

	select {
	case <-timer.C:
	case <-l.quit.Done():
	}
}

// send sends record, and waits no longer than blockedMax for room.
func (l *Logger) send(record []byte) error {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}

	if err := l.conn.SetWriteDeadline(time.Now().Add(blockedMax)); err != nil {
		return err
	}

	var sendErr error

	err = raw.Write(func(fd uintptr) bool {
		sendErr = syscall.Sendmsg(int(fd), record, nil, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)

		return !errors.Is(sendErr, syscall.EAGAIN)
	})
	if err != nil {
		return err
	}

	return sendErr
}

func (l *Logger) hangUp() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}

// fallBack writes record as a line. There is nobody to tell if that fails.
func (l *Logger) fallBack(record []byte) {
	l.line = appendLine(l.line[:0], record, l.opts)
	_, _ = l.opts.Fallback.Write(l.line)
}

// appendLine appends record as a line for people to read.
func appendLine(dst, record []byte, opts Options) []byte {
	priority, rest, _ := bytes.Cut(bytes.TrimPrefix(record, []byte("PRIORITY=")), []byte("\nMESSAGE="))
	message, _, _ := bytes.Cut(rest, []byte("\n"))

	if opts.Prefixed {
		dst = append(dst, '<')
		dst = append(dst, priority...)
		dst = append(dst, '>')
	} else {
		dst = append(dst, opts.Identifier...)
		dst = append(dst, ": "...)
	}

	dst = append(dst, message...)

	return append(dst, '\n')
}
