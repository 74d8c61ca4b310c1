package iscsitest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/goiscsi/goiscsi/pdu"
)

// ErrServerClosed is returned by Listen, Serve and ServeConn after Close.
var ErrServerClosed = errors.New("iscsitest: server closed")

// A Server is an iSCSI target. NewServer and NewUnstartedServer make one.
type Server struct {
	cfg     Config
	targets map[string]*target
	names   []string // of targets, in the order of the Config
	ops     *[256]handler

	handlers atomic.Pointer[handlerTable]
	received [64]atomic.Uint64 // by opcode
	sent     [64]atomic.Uint64
	window   atomic.Uint32
	pause    atomic.Pointer[chan struct{}] // not nil while paused; closed to go on

	// wg counts the goroutines of the server; Close waits for it.
	wg   sync.WaitGroup
	quit chan struct{} // closed by Close

	// mu guards what follows. A Conn's lock may be held when it is taken,
	// never the other way round.
	mu         sync.Mutex
	closed     bool
	listeners  map[net.Listener]struct{}
	addr       net.Addr // of the first listener
	conns      map[*Conn]struct{}
	sessions   map[nexus]*Conn // normal sessions in full feature phase
	tsihs      map[uint16]*Conn
	lastTSIH   uint16
	connCount  uint64
	violations []Violation
	refuse     refusal
	redirects  map[string]redirect
}

// A target is a Target being served.
type target struct {
	Target
	// numbers are the LUNs' numbers in ascending order, guarded by mu as is
	// LUNs.
	mu      sync.RWMutex
	numbers []uint64
}

// NewServer starts a server and panics if that cannot be done, as
// httptest.NewServer does.
func NewServer(cfg Config) *Server {
	s := NewUnstartedServer(cfg)
	if err := s.Start(); err != nil {
		panic(err)
	}
	return s
}

// NewUnstartedServer returns a server that listens nowhere yet. It panics if
// the Config cannot be served. Use Start, Listen, Serve or ServeConn.
func NewUnstartedServer(cfg Config) *Server {
	s, err := New(cfg)
	if err != nil {
		panic(err)
	}
	return s
}

// New is NewUnstartedServer for a Config that may be wrong.
func New(cfg Config) (*Server, error) {
	cfg.Params.setDefaults()
	if cfg.CommandWindow == 0 {
		cfg.CommandWindow = defaultCommandWindow
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:       cfg,
		ops:       newHandlers(),
		targets:   map[string]*target{},
		listeners: map[net.Listener]struct{}{},
		conns:     map[*Conn]struct{}{},
		sessions:  map[nexus]*Conn{},
		tsihs:     map[uint16]*Conn{},
		redirects: map[string]redirect{},
		quit:      make(chan struct{}),
	}
	s.window.Store(cfg.CommandWindow)
	for _, t := range cfg.Targets {
		s.names = append(s.names, t.Name)
		s.targets[t.Name] = newTarget(t)
	}
	return s, nil
}

// Start listens on the addresses of the Config and serves them.
func (s *Server) Start() error {
	addrs := s.cfg.Addrs
	if len(addrs) == 0 {
		addrs = []string{"127.0.0.1:0"}
	}
	for _, a := range addrs {
		if _, err := s.Listen(a); err != nil {
			s.Close()
			return err
		}
	}
	return nil
}

// Listen listens on a TCP address and serves it until Close or
// StopListening. It returns the address in use.
func (s *Server) Listen(addr string) (net.Addr, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	if !s.track(l) {
		l.Close()
		return nil, ErrServerClosed
	}
	go func() {
		defer s.wg.Done()
		_ = s.accept(l) // ends with the server
	}()
	return l.Addr(), nil
}

// Serve accepts connections from l until it fails, which it does by Close or
// StopListening; then the error is ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	if !s.track(l) {
		l.Close()
		return ErrServerClosed
	}
	defer s.wg.Done()
	return s.accept(l)
}

// track registers a listener and counts its goroutine.
func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[l] = struct{}{}
	if s.addr == nil {
		s.addr = l.Addr()
	}
	s.wg.Add(1)
	return true
}

func (s *Server) accept(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if _, ours := s.listeners[l]; !ours || s.closed {
				return ErrServerClosed
			}
			delete(s.listeners, l)
			return err
		}
		c, err := s.newConn(nc)
		if err != nil {
			nc.Close()
			return err
		}
		go func() {
			defer s.wg.Done()
			c.serve()
		}()
	}
}

// ServeConn serves one connection, of any kind, until it ends.
func (s *Server) ServeConn(nc net.Conn) error {
	c, err := s.newConn(nc)
	if err != nil {
		nc.Close()
		return err
	}
	defer s.wg.Done()
	c.serve()
	return nil
}

// newConn registers a connection and counts its goroutine.
func (s *Server) newConn(nc net.Conn) (*Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrServerClosed
	}
	s.connCount++
	c := newConn(s, nc, s.connCount)
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	return c, nil
}

// forget ends the registration of a connection.
func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// endSession removes the session of c. s.mu is held.
func (s *Server) endSession(c *Conn) {
	if s.sessions[c.nexus] == c {
		delete(s.sessions, c.nexus)
	}
	if c.tsih != 0 && s.tsihs[c.tsih] == c {
		delete(s.tsihs, c.tsih)
	}
}

// spawn runs f in a goroutine that Close waits for. It does nothing once the
// server is closed.
func (s *Server) spawn(f func()) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		f()
	}()
}

// StopListening closes the listeners and leaves connections alone. Listen
// may be called again, also for the same address.
func (s *Server) StopListening() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		delete(s.listeners, l)
		l.Close()
	}
}

// Close ends listeners and connections and waits for their goroutines. The
// stores stay open. It may be called more than once.
func (s *Server) Close() {
	s.StopListening()
	s.mu.Lock()
	if !s.closed {
		close(s.quit)
	}
	s.closed = true
	conns := s.snapshot()
	s.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
	s.wg.Wait()
}

// snapshot returns the connections. s.mu is held.
func (s *Server) snapshot() []*Conn {
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// Conns returns the connections that exist.
func (s *Server) Conns() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}

// Portal returns the "host:port" of the first listener, "" if there has been
// none.
func (s *Server) Portal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr == nil {
		return ""
	}
	return s.addr.String()
}

// Received returns how many PDUs with the opcode have arrived.
func (s *Server) Received(op pdu.Opcode) uint64 { return s.received[op&0x3f].Load() }

// Sent returns how many PDUs with the opcode have been sent.
func (s *Server) Sent(op pdu.Opcode) uint64 { return s.sent[op&0x3f].Load() }

// Accepted returns how many connections have been made so far, whether or not
// a login followed.
func (s *Server) Accepted() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connCount
}

// A Violation is a rule of the protocol that an initiator broke.
type Violation struct {
	// Initiator is its name as far as it was known.
	Initiator string
	// Conn counts connections from 1.
	Conn uint64
	// Opcode is that of the PDU.
	Opcode pdu.Opcode
	// Rule says what was wrong, with the section of RFC 7143.
	Rule string
}

// String returns the violation in one line.
func (v Violation) String() string {
	return fmt.Sprintf("connection %d of %q: %s: %s", v.Conn, v.Initiator, v.Opcode, v.Rule)
}

// maxViolations bounds the memory that a wild peer can take.
const maxViolations = 1000

func (s *Server) violated(v Violation) {
	if s.cfg.Logf != nil {
		s.cfg.Logf("violation: %v", v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.violations) < maxViolations {
		s.violations = append(s.violations, v)
	}
}

// Violations returns what initiators did against the rules so far, at most
// the first thousand.
func (s *Server) Violations() []Violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Violation(nil), s.violations...)
}

func (s *Server) logf(format string, args ...any) {
	if s.cfg.Logf != nil {
		s.cfg.Logf(format, args...)
	}
}
