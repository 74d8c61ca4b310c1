package initiator

import (
	"context"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// confirm asks a logical unit again what it said in known, and how large it is,
// with all questions under way at the same time. If err is not nil, info is what
// is known of who it is, nil if that is nothing or not enough to tell.
func (p *prober) confirm(ctx context.Context, known *LUNInfo) (info *LUNInfo, c scsi.Capacity, err error) {
	lun := known.LUN
	b := newProbeBatch(p.port, lun, 5)
	// First, because it takes in the unit attentions.
	ready := b.add(0, scsi.TestUnitReady)
	inquiry := b.add(scsi.InquiryLength, func(cdb *scsi.CDB) int { return scsi.Inquiry(cdb, scsi.InquiryLength) })
	var id, serial *Task
	page := func(page scsi.VPDPage) *Task {
		if !known.Pages.Has(page) {
			return nil
		}
		return b.add(vpdFirst, func(cdb *scsi.CDB) int { return scsi.InquiryVPD(cdb, page, vpdFirst) })
	}
	id, serial = page(scsi.VPDDeviceID), page(scsi.VPDUnitSerial)
	capacity := b.add(scsi.Capacity16Length, func(cdb *scsi.CDB) int { return scsi.ReadCapacity16(cdb, scsi.Capacity16Length) })
	b.run()

	info = &LUNInfo{LUN: lun, Pages: known.Pages}
	data, err := p.settled(ctx, "inquiry", inquiry)
	if err == nil {
		err = info.describe(data)
	}
	if err != nil {
		return nil, c, err
	}
	if !info.Present() {
		// Not yet, perhaps: the target may still be starting.
		return nil, c, p.fail("inquiry", lun, ErrNoDevice, ErrNoDevice)
	}
	if err := p.confirmPages(ctx, info, id, serial); err != nil {
		return nil, c, err
	}
	if _, err := p.settled(ctx, "test unit ready", ready); err != nil {
		return info, c, err
	}
	data, err = p.settled(ctx, "read capacity", capacity)
	if err == nil {
		c, err = scsi.ParseCapacity16(data)
	}
	if lacking(err) {
		c, err = p.capacity(ctx, lun)
	}
	return info, c, err
}

// confirmPages fills in the identity from the answers to the pages' probes, each
// of which may be nil.
func (p *prober) confirmPages(ctx context.Context, info *LUNInfo, id, serial *Task) error {
	if serial != nil {
		b, err := p.settled(ctx, "inquiry", serial)
		if err == nil {
			info.Identity.Serial, err = scsi.ParseUnitSerial(b)
		}
		if err = p.excuse(info.LUN, scsi.VPDUnitSerial, err); err != nil {
			return err
		}
	}
	if id != nil {
		b, err := p.settled(ctx, "inquiry", id)
		if err == nil && scsi.VPDLength(b) > vpdFirst {
			b, err = p.vpd(ctx, info.LUN, scsi.VPDDeviceID)
		}
		if err == nil {
			info.Designators, err = scsi.ParseDeviceID(b)
		}
		if err = p.excuse(info.LUN, scsi.VPDDeviceID, err); err != nil {
			return err
		}
	}
	info.Identity.WWID = scsi.WWID(info.Designators, info.InquiryData, info.Identity.Serial)
	return nil
}

// settled returns the answer to a probe of a batch. One that something came in
// the way of is sent again by the rules of run.
func (p *prober) settled(ctx context.Context, op string, t *Task) ([]byte, error) {
	if t.Err == nil && len(t.DataIn) > 0 {
		t.Residual = 0 // lengths of answers are only bounds
	}
	j, sense := judge(t)
	if j.attention != 0 {
		p.attend(j.attention, sense)
	}
	switch j.verdict {
	case verdictDone:
	case verdictAttention, verdictHold, verdictAgain:
		if err := p.run(ctx, op, t); err != nil {
			return nil, err
		}
	default:
		return nil, p.fail(op, t.LUN, j.kind, taskError(t, j.kind))
	}
	return t.DataIn[:min(max(t.Transferred, 0), len(t.DataIn))], nil
}

// A probeBatch is a number of commands that are under way at the same time.
type probeBatch struct {
	port  taskPort
	lun   pdu.LUN
	tasks []*Task
	done  chan struct{}
}

func newProbeBatch(port taskPort, lun pdu.LUN, most int) *probeBatch {
	return &probeBatch{port: port, lun: lun, done: make(chan struct{}, most)}
}

// add puts a command that returns at most n bytes into the batch.
func (b *probeBatch) add(n int, build func(*scsi.CDB) int) *Task {
	t := &Task{LUN: b.lun, DataIn: make([]byte, n), Timeout: commandTimeout, Owner: b}
	build(&t.CDB)
	b.tasks = append(b.tasks, t)
	return t
}

// run sends the commands and waits for all of them. That ends, as every task
// does.
func (b *probeBatch) run() {
	for _, t := range b.tasks {
		b.port.Submit(t)
	}
	b.port.Kick()
	for range b.tasks {
		<-b.done
	}
}

// TaskDone implements Completer.
func (b *probeBatch) TaskDone(*Task) { b.done <- struct{}{} }

// Flush implements Completer.
func (b *probeBatch) Flush() {}
