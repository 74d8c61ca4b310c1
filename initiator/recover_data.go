package initiator

import (
	"errors"
	"fmt"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// A recovery is what a slot knows of data or R2Ts that are missing (error
// recovery level 1). It belongs to the receiver.
//
// Everything from the first missing number on is asked for again, and what comes
// before that number is dropped: one number stands for all that is missing.
type recovery struct {
	asked  bool   // slot.dataSN is missing and asked for
	last   uint32 // number that was dropped last, while asked
	snacks uint8  // in a row without success

	// unacked: the target has concluded the task, but that must not be
	// acknowledged while data is missing; statSN is the number. ended: the
	// conclusion itself is here.
	unacked, ended bool
	statSN         uint32
	expDataSN      uint32 // how many Data-In and R2T there were
	outcome        outcome
}

// missing deals with a Data-In or R2T whose number sn is not the next one, or that
// arrived damaged: what is missing is asked for, once for each time that the
// target sends what comes behind it.
func (c *conn) missing(sl *slot, sn uint32, damaged bool) error {
	r := sl.recovery
	if pdu.SerialLess(sn, sl.dataSN) {
		return nil // it came before
	}
	again := damaged && sn == sl.dataSN || r.asked && !pdu.SerialLess(r.last, sn)
	r.last = sn
	if r.asked && !again {
		return nil
	}
	r.asked = true
	return c.askData(sl)
}

// askData asks for a task's Data-In or R2T PDUs again, from the first missing one
// on.
func (c *conn) askData(sl *slot) error {
	r := sl.recovery
	if r.snacks++; r.snacks > maxSNACKs {
		return withKind(ErrTransport, fmt.Errorf("data PDU %d of a task is lost again and again", sl.dataSN))
	}
	return c.snack(&pdu.SNACK{
		Type:              pdu.SNACKData,
		InitiatorTaskTag:  sl.itt,
		TargetTransferTag: pdu.ReservedTag,
		BegRun:            sl.dataSN,
	})
}

// came notes that the Data-In or R2T that was the next is here.
func (r *recovery) came() { r.asked, r.snacks = false, 0 }

// recoverDataIn is onDataIn on error recovery level 1: a Data-In that is damaged
// or out of its turn is dropped and asked for again, and a status is only
// acknowledged when all data are there.
func (c *conn) recoverDataIn(h *pdu.Header, d *pdu.DataIn) error {
	if d.HasStatus {
		if fresh, err := c.seen(h); !fresh {
			return err
		}
	}
	c.updateWindow(h)
	sl, _, err := c.slotOf(d.InitiatorTaskTag)
	if sl == nil {
		if d.HasStatus && err == nil {
			c.acknowledge(d.StatSN)
		}
		return err // late: Next skips the data
	}
	if d.HasStatus {
		sl.recovery.unacked, sl.recovery.statSN = true, d.StatSN
	}
	if d.DataSN != sl.dataSN {
		return c.missing(sl, d.DataSN, false)
	}
	if err := c.place(sl, d, h); err != nil {
		if de := (*pdu.DigestError)(nil); errors.As(err, &de) {
			c.rx.digest++
			return c.missing(sl, d.DataSN, true)
		}
		return err
	}
	sl.dataSN++
	sl.recovery.came()
	if d.Acknowledge {
		if err := c.acknowledgeData(sl, d); err != nil {
			return err
		}
	}
	if d.HasStatus {
		return c.conclude(sl, h, outcome{
			status:   scsi.Status(d.Status),
			over:     d.Overflow,
			under:    d.Underflow,
			residual: d.ResidualCount,
		}, d.DataSN+1)
	}
	return c.concluded(sl, h)
}

// acknowledgeData answers the A bit: the target may forget what it has sent (RFC
// 7143 section 11.16.2). There are no holes before it, for it was in its turn.
func (c *conn) acknowledgeData(sl *slot, d *pdu.DataIn) error {
	return c.snack(&pdu.SNACK{
		Type:              pdu.SNACKDataACK,
		LUN:               d.LUN,
		InitiatorTaskTag:  pdu.ReservedTag,
		TargetTransferTag: d.TargetTransferTag,
		BegRun:            sl.dataSN,
	})
}

// conclude takes the end of a task, of which there were expDataSN Data-In and R2T
// PDUs: it is finished now, or when what is missing of them has come.
func (c *conn) conclude(sl *slot, h *pdu.Header, o outcome, expDataSN uint32) error {
	r := sl.recovery
	if r.ended {
		return nil
	}
	if len(o.sense) > 0 { // they lie in memory of the reader
		sl.task.setSense(o.sense)
		o.sense = sl.task.Sense
	}
	r.ended, r.outcome, r.expDataSN = true, o, expDataSN
	if !r.asked && pdu.SerialLess(sl.dataSN, expDataSN) {
		r.asked, r.last = true, expDataSN-1
		return c.askData(sl)
	}
	return c.concluded(sl, h)
}

// concluded finishes a task if its end and all its data are here.
func (c *conn) concluded(sl *slot, h *pdu.Header) error {
	r := sl.recovery
	if !r.ended || r.asked || pdu.SerialLess(sl.dataSN, r.expDataSN) {
		return nil
	}
	c.settle(sl)
	c.finish(sl, r.outcome, h)
	return nil
}

// settle acknowledges the status of a task that ends, with or without its data.
func (c *conn) settle(sl *slot) {
	if r := sl.recovery; r != nil && r.unacked {
		r.unacked = false
		c.acknowledge(r.statSN)
	}
}

// remind is called with every answer to a ping, in which the target says what its
// next StatSN was. What holds up the acknowledgement of responses since the answer
// before, was asked for in vain, and is asked for again.
func (c *conn) remind(next uint32) error {
	base, before := c.expStatSN.Load(), c.responses.atPing
	c.responses.atPing = base
	if base != before || !pdu.SerialLess(base, next) {
		return nil
	}
	var held *slot
	c.s.mu.Lock()
	c.s.slots.each(func(sl *slot) {
		if r := sl.recovery; sl.state == slotSent && r != nil && r.unacked && r.statSN == base {
			held = sl
		}
	})
	c.s.mu.Unlock()
	if held != nil {
		return c.askData(held)
	}
	return c.askResponses(base, 1)
}
