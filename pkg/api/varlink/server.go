package varlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Options tune a [Server]. The zero value is good for a local service.
type Options struct {
	// Authorize says whether peer may call methods of a class. Nil lets only
	// root change things; reading is open to whoever the mode of the socket
	// lets in.
	Authorize func(peer Peer, access Access) bool

	// IdleTimeout ends a connection on which nothing is asked; 0 means a
	// minute.
	IdleTimeout time.Duration

	// WriteTimeout ends a connection whose peer does not read its replies;
	// 0 means 10 seconds.
	WriteTimeout time.Duration

	// ConnectionsMax bounds the connections at any time; 0 means 64. No user
	// but root holds more than a quarter of them.
	ConnectionsMax int

	// Log, if not nil, is told what is worth telling an administrator. It may
	// be called by several goroutines at once.
	Log func(text string)
}

const (
	idleTimeout    = time.Minute
	writeTimeout   = 10 * time.Second
	connectionsMax = 64

	// acceptPause is how long the server waits for descriptors or memory.
	acceptPause = 100 * time.Millisecond
)

func (o Options) withDefaults() Options {
	if o.Authorize == nil {
		o.Authorize = func(peer Peer, access Access) bool { return access == Read || peer.Root() }
	}

	if o.IdleTimeout == 0 {
		o.IdleTimeout = idleTimeout
	}

	if o.WriteTimeout == 0 {
		o.WriteTimeout = writeTimeout
	}

	if o.ConnectionsMax == 0 {
		o.ConnectionsMax = connectionsMax
	}

	if o.Log == nil {
		o.Log = func(string) {}
	}

	return o
}

// Server serves interfaces. It is safe for concurrent use, and may serve
// several listeners.
type Server struct {
	service    Service
	opts       Options
	interfaces map[string]Interface

	mu      sync.Mutex
	total   int
	perUser map[uint32]int // without root
}

// NewServer returns a server of interfaces. Returns an error if one of them
// does not serve what its description declares.
func NewServer(service Service, opts Options, interfaces ...Interface) (*Server, error) {
	s := &Server{
		service:    service,
		opts:       opts.withDefaults(),
		interfaces: make(map[string]Interface),
		perUser:    make(map[uint32]int),
	}

	for _, i := range interfaces {
		if err := i.check(); err != nil {
			return nil, fmt.Errorf("varlink: %w", err)
		}

		s.interfaces[i.Name] = i
	}

	s.interfaces[serviceName] = s.introspection()

	return s, nil
}

// Serve serves the connections of l until ctx ends, and closes l. The contexts
// of the calls in progress end with ctx; Serve returns when they have been
// answered. Returns nil if it was ctx that ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var calls sync.WaitGroup
	defer calls.Wait()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait: whatever ends Serve ends the calls
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer func() { _ = l.Close() }()

	for {
		conn, err := l.Accept()

		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}

			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("varlink: accept: %w", err)
		case err != nil:
			// Out of descriptors or memory: those who are connected already
			// are still served, so hold on.
			s.opts.Log(fmt.Sprintf("varlink: accept: %v", err))
			pause(ctx, acceptPause)

			continue
		}

		peer := peerOf(conn)
		if !s.admit(peer) {
			s.opts.Log(fmt.Sprintf("varlink: too many connections, %s is turned away", peer))
			_ = conn.Close()

			continue
		}

		calls.Go(func() {
			defer s.dismiss(peer)

			s.serve(ctx, conn, peer)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// admit counts a connection of peer, and returns false if it is one too many.
func (s *Server) admit(peer Peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.total >= s.opts.ConnectionsMax {
		return false
	}

	if !peer.Root() {
		if s.perUser[peer.UID] >= max(1, s.opts.ConnectionsMax/4) {
			return false
		}

		s.perUser[peer.UID]++
	}

	s.total++

	return true
}

// dismiss is the mirror of admit.
func (s *Server) dismiss(peer Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.total--

	if !peer.Root() {
		s.perUser[peer.UID]--
		if s.perUser[peer.UID] == 0 {
			delete(s.perUser, peer.UID)
		}
	}
}
