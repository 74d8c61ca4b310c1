package initiator

import (
	"context"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A leaveRequest is the target's wish that we log out of a connection.
type leaveRequest struct {
	until time.Duration // for what is in flight, on the session's clock
	why   string
	begun bool // its departure is under way; Session.mu protects it
}

// requestLeave has the supervisor log out of a connection: nothing new is sent there
// if there is another one. The caller holds mu and is the receiver.
func (s *Session) requestLeave(c *conn, within time.Duration, why string) {
	if c.leave == nil {
		// What is in flight gets half of the time that we were given.
		c.leave = &leaveRequest{until: s.now() + within/2, why: why}
		c.group.set(c.group.conns())
	}
	s.wakeLeave()
}

// wakeLeave has the supervisor look at what the target has asked for.
func (s *Session) wakeLeave() {
	select {
	case s.leave <- struct{}{}:
	default:
	}
}

// takeLeave does what the target has asked for: it logs out of the connections that
// the target named while there are others (depart.go), or of the session. In that
// case recovery is to follow, for the error that it returns. The supervisor's.
func (s *Session) takeLeave(g *group) error {
	s.mu.Lock()
	if s.group != g || s.state != StateLoggedIn {
		s.mu.Unlock()
		return nil // we are leaving for good, or what was asked for has come about
	}
	if g.spare() {
		s.beginDepartures(g)
		s.mu.Unlock()
		return nil
	}
	var c *conn // whose time is over first
	conns := g.members.Load().takers
	for _, o := range conns {
		if o.leave != nil && !o.hasFailed() && (c == nil || o.leave.until < c.leave.until) {
			c = o
		}
	}
	if c == nil {
		// What the target wanted has come about. Whoever else wants it says so.
		s.mu.Unlock()
		return nil
	}
	s.hold = true
	s.connState = ConnLogoutRequested
	idle := make([]<-chan struct{}, len(conns))
	for i, o := range conns {
		idle[i] = o.awaitIdle()
	}
	s.mu.Unlock()

	ctx, cancel := withTimeout(s.ctx, c.leave.until-s.now())
	for i, o := range conns { // not for tasks of lost ones
		waitDrained(ctx, o.failed, idle[i])
	}
	cancel()

	ctx, cancel = withTimeout(s.ctx, s.cfg.Timeouts.Logout)
	defer cancel()
	wait, err := s.sendLogout(ctx, c)
	drop := &dropError{session: true, wait: c.params.DefaultTime2Wait, text: askedFor(c.leave)}
	if err == nil {
		// The target has let us go, and said for how long.
		drop.wait = wait
	}
	if c.fail(drop); err != nil {
		return c.err
	}
	return drop
}

// askedFor is the text of the end of a connection that the target asked for.
func askedFor(l *leaveRequest) string { return "the target asked for it: " + l.why }

// awaitDrained returns a channel that is closed when no task is in flight nor,
// unless the session is on hold, queued. The caller, who ends the session, holds mu.
func (s *Session) awaitDrained() <-chan struct{} {
	if s.drained == nil {
		s.drained = make(chan struct{})
	}
	ch := s.drained
	s.checkDrained()
	return ch
}

// waitDrained waits for the channel, the failure of a connection or the context's
// end.
func waitDrained(ctx context.Context, failed, drained <-chan struct{}) {
	select {
	case <-drained:
	case <-failed:
	case <-ctx.Done():
	}
}

// sendLogout closes the session at the target and returns how long to wait
// before the next login. Nothing new is sent behind it (RFC 7143 section 11.14): see
// group.isLeaving.
func (s *Session) sendLogout(ctx context.Context, c *conn) (time.Duration, error) {
	p, err := s.request(ctx, c, pdu.OpLogoutResponse, nil, func(c *conn, tag, cmdSN uint32) pdu.PDU {
		s.connState = ConnLoggingOut
		c.group.leaving.Store(c)
		s.hold = true
		s.stats.LogoutPDUs++
		return &pdu.LogoutRequest{
			Immediate:        true,
			Reason:           pdu.LogoutSession,
			InitiatorTaskTag: tag,
			CmdSN:            cmdSN,
			ExpStatSN:        c.expStatSN.Load(),
		}
	})
	if err != nil {
		return 0, err
	}
	return time.Duration(p.(*pdu.LogoutResponse).Time2Wait) * time.Second, nil
}

// Logout ends the session in an orderly way. New tasks fail with ErrClosed; those
// that were submitted get Timeouts.Logout to finish; then the target is told, and its
// answer awaited for as long again. Whatever the answer, even if there is none, the
// session is closed when Logout returns, and all its goroutines have ended. A
// session that has no connection at the moment is just closed.
//
// Logout may be called in any state and more than once, but not from a Completer
// or OnEvent. The end of the context makes it a Close, and is the only error.
func (s *Session) Logout(ctx context.Context) error {
	s.mu.Lock()
	if s.group == nil || s.state != StateLoggedIn {
		leaving := s.state == StateLoggingOut
		s.mu.Unlock()
		if !leaving {
			return s.Close()
		}
		select { // another Logout is under way
		case <-s.done:
			return nil
		case <-ctx.Done():
			s.Close() //nolint:errcheck // always nil
			return s.opError("logout", context.Cause(ctx))
		}
	}
	s.state = StateLoggingOut
	drained := s.awaitDrained()
	s.mu.Unlock()

	// Close, called meanwhile, cuts all waiting short.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(ErrClosed) })()

	dctx, dcancel := withTimeout(ctx, s.cfg.Timeouts.Logout)
	waitDrained(dctx, s.done, drained)
	dcancel()
	lctx, lcancel := withTimeout(ctx, s.cfg.Timeouts.Logout)
	_, err := s.sendLogout(lctx, nil)
	lcancel()
	if err != nil {
		s.log.Info("no answer to logout", "err", err)
	}
	s.cancel(ErrClosed)
	<-s.done
	if cause := context.Cause(ctx); cause != nil && cause != ErrClosed {
		return s.opError("logout", cause)
	}
	return nil
}
