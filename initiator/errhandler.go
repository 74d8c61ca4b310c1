package initiator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// startErrorHandler has the error handler run, now that the cause of a task in
// flight is set. The caller holds mu.
func (s *Session) startErrorHandler() {
	if s.handling || s.group == nil || s.state == StateClosed {
		return
	}
	s.handling = true
	s.wg.Go(s.handleErrors)
}

// handleErrors is the error handler: it ends tasks whose time is over or whose
// caller has gone, one after the other.
func (s *Session) handleErrors() {
	for {
		s.mu.Lock()
		sl := s.overdue()
		if s.group == nil || sl == nil || s.ctx.Err() != nil {
			s.handling = false
			s.mu.Unlock()
			return
		}
		c := sl.conn
		victim := victim{itt: sl.itt, cmdSN: sl.cmdSN, lun: sl.task.LUN}
		sl.aborting = true
		cause := sl.task.cause
		s.stats.EHAborts++
		s.mu.Unlock()
		s.log.Warn("aborting a task", "lun", victim.lun, "cmdsn", victim.cmdSN, "cause", cause)
		if !s.escalate(c, victim, cause) {
			// Until the supervisor has sorted out what is left there is
			// nothing to do here.
			<-c.failed
			s.awaitDisconnect(c)
		}
	}
}

// overdue returns a slot whose task must be ended. The caller holds mu.
func (s *Session) overdue() *slot {
	var found *slot
	s.slots.each(func(sl *slot) {
		if found == nil && sl.state == slotSent && sl.task.cause != nil {
			found = sl
		}
	})
	return found
}

// A victim is a task to be aborted.
type victim struct {
	itt   uint32
	cmdSN uint32
	lun   pdu.LUN
}

// escalate ends a task by ever stronger means. It returns false if nothing but
// the end of the connection helped.
func (s *Session) escalate(c *conn, v victim, cause error) bool {
	t := &s.cfg.Timeouts
	for _, step := range []struct {
		fn      pdu.TaskFunction
		timeout time.Duration
	}{
		{pdu.TaskAbortTask, t.Abort},
		{pdu.TaskLogicalUnitReset, t.LUReset},
		{pdu.TaskTargetWarmReset, t.TargetReset},
	} {
		if !s.waits(v) {
			return true // it came to an end meanwhile
		}
		if c.group.isLeaving() {
			return false // it ends with the session
		}
		ctx, cancel := withTimeout(s.ctx, step.timeout)
		err := s.manage(ctx, c, tmf{fn: step.fn, lun: v.lun, ref: &v, replay: true})
		cancel()
		if err == nil && !s.waits(v) {
			return true
		}
		select {
		case <-c.failed:
			return false
		default:
		}
		if !s.waits(v) {
			return true
		}
		if c.group.isLeaving() {
			return false
		}
		s.log.Warn("task management failed", "function", step.fn, "lun", v.lun, "err", err)
	}
	c.fail(withKind(ErrTransport, fmt.Errorf("task could not be aborted: %w", cause)))
	return false
}

// waits reports whether a task still waits for the target.
func (s *Session) waits(v victim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl, _ := s.slots.find(v.itt)
	return sl != nil
}

// awaitDisconnect waits until the supervisor has dealt with a failed connection.
func (s *Session) awaitDisconnect(c *conn) {
	select {
	case <-c.gone:
	case <-s.ctx.Done():
	}
}

// A tmf is a task management function and what it is carried out for.
type tmf struct {
	fn     pdu.TaskFunction
	lun    pdu.LUN
	ref    *victim // the task that ABORT TASK refers to
	replay bool    // other tasks that it ends are sent again if they may be
}

// affects reports whether the function, sent with cmdSN, ends the task of a slot.
func (f *tmf) affects(sl *slot, cmdSN uint32) bool {
	if sl.state != slotSent || !pdu.SerialLess(sl.cmdSN, cmdSN) {
		return false
	}
	switch f.fn {
	case pdu.TaskAbortTask:
		return f.ref != nil && sl.itt == f.ref.itt
	case pdu.TaskAbortTaskSet, pdu.TaskClearTaskSet, pdu.TaskLogicalUnitReset:
		return sl.task.LUN == f.lun
	case pdu.TaskTargetWarmReset, pdu.TaskTargetColdReset, pdu.TaskITNexusReset:
		return true
	}
	return false
}

// TaskManagement carries out a task management function that concerns a logical
// unit or the target: ABORT TASK SET, CLEAR TASK SET, CLEAR ACA, LOGICAL UNIT RESET,
// TARGET WARM RESET, TARGET COLD RESET. Tasks that it ends fail with ErrAborted. The
// error is an *OpError that wraps a *TMFError if the target refused.
func (s *Session) TaskManagement(ctx context.Context, fn pdu.TaskFunction, lun pdu.LUN) error {
	switch fn {
	case pdu.TaskAbortTask, pdu.TaskReassign, pdu.TaskQueryTask:
		return s.opError("task management", errors.New(fn.String()+" concerns a single task"))
	case pdu.TaskQueryTaskSet, pdu.TaskQueryAsyncEvent:
		// RFC 7144 allows them only after iSCSIProtocolLevel was negotiated.
		return s.opError("task management", errors.New(fn.String()+" was not negotiated"))
	}
	if err := s.manage(ctx, nil, tmf{fn: fn, lun: lun}); err != nil {
		return s.opError("task management", err)
	}
	return nil
}

// manage sends a task management request and waits for the answer. When that
// is "function complete", the tasks concerned are finished by the receiver
// before it looks at anything that the target sent later.
func (s *Session) manage(ctx context.Context, c *conn, f tmf) error {
	var sent uint32
	p, err := s.request(ctx, c, pdu.OpTaskManagementResponse,
		func(c *conn, p pdu.PDU) {
			if p.(*pdu.TaskManagementResponse).Response == pdu.TaskFunctionComplete {
				s.ended(c, &f, sent)
			}
		},
		func(c *conn, tag, cmdSN uint32) pdu.PDU {
			sent = cmdSN
			s.stats.TMFCmdPDUs++
			req := &pdu.TaskManagementRequest{
				Immediate:         true,
				Function:          f.fn,
				InitiatorTaskTag:  tag,
				ReferencedTaskTag: pdu.ReservedTag,
				CmdSN:             cmdSN,
				ExpStatSN:         c.expStatSN.Load(),
			}
			switch f.fn {
			case pdu.TaskTargetWarmReset, pdu.TaskTargetColdReset, pdu.TaskITNexusReset:
				// They concern no logical unit: the LUN is reserved (RFC 7143 section 11.5.3).
			default:
				req.LUN = f.lun
			}
			if f.ref != nil && f.fn == pdu.TaskAbortTask {
				req.ReferencedTaskTag, req.RefCmdSN = f.ref.itt, f.ref.cmdSN
			}
			return req
		})
	if err != nil {
		return err
	}
	if r := p.(*pdu.TaskManagementResponse).Response; r != pdu.TaskFunctionComplete {
		return &TMFError{Function: f.fn, Response: r}
	}
	return s.manageOthers(ctx, &f, sent)
}

// manageOthers finishes the tasks that a function has ended on other connections
// than its own. What the target sent for them before it carried the function out
// comes before its answer to a ping, behind which the receiver finishes them.
func (s *Session) manageOthers(ctx context.Context, f *tmf, sent uint32) error {
	s.mu.Lock()
	var conns []*conn
	if g := s.group; g != nil && f.fn != pdu.TaskAbortTask && len(g.conns()) > 1 {
		conns = g.conns()
	}
	s.mu.Unlock()
	for _, c := range conns {
		_, err := s.request(ctx, c, pdu.OpNOPIn, func(c *conn, _ pdu.PDU) { s.ended(c, f, sent) }, s.ping)
		if err != nil && !c.hasFailed() { // tasks of a lost one are the supervisor's
			return err
		}
	}
	return nil
}

// ended finishes the tasks that a task management function has ended. Called by
// the receiver.
func (s *Session) ended(c *conn, f *tmf, cmdSN uint32) {
	var finished, back taskList
	s.mu.Lock()
	for _, sl := range s.inFlight() {
		if sl.conn != c || !f.affects(sl, cmdSN) {
			continue
		}
		c.settle(sl)
		t := sl.task
		if t.cause == nil && t.Replay && f.replay {
			// Its data may still be in the send queue; they do not change.
			t.begun = true
			back.pushBack(s.free(c, sl))
			continue
		}
		if t.Err = t.cause; t.Err == nil {
			t.Err = withKind(ErrAborted, fmt.Errorf("task ended by %s", f.fn))
		}
		if t := s.complete(c, sl); t != nil {
			finished.pushBack(t)
		}
	}
	s.queue.prepend(&back)
	s.dispatch(c.group)
	s.mu.Unlock()
	for t := finished.popFront(); t != nil; t = finished.popFront() {
		c.done(t)
	}
}
