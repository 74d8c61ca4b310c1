package iscsitest

import (
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// A request is a SCSI command being executed.
type request struct {
	itt     uint32
	field   pdu.LUN // as the initiator wrote it
	edtl    uint32
	in, out bool // the R and W bits
	counted bool // in Conn.inflight
	cdb     [16]byte
	scsi.Command
	h    *handler
	lun  *LUN   // nil for a unit that does not exist
	skip uint32 // Data-In before this DataSN are with the initiator
}

// bytes returns the length of the command's blocks in bytes.
func (q *request) bytes() int64 { return int64(q.Blocks) * int64(q.lun.BlockSize) }

// offset returns the place of the command's blocks in the store.
func (q *request) offset() int64 { return int64(q.LBA) * int64(q.lun.BlockSize) }

// scsiCommand executes a SCSI command, or has it wait for its data. c.mu is
// held.
func (c *Conn) scsiCommand(p *pdu.SCSICommand) error {
	c.checkCommand(p)
	delete(c.aborted, p.InitiatorTaskTag)
	c.req = request{
		itt: p.InitiatorTaskTag, field: p.LUN, edtl: p.ExpectedDataTransferLength,
		in: p.Read, out: p.Write, counted: !p.Immediate, cdb: p.CDB,
	}
	q := &c.req
	q.lun = c.target.lun(p.LUN)
	if p.Immediate && len(c.tasks) >= maxTasks {
		return c.rejectCommand(p)
	}
	status := c.admitCommand(q)
	if status == nil {
		status = c.checkUnsolicited(p)
	}
	if status == nil && q.sink() == nil && q.outLength() > maxBuffered {
		status = &scsiInvalidField
	}
	if !q.out || q.edtl == 0 {
		// No data will come, whatever the command makes of that.
		if status != nil {
			return c.respond(q, status, 0)
		}
		return c.execute(q, nil, q.outLength())
	}
	want := int64(0)
	if status == nil {
		want = q.outLength()
	}
	transfer := min(want, int64(q.edtl))
	if p.Final && int64(len(p.Data)) >= transfer {
		if status != nil {
			return c.respond(q, status, 0)
		}
		if q.h.sink != nil && transfer > 0 {
			t := c.newTask(q, want, transfer)
			if err := c.deliver(t, 0, p.Data); err != nil {
				return err
			}
			return c.complete(t)
		}
		return c.execute(q, p.Data[:transfer], want)
	}
	t := c.newTask(q, want, transfer)
	t.status = status
	t.unsolicited = !p.Final
	c.tasks[q.itt] = t
	if err := c.deliver(t, 0, p.Data); err != nil {
		return err
	}
	t.got = int64(len(p.Data))
	t.asked = t.got
	if t.unsolicited {
		return nil
	}
	return c.solicit(t)
}

const (
	// maxTasks bounds the writes waiting for data that immediate commands
	// can start; others are bounded by the command window.
	maxTasks = 1024
	// maxBuffered is the most data in bytes that are collected for a
	// command that needs them all at once.
	maxBuffered = 16 << 20
)

// rejectCommand refuses one immediate command too many.
func (c *Conn) rejectCommand(p *pdu.SCSICommand) error {
	bhs, err := p.AppendHeader(nil)
	if err != nil {
		return err
	}
	return c.reject(&pdu.Header{BHS: [pdu.BHSLen]byte(bhs)}, pdu.RejectTooManyImmediate)
}

// checkCommand records what is wrong with a command PDU.
func (c *Conn) checkCommand(p *pdu.SCSICommand) {
	op := pdu.OpSCSICommand
	if p.InitiatorTaskTag == pdu.ReservedTag {
		c.violated(op, "initiator task tag is reserved (11.2.1.8)")
	}
	if c.tasks[p.InitiatorTaskTag] != nil || c.delayed[p.InitiatorTaskTag] != nil || c.orphans[p.InitiatorTaskTag] != nil {
		c.violated(op, "initiator task tag %#x is in use (11.2.1.8)", p.InitiatorTaskTag)
	}
	if !p.Read && !p.Write && p.ExpectedDataTransferLength > 0 {
		c.violated(op, "data are expected, but neither R nor W is set (11.3.1)")
	}
	if len(p.Data) > 0 && !p.Write {
		c.violated(op, "immediate data without W (11.3.6)")
	}
	if !p.Final && !p.Write {
		c.violated(op, "neither F nor W is set (11.3.1)")
	}
	if n := uint32(len(p.Data)); n > p.ExpectedDataTransferLength {
		c.violated(op, "more immediate data than are expected (11.3.4)")
	} else if n > 0 && n == p.ExpectedDataTransferLength && !p.Final {
		c.violated(op, "F is not set though the data are complete (11.3.4)")
	}
}

// checkUnsolicited checks what comes, or is announced, without an R2T (RFC
// 7143 sections 4.2.5.2 and 13.11).
func (c *Conn) checkUnsolicited(p *pdu.SCSICommand) *result {
	op := pdu.OpSCSICommand
	switch n := uint32(len(p.Data)); {
	case n > 0 && !c.neg.ImmediateData:
		c.violated(op, "immediate data though ImmediateData=No (13.11)")
		return &scsiUnexpectedData
	case !p.Final && c.neg.InitialR2T:
		c.violated(op, "unsolicited data announced though InitialR2T=Yes (13.10)")
		return &scsiUnexpectedData
	case n > c.neg.FirstBurstLength:
		c.violated(op, "immediate data exceed FirstBurstLength (13.14)")
		return &scsiUnexpectedData
	case n > 0 && !p.Final && n == c.neg.FirstBurstLength:
		c.violated(op, "F is not set though FirstBurstLength is used up (4.2.5.2)")
	}
	return nil
}

// admitCommand finds out whether the command can be executed at all. The order
// is that of SAM: the unit, orders of tests, the command, unit attentions,
// reservations.
func (c *Conn) admitCommand(q *request) *result {
	cmd, err := scsi.ParseCommand(q.cdb[:])
	q.Command = cmd
	h := &c.srv.ops[q.cdb[0]]
	q.h = h
	if q.lun != nil {
		if f := q.lun.nextFault(q.cdb[:]); f != nil {
			return &result{status: f.status, sense: f.sense}
		}
	}
	if q.lun == nil && !h.anyLUN {
		return &scsiNoLUN
	}
	if err != nil || h.run == nil && h.sink == nil || h.disk && !q.lun.isDisk() {
		return &scsiInvalidOpcode
	}
	if !h.noAttention {
		if asc, ok := c.uas.take(q.field); ok {
			r := sense(scsi.KeyUnitAttention, byte(asc>>8), byte(asc))
			return &r
		}
	}
	if q.lun == nil {
		return nil
	}
	if h.access != accessNone && !q.lun.pr.allows(q.lun, c.nexus, h.access) {
		return &result{status: scsi.StatusReservationConflict}
	}
	if h.access == accessWrite && h.disk && q.lun.ReadOnly {
		return &scsiWriteProtected
	}
	if h.blocks {
		return q.checkBlocks()
	}
	return nil
}

// checkBlocks checks address and length of a command with blocks.
func (q *request) checkBlocks() *result {
	switch {
	case q.Protect != 0:
		return &scsiInvalidField
	case !q.lun.inRange(q.LBA, uint64(q.Blocks)):
		return &scsiOutOfRange
	case q.lun.MaxTransfer > 0 && q.Blocks > q.lun.MaxTransfer && q.isTransfer():
		return &scsiInvalidField
	}
	return nil
}

// isTransfer reports whether the blocks travel over the wire.
func (q *request) isTransfer() bool { return q.h.sink != nil || q.h.read }

// execute runs a command that has all its data. want is the length of the data
// it calls for, which can be more than came.
func (c *Conn) execute(q *request, data []byte, want int64) error {
	if q.h.sink != nil {
		// A write without data: nothing to do but tell the residual.
		return c.respond(q, nil, want)
	}
	if want > int64(len(data)) {
		return c.respond(q, &scsiParameterLength, want)
	}
	return q.h.run(c, q, data)
}

// outLength returns how many bytes the CDB calls for from the initiator.
func (q *request) outLength() int64 {
	if q.h.length != nil {
		return q.h.length(q)
	}
	return 0
}

// respond ends a command with a SCSI Response. result nil means GOOD; want is
// how many bytes the command calls for, for the residual.
func (c *Conn) respond(q *request, r *result, want int64) error {
	return c.respondAfter(q, r, want, 0)
}

// respondAfter is respond for a command that has sent Data-In PDUs.
func (c *Conn) respondAfter(q *request, r *result, want int64, dataIns uint32) error {
	c.answered(q)
	c.rsp = pdu.SCSIResponse{InitiatorTaskTag: q.itt, ExpDataSN: dataIns}
	if r == nil {
		c.rsp.Overflow, c.rsp.Underflow, c.rsp.ResidualCount = residual(want, q.edtl)
		return c.send(&c.rsp)
	}
	c.rsp.Status = uint8(r.status)
	if len(r.sense) > 0 {
		b, err := c.alloc(2 + len(r.sense))
		if err != nil {
			return err
		}
		c.rsp.Data = pdu.AppendSense(b[:0], r.sense)
	}
	if q.edtl > 0 && dataIns == 0 {
		c.rsp.Underflow, c.rsp.ResidualCount = true, q.edtl
	}
	return c.send(&c.rsp)
}

// answered makes room in the command window.
func (c *Conn) answered(q *request) {
	if q.counted {
		q.counted = false
		c.inflight--
	}
}

// residual compares what a command calls for with what the initiator expects
// (RFC 7143 section 11.4.5).
func residual(want int64, edtl uint32) (overflow, underflow bool, count uint32) {
	switch d := want - int64(edtl); {
	case d > 0:
		return true, false, uint32(min(d, 1<<32-1))
	case d < 0:
		return false, true, uint32(-d)
	}
	return false, false, 0
}
