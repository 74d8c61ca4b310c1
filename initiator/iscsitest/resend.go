package iscsitest

import (
	"slices"

	"github.com/goiscsi/goiscsi/pdu"
)

// A backlog is what a connection with error recovery level 1 or more keeps of
// what it has sent, to send it again when a SNACK asks for it (RFC 7143 section
// 11.16).
//
// Invariants: responses has what was sent with a StatSN that the initiator has
// not acknowledged; data has the Data-In and R2T PDUs of each task whose status
// it has not, those before acked apart.
type backlog struct {
	responses map[uint32]pdu.PDU // by StatSN
	data      map[uint32]*sentData
	acks      map[uint32]*sentData // by the TTT of a Data-In with the A bit
}

// sentData are the Data-In and R2T PDUs of one task.
type sentData struct {
	pdus   []pdu.PDU
	acked  uint32 // the DataSN before which the initiator has all
	status uint32 // StatSN of its status, if concluded
	ended  bool
}

// recovers reports whether what was lost is sent again.
func (c *Conn) recovers() bool { return c.neg.ErrorRecoveryLevel > 0 && c.phase == phaseFull }

// record keeps a numbered PDU that is about to be sent for the first time.
func (c *Conn) record(p pdu.PDU) {
	b := &c.backlog
	if b.responses == nil {
		*b = backlog{map[uint32]pdu.PDU{}, map[uint32]*sentData{}, map[uint32]*sentData{}}
	}
	conclude := func(itt, statSN uint32) {
		if d := b.data[itt]; d != nil {
			d.status, d.ended = statSN, true
		}
	}
	switch p := p.(type) {
	case *pdu.DataIn:
		k := *p
		k.Data = append([]byte(nil), p.Data...)
		d := b.of(p.InitiatorTaskTag)
		d.pdus = append(d.pdus, &k)
		if p.Acknowledge {
			b.acks[p.TargetTransferTag] = d
		}
		if p.HasStatus {
			b.responses[p.StatSN] = &k
			conclude(p.InitiatorTaskTag, p.StatSN)
		}
	case *pdu.R2T:
		k := *p
		d := b.of(p.InitiatorTaskTag)
		d.pdus = append(d.pdus, &k)
	case *pdu.SCSIResponse:
		k := *p
		k.Data = append([]byte(nil), p.Data...)
		b.responses[p.StatSN] = &k
		conclude(p.InitiatorTaskTag, p.StatSN)
	case *pdu.NOPIn:
		if p.InitiatorTaskTag != pdu.ReservedTag {
			k := *p
			k.Data = append([]byte(nil), p.Data...)
			b.responses[p.StatSN] = &k
		}
	case *pdu.Reject:
		k := *p
		k.Data = append([]byte(nil), p.Data...)
		b.responses[p.StatSN] = &k
	case *pdu.AsyncMessage:
		k := *p
		b.responses[p.StatSN] = &k
	case *pdu.TaskManagementResponse:
		k := *p
		b.responses[p.StatSN] = &k
	case *pdu.TextResponse:
		k := *p
		b.responses[p.StatSN] = &k
	case *pdu.LogoutResponse:
		k := *p
		b.responses[p.StatSN] = &k
	}
}

// of returns what was sent of a task. A tag that is used again after its status
// is another task.
func (b *backlog) of(itt uint32) *sentData {
	d := b.data[itt]
	if d == nil || d.ended {
		d = &sentData{}
		b.data[itt] = d
	}
	return d
}

// acknowledge forgets what the initiator has, by its ExpStatSN.
func (b *backlog) acknowledge(expStatSN uint32) {
	for sn := range b.responses {
		if pdu.SerialLess(sn, expStatSN) {
			delete(b.responses, sn)
		}
	}
	for itt, d := range b.data {
		if d.ended && pdu.SerialLess(d.status, expStatSN) {
			delete(b.data, itt)
		}
	}
	for ttt, d := range b.acks {
		if d.ended && pdu.SerialLess(d.status, expStatSN) {
			delete(b.acks, ttt)
		}
	}
}

// dataSN returns the number of a Data-In or R2T.
func dataSN(p pdu.PDU) uint32 {
	switch p := p.(type) {
	case *pdu.DataIn:
		return p.DataSN
	case *pdu.R2T:
		return p.R2TSN
	}
	return 0
}

// snack handles a SNACK. c.mu is held.
func (c *Conn) snack(h *pdu.Header, p *pdu.SNACK) error {
	if !c.recovers() {
		c.violated(pdu.OpSNACK, "snack in a session of ErrorRecoveryLevel 0 (7.1.4)")
		return c.reject(h, pdu.RejectSNACK)
	}
	b := &c.backlog
	within := func(n uint32) bool {
		return !pdu.SerialLess(n, p.BegRun) && (p.RunLength == 0 || pdu.SerialLess(n, p.BegRun+p.RunLength))
	}
	switch p.Type {
	case pdu.SNACKDataACK:
		d := b.acks[p.TargetTransferTag]
		if d == nil || p.InitiatorTaskTag != pdu.ReservedTag || p.RunLength != 0 {
			c.violated(pdu.OpSNACK, "DataACK with tags %#x and %#x, run length %d (11.16)", p.InitiatorTaskTag, p.TargetTransferTag, p.RunLength)
			return c.reject(h, pdu.RejectProtocolError)
		}
		delete(b.acks, p.TargetTransferTag)
		if pdu.SerialLess(d.acked, p.BegRun) {
			d.acked = p.BegRun
		}
		d.pdus = slices.DeleteFunc(d.pdus, func(k pdu.PDU) bool { return pdu.SerialLess(dataSN(k), d.acked) })
		return nil
	case pdu.SNACKData:
		if d := b.data[p.InitiatorTaskTag]; d != nil && !pdu.SerialLess(p.BegRun, d.acked) {
			return c.sendAgain(h, slices.DeleteFunc(slices.Clone(d.pdus), func(k pdu.PDU) bool { return !within(dataSN(k)) }))
		}
		c.violated(pdu.OpSNACK, "data of task %#x from %d on that were not sent, or acknowledged (11.16)", p.InitiatorTaskTag, p.BegRun)
		return c.reject(h, pdu.RejectSNACK)
	case pdu.SNACKStatus:
		if p.InitiatorTaskTag != pdu.ReservedTag {
			c.violated(pdu.OpSNACK, "status snack with initiator task tag %#x (11.16.4)", p.InitiatorTaskTag)
		}
		var lost []pdu.PDU
		for sn := c.expStatSN; sn != c.statSN; sn++ {
			if k := b.responses[sn]; k != nil && within(sn) {
				lost = append(lost, k)
			}
		}
		return c.sendAgain(h, lost)
	}
	return c.reject(h, pdu.RejectSNACK) // R-Data: the segment length never changes here
}

// sendAgain sends copies of what was sent before, with the present command
// window. None at all is what nobody may ask for.
func (c *Conn) sendAgain(h *pdu.Header, lost []pdu.PDU) error {
	if len(lost) == 0 {
		c.violated(pdu.OpSNACK, "snack for what was not sent, or was acknowledged (11.16)")
		return c.reject(h, pdu.RejectProtocolError)
	}
	exp, limit := c.expCmdSN, c.window()
	for _, p := range lost {
		// A copy, as a handler may change it.
		switch k := p.(type) {
		case *pdu.DataIn:
			again := *k
			again.ExpCmdSN, again.MaxCmdSN, p = exp, limit, &again
		case *pdu.R2T:
			again := *k
			again.StatSN, again.ExpCmdSN, again.MaxCmdSN, p = c.statSN, exp, limit, &again
		case *pdu.SCSIResponse:
			again := *k
			again.ExpCmdSN, again.MaxCmdSN, p = exp, limit, &again
		case *pdu.NOPIn:
			again := *k
			again.ExpCmdSN, again.MaxCmdSN, p = exp, limit, &again
		case *pdu.Reject:
			again := *k
			again.ExpCmdSN, again.MaxCmdSN, p = exp, limit, &again
		}
		if err := c.sendNumbered(p); err != nil {
			return err
		}
	}
	return nil
}

// recoverData asks for the data of a Data-Out once more that arrived damaged
// (RFC 7143 section 7.8, recovery R2T): its place in the sequence counts as
// filled, and its bytes as not received.
func (c *Conn) recoverData(t *task, p *pdu.DataOut, n int64) error {
	off := int64(p.BufferOffset)
	if t.req.sink() == nil {
		// It takes its data in order only.
		t.fail(scsiCRCError)
	}
	t.missing = append(t.missing, extent{off, off + n})
	if p.TargetTransferTag == pdu.ReservedTag {
		if !t.unsolicited {
			return nil
		}
		t.dataSN++
		t.got, t.asked = off+n, off+n
		if p.Final {
			t.unsolicited = false
			return c.solicit(t)
		}
		return nil
	}
	for i := range t.r2ts {
		if s := &t.r2ts[i]; s.ttt == p.TargetTransferTag {
			s.dataSN++
			if s.next = off + n; p.Final {
				t.r2ts = slices.Delete(t.r2ts, i, i+1)
				return c.solicit(t)
			}
			return nil
		}
	}
	return nil
}
