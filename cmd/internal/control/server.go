package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/goiscsi/goiscsi/initiator/manager"
	"github.com/goiscsi/goiscsi/internal/version"
)

// Limits of a request.
const (
	maxBody       = 1 << 20 // a node record is about 8 KiB
	maxHeader     = 16 << 10
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
)

// Options set up a Server; the zero value is usable.
type Options struct {
	// Version is the release to announce; empty is this program's.
	Version string
	// Group, if not 0, is the numeric group whose members may do everything.
	// (Root's own group 0 gives no rights that root does not have.)
	Group int
	// Heartbeat is the time between interim answers to a waiting client.
	// 0 is 5 seconds.
	Heartbeat time.Duration
	// Metrics, if not nil, answers GET /metrics, for everybody who can open the
	// socket.
	Metrics http.Handler
	// Begin, if not nil, is called before each request is dealt with.
	Begin func()
	// Logger gets refusals and broken requests. nil discards them.
	Logger *slog.Logger
}

// Server serves a Service. It is an http.Handler.
type Server struct {
	svc  Service
	o    Options
	self int // effective uid of this process, which may do everything
	mux  *http.ServeMux
}

// NewServer returns a server for svc.
func NewServer(svc Service, o Options) *Server {
	if o.Version == "" {
		o.Version = version.Version
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{svc: svc, o: o, self: os.Geteuid(), mux: http.NewServeMux()}
	s.routes()
	return s
}

// Serve answers on l until ctx ends or l fails, then waits for the requests
// in progress, whose contexts end with ctx. It closes l. The error is nil
// when ctx ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			p, err := peerOf(c)
			if err != nil {
				return ctx
			}
			return WithPeer(ctx, p)
		},
	}
	// The goroutine below ends with base, which this function cancels before
	// it returns; stopped tells when it has waited for the handlers.
	stopped := make(chan error, 1)
	go func() {
		<-base.Done()
		stopped <- srv.Shutdown(context.WithoutCancel(base))
	}()
	err := srv.Serve(l)
	cancel()
	serr := <-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return serr
	}
	return errors.Join(err, serr)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.o.Begin != nil {
		s.o.Begin()
	}
	h := w.Header()
	h.Set(manager.HeaderVersion, s.o.Version)
	h.Set(manager.HeaderAPIMin, strconv.Itoa(APIMin))
	h.Set(manager.HeaderAPIMax, strconv.Itoa(APIMax))
	s.mux.ServeHTTP(w, r)
}

// access is what a request needs.
type access int

const (
	accessRead  access = iota // everybody who can open the socket
	accessAdmin               // root, the server's user, the group
)

// allowed reports whether the peer of r has the access a.
func (s *Server) allowed(r *http.Request, a access) bool {
	if a == accessRead {
		return true
	}
	p, ok := PeerFrom(r.Context())
	if !ok {
		return false
	}
	return p.UID == 0 || p.UID == s.self || s.o.Group != 0 && p.InGroup(s.o.Group)
}
