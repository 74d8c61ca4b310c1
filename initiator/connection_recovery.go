package initiator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// mend makes good the loss of connections while others live: the target is told on
// one of those to close what was lost, and what was under way there is sent again.
// The error is why that is not possible, and the session is to be made anew. The
// supervisor's.
//
// On error recovery level 2 the loss of all connections can be made good, too, and
// what was under way goes on where it was (task_reassign.go).
func (s *Session) mend(g *group) error {
	for {
		if err := s.collect(g); err != nil || len(g.lost) == 0 || g.isLeaving() {
			return err
		}
		c, at, step := s.nextStep(g)
		over, err := s.rest(g, at)
		if err == nil && over {
			err = step(g, c)
		}
		if err != nil {
			return err
		}
	}
}

// nextStep returns what is to be done next about which lost connection, and when.
// All are logged out of before tasks are reassigned: a task may have come to a
// connection that was lost since.
func (s *Session) nextStep(g *group) (c *conn, at time.Duration, step func(*group, *conn) error) {
	c = slices.MinFunc(g.lost, func(a, b *conn) int {
		return cmp.Or(a.stage()-b.stage(), cmp.Compare(a.due(), b.due()))
	})
	switch {
	case c.stage() == stageClosed:
		return c, c.due(), s.takeBack
	case len(g.conns()) == 0:
		return c, c.due(), s.reinstate
	case c.removed:
		return c, c.due(), s.reassign
	case c.keepsTasks():
		return c, c.due(), s.removeLost
	}
	return c, c.due(), s.closeLost
}

// Stages of lost connections, those first that are seen to first.
const (
	stageClosed  = iota // the target has closed it
	stageLost           // it is to be logged out of
	stageRemoved        // its tasks are to be reassigned
)

// stage returns where a lost connection stands.
func (c *conn) stage() int {
	switch drop := c.drop(); {
	case drop != nil && drop.closed:
		return stageClosed
	case c.removed:
		return stageRemoved
	}
	return stageLost
}

// due returns when the next step for a lost connection is due.
func (c *conn) due() time.Duration {
	switch c.stage() {
	case stageClosed:
		return c.lostAt
	case stageRemoved:
		return c.reassignAt
	}
	return c.lostAt + c.respite()
}

// collect takes the connections that have failed out of use. The error is why the
// session cannot go on without them.
func (s *Session) collect(g *group) error {
	if l := g.leaving.Load(); l != nil {
		if l.hasFailed() {
			return l.err
		}
		return nil // in the course of the logout
	}
	dead, left, err := s.lose(g)
	for errors.Is(err, errStranded) {
		for _, c := range g.conns() {
			c.fail(withKind(ErrTransport, err))
		}
		dead, left, err = s.lose(g)
	}
	if err != nil || len(dead) == 0 {
		return err
	}
	for _, c := range dead {
		c.wait()
		if c.stage() == stageClosed {
			g.notBefore = max(g.notBefore, c.lostAt+c.drop().wait)
		}
	}
	g.pause = s.flapping(dead)
	if left == 0 {
		last := dead[len(dead)-1]
		s.log.Warn("connection lost, to be recovered within the session", "portal", last.portal.Address(), "err", last.err)
		s.emit(Event{Type: EventDisconnected, Portal: last.portal, Err: last.err})
		return nil
	}
	for _, c := range dead {
		if c.stage() == stageClosed {
			s.log.Info("one of several connections was logged out of", "cid", c.cid, "why", c.err, "left", left)
		} else {
			s.log.Warn("one of several connections is lost", "cid", c.cid, "err", c.err, "left", left)
		}
		s.emit(Event{Type: EventConnectionLost, Portal: c.portal, Err: c.err, Connections: left})
	}
	return nil
}

// errStranded: no connection is left but such as were about to be left, and they
// cannot stand in for the others.
var errStranded = errors.New("no other connection is left")

// lose takes the connections that have failed out of the live ones, and returns
// them and how many are left. The error is why the session cannot go on.
func (s *Session) lose(g *group) (dead []*conn, left int, err error) {
	parted := 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range g.conns() {
		switch {
		case c.hasFailed():
			if dead = append(dead, c); endsSession(c.err) {
				return nil, 0, c.err
			}
		case c.parted.Load():
			parted++
		default:
			left++
		}
	}
	switch {
	case len(dead) == 0:
		return nil, left, nil
	case left == 0 && parted > 0:
		return nil, 0, errStranded
	case left == 0 && !slices.ContainsFunc(dead, s.canReinstate):
		return nil, 0, dead[0].err
	}
	for _, c := range dead {
		g.lose(c) // so that nobody appends to it from here on
		s.cut(c)
		s.lastErr = c.err
	}
	switch {
	case left == 0:
		s.suspend(g)
	case !g.spare():
		s.wakeLeave() // the target has asked all that are left to leave
	}
	return dead, left + parted, nil
}

// drop returns what the target has said of the end of a connection that has failed,
// nil if nothing.
func (c *conn) drop() *dropError {
	if drop, ok := c.err.(*dropError); ok { //nolint:errorlint // it is never wrapped
		return drop
	}
	return c.notice.Load()
}

// respite is how long to wait after the loss of a connection before the target is
// asked to do anything about it (RFC 7143 section 7.5).
func (c *conn) respite() time.Duration {
	if drop := c.drop(); drop != nil {
		return drop.wait
	}
	return c.params.DefaultTime2Wait
}

// retention is for how long after the respite the target keeps the tasks of a lost
// connection for another one; 0 below error recovery level 2.
func (c *conn) retention() time.Duration {
	if c.params.ErrorRecoveryLevel < 2 {
		return 0
	}
	if drop := c.drop(); drop != nil {
		return drop.retain
	}
	return c.params.DefaultTime2Retain
}

// keepsTasks reports whether the tasks of a lost connection can be reassigned.
func (c *conn) keepsTasks() bool { return c.retention() > 0 }

// rest waits until a time. It returns false if there is something else to see to
// before, and the error if the session does not go on.
func (s *Session) rest(g *group, until time.Duration) (over bool, err error) {
	timer := time.NewTimer(until - s.now())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-g.hurt:
		return false, nil
	case <-s.leave:
		return false, s.takeLeave(g)
	case <-s.ctx.Done():
		return false, context.Cause(s.ctx)
	}
}

// closeLost has the target close a lost connection, and takes its tasks back.
func (s *Session) closeLost(g *group, c *conn) error {
	via := g.lead()
	resp, err := s.logoutLost(via, c, pdu.LogoutConnection)
	if err != nil {
		if via.hasFailed() {
			return nil // the next one is asked
		}
		return err
	}
	switch resp.Response {
	case pdu.LogoutSuccess, pdu.LogoutCIDNotFound: // closed now, or since before
		return s.takeBack(g, c)
	}
	return c.notLoggedOut(resp)
}

// notLoggedOut is the error of a Logout for a connection that has failed.
func (c *conn) notLoggedOut(r *pdu.LogoutResponse) error {
	return withKind(ErrTransport, fmt.Errorf("logout of connection %d: response %d", c.cid, r.Response))
}

// logoutLost sends a Logout for the lost connection c on another one.
func (s *Session) logoutLost(via, c *conn, reason pdu.LogoutReason) (*pdu.LogoutResponse, error) {
	ctx, cancel := withTimeout(s.ctx, s.cfg.Timeouts.Logout)
	defer cancel()
	p, err := s.request(ctx, via, pdu.OpLogoutResponse, nil, func(_ *conn, tag, cmdSN uint32) pdu.PDU {
		s.stats.LogoutPDUs++
		return &pdu.LogoutRequest{
			Immediate:        true,
			Reason:           reason,
			InitiatorTaskTag: tag,
			CID:              c.cid,
			CmdSN:            cmdSN,
			ExpStatSN:        c.expStatSN.Load(), // of the connection to be closed (RFC 7143 section 11.14.4)
		}
	})
	if err != nil {
		return nil, err
	}
	return p.(*pdu.LogoutResponse), nil
}

// takeBack sorts out the tasks of a lost connection that the target has closed:
// it has ended them, and nothing that was sent there can still arrive. The CmdSNs
// that it never got are filled.
func (s *Session) takeBack(g *group, c *conn) error {
	var finished, back, probes taskList
	s.mu.Lock()
	for _, sl := range s.inFlight() {
		if sl.conn != c {
			continue
		}
		switch t, again := s.recall(sl, c.err, false); {
		case !again:
			finished.pushBack(t)
		case t.probe:
			probes.pushBack(t)
		default:
			back.pushBack(t)
		}
	}
	s.queue.prepend(&back)
	s.guards.probes.prepend(&probes)
	s.forsake(g, c)
	err := s.fill(g)
	s.dispatch(g)
	s.checkDrained()
	s.mu.Unlock()
	close(c.gone)
	g.flush()
	giveBack(finished)
	s.wakeWatcher()
	return err
}

// forsake ends the membership of a lost connection in its group. The caller holds
// mu.
func (s *Session) forsake(g *group, c *conn) {
	g.lost = slices.DeleteFunc(slices.Clone(g.lost), func(p *conn) bool { return p == c })
	s.octets.add(c)
	s.connRecoveries++
}

// maxHoles is how many numbers of commands may be missing at the target after the
// loss of a connection: as many as there can be tasks, twice.
const maxHoles = 2 * MaxCmdsMax

// fill fills the holes that a lost connection has left in the sequence of CmdSN,
// behind which the target carries nothing out: a NOP-Out takes each of the numbers
// that the target does not have and that no task has. A target that counts what it
// got and dropped as received ignores it. The caller holds mu and has g flushed.
func (s *Session) fill(g *group) error {
	if g.lead() == nil {
		return nil // who reinstates a connection does it
	}
	w := &s.win
	if w.next-w.expCmd > maxHoles {
		return protocolErrorf("ExpCmdSN %d though commands up to %d were answered", w.expCmd, w.next-1)
	}
	taken := make(map[uint32]bool)
	s.slots.each(func(sl *slot) { taken[sl.cmdSN] = true })
	maps.DeleteFunc(g.fillers, func(sn uint32, c *conn) bool { return pdu.SerialLess(sn, w.expCmd) || !slices.Contains(g.all(), c) })
	for sn := w.expCmd; sn != w.next; sn++ {
		if taken[sn] || g.fillers[sn] != nil {
			continue
		}
		via := g.pick()
		g.fillers[sn] = via
		s.stats.NopTxPDUs++
		err := via.q.post(&pdu.NOPOut{
			InitiatorTaskTag:  s.mgmtTag(), // nobody waits for the answer
			TargetTransferTag: pdu.ReservedTag,
			CmdSN:             sn,
			ExpStatSN:         via.expStatSN.Load(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
