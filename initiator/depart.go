package initiator

import (
	"context"
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// The departure from one of several connections, since the target has asked for it
// (RFC 7143 section 11.9.1, event 1): commands go to the others; when what is in
// flight there has ended, or its time is over, the connection is logged out of. From
// then on it is a lost one that the target has closed (connection_recovery.go).

// spare reports whether there is a connection to go on with that the target has not
// asked to leave. The caller holds Session.mu.
func (g *group) spare() bool {
	return slices.ContainsFunc(g.members.Load().takers, func(c *conn) bool { return c.leave == nil && !c.hasFailed() })
}

// beginDepartures starts to leave the connections that the target has asked for. The
// caller is the supervisor and holds mu.
func (s *Session) beginDepartures(g *group) {
	for _, c := range g.conns() {
		if l := c.leave; l != nil && !l.begun && !c.hasFailed() {
			l.begun = true
			idle := c.awaitIdle()
			c.wg.Go(func() { s.depart(c, idle) })
		}
	}
}

// depart waits until nothing is in flight on a connection, or for as long as that may
// take, and logs out of it. It ends with the connection at the latest.
func (s *Session) depart(c *conn, idle <-chan struct{}) {
	ctx, cancel := withTimeout(s.ctx, c.leave.until-s.now())
	waitDrained(ctx, c.failed, idle)
	cancel()
	x := s.part(c)
	if x == nil {
		return
	}
	c.write()
	ctx, cancel = withTimeout(s.ctx, s.cfg.Timeouts.Logout)
	defer cancel()
	if _, err := s.await(ctx, x); err != nil {
		c.fail(withKind(ErrTransport, err))
	}
}

// departed deals with the answer to the Logout for a connection. Called by the
// receiver, ahead of the end of the connection, which follows.
func (c *conn) departed(p pdu.PDU) {
	r := p.(*pdu.LogoutResponse)
	if r.Response != pdu.LogoutSuccess {
		c.fail(c.notLoggedOut(r))
		return
	}
	c.fail(&dropError{closed: true, wait: time.Duration(r.Time2Wait) * time.Second, text: askedFor(c.leave)})
}

// part appends the Logout for a connection, after which nothing may be sent on it. It
// returns nil if it is not to be left by itself any more: the session is logged out
// of, or the other connections are lost.
func (s *Session) part(c *conn) *exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := c.group
	if s.group != g || s.state != StateLoggedIn || s.hold || !g.spare() || c.hasFailed() {
		c.leave.begun = false
		s.wakeLeave()
		return nil
	}
	x, err := s.ask(c, pdu.OpLogoutResponse, (*conn).departed, func(c *conn, tag, cmdSN uint32) pdu.PDU {
		s.stats.LogoutPDUs++
		return &pdu.LogoutRequest{
			Immediate:        true,
			Reason:           pdu.LogoutConnection,
			InitiatorTaskTag: tag,
			CID:              c.cid,
			CmdSN:            cmdSN,
			ExpStatSN:        c.expStatSN.Load(),
		}
	})
	if err != nil {
		return nil // cannot be: the PDU is well formed
	}
	c.parted.Store(true)
	g.set(g.conns())
	return x
}

// turnedAway deals with a task whose command the target did not take since it waits
// for a logout. With another connection it goes there; else it waits for the next
// login. The caller is the receiver of c and holds mu.
func (s *Session) turnedAway(c *conn, t *Task) error {
	s.requestLeave(c, 0, "reject: waiting for logout")
	g := c.group
	if s.group != g || !g.spare() {
		s.returned.pushBack(t)
		return nil
	}
	var back taskList
	back.pushBack(t)
	if t.probe {
		s.guards.probes.prepend(&back)
	} else {
		s.queue.prepend(&back)
	}
	// The target does not count it as received, and carries out nothing behind it
	// (RFC 7143 section 7.3).
	err := s.fill(g)
	s.dispatch(g)
	return err
}

// awaitIdle returns a channel that is closed when nothing is in flight on the
// connection. The caller holds Session.mu.
func (c *conn) awaitIdle() <-chan struct{} {
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	ch := c.idle
	if c.busy == 0 {
		close(ch)
		c.idle = nil
	}
	return ch
}

// relieve notes that a task or an exchange does not keep to the connection any more.
// The caller holds Session.mu.
func (c *conn) relieve() {
	if c.busy--; c.busy == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// awaitEnd waits for the end of a connection that nothing more may be sent on, and
// returns why it ended, or the cause of the context's end.
func (c *conn) awaitEnd(ctx context.Context) error {
	select {
	case <-c.failed:
		return transportError(c.err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
