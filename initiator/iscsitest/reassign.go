package iscsitest

import (
	"maps"
	"slices"

	"github.com/goiscsi/goiscsi/pdu"
)

// An orphan is a task of a connection that was removed for recovery: it has no
// allegiance until TASK REASSIGN gives it one (RFC 7143 section 7.2.2). One of the
// groups of fields says how far it was.
type orphan struct {
	lun     *LUN
	counted bool // in Conn.inflight

	write *task // waits for data

	delay *delay // held up by a handler

	request *request // was being executed

	held *heldPDU // got its turn when its connection was gone

	// It was concluded, and its status, perhaps with data, not acknowledged.
	data       []pdu.PDU
	conclusion pdu.PDU
}

// release makes orphans of the tasks of a connection. c.mu is held.
func (c *Conn) release() {
	orphans := map[uint32]*orphan{}
	for itt, t := range c.tasks {
		orphans[itt] = &orphan{lun: t.req.lun, counted: t.req.counted, write: t}
	}
	for itt, d := range c.delayed {
		if d.h.Immediate() {
			c.dropDelayed(itt) // RFC 7143 section 7.14: not recoverable
			continue
		}
		orphans[itt] = &orphan{lun: c.target.lun(d.lun), counted: true, delay: d}
	}
	for itt, o := range c.interrupted {
		orphans[itt] = o
	}
	for _, p := range c.backlog.responses {
		itt := uint32(0)
		switch p := p.(type) {
		case *pdu.SCSIResponse:
			itt = p.InitiatorTaskTag
		case *pdu.DataIn:
			itt = p.InitiatorTaskTag
		default:
			continue
		}
		o := &orphan{conclusion: p}
		if d := c.backlog.data[itt]; d != nil {
			o.data = slices.DeleteFunc(slices.Clone(d.pdus), func(k pdu.PDU) bool { return k == p })
		}
		orphans[itt] = o
	}
	c.tasks, c.delayed, c.interrupted, c.backlog = map[uint32]*task{}, map[uint32]*delay{}, nil, backlog{}
	maps.Copy(c.orphans, orphans)
	c.later(func() {
		for itt, o := range orphans {
			if c.orphans[itt] == o {
				delete(c.orphans, itt)
				c.cleared(o.lun)
				c.drop(o)
			}
		}
		c.finishIfEmpty()
	})
}

// cutShort takes notice that the command of c.req could not be executed to its end
// because of the connection, and returns err. c.mu is held.
func (c *Conn) cutShort(err error) error {
	if err != nil && c.isLevelTwo() && c.tasks[c.req.itt] == nil && !c.req.out {
		q := c.req
		c.interrupt(q.itt, &orphan{lun: q.lun, counted: q.counted, request: &q})
	}
	return err
}

// interrupt keeps a command whose execution was cut short by the end of its
// connection. c.mu is held.
func (c *Conn) interrupt(itt uint32, o *orphan) {
	if c.interrupted == nil {
		c.interrupted = map[uint32]*orphan{}
	}
	c.interrupted[itt] = o
}

// drop forgets a task without allegiance.
func (c *Conn) drop(o *orphan) {
	if o.counted {
		c.inflight--
	}
	if o.delay != nil {
		close(o.delay.gone)
	}
}

// reassign executes TASK REASSIGN: the answer comes first (RFC 7143 section 11.5.1),
// then what is missing of the task.
func (c *Conn) reassign(p *pdu.TaskManagementRequest, rsp *pdu.TaskManagementResponse) error {
	itt := p.ReferencedTaskTag
	if !p.Immediate {
		c.violated(pdu.OpTaskManagementRequest, "TASK REASSIGN is not immediate (11.5.1)")
	}
	o := c.orphans[itt]
	allegiant := func(a *Conn) bool { return a.tasks[itt] != nil || a.delayed[itt] != nil || a.interrupted[itt] != nil }
	switch {
	case !c.isLevelTwo():
		rsp.Response = pdu.TaskReassignNotSupported
	case o != nil:
	case slices.ContainsFunc(c.conns, allegiant), slices.ContainsFunc(c.cleanup, allegiant):
		c.violated(pdu.OpTaskManagementRequest, "TASK REASSIGN for a task that is allegiant (7.2.2)")
		rsp.Response = pdu.TaskStillAllegiant
	default:
		rsp.Response = pdu.TaskDoesNotExist
	}
	if err := c.send(rsp); err != nil || o == nil || rsp.Response != pdu.TaskFunctionComplete {
		return err
	}
	delete(c.orphans, itt)
	return c.adopt(itt, o, p.ExpDataSN)
}

// adopt carries on with a task on its new connection.
func (c *Conn) adopt(itt uint32, o *orphan, expDataSN uint32) error {
	switch {
	case o.write != nil:
		c.tasks[itt] = o.write
		return c.solicitAgain(o.write)
	case o.delay != nil:
		o.delay.again = true
		c.beginDelay(o.delay)
		return nil
	case o.request != nil:
		c.req = *o.request
		c.req.skip = expDataSN
		return c.cutShort(c.execute(&c.req, nil, c.req.outLength()))
	case o.held != nil:
		held := *o.held
		held.c = c
		if err := c.takeTurn(&held); err != nil {
			return err
		}
		return c.unasked(itt)
	}
	for _, p := range append(o.data, o.conclusion) {
		if d, ok := p.(*pdu.DataIn); ok && pdu.SerialLess(d.DataSN, expDataSN) && !d.HasStatus {
			continue
		}
		if _, ok := p.(*pdu.R2T); ok {
			continue
		}
		if err := c.send(p); err != nil {
			c.interrupt(itt, o)
			return err
		}
	}
	return nil
}

// solicitAgain asks for the data of a write that are not here: the R2Ts that were
// outstanding once more, and what was to come unasked.
func (c *Conn) solicitAgain(t *task) error {
	for i := range t.r2ts {
		s := &t.r2ts[i]
		if t.req.sink() == nil {
			t.buf = t.buf[:min(int64(len(t.buf)), s.begin)]
		}
		t.got -= s.next - s.begin
		s.next, s.dataSN, s.ttt = s.begin, 0, c.nextTTT()
		c.r2t = pdu.R2T{
			LUN: t.req.field, InitiatorTaskTag: t.req.itt, TargetTransferTag: s.ttt,
			R2TSN: s.sn, BufferOffset: uint32(s.begin), DesiredDataTransferLength: uint32(s.end - s.begin),
		}
		if err := c.send(&c.r2t); err != nil {
			return err
		}
	}
	if t.unsolicited || len(t.r2ts) == 0 {
		t.unsolicited = false
		return c.solicit(t)
	}
	return nil
}

// unasked asks for the data that were to come unasked for a command whose
// connection is gone.
func (c *Conn) unasked(itt uint32) error {
	if t := c.tasks[itt]; t != nil && t.unsolicited {
		return c.solicitAgain(t)
	}
	return nil
}
