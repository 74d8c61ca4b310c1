//go:build linux

package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sort"
	"sync"
	"time"
)

// Errors of a Server.
var (
	// ErrServerClosed is returned by Serve after Shutdown or Close.
	ErrServerClosed = errors.New("nbd server closed")
	// ErrExportExists is returned for a second export of the same name.
	ErrExportExists = errors.New("nbd export exists")
	// ErrNoExport is returned for a name that is not exported.
	ErrNoExport = errors.New("no such nbd export")
)

// A Server speaks the fixed newstyle handshake and serves exports by name to
// any number of clients. Structured replies and TLS are declined. The empty
// name, which clients send that were told none, means the export of that name
// or, if there is none, the only export.
type Server struct {
	opt ServerOptions

	// wg counts the goroutines of connections and Serve calls.
	wg sync.WaitGroup

	mu        sync.Mutex // protects what follows
	exports   map[string]*served
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]struct{}
	closed    bool
	keep      func(export string, nc net.Conn) // takes over what has drained, if not nil
	ctx       context.Context                  // ends when connections have to drain
	drain     context.CancelFunc
}

// served is an export with its backend and connections.
type served struct {
	export  *Export
	backend Backend
	ctx     context.Context // ends when the export is removed
	cancel  context.CancelFunc
	wg      sync.WaitGroup // connections in transmission
	conns   map[net.Conn]struct{}
	removed bool
}

// NewServer returns a server without exports. o may be nil.
func NewServer(o *ServerOptions) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		opt:       o.withDefaults(),
		exports:   make(map[string]*served),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[net.Conn]struct{}),
		ctx:       ctx,
		drain:     cancel,
	}
}

// Add offers an export under e.Name; requests go to b. It returns
// ErrExportExists when the name is taken.
func (s *Server) Add(e *Export, b Backend) error {
	if err := e.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrServerClosed
	}
	if s.exports[e.Name] != nil {
		return fmt.Errorf("%w: %q", ErrExportExists, e.Name)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.exports[e.Name] = &served{export: e, backend: b, ctx: ctx, cancel: cancel, conns: make(map[net.Conn]struct{})}
	return nil
}

// Remove withdraws an export: new clients do not find it, requests in flight
// are answered, and its connections are closed. When ctx ends first the
// connections are cut; Remove still waits for the backend to complete what it
// was given.
func (s *Server) Remove(ctx context.Context, name string) error {
	s.mu.Lock()
	x := s.exports[name]
	if x == nil {
		s.mu.Unlock()
		return fmt.Errorf("%w: %q", ErrNoExport, name)
	}
	delete(s.exports, name)
	x.removed = true
	s.mu.Unlock()
	x.cancel()
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for nc := range x.conns {
			nc.Close()
		}
	})
	defer stop()
	x.wg.Wait()
	return nil
}

// Serve accepts connections from ln until ctx ends or the server is shut down,
// and closes ln. It returns ErrServerClosed or the context's error then, and
// else the listener's error. Connections live on when ctx ends, until Shutdown
// or Close.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		ln.Close()
		return ErrServerClosed
	}
	s.listeners[ln] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	defer func() {
		ln.Close()
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()

	var delay time.Duration
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			delay = 0
			s.start(nc)
		case s.isClosed():
			return ErrServerClosed
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("nbd: accept: %w", err)
		default:
			// Out of descriptors, most likely: connections that end free some.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.opt.Logger.Warn("nbd: accept", "error", err, "retry", delay)
			select {
			case <-time.After(delay):
			case <-s.ctx.Done():
			case <-ctx.Done():
			}
		}
	}
}

// Resume serves the transmission phase for a client that the HandOver of another
// Server has given away, with an export like that one's. It closes nc when it is
// through with it, and at once if it returns an error: ErrNoExport,
// ErrServerClosed, or that there are too many connections.
func (s *Server) Resume(export string, nc net.Conn) error {
	s.mu.Lock()
	x := s.exports[export]
	s.mu.Unlock()
	if x == nil {
		nc.Close()
		return fmt.Errorf("%w: %q", ErrNoExport, export)
	}
	return s.serve(nc, func() error { return s.transmit(nc, x) })
}

// start serves a new client.
func (s *Server) start(nc net.Conn) {
	err := s.serve(nc, func() error { return s.serveClient(nc) })
	if errors.Is(err, errTooMany) {
		s.opt.Logger.Warn(err.Error(), "max", s.opt.MaxConns)
	}
}

// errTooMany refuses a connection above ServerOptions.MaxConns.
var errTooMany = errors.New("nbd: too many connections")

// serve runs f for a connection in a goroutine, which s.wg counts, and closes it
// afterwards.
func (s *Server) serve(nc net.Conn, f func() error) error {
	s.mu.Lock()
	var err error
	switch {
	case s.closed:
		err = ErrServerClosed
	case len(s.conns) >= s.opt.MaxConns:
		err = errTooMany
	}
	if err != nil {
		s.mu.Unlock()
		nc.Close()
		return err
	}
	s.conns[nc] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		err := f()
		nc.Close()
		s.mu.Lock()
		delete(s.conns, nc)
		s.mu.Unlock()
		switch {
		case err == nil, errors.Is(err, ErrDrained), errors.Is(err, errAborted), errors.Is(err, io.EOF):
			s.opt.Logger.Debug("nbd: connection ended", "reason", err)
		default:
			s.opt.Logger.Info("nbd: connection ended", "error", err)
		}
	}()
	return nil
}

// serveClient does the handshake on nc and then the transmission.
func (s *Server) serveClient(nc net.Conn) error {
	if err := nc.SetDeadline(time.Now().Add(s.opt.HandshakeTimeout)); err != nil {
		return err
	}
	// A shutdown cuts handshakes short: nothing is lost with them.
	cut := make(chan struct{})
	stop := context.AfterFunc(s.ctx, func() {
		defer close(cut)
		nc.SetDeadline(time.Unix(1, 0))
	})
	n := negotiation{rw: nc, lookup: s.lookup, list: s.list}
	x, err := n.run()
	if !stop() {
		<-cut // so that it does not cut the transmission short
	}
	if err != nil {
		return err
	}
	return s.transmit(nc, x)
}

// transmit serves an export on nc, which is behind its handshake.
func (s *Server) transmit(nc net.Conn, x *served) error {
	s.mu.Lock()
	if x.removed {
		s.mu.Unlock()
		return ErrNoExport
	}
	x.wg.Add(1)
	x.conns[nc] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(x.conns, nc)
		s.mu.Unlock()
		x.wg.Done()
	}()
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	err := ServeConn(x.ctx, nc, x.export, x.backend, &s.opt)
	if errors.Is(err, ErrDrained) {
		s.mu.Lock()
		keep := s.keep
		if x.removed {
			keep = nil
		}
		s.mu.Unlock()
		if keep != nil {
			keep(x.export.Name, nc)
		}
	}
	return err
}

// lookup returns the export that a client means by name, or nil.
func (s *Server) lookup(name string) *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exports[name]; x != nil || name != "" || len(s.exports) != 1 {
		return x
	}
	for _, x := range s.exports {
		return x
	}
	return nil
}

// list returns the exports, sorted by name.
func (s *Server) list() []*Export {
	s.mu.Lock()
	defer s.mu.Unlock()
	es := make([]*Export, 0, len(s.exports))
	for _, x := range s.exports {
		es = append(es, x.export)
	}
	sort.Slice(es, func(i, j int) bool { return es[i].Name < es[j].Name })
	return es
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// close refuses what is new and asks connections to drain.
func (s *Server) close() {
	s.mu.Lock()
	s.closed = true
	for ln := range s.listeners {
		ln.Close()
	}
	s.mu.Unlock()
	s.drain()
}

// Shutdown ends the server gracefully: listeners are closed, requests in flight
// are answered, and connections closed. When ctx ends first it returns the
// context's error with connections still open; Close ends those. It may be
// called again.
func (s *Server) Shutdown(ctx context.Context) error {
	s.close()
	done := make(chan struct{})
	go func() { // ends with the connections, which Close can force
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// HandOver ends the server as Shutdown does, but clients do not see it: when the
// requests that a client has in flight are answered, its connection is given to
// keep with the name of its export, to be served on by the Resume of another Server,
// in this process or in one that gets a copy of the descriptor. keep may
// be called by several goroutines at once; the connection is closed when it returns, so it has to make its copy.
// Clients still in the handshake are cut.
func (s *Server) HandOver(ctx context.Context, keep func(export string, nc net.Conn)) error {
	s.mu.Lock()
	s.keep = keep
	s.mu.Unlock()
	return s.Shutdown(ctx)
}

// Close cuts all connections and waits for the backends to complete what they
// were given. It may be called more than once.
func (s *Server) Close() error {
	s.close()
	s.mu.Lock()
	for nc := range s.conns {
		nc.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
