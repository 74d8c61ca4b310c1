package initiator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A Session is a session with one target in full feature phase. It is made by
// Dial and ended by Logout or Close. See docs/session.md for its states.
type Session struct {
	cfg     Config
	log     *slog.Logger
	clock   clock        // of timeouts
	created time.Time    // when Dial succeeded
	est     *establisher // the supervisor's, before that Dial's

	// ctx ends when the session is told to end; its cause says why.
	ctx    context.Context //nolint:containedctx // the life of the session's goroutines
	cancel context.CancelCauseFunc

	wg sync.WaitGroup // watcher and error handler
	// verifying counts the verifiers of the present or last connection.
	verifying sync.WaitGroup
	done      chan struct{} // closed by the supervisor as its last deed

	live atomic.Pointer[group] // group, for Kick
	tap  *tap                  // for Trace

	leave     chan struct{} // capacity 1: the target has asked for a logout
	watchWake chan struct{} // capacity 1: the watcher should look at nextWake

	// events serialises the calls of heard: Config.OnEvent and those of Watch.
	events sync.Mutex
	heard  watchers[Event]

	// mu protects everything that follows, and the fields of slots and tasks
	// in flight as told there.
	mu        sync.Mutex
	state     SessionState
	connState ConnState
	group     *group // with at least one connection in full feature phase; nil otherwise
	suspended *group // of which no connection is left, while its recovery is tried
	hold      bool   // nothing new is sent: a logout is near
	win       window
	slots     slotTable
	queue     taskList      // submitted and not sent, in the order of sending
	returned  taskList      // rejected by a target that wants us to log out
	guards    guards        // who must vouch for a unit after a new login
	failed    taskList      // finished without having been sent; the failer gives them back
	failer    chan struct{} // not nil: the failer runs; closed when it ends
	exchanges map[uint32]*exchange
	mgmtGen   uint32
	drained   chan struct{} // not nil: somebody waits until no task is left; closed then
	handling  bool          // the error handler runs
	stats     Stats
	octets    octets // of former connections

	nextWake time.Duration // when the watcher wakes by itself
	failAt   time.Duration // when the recovery timeout is over; valid when reconnecting
	ackWatch ackWatch

	short int // connections of no use in a row; the supervisor's

	// What Info tells.
	result         loginResult // of the last login
	portal         Portal
	err            error // why the session ended
	lastErr        error
	lostAt         time.Duration
	recoveries     uint64
	connRecoveries uint64
	lastRecovery   time.Time
	lastOutage     time.Duration
	connected      time.Time
	attempts       int
}

// now returns the time on the session's clock.
func (s *Session) now() time.Duration { return s.clock.now() }

// Dial logs in to a target and returns the session. It makes one attempt, or
// several within Config.LoginRetryWindow, each of which may follow redirections.
// The end of the context ends the attempts, and has no effect on the session once
// Dial has returned.
//
// The error is a *ConfigError, the cause of the context's end, or an *OpError
// that wraps a *LoginError or is, by errors.Is, ErrAuth, ErrTransport, ErrTimeout,
// ErrResolve, ErrRedirect or ErrProtocol.
func Dial(ctx context.Context, cfg Config) (*Session, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newSession(cfg)
	g, err := s.firstLogin(ctx)
	if err != nil {
		s.cancel(err)
		return nil, err
	}
	s.created = time.Now()
	s.log.Info("session is operational", "portal", g.portal.Address(), "isid", cfg.ISID)
	s.emit(Event{Type: EventConnected, Portal: g.portal})
	s.resume(g)
	s.wg.Go(s.watch)
	go s.supervise(g) // ends with done, for which Close and Logout wait
	return s, nil
}

func newSession(cfg Config) *Session {
	s := &Session{
		cfg:       cfg,
		tap:       new(tap),
		log:       cfg.Logger.With("target", cfg.Target),
		clock:     newClock(),
		done:      make(chan struct{}),
		leave:     make(chan struct{}, 1),
		watchWake: make(chan struct{}, 1),
		slots:     newSlotTable(cfg.CmdsMax),
		exchanges: make(map[uint32]*exchange),
		portal:    cfg.Portal,
		result:    loginResult{tpgt: cfg.Portal.TPGT},
	}
	s.heard.add(cfg.OnEvent)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.est = &establisher{
		dialer:   dialer{tcp: cfg.TCP, hook: cfg.Dial},
		timeouts: cfg.Timeouts,
		tap:      s.tap,
		log:      s.log,
		home:     cfg.Portal,
		request: loginRequest{
			initiatorName: cfg.InitiatorName,
			alias:         cfg.InitiatorAlias,
			target:        cfg.Target,
			isid:          cfg.ISID,
			cmdSN:         cfg.InitialCmdSN,
			chap:          cfg.CHAP,
			params:        cfg.Params,
		},
		onState:    s.setConnState,
		onRedirect: func(to Portal) { s.emit(Event{Type: EventRedirected, Portal: to}) },
		onLoginPDU: func(n uint64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.stats.LoginPDUs += n
		},
	}
	return s
}

// setConnState notes the progress of an attempt to log in.
func (s *Session) setConnState(cs ConnState, at Portal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connState, s.portal = cs, at
}

// emit tells everybody who listens. The caller holds no lock.
func (s *Session) emit(e Event) {
	s.events.Lock()
	defer s.events.Unlock()
	e.Time = time.Now()
	s.heard.tell(e)
}

// opError wraps an error of an operation on the session.
func (s *Session) opError(op string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &OpError{Op: op, Target: s.cfg.Target, Portal: s.portal, Err: err}
}

// refusal returns why nothing can be sent now. The caller holds mu.
func (s *Session) refusal() error {
	switch s.state {
	case StateFailed:
		return ErrRecoveryTimeout
	case StateLoggingOut, StateClosed:
		return ErrClosed
	}
	return withKind(ErrTransport, errors.New("not connected at the moment"))
}

// Close ends the session abruptly: the connection is closed without a logout,
// tasks fail with ErrClosed. It returns when all goroutines have ended, and may be
// called at any time and more than once, but not from a Completer or OnEvent. The
// error is always nil.
func (s *Session) Close() error {
	s.cancel(ErrClosed)
	<-s.done
	return nil
}

// Done returns a channel that is closed when the session has ended: after Close,
// Logout, or ReopenMax failed attempts to log in again.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns why the session ended: ErrClosed after Close and Logout, the error
// of the last login after ReopenMax failed attempts. It returns nil before Done is
// closed.
func (s *Session) Err() error {
	select {
	case <-s.done:
	default:
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Info describes the session as it is now.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := Info{
		InitiatorName:        s.cfg.InitiatorName,
		Target:               s.cfg.Target,
		TargetAlias:          s.result.targetAlias,
		ISID:                 s.cfg.ISID,
		TSIH:                 s.result.tsih,
		State:                s.state,
		ConnState:            s.connState,
		Portal:               s.portal,
		Persistent:           s.cfg.Portal,
		TPGT:                 s.result.tpgt,
		Negotiated:           s.result.params,
		Timeouts:             s.cfg.Timeouts,
		CHAP:                 s.cfg.CHAP,
		Created:              s.created,
		ConnectedSince:       s.connected,
		Recoveries:           s.recoveries,
		ConnectionRecoveries: s.connRecoveries,
		LastError:            s.lastErr,
		LastRecovery:         s.lastRecovery,
		Attempts:             s.attempts,
		Outage:               s.lastOutage,
		Queued:               s.queue.n + s.guards.parked,
		InFlight:             s.slots.inUse(),
	}
	if s.state == StateReconnecting || s.state == StateFailed {
		i.Outage = s.now() - s.lostAt
	}
	if s.group != nil {
		i.Connections = len(s.group.conns())
		nc := s.group.lead().nc
		i.LocalAddr, i.RemoteAddr = nc.LocalAddr(), nc.RemoteAddr()
	}
	return i
}

// Stats returns the counters.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, sum := s.stats, s.octets
	if s.group != nil {
		for _, c := range s.group.all() {
			sum.add(c)
		}
	}
	st.TxDataOctets, st.RxDataOctets = sum.tx, sum.rx
	return st
}

// octets are the bytes that connections have sent and received.
type octets struct{ tx, rx uint64 }

func (o *octets) add(c *conn) {
	o.tx += c.q.octets.Load()
	o.rx += c.src.octets.Load()
}
