package initiator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// Error recovery level 2: the tasks of a lost connection go on, where they were, on
// another one (RFC 7143 sections 7.1.4.3 and 7.2.2).

// canReinstate reports whether a login can take the place of the last connection
// and keep its tasks. The caller holds mu.
func (s *Session) canReinstate(c *conn) bool {
	limit := s.cfg.Timeouts.Replacement
	return c.keepsTasks() && (limit < 0 || limit > Immediately) && s.state == StateLoggedIn
}

// suspend notes that the session has no connection at the moment. The caller holds
// mu.
func (s *Session) suspend(g *group) {
	s.group = nil
	s.live.Store(nil)
	s.suspended = g
	s.state, s.connState, s.connected = StateReconnecting, ConnWait, time.Time{}
	s.lostAt, s.attempts = s.now(), 0
	s.startRecoveryTimer()
}

// reinstate logs in to the session in the place of c, which is the Logout for its
// recovery at the same time (RFC 7143 section 6.3.4). It tries for as long as the
// target keeps the tasks.
func (s *Session) reinstate(g *group, c *conn) error {
	s.mu.Lock()
	res, lost, until := s.result, s.lostAt, min(c.lostAt+c.respite()+c.retention(), s.failAt)
	res.cmdSN, res.expStatSN = s.win.next, c.expStatSN.Load()
	s.mu.Unlock()
	connectTimeout := firstConnectTimeout
	for attempts := 1; ; attempts++ {
		t, more, err := s.est.reinstate(s.ctx, g.portal, &res, c.cid, min(connectTimeout, s.cfg.Timeouts.Login))
		if err == nil {
			again := newConn(s, t, more, g.portal)
			again.cid, again.group = c.cid, g
			s.reinstated(g, c, again)
			return nil
		}
		s.mu.Lock()
		s.attempts, s.connState = attempts, ConnWait
		s.mu.Unlock()
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		outage := s.now() - lost
		s.emit(Event{Type: EventLoginFailed, Portal: g.portal, Err: err, Attempts: attempts, Outage: outage})
		delay := min(max(outage/outageShare, minRetryDelay), maxRetryDelay)
		if !retryable(err) || s.now()+delay > until {
			s.log.Warn("connection is not reinstated, the session is to be made anew", "portal", g.portal.Address(), "err", err, "attempts", attempts)
			return err
		}
		if err := pause(s.ctx, delay); err != nil {
			return err
		}
		connectTimeout = min(2*connectTimeout, s.cfg.Timeouts.Login)
	}
}

// reinstated goes on with the connection that has taken the place of c.
func (s *Session) reinstated(g *group, c, again *conn) {
	announce := s.recovered(g)
	s.mu.Lock()
	now := s.now()
	again.born = now
	c.removed, c.reassignAt = true, now
	g.add(again)
	s.group, s.suspended = g, nil
	s.live.Store(g)
	s.state, s.connState, s.connected = StateLoggedIn, ConnLoggedIn, time.Now()
	s.ackWatch = ackWatch{}
	again.window(again.expCmdSN, again.maxCmdSN)
	anew := func(t *Task) {
		if t.Timeout > 0 && t.cause == nil {
			t.deadline = now + t.Timeout
		}
	}
	for t := s.queue.head; t != nil; t = t.next {
		anew(t)
	}
	s.slots.each(func(sl *slot) { anew(sl.task) })
	finished := s.resend(g, c) // before anybody sends a command with a higher CmdSN
	s.mu.Unlock()
	again.start()
	g.flush()
	giveBack(finished)
	s.wakeWatcher()
	announce()
}

// removeLost has the target remove a lost connection and keep its tasks. A target
// that cannot do that has it closed.
func (s *Session) removeLost(g *group, c *conn) error {
	via := g.lead()
	resp, err := s.logoutLost(via, c, pdu.LogoutRecovery)
	if err != nil {
		if via.hasFailed() {
			return nil // the next one is asked
		}
		return err
	}
	wait, retain := time.Duration(resp.Time2Wait)*time.Second, time.Duration(resp.Time2Retain)*time.Second
	switch {
	case resp.Response == pdu.LogoutRecoveryNotSupported:
		return s.closeLost(g, c)
	case resp.Response == pdu.LogoutCIDNotFound:
		// It may have been removed on a connection that was lost before the answer
		// came. TASK REASSIGN will tell.
		wait = 0
	case resp.Response == pdu.LogoutSuccess && retain == 0:
		return s.takeBack(g, c) // the target has forgotten it, and its tasks
	case resp.Response != pdu.LogoutSuccess:
		return c.notLoggedOut(resp)
	}
	s.mu.Lock()
	c.removed, c.reassignAt = true, s.now()+wait
	finished := s.resend(g, c)
	s.mu.Unlock()
	g.flush()
	giveBack(finished)
	return nil
}

// resend sends the commands of a removed connection again that the target has not
// acknowledged, each with its tag and its CmdSN: the target has dropped what it
// had of them (RFC 7143 sections 7.2.1 and 11.14). Numbers that belong to no task
// any more are filled. The caller holds mu, then has g flushed and gives back the
// tasks that are returned, which are finished.
func (s *Session) resend(g *group, c *conn) (finished taskList) {
	for _, sl := range s.inFlight() {
		switch {
		case sl.conn != c:
		case sl.state == slotDraining:
			finished.pushBack(s.slots.release(sl))
		case pdu.SerialLess(sl.cmdSN, s.win.expCmd): // to be reassigned
		case sl.task.cause != nil:
			t := s.slots.release(sl)
			t.Err = t.cause
			finished.pushBack(t)
		default:
			sl.moveTo(g.pick())
			sl.received, sl.dataSN, sl.came, sl.again = 0, 0, sl.came[:0], false
			s.transmit(sl.conn, sl)
		}
	}
	if err := s.fill(g); err != nil {
		g.lead().fail(err)
	}
	s.dispatch(g)
	s.checkDrained()
	return finished
}

// moveTo gives a task to another connection, of whose batches it has none yet. The
// caller holds Session.mu.
func (sl *slot) moveTo(c *conn) {
	sl.conn.relieve()
	sl.conn = c
	c.busy++
	sl.cmdBatch, sl.dataBatch, sl.r2tBatch, sl.r2tCount = 0, 0, 0, 0
	if sl.recovery != nil {
		*sl.recovery = recovery{}
	}
}

// reassign gives the tasks of a removed connection a new one, or aborts those whose
// end is wanted, one after the other: more than one task management request at a time
// no target has to take (RFC 7143 section 4.2.2.1).
func (s *Session) reassign(g *group, c *conn) error {
	for {
		s.mu.Lock()
		all := s.inFlight()
		i := slices.IndexFunc(all, func(sl *slot) bool { return sl.conn == c })
		if i < 0 {
			s.forsake(g, c)
			s.mu.Unlock()
			close(c.gone)
			return nil
		}
		sl, via := all[i], g.pick()
		abort := sl.task.cause != nil
		s.mu.Unlock()
		if err := s.reassignTask(via, sl, abort); err != nil && via.hasFailed() {
			return nil // that one is seen to first
		} else if err != nil {
			return err
		}
	}
}

// reassignTask gives the task of a slot to another connection, or aborts it there.
// An error that is not the connection's is one of the session.
func (s *Session) reassignTask(via *conn, sl *slot, abort bool) error {
	ctx, cancel := withTimeout(s.ctx, s.cfg.Timeouts.Abort)
	defer cancel()
	done := func(c *conn, p pdu.PDU) {
		if p.(*pdu.TaskManagementResponse).Response != pdu.TaskFunctionComplete || abort {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		sl.again = true
		sl.moveTo(c) // what the target sends for the task comes behind this
	}
	p, err := s.request(ctx, via, pdu.OpTaskManagementResponse, done, func(c *conn, tag, cmdSN uint32) pdu.PDU {
		s.stats.TMFCmdPDUs++
		req := &pdu.TaskManagementRequest{
			Immediate:         true,
			Function:          pdu.TaskReassign,
			LUN:               sl.task.LUN,
			InitiatorTaskTag:  tag,
			ReferencedTaskTag: sl.itt,
			CmdSN:             cmdSN,
			ExpStatSN:         c.expStatSN.Load(),
		}
		switch {
		case abort:
			req.Function, req.RefCmdSN = pdu.TaskAbortTask, sl.cmdSN
		case len(sl.task.DataOut) == 0:
			req.ExpDataSN = sl.dataSN // not of R2Ts, whose data may be lost
		}
		return req
	})
	if err != nil {
		return err
	}
	switch r := p.(*pdu.TaskManagementResponse).Response; {
	case r == pdu.TaskFunctionComplete && !abort:
		return nil
	case r == pdu.TaskFunctionComplete, r == pdu.TaskDoesNotExist:
		s.orphaned(sl)
		return nil
	default:
		return withKind(ErrTransport, fmt.Errorf("reassignment: %w", &TMFError{Function: pdu.TaskReassign, Response: r}))
	}
}

// orphaned deals with a task of a removed connection that the target does not have
// any more.
func (s *Session) orphaned(sl *slot) {
	var finished, back, probes taskList
	s.mu.Lock()
	lost := sl.conn
	t := s.slots.release(sl)
	t.begun = true
	switch {
	case t.cause != nil:
		t.Err = t.cause
		finished.pushBack(t)
	case t.probe:
		probes.pushBack(t)
	case t.Replay:
		back.pushBack(t)
	default:
		t.Err = interrupted(lost.err)
		finished.pushBack(t)
	}
	s.queue.prepend(&back)
	s.guards.probes.prepend(&probes)
	s.dispatch(lost.group)
	s.checkDrained()
	s.mu.Unlock()
	lost.group.flush()
	giveBack(finished)
}
