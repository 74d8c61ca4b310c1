package iscsitest

import (
	"slices"

	"github.com/goiscsi/goiscsi/pdu"
)

// taskManagement executes a task management function (RFC 7143 section 11.5).
func (c *Conn) taskManagement(p *pdu.TaskManagementRequest) error {
	rsp := &pdu.TaskManagementResponse{InitiatorTaskTag: p.InitiatorTaskTag}
	if p.InitiatorTaskTag == pdu.ReservedTag || c.tasks[p.InitiatorTaskTag] != nil || c.delayed[p.InitiatorTaskTag] != nil {
		c.violated(pdu.OpTaskManagementRequest, "initiator task tag %#x is reserved or in use (11.2.1.8)", p.InitiatorTaskTag)
	}
	if p.Function != pdu.TaskAbortTask && p.Function != pdu.TaskReassign && p.Function != pdu.TaskQueryTask && p.ReferencedTaskTag != pdu.ReservedTag {
		c.violated(pdu.OpTaskManagementRequest, "referenced task tag of %v is not reserved (11.5.4)", p.Function)
	}
	l := c.target.lun(p.LUN)
	switch p.Function {
	case pdu.TaskAbortTask:
		rsp.Response = c.abortTask(p)
	case pdu.TaskAbortTaskSet, pdu.TaskClearTaskSet, pdu.TaskLogicalUnitReset:
		if l == nil {
			rsp.Response = pdu.TaskLUNDoesNotExist
			break
		}
		c.abortUnit(l)
		switch p.Function {
		case pdu.TaskClearTaskSet:
			c.abortElsewhere(l, ascCommandsCleared)
		case pdu.TaskLogicalUnitReset:
			c.uas.add(p.LUN, ascUnitReset)
			c.abortElsewhere(l, ascUnitReset)
		}
	case pdu.TaskTargetWarmReset, pdu.TaskTargetColdReset:
		return c.resetTarget(p, rsp)
	case pdu.TaskReassign:
		return c.reassign(p, rsp)
	case pdu.TaskClearACA:
		if l == nil {
			rsp.Response = pdu.TaskLUNDoesNotExist
		}
	case pdu.TaskQueryTask:
		if c.tasks[p.ReferencedTaskTag] != nil || c.delayed[p.ReferencedTaskTag] != nil {
			rsp.Response = pdu.TaskFunctionSucceeded
		}
	default:
		rsp.Response = pdu.TaskFunctionNotSupported
	}
	return c.send(rsp)
}

// abortTask decides by the rules a to c of RFC 7143 section 11.6.1.
func (c *Conn) abortTask(p *pdu.TaskManagementRequest) pdu.TaskResponse {
	itt := p.ReferencedTaskTag
	switch t, d := c.tasks[itt], c.delayed[itt]; {
	case t != nil:
		if t.req.field != p.LUN {
			c.violated(pdu.OpTaskManagementRequest, "LUN is not that of the task to abort (11.5.3)")
		}
		c.abort(t)
		return pdu.TaskFunctionComplete
	case d != nil:
		if d.lun != p.LUN {
			c.violated(pdu.OpTaskManagementRequest, "LUN is not that of the task to abort (11.5.3)")
		}
		c.abortDelayed(itt)
		return pdu.TaskFunctionComplete
	}
	if o := c.orphans[itt]; o != nil {
		delete(c.orphans, itt)
		c.drop(o)
		return pdu.TaskFunctionComplete
	}
	if pdu.SerialInWindow(p.RefCmdSN, c.expCmdSN, c.maxCmdSN) && pdu.SerialLess(p.RefCmdSN, p.CmdSN) {
		// It never came; it counts as received (rule b).
		if p.RefCmdSN == c.expCmdSN {
			c.expCmdSN++
		}
		return pdu.TaskFunctionComplete
	}
	return pdu.TaskDoesNotExist
}

// maxAborted bounds how many tags of aborted tasks are remembered.
const maxAborted = 4096

// remember keeps the tag of an aborted task until it is used again, since data
// for it may be on their way.
func (c *Conn) remember(itt uint32) {
	if len(c.aborted) >= maxAborted {
		clear(c.aborted)
	}
	c.aborted[itt] = struct{}{}
}

// abort forgets a write.
func (c *Conn) abort(t *task) {
	c.remember(t.req.itt)
	c.answered(&t.req)
	c.freeTask(t)
}

// abortDelayed forgets a command that a handler holds up.
func (c *Conn) abortDelayed(itt uint32) {
	d := c.delayed[itt]
	c.remember(itt)
	if !d.h.Immediate() {
		c.inflight--
	}
	c.dropDelayed(itt)
}

// abortUnit aborts this session's tasks on a unit, or on all with nil.
func (c *Conn) abortUnit(l *LUN) {
	for _, o := range slices.Concat(c.conns, c.cleanup) {
		for _, t := range o.tasks {
			if l == nil || t.req.lun == l {
				o.abort(t)
			}
		}
		for itt, d := range o.delayed {
			if l == nil || o.target.lun(d.lun) == l {
				o.abortDelayed(itt)
			}
		}
	}
	for itt, o := range c.orphans {
		if l == nil || o.lun == l {
			delete(c.orphans, itt)
			c.drop(o)
		}
	}
}

// abortLater aborts another session's tasks on a unit, or on all with nil. It
// takes that connection's lock and therefore has a goroutine of its own.
func (c *Conn) abortLater(l *LUN) {
	c.srv.spawn(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.abortUnit(l)
	})
}

// abortElsewhere aborts the other sessions' tasks on a unit and tells them by a
// unit attention.
func (c *Conn) abortElsewhere(l *LUN, code uint16) {
	for _, o := range c.srv.normalSessions(c) {
		if len(o.target.fieldsOf(l)) > 0 {
			o.attentionUnit(l, code)
			o.abortLater(l)
		}
	}
}

// resetTarget executes the two target resets. A cold one ends all sessions of
// the target after the response.
func (c *Conn) resetTarget(p *pdu.TaskManagementRequest, rsp *pdu.TaskManagementResponse) error {
	c.abortUnit(nil)
	c.attentionAll(ascBusReset)
	others := c.srv.normalSessions(c)
	others = slices.DeleteFunc(others, func(o *Conn) bool { return o.target != c.target })
	for _, o := range others {
		o.attentionAll(ascBusReset)
		o.abortLater(nil)
	}
	if err := c.send(rsp); err != nil {
		return err
	}
	if p.Function == pdu.TaskTargetWarmReset {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	for _, o := range others {
		c.srv.spawn(o.replaced)
	}
	return errEnd
}

// nop handles a NOP-Out (RFC 7143 section 11.18).
func (c *Conn) nop(h *pdu.Header, p *pdu.NOPOut) error {
	op := pdu.OpNOPOut
	if p.TargetTransferTag != pdu.ReservedTag {
		lun, ok := c.pings[p.TargetTransferTag]
		switch {
		case !ok:
			c.violated(op, "target transfer tag %#x is not that of a ping (11.18.2)", p.TargetTransferTag)
		case lun != p.LUN:
			c.violated(op, "LUN is not that of the ping (11.18.2)")
		}
		delete(c.pings, p.TargetTransferTag)
		if p.InitiatorTaskTag != pdu.ReservedTag {
			c.violated(op, "answer to a ping has an initiator task tag (11.18.1)")
		}
	}
	if p.InitiatorTaskTag == pdu.ReservedTag {
		if !h.Immediate() {
			c.violated(op, "I bit is not set though the initiator task tag is reserved (11.18.1)")
		}
		return nil
	}
	data := p.Data[:min(len(p.Data), int(c.neg.MaxRecvDataSegmentLength))]
	b, err := c.keep(data)
	if err != nil {
		return err
	}
	return c.send(&pdu.NOPIn{InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, Data: b})
}
