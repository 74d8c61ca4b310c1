package iscsitest

import "github.com/goiscsi/goiscsi/pdu"

// A task is a command that takes data from the initiator. Its data arrive in
// this order: immediate data with the command; unsolicited Data-Out up to one
// with the F bit; solicited Data-Out, sequence by sequence, each answering an
// R2T. The command is answered when all that was asked for has come.
type task struct {
	req request
	// want is what the CDB calls for; transfer is the part of it that the
	// initiator is ready to send.
	want, transfer int64
	// got is how many bytes have come; asked is how far they were sent
	// without or by R2T.
	got, asked int64
	// status is how the command is going to end, nil for well. Data that
	// are on their way are waited for and thrown away then.
	status *result
	// unsolicited is true while unsolicited Data-Out are expected; dataSN
	// is their next number.
	unsolicited bool
	dataSN      uint32
	r2ts        []sequence
	missing     []extent // arrived damaged, to be asked for again
	r2tSN       uint32
	// buf collects the data of commands that need it all at once.
	buf []byte
	own result // memory for status
}

// A sequence is an outstanding R2T.
type sequence struct {
	ttt      uint32
	sn       uint32 // R2TSN
	begin    int64
	next     int64 // offset of the next Data-Out
	end      int64
	dataSN   uint32
	expected pdu.LUN
}

// An extent is a part of the transfer, from an offset up to another.
type extent struct{ from, to int64 }

// newTask takes a task from the free list.
func (c *Conn) newTask(q *request, want, transfer int64) *task {
	var t *task
	if n := len(c.free); n > 0 {
		t, c.free = c.free[n-1], c.free[:n-1]
	} else {
		t = new(task)
	}
	*t = task{req: *q, want: want, transfer: transfer, r2ts: t.r2ts[:0], missing: t.missing[:0], buf: t.buf[:0]}
	return t
}

// maxFreeTasks and maxIdleBuf bound the memory of an idle connection.
const (
	maxFreeTasks = 256
	maxIdleBuf   = 1 << 20
)

func (c *Conn) freeTask(t *task) {
	delete(c.tasks, t.req.itt)
	if cap(t.buf) > maxIdleBuf {
		t.buf = nil
	}
	if len(c.free) < maxFreeTasks {
		c.free = append(c.free, t)
	}
}

// fail decides that the task is going to end badly.
func (t *task) fail(r result) {
	if t.status == nil {
		t.own = r
		t.status = &t.own
	}
}

// deliver hands data to the command: to the store at once where it can go
// there piece by piece, into memory otherwise. What the command does not call
// for is dropped.
func (c *Conn) deliver(t *task, off int64, data []byte) error {
	data = data[:max(0, min(int64(len(data)), t.transfer-off))]
	if t.status != nil || len(data) == 0 {
		return nil
	}
	if sink := t.req.sink(); sink != nil {
		if r := sink(&t.req, data, off); r != nil {
			t.fail(*r)
		}
		return nil
	}
	if off == int64(len(t.buf)) {
		t.buf = append(t.buf, data...)
	} else {
		t.fail(scsiDataAmount)
	}
	return nil
}

// solicit asks for data, as long as there are any to ask for and the number
// of outstanding R2Ts allows, or completes the task.
func (c *Conn) solicit(t *task) error {
	if t.status != nil || t.asked >= t.transfer && len(t.missing) == 0 {
		if len(t.r2ts) > 0 {
			return nil
		}
		return c.complete(t)
	}
	for (t.asked < t.transfer || len(t.missing) > 0) && len(t.r2ts) < int(c.neg.MaxOutstandingR2T) {
		from := t.asked
		n := min(t.transfer-t.asked, int64(c.neg.MaxBurstLength))
		if len(t.missing) > 0 { // a recovery R2T
			from, n = t.missing[0].from, t.missing[0].to-t.missing[0].from
			t.missing = t.missing[1:]
		} else {
			t.asked += n
		}
		s := sequence{ttt: c.nextTTT(), sn: t.r2tSN, begin: from, next: from, end: from + n, expected: t.req.field}
		t.r2ts = append(t.r2ts, s)
		c.r2t = pdu.R2T{
			LUN: t.req.field, InitiatorTaskTag: t.req.itt, TargetTransferTag: s.ttt,
			R2TSN: t.r2tSN, BufferOffset: uint32(s.next), DesiredDataTransferLength: uint32(n),
		}
		t.r2tSN++
		if err := c.send(&c.r2t); err != nil {
			return err
		}
	}
	return nil
}

// complete ends a task that has its data.
func (c *Conn) complete(t *task) error {
	q := t.req
	r, want, data := t.status, t.want, t.buf
	if r != nil {
		failed := *r
		c.freeTask(t)
		return c.respond(&q, &failed, 0)
	}
	if q.sink() == nil {
		// The buffer is the task's: it is freed afterwards.
		c.req = q
		err := c.execute(&c.req, data, want)
		c.freeTask(t)
		return err
	}
	var bad *result
	if q.FUA {
		bad = q.lun.failed(q.lun.Store.Sync())
	}
	c.freeTask(t)
	return c.respond(&q, bad, want)
}

// dataOutArrived takes a Data-Out PDU. c.mu is held.
func (c *Conn) dataOutArrived(h *pdu.Header, p *pdu.DataOut) error {
	t := c.tasks[p.InitiatorTaskTag]
	if t == nil {
		if d := c.delayed[p.InitiatorTaskTag]; d != nil {
			d.queued = append(d.queued, heldPDU{c, pdu.Header{BHS: h.BHS}, append([]byte(nil), p.Data...), nil, false, nil})
			return nil
		}
		if c.holdData(h, p.Data, false) {
			return nil
		}
		if _, ok := c.aborted[p.InitiatorTaskTag]; ok {
			return nil // it was on its way already
		}
		if c.gaps {
			return nil // so was the command, and got lost
		}
		c.violated(pdu.OpDataOut, "initiator task tag %#x is not that of a write (11.7)", p.InitiatorTaskTag)
		return c.reject(h, pdu.RejectInvalidField)
	}
	if p.TargetTransferTag == pdu.ReservedTag {
		return c.unsolicitedData(h, t, p)
	}
	for i := range t.r2ts {
		if t.r2ts[i].ttt == p.TargetTransferTag {
			return c.solicitedData(h, t, i, p)
		}
	}
	c.violated(pdu.OpDataOut, "target transfer tag %#x is not that of an outstanding r2t (11.7.4)", p.TargetTransferTag)
	return c.reject(h, pdu.RejectInvalidField)
}

// holdData keeps a Data-Out whose command waits for its turn. It returns false if
// there is no such command.
func (c *Conn) holdData(h *pdu.Header, data []byte, damaged bool) bool {
	for sn, held := range c.held {
		if held.h.InitiatorTaskTag() == h.InitiatorTaskTag() {
			held.out = append(held.out, heldPDU{c, pdu.Header{BHS: h.BHS}, append([]byte(nil), data...), nil, damaged, nil})
			c.held[sn] = held
			return true
		}
	}
	return false
}

// unsolicitedData takes a Data-Out of the first burst.
func (c *Conn) unsolicitedData(h *pdu.Header, t *task, p *pdu.DataOut) error {
	if !t.unsolicited {
		c.violated(pdu.OpDataOut, "unsolicited data that were not announced (4.2.5.2)")
		return c.reject(h, pdu.RejectProtocolError)
	}
	end := int64(p.BufferOffset) + int64(len(p.Data))
	if p.DataSN != t.dataSN {
		c.violated(pdu.OpDataOut, "DataSN %d, expected %d (11.7.5)", p.DataSN, t.dataSN)
		t.fail(scsiDataAmount)
	}
	t.dataSN = p.DataSN + 1
	switch {
	case int64(p.BufferOffset) != t.got:
		c.violated(pdu.OpDataOut, "buffer offset %d, expected %d (11.7.6)", p.BufferOffset, t.got)
		t.fail(scsiDataAmount)
	case end > int64(c.neg.FirstBurstLength):
		c.violated(pdu.OpDataOut, "unsolicited data exceed FirstBurstLength (13.14)")
		t.fail(scsiUnexpectedData)
	case end > int64(t.req.edtl):
		c.violated(pdu.OpDataOut, "data exceed the expected data transfer length (11.7.6)")
		t.fail(scsiDataAmount)
	}
	if err := c.deliver(t, int64(p.BufferOffset), p.Data); err != nil {
		return err
	}
	t.got = end
	t.asked = end
	if !p.Final {
		return nil
	}
	t.unsolicited = false
	if full := min(int64(t.req.edtl), int64(c.neg.FirstBurstLength)); end != full {
		c.violated(pdu.OpDataOut, "%d bytes of unsolicited data, expected %d (11.3.4)", end, full)
		t.fail(scsiDataAmount)
	}
	return c.solicit(t)
}

// solicitedData takes a Data-Out that answers an R2T.
func (c *Conn) solicitedData(h *pdu.Header, t *task, i int, p *pdu.DataOut) error {
	s := &t.r2ts[i]
	end := int64(p.BufferOffset) + int64(len(p.Data))
	if p.LUN != s.expected {
		c.violated(pdu.OpDataOut, "LUN is not that of the r2t (11.7.4)")
	}
	if p.DataSN != s.dataSN {
		c.violated(pdu.OpDataOut, "DataSN %d, expected %d (11.7.5)", p.DataSN, s.dataSN)
		t.fail(scsiDataAmount)
	}
	s.dataSN = p.DataSN + 1
	switch {
	case int64(p.BufferOffset) != s.next:
		c.violated(pdu.OpDataOut, "buffer offset %d, expected %d (11.7.6)", p.BufferOffset, s.next)
		t.fail(scsiDataAmount)
	case end > s.end:
		c.violated(pdu.OpDataOut, "data exceed what the r2t asks for (11.8.4)")
		t.fail(scsiDataAmount)
	}
	if err := c.deliver(t, int64(p.BufferOffset), p.Data); err != nil {
		return err
	}
	t.got += int64(len(p.Data))
	s.next = end
	if !p.Final {
		if end == s.end {
			c.violated(pdu.OpDataOut, "F is not set on the last data of a sequence (11.7.1)")
		}
		return nil
	}
	if end < s.end {
		c.violated(pdu.OpDataOut, "F is set %d bytes before the end of what the r2t asks for (11.7.1)", s.end-end)
		t.fail(scsiDataAmount)
	}
	t.r2ts = append(t.r2ts[:i], t.r2ts[i+1:]...)
	return c.solicit(t)
}
