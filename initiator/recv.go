package initiator

import (
	"errors"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// handle deals with one PDU of the target. An error fails the connection.
func (c *conn) handle(h *pdu.Header) error {
	switch h.Opcode() {
	case pdu.OpDataIn:
		return c.onDataIn(h)
	case pdu.OpSCSIResponse:
		return c.onSCSIResponse(h)
	case pdu.OpR2T:
		return c.onR2T(h)
	case pdu.OpNOPIn:
		return c.onNOPIn(h)
	case pdu.OpTaskManagementResponse, pdu.OpLogoutResponse, pdu.OpTextResponse:
		return c.onAnswer(h)
	case pdu.OpAsyncMessage:
		return c.onAsync(h)
	case pdu.OpReject:
		return c.onReject(h)
	}
	return protocolErrorf("%s in full feature phase", h.Opcode())
}

// countDigestError counts err if it is a digest error.
func (c *conn) countDigestError(err error) {
	if de := (*pdu.DigestError)(nil); errors.As(err, &de) {
		c.rx.digest++
	}
}

// updateWindow takes ExpCmdSN and MaxCmdSN of a PDU that needs the session's
// lock for nothing else.
func (c *conn) updateWindow(h *pdu.Header) {
	exp, limit := h.ExpCmdSN(), h.MaxCmdSN()
	if exp == c.expCmdSN && limit == c.maxCmdSN {
		return
	}
	c.s.mu.Lock()
	c.window(exp, limit)
	c.s.dispatch(c.group)
	c.s.mu.Unlock()
}

// window takes ExpCmdSN and MaxCmdSN. The caller holds Session.mu.
func (c *conn) window(exp, limit uint32) {
	c.expCmdSN, c.maxCmdSN = exp, limit
	c.s.win.update(exp, limit)
}

// find returns the slot of a task in flight, nil if the tag is an old one. A
// tag that was never issued is a violation.
func (c *conn) find(itt uint32) (*slot, error) {
	s, how := c.s.slots.find(itt)
	if how == lookupUnknown {
		return nil, protocolErrorf("unknown task tag %#08x", itt)
	}
	if s != nil && s.conn != c {
		return nil, protocolErrorf("task tag %#08x on another connection than its command", itt)
	}
	return s, nil
}

// slotOf is find with the lock. It also tells whether the task is being ended.
func (c *conn) slotOf(itt uint32) (sl *slot, aborting bool, err error) {
	c.s.mu.Lock()
	sl, err = c.find(itt)
	aborting = sl != nil && (sl.aborting || c.parted.Load())
	c.s.mu.Unlock()
	if sl != nil && c.recovers() && sl.recovery == nil {
		sl.recovery = new(recovery)
	}
	return sl, aborting, err
}

// violate fails the task of a slot because of what the target did with it, and
// with it the connection.
func (c *conn) violate(sl *slot, err error) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if sl.state == slotSent && sl.task.cause == nil {
		sl.task.cause = err
	}
	return err
}

// onDataIn reads data into the task's buffer, and finishes the task if the
// status is there as well.
func (c *conn) onDataIn(h *pdu.Header) error {
	c.rx.dataIn++
	d := &c.dataIn
	if err := d.Decode(h, nil); err != nil {
		return withKind(ErrProtocol, err)
	}
	if c.recovers() {
		return c.recoverDataIn(h, d)
	}
	if d.HasStatus {
		if _, err := c.status(h); err != nil {
			return err
		}
	}
	c.updateWindow(h)
	sl := c.cur
	if sl == nil || sl.itt != d.InitiatorTaskTag {
		c.s.mu.Lock()
		var err error
		sl, err = c.find(d.InitiatorTaskTag)
		c.s.mu.Unlock()
		if sl == nil {
			return err // late: Next skips the data
		}
		c.cur = sl
	}
	if d.DataSN != sl.dataSN {
		return withKind(ErrProtocol, &gapError{"DataSN", sl.dataSN, d.DataSN})
	}
	sl.dataSN++
	if err := c.place(sl, d, h); err != nil {
		return err
	}
	if !d.HasStatus {
		return nil
	}
	c.finish(sl, outcome{
		status:   scsi.Status(d.Status),
		over:     d.Overflow,
		under:    d.Underflow,
		residual: d.ResidualCount,
	}, h)
	return nil
}

// place reads the data of a Data-In to where they belong in the task's buffer.
func (c *conn) place(sl *slot, d *pdu.DataIn, h *pdu.Header) error {
	t := sl.task
	n, offset := h.DataSegmentLength(), int64(d.BufferOffset)
	if want := t.reads(); offset+int64(n) > int64(want) {
		return c.violate(sl, protocolErrorf("data at %d to %d for a buffer of %d bytes", offset, offset+int64(n), want))
	}
	unordered := c.params.UnorderedPDUs || c.params.UnorderedSequences
	if !unordered && offset != int64(sl.received) {
		return c.violate(sl, protocolErrorf("data at %d where %d is next", offset, sl.received))
	}
	if t.DataIn == nil && t.Buffer != nil {
		t.DataIn = t.Buffer(t)
	}
	if n > 0 {
		if err := c.r.ReadData(t.DataIn[offset:][:n]); err != nil {
			return readError(err)
		}
		sl.received += n
	}
	if tr := c.tap.trace(); tr != nil {
		c.tap.received(tr, h, t.DataIn[offset:][:n])
	}
	if unordered && !sl.came.add(int(offset), int(offset)+n) {
		return c.violate(sl, protocolErrorf("data at %d that came before, or in too many pieces", offset))
	}
	return nil
}

// onSCSIResponse finishes a task.
func (c *conn) onSCSIResponse(h *pdu.Header) error {
	c.rx.rsp++
	data, ok, err := c.payload(h)
	if !ok {
		return err
	}
	r := &c.resp
	if err := r.Decode(h, data); err != nil {
		return withKind(ErrProtocol, err)
	}
	if c.recovers() {
		// Not acknowledged before the data are complete.
		if fresh, err := c.seen(h); !fresh {
			return err
		}
	} else if _, err := c.status(h); err != nil {
		return err
	}
	sl, _, err := c.slotOf(r.InitiatorTaskTag)
	if sl == nil {
		c.updateWindow(h)
		if c.recovers() && err == nil {
			c.acknowledge(r.StatSN)
		}
		return err
	}
	o := outcome{
		status:   scsi.Status(r.Status),
		over:     r.Overflow,
		under:    r.Underflow,
		residual: r.ResidualCount,
		sense:    r.Sense(),
	}
	if sl.task.reads() > 0 && len(sl.task.DataOut) > 0 {
		o.over, o.under, o.residual = r.BidiOverflow, r.BidiUnderflow, r.BidiResidualCount
	}
	if r.Response != pdu.ResponseCompleted {
		o.err = &ResponseError{Response: r.Response}
	}
	if c.recovers() {
		sl.recovery.unacked, sl.recovery.statSN = true, r.StatSN
		expDataSN := r.ExpDataSN
		if o.err != nil || sl.task.reads() == 0 {
			expDataSN = 0 // nothing is missed any more
		}
		return c.conclude(sl, h, o, expDataSN)
	}
	c.finish(sl, o, h)
	return nil
}

// An outcome is what the target says at the end of a task.
type outcome struct {
	err         error // there is no status
	status      scsi.Status
	over, under bool
	residual    uint32
	sense       []byte
}

// finish finishes the task of a slot with what the target said in the PDU of h.
func (c *conn) finish(sl *slot, o outcome, h *pdu.Header) {
	c.fruitful = true
	t := sl.task
	if t.Err = o.err; o.err == nil {
		t.Status = o.status
		if o.status == scsi.StatusCheckCondition {
			t.setSense(o.sense)
		}
		t.account(sl, o)
	}
	s := c.s
	s.mu.Lock()
	c.window(h.ExpCmdSN(), h.MaxCmdSN())
	c.cur = nil
	t = s.complete(c, sl)
	c.src.more = s.slots.inUse() > 0 // dispatch's are not sent yet
	s.dispatch(c.group)
	s.mu.Unlock()
	if t != nil {
		c.done(t)
	}
}

// account computes Transferred and Residual: what the target says, corrected by
// what was seen, so that a target which claims success without having moved the
// data is not believed.
func (t *Task) account(sl *slot, o outcome) {
	want, moved := len(t.DataOut), sl.sent
	if n := t.reads(); n > 0 {
		want, moved = n, sl.received
	}
	t.Transferred = want
	if o.under {
		t.Transferred -= min(int(o.residual), want)
	}
	t.Transferred = min(t.Transferred, moved)
	t.Residual = int64(want - t.Transferred)
	if o.over && t.Residual == 0 {
		t.Residual = -int64(o.residual)
	}
}

// onR2T appends the data that the target is ready for.
func (c *conn) onR2T(h *pdu.Header) error {
	c.rx.r2t++
	r := &c.r2t
	if err := r.Decode(h, nil); err != nil {
		return withKind(ErrProtocol, err)
	}
	if t := c.tap.trace(); t != nil {
		c.tap.received(t, h, nil)
	}
	c.updateWindow(h)
	sl, aborting, err := c.slotOf(r.InitiatorTaskTag)
	if c.recovers() && err == nil {
		err = c.announced(r.StatSN)
	}
	if sl == nil || err != nil {
		return err
	}
	if sl.again {
		if sl.again = false; pdu.SerialLess(r.R2TSN, sl.dataSN) {
			sl.dataSN = r.R2TSN
		}
	}
	if r.R2TSN != sl.dataSN {
		if c.recovers() {
			return c.missing(sl, r.R2TSN, false)
		}
		return withKind(ErrProtocol, &gapError{"R2TSN", sl.dataSN, r.R2TSN})
	}
	if sl.dataSN++; sl.recovery != nil {
		sl.recovery.came()
	}
	t := sl.task
	from, n := int64(r.BufferOffset), int64(r.DesiredDataTransferLength)
	if n > int64(c.params.MaxBurstLength) || from+n > int64(len(t.DataOut)) {
		return c.violate(sl, protocolErrorf("R2T for %d bytes at %d of %d, at most %d", n, from, len(t.DataOut), c.params.MaxBurstLength))
	}
	if aborting {
		return nil // FastAbort, or the connection is left: the target gets no more data for the task
	}
	batch, err := c.sendData(sl.itt, r.LUN, r.TargetTransferTag, t.DataOut, int(from), int(from+n))
	if err != nil {
		return c.violate(sl, err)
	}
	c.s.mu.Lock()
	sl.sent += int(n)
	sl.dataBatch = batch
	c.s.mu.Unlock()
	// A target cannot have got the data of an R2T whose last PDU is still
	// in the pending batch. So of those there are at most MaxOutstandingR2T.
	if sl.r2tBatch != batch {
		sl.r2tBatch, sl.r2tCount = batch, 0
	}
	if sl.r2tCount++; sl.r2tCount > c.params.MaxOutstandingR2T {
		return c.violate(sl, protocolErrorf("more than %d outstanding R2Ts", c.params.MaxOutstandingR2T))
	}
	return nil
}

// sendData appends the Data-Out PDUs of one sequence and returns the number of
// the batch that the last one went into. It lets go of the queue between two
// PDUs, so that digests of a long burst hold nobody up.
func (c *conn) sendData(itt uint32, lun pdu.LUN, ttt uint32, data []byte, from, to int) (batch uint64, err error) {
	q := &c.q
	for sn := uint32(0); from < to; sn++ {
		n := min(to-from, c.params.MaxXmitDataSegmentLength)
		q.mu.Lock()
		q.out = pdu.DataOut{
			Final:             from+n == to,
			LUN:               lun,
			InitiatorTaskTag:  itt,
			TargetTransferTag: ttt,
			ExpStatSN:         c.expStatSN.Load(),
			DataSN:            sn,
			BufferOffset:      uint32(from),
			Data:              data[from : from+n],
		}
		batch, err = q.append(&q.out)
		q.mu.Unlock()
		if err != nil {
			return batch, err
		}
		c.rx.dataOut++
		from += n
	}
	return batch, nil
}
