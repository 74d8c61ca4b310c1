package iscsitest

import (
	"errors"

	"github.com/goiscsi/goiscsi/pdu"
)

// A segmenter cuts the data of a read into Data-In PDUs: no longer than the
// initiator takes, in sequences no longer than MaxBurstLength.
type segmenter struct {
	off, total, burst int64 // burst is where the sequence ends
	sn                uint32
}

// next returns the length of the next data segment and whether it ends a
// sequence.
func (s *segmenter) next(c *Conn) (n int64, final bool) {
	if s.off >= s.burst {
		s.burst = min(s.total, s.off+int64(c.neg.MaxBurstLength))
	}
	n = min(s.burst-s.off, int64(c.neg.MaxRecvDataSegmentLength), maxDataIn)
	return n, s.off+n == s.burst
}

// sendData ends a command well with parameter data, cut to what the
// initiator expects. data need not last.
func (c *Conn) sendData(q *request, data []byte) error {
	return c.sendRead(q, int64(len(data)), func(off int64, n int) ([]byte, error) {
		b, err := c.alloc(n)
		copy(b, data[off:])
		return b, err
	})
}

// errStore is returned by a load function for an error of the store: the
// command ends with it, not the connection.
var errStore = errors.New("store failed")

// sendRead ends a command well with data that load gives piece by piece, n
// bytes at off at a time. want is the length of them all; the initiator gets
// no more than it expects.
func (c *Conn) sendRead(q *request, want int64, load func(off int64, n int) ([]byte, error)) error {
	var s segmenter
	if q.in {
		s.total = min(want, int64(q.edtl))
	}
	separate := c.srv.cfg.Params.SeparateStatus
	for s.off < s.total {
		n, final := s.next(c)
		b, err := load(s.off, int(n))
		if err == errStore {
			return c.respondAfter(q, &scsiReadError, want, s.sn)
		} else if err != nil {
			return err
		}
		c.dataIn = pdu.DataIn{
			Final: final, InitiatorTaskTag: q.itt, TargetTransferTag: pdu.ReservedTag,
			DataSN: s.sn, BufferOffset: uint32(s.off), Data: b,
		}
		s.off += n
		s.sn++
		if final && c.recovers() && c.srv.cfg.Params.AckData {
			c.dataIn.Acknowledge, c.dataIn.LUN, c.dataIn.TargetTransferTag = true, q.field, c.nextTTT()
		}
		if s.off == s.total && !separate {
			c.answered(q)
			c.dataIn.HasStatus = true
			c.dataIn.Overflow, c.dataIn.Underflow, c.dataIn.ResidualCount = residual(want, q.edtl)
		}
		if c.dataIn.DataSN < q.skip && !c.dataIn.HasStatus {
			continue
		}
		if err := c.send(&c.dataIn); err != nil {
			return err
		}
	}
	if separate || s.total == 0 {
		return c.respondAfter(q, nil, want, s.sn)
	}
	return nil
}

// readBlocks executes the READ commands.
func readBlocks(c *Conn, q *request, _ []byte) error {
	base := q.offset()
	viewer, _ := q.lun.Store.(Viewer)
	return c.sendRead(q, q.bytes(), func(off int64, n int) ([]byte, error) {
		if viewer != nil {
			if b := viewer.View(base+off, n); b != nil {
				return b, nil
			}
		}
		b, err := c.alloc(n)
		if err != nil {
			return nil, err
		}
		if _, err := q.lun.Store.ReadAt(b, base+off); err != nil {
			c.srv.logf("read of %d bytes at %d: %v", n, base+off, err)
			return nil, errStore
		}
		return b, nil
	})
}
