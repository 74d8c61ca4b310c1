package initiator

import (
	"context"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A leaveRequest is the target's wish that we log out and in again.
type leaveRequest struct {
	c      *conn
	within time.Duration // the time we were given
	why    string

	// answered: the target has let us go and said how long to wait before we
	// log in again. The supervisor's.
	answered bool
	wait     time.Duration
}

// requestLeave has the supervisor log out of a connection and in again. It is
// called by the receiver.
func (s *Session) requestLeave(c *conn, within time.Duration, why string) {
	s.mu.Lock()
	if s.leaving == nil || s.leaving.c.group != c.group {
		s.leaving = &leaveRequest{c: c, within: within, why: why}
	}
	s.mu.Unlock()
	select {
	case s.leave <- struct{}{}:
	default:
	}
}

// takeLeave logs out of the session because the target wants it: nothing new is
// sent, what is in flight gets half of the time granted to finish, then comes the
// Logout. Recovery is to follow, for the error that it returns; nil if there was no
// reason to leave. The supervisor's.
func (s *Session) takeLeave(g *group) error {
	s.mu.Lock()
	l := s.leaving
	if l == nil || l.c.group != g || s.state != StateLoggedIn {
		s.mu.Unlock()
		return nil // of an earlier login, or we are leaving for good
	}
	if l.c.hasFailed() {
		// What the target wanted has come about. Whoever else wants it says so.
		s.leaving = nil
		s.mu.Unlock()
		return nil
	}
	s.hold = true
	s.connState = ConnLogoutRequested
	drained := s.awaitDrained()
	s.mu.Unlock()

	ctx, cancel := withTimeout(s.ctx, l.within/2)
	waitDrained(ctx, l.c.failed, drained)
	cancel()

	ctx, cancel = withTimeout(s.ctx, s.cfg.Timeouts.Logout)
	defer cancel()
	wait, err := s.sendLogout(ctx, l.c)
	l.answered, l.wait = err == nil, wait
	// The target may have closed the connection already.
	l.c.fail(&dropError{session: true, wait: l.c.params.DefaultTime2Wait, text: "the target asked for it: " + l.why})
	return l.c.err
}

// awaitDrained returns a channel that is closed when no task is in flight nor,
// unless the session is on hold, queued. The caller holds mu.
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
