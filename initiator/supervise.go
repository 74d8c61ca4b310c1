package initiator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// Timing of attempts to log in.
const (
	// firstRetryDelay is open-iscsi's pause between attempts of a first login.
	firstRetryDelay = 3 * time.Second

	// Recovery: the delay grows with the outage, so that one that lasts t is
	// noticed to be over t/outageShare later.
	outageShare   = 25
	minRetryDelay = 25 * time.Millisecond
	maxRetryDelay = 3 * time.Second

	// Connections that end as soon as they are made, without a single answer, get
	// longer and longer pauses, as failed logins do: a target, or something on the
	// way to it, that accepts each login and then drops it is not to be asked without
	// end. One that has lived for shortLife is not of that kind.
	shortLife = 100 * time.Millisecond

	// firstConnectTimeout is what a TCP connection gets in the first attempt
	// of a recovery; it doubles up to the login timeout.
	firstConnectTimeout = time.Second
)

// firstLogin makes the attempts of Dial.
func (s *Session) firstLogin(ctx context.Context) (*group, error) {
	start := time.Now()
	extra := s.cfg.Params.DefaultTime2Wait // before the first retry only
	for attempts := 1; ; attempts++ {
		g, err := s.attempt(ctx, s.cfg.Timeouts.Login)
		if err == nil {
			return g, nil
		}
		if ctx.Err() != nil || !retryable(err) {
			return nil, s.opError("login", err)
		}
		delay := firstRetryDelay + extra
		extra = 0
		if time.Since(start)+delay > s.cfg.LoginRetryWindow {
			return nil, s.opError("login", err)
		}
		s.log.Warn("login failed, trying again", "err", err, "attempts", attempts, "delay", delay)
		s.emit(Event{Type: EventLoginFailed, Portal: s.est.home, Err: err, Attempts: attempts})
		s.setConnState(ConnWait, s.est.home)
		if pause(ctx, delay) != nil {
			return nil, s.opError("login", withKind(context.Cause(ctx), err))
		}
	}
}

// attempt makes one attempt to log in.
func (s *Session) attempt(ctx context.Context, connectTimeout time.Duration) (*group, error) {
	t, res, portal, err := s.est.attempt(ctx, connectTimeout)
	if err != nil {
		return nil, err
	}
	if res.tpgt == UnknownTPGT {
		res.tpgt = portal.TPGT
	}
	g := newGroup(newConn(s, t, res, portal))
	s.join(ctx, g, res, connectTimeout)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result, s.portal = *res, portal
	return g, nil
}

// pause waits and returns the cause of the context's end if that came first.
func pause(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// supervise is the supervisor: it owns the life of the session's connections,
// login after login.
func (s *Session) supervise(g *group) {
	for g != nil {
		err := s.attend(g)
		g.fail(err)
		g.wait()
		wait, again := s.disconnected(g, err)
		if !again {
			break
		}
		if g = s.reconnect(wait); g != nil {
			announce := s.recovered(g)
			s.resume(g)
			announce()
		}
	}
	s.end()
}

// attend looks after the connections of a login until they are of no more use, and
// returns why.
func (s *Session) attend(g *group) error {
	r := refill{s: s, g: g}
	defer r.stop()
	for {
		select {
		case <-g.hurt:
			r.stop()
			if err := s.mend(g); err != nil {
				return err
			}
			r.plan()
		case <-s.leave:
			r.stop()
			if err := s.takeLeave(g); err != nil {
				return err
			}
			r.plan()
		case <-r.due:
			r.begin()
		case j := <-r.joined:
			r.take(j)
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// resume makes the connections of a login the live ones and sends what waits. The
// supervisor's, or Dial's.
func (s *Session) resume(g *group) {
	s.verifying.Wait() // for those of the last login
	s.mu.Lock()
	now := s.now()
	s.group = g
	s.live.Store(g)
	for _, c := range g.conns() {
		c.born = now
	}
	s.win = window{next: s.result.cmdSN, expCmd: s.result.expCmdSN, maxCmd: s.result.maxCmdSN}
	if s.ctx.Err() == nil {
		s.state = StateLoggedIn
	}
	s.connState = ConnLoggedIn
	s.connected = time.Now()
	s.ackWatch = ackWatch{}
	s.hold = false
	guards := s.bar()
	for t := s.queue.head; t != nil; t = t.next {
		if t.Timeout > 0 {
			t.deadline = now + t.Timeout
		}
	}
	s.dispatch(g)
	s.mu.Unlock()
	s.wakeWatcher()
	for _, c := range g.conns() {
		c.start()
	}
	g.flush()
	s.verifyAll(g, guards)
}

// disconnected sorts out the tasks that were in flight on the connections of a
// login, which have all ended because of err, by the rules of docs/session.md. It
// returns how long to wait before the next login, and false if there shall be none.
func (s *Session) disconnected(g *group, err error) (wait time.Duration, again bool) {
	conns := g.all()
	wait = conns[0].params.DefaultTime2Wait
	if drop := (*dropError)(nil); errors.As(err, &drop) {
		wait = drop.wait
	}
	if g.want > 1 && s.cfg.Params.DefaultTime2Wait > 0 {
		wait = max(wait, groupWait)
	}
	var finished, back taskList
	s.mu.Lock()
	wait = max(wait, s.flapping(conns))
	suspended := s.suspended != nil // since its last connection was lost
	s.group, s.suspended = nil, nil
	s.live.Store(nil)
	for _, c := range conns {
		s.octets.add(c)
	}
	ending := s.state == StateLoggingOut || s.ctx.Err() != nil
	for _, x := range s.exchanges {
		s.remove(x)
		x.done <- answer{err: transportError(err)}
	}
	for _, sl := range s.inFlight() {
		if t, again := s.recall(sl, err, ending); again {
			back.pushBack(t)
		} else {
			finished.pushBack(t)
		}
	}
	s.queue.prepend(&s.returned)
	s.queue.prepend(&back)
	probes := s.unbar()
	for t := probes.popFront(); t != nil; t = probes.popFront() {
		t.Err = interrupted(err)
		finished.pushBack(t)
	}
	s.connState, s.connected, s.hold = ConnFree, time.Time{}, false
	s.lastErr, s.attempts = err, 0
	if !suspended {
		s.lostAt = s.now()
	}
	switch {
	case ending:
	case !suspended:
		s.connState, s.state = ConnWait, StateReconnecting
		s.startRecoveryTimer()
	default: // the clock runs since then
		s.connState = ConnWait
		if s.state == StateFailed {
			s.recoveryTimeout()
		}
	}
	s.checkDrained()
	portal := s.portal
	s.mu.Unlock()

	for _, c := range conns {
		close(c.gone)
	}
	giveBack(finished)
	s.wakeWatcher()
	if !ending {
		s.log.Warn("connection lost", "portal", portal.Address(), "err", err, "next login in", wait)
	}
	if !suspended {
		s.emit(Event{Type: EventDisconnected, Portal: portal, Err: err})
	}
	return wait, !ending
}

// flapping counts the times in a row that connections were of no use, of which
// these, which have ended, are the last, and returns how long to wait because of
// them. The first costs nothing. The supervisor's.
func (s *Session) flapping(conns []*conn) time.Duration {
	useful := func(c *conn) bool { return c.fruitful || c.lostAt-c.born >= shortLife }
	if slices.ContainsFunc(conns, useful) {
		s.short = 0
		return 0
	}
	s.short++
	if s.short == 1 {
		return 0
	}
	return min(minRetryDelay<<min(s.short-2, 10), maxRetryDelay)
}

// recall takes a task out of the slot of a connection that has ended because of
// err. It reports whether the task is to be sent again, as all are that have no result yet
// if all says so; otherwise the task is finished. The caller holds mu.
func (s *Session) recall(sl *slot, err error, all bool) (t *Task, again bool) {
	drained, unsent := sl.state == slotDraining, sl.cmdBatch > sl.conn.begun
	t = s.slots.release(sl)
	t.begun = t.begun || !unsent
	switch {
	case drained:
	case t.cause != nil:
		t.Err = t.cause
	case all || unsent || t.Replay || t.probe:
		return t, true
	default:
		t.Err = interrupted(err)
	}
	return t, false
}

// interrupted is the error of a task that was in flight when its connection
// ended because of err.
func interrupted(err error) error {
	return withKind(ErrInterrupted, withKind(ErrTransport, err))
}

// inFlight returns the slots in use in the order of their CmdSN. The caller holds
// mu.
func (s *Session) inFlight() []*slot {
	var list []*slot
	s.slots.each(func(sl *slot) { list = append(list, sl) })
	slices.SortFunc(list, func(a, b *slot) int { return pdu.SerialCompare(a.cmdSN, b.cmdSN) })
	return list
}

// startRecoveryTimer sets the time at which tasks stop waiting. The caller holds
// mu.
func (s *Session) startRecoveryTimer() {
	switch limit := s.cfg.Timeouts.Replacement; {
	case limit < 0:
		s.failAt = never
	case limit <= Immediately:
		s.failAt = s.now()
		s.recoveryTimeout()
	default:
		s.failAt = s.now() + limit
		s.wakeBy(s.failAt)
	}
}

// recoveryTimeout lets all tasks that wait for a connection fail. The caller
// holds mu.
func (s *Session) recoveryTimeout() {
	s.state = StateFailed
	for t := s.queue.popFront(); t != nil; t = s.queue.popFront() {
		s.reject(t, ErrRecoveryTimeout)
	}
}

// reconnect makes attempts to log in until one succeeds. It returns nil if the
// session shall end.
func (s *Session) reconnect(wait time.Duration) *group {
	s.mu.Lock()
	lost := s.lostAt
	s.mu.Unlock()
	connectTimeout := firstConnectTimeout
	delay := lost + wait - s.now()
	for attempts := 1; ; attempts++ {
		if pause(s.ctx, delay) != nil {
			return nil
		}
		g, err := s.attempt(s.ctx, min(connectTimeout, s.cfg.Timeouts.Login))
		if err == nil {
			return g
		}
		if s.ctx.Err() != nil {
			return nil
		}
		s.mu.Lock()
		s.attempts = attempts
		s.connState, s.portal = ConnWait, s.est.home
		s.mu.Unlock()
		outage := s.now() - lost
		if attempts&(attempts-1) == 0 {
			// The log hears of attempts 1, 2, 4, 8, …
			s.log.Warn("login failed, trying again", "portal", s.est.home.Address(), "err", err, "attempts", attempts, "outage", outage.Round(time.Millisecond))
		}
		s.emit(Event{Type: EventLoginFailed, Portal: s.est.home, Err: err, Attempts: attempts, Outage: outage})
		if s.cfg.ReopenMax > 0 && attempts >= s.cfg.ReopenMax {
			s.cancel(s.opError("login", err))
			return nil
		}
		connectTimeout = min(2*connectTimeout, s.cfg.Timeouts.Login)
		delay = min(max(outage/outageShare, minRetryDelay), maxRetryDelay)
	}
}

// recovered notes that the session is back, before a task can succeed that may
// make somebody look. What it returns tells of it, after the tasks were sent.
func (s *Session) recovered(g *group) (announce func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	attempts, outage := s.attempts+1, s.now()-s.lostAt
	s.attempts = 0
	s.recoveries++
	s.lastRecovery, s.lastOutage = time.Now(), outage
	return func() {
		s.log.Info("session is operational after recovery", "portal", g.portal.Address(), "attempts", attempts, "outage", outage.Round(time.Millisecond))
		s.emit(Event{Type: EventRecovered, Portal: g.portal, Attempts: attempts, Outage: outage})
	}
}

// end is the end of the session. There is no connection any more.
func (s *Session) end() {
	s.cancel(ErrClosed) // no effect if there is a cause already
	s.verifying.Wait()
	cause := context.Cause(s.ctx)
	s.mu.Lock()
	s.state, s.connState = StateClosed, ConnFree
	s.err = cause
	for t := s.queue.popFront(); t != nil; t = s.queue.popFront() {
		if t.begun {
			s.reject(t, withKind(ErrClosed, interrupted(cause)))
		} else {
			s.reject(t, withKind(ErrClosed, cause))
		}
	}
	failer := s.failer
	s.mu.Unlock()
	s.wg.Wait()
	if failer != nil {
		<-failer
	}
	s.log.Info("session is closed")
	s.emit(Event{Type: EventClosed, Err: cause})
	close(s.done)
	s.tap.end() // after done, at which Trace looks
}
