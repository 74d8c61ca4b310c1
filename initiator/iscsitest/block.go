package iscsitest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// Commands of SBC.

const (
	// maxUnmapBlocks bounds one UNMAP or WRITE SAME, in blocks.
	maxUnmapBlocks = 1 << 20
	maxUnmapRanges = 256
	// maxCompare is the greatest COMPARE AND WRITE, in blocks.
	maxCompare = 128
)

// limits returns the block limits of the unit.
func (l *LUN) limits() scsi.BlockLimits {
	b := scsi.BlockLimits{
		MaxCompareAndWrite: maxCompare, OptimalGranularity: 1 << l.PhysicalExponent,
		MaxTransfer: l.MaxTransfer, MaxWriteSame: maxUnmapBlocks,
	}
	if l.Thin {
		b.MaxUnmapBlocks, b.MaxUnmapDescriptors, b.UnmapGranularity = maxUnmapBlocks, maxUnmapRanges, 1
	}
	return b
}

func (l *LUN) capacity() scsi.Capacity {
	return scsi.Capacity{
		LastLBA: l.blocks() - 1, BlockSize: uint32(l.BlockSize), PhysicalExponent: l.PhysicalExponent,
		Thin: l.Thin, ThinReadsZero: l.Thin,
	}
}

func readCapacity10(c *Conn, q *request, _ []byte) error {
	c.scratch = q.lun.capacity().Append10(c.scratch[:0])
	return c.sendData(q, c.scratch)
}

func serviceActionIn(c *Conn, q *request, _ []byte) error {
	switch q.ServiceAction {
	case scsi.SAReadCapacity16:
		c.scratch = q.lun.capacity().Append16(c.scratch[:0])
		return c.sendData(q, q.cut(c.scratch))
	case scsi.SAGetLBAStatus:
		if !q.lun.inRange(q.LBA, 1) {
			return c.respond(q, &scsiOutOfRange, 0)
		}
		// What is mapped is not known: one extent to the end.
		n := uint32(min(q.lun.blocks()-q.LBA, 1<<32-1))
		c.scratch = scsi.AppendLBAStatus(c.scratch[:0], scsi.LBAStatus{Extent: scsi.Extent{LBA: q.LBA, Blocks: n}})
		return c.sendData(q, q.cut(c.scratch))
	}
	return c.respond(q, &scsiInvalidField, 0)
}

// failed turns an error of the store into the end of a write.
func (l *LUN) failed(err error) *result {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &scsiNoSpace
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EPERM):
		return &scsiWriteProtected
	}
	return &scsiWriteError
}

// writeBlocks takes a piece of the data of the WRITE commands.
func writeBlocks(q *request, data []byte, off int64) *result {
	_, err := q.lun.Store.WriteAt(data, q.offset()+off)
	return q.lun.failed(err)
}

// synchronize executes SYNCHRONIZE CACHE, for the whole unit whatever range
// was asked for.
func synchronize(c *Conn, q *request, _ []byte) error {
	return c.respond(q, q.lun.failed(q.lun.Store.Sync()), 0)
}

// verifyLength is how many bytes VERIFY compares with: the blocks, one block,
// or nothing, by BYTCHK.
func verifyLength(q *request) int64 {
	switch q.ByteCheck {
	case 1:
		return q.bytes()
	case 3:
		if q.Blocks > 0 {
			return int64(q.lun.BlockSize)
		}
	}
	return 0
}

// verifyBlocks reads the blocks and compares them.
func verifyBlocks(c *Conn, q *request, data []byte) error {
	if q.ByteCheck == 2 {
		return c.respond(q, &scsiInvalidField, 0)
	}
	want := int64(len(data))
	buf := make([]byte, min(q.bytes(), 1<<20))
	for off := int64(0); off < q.bytes(); off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), q.bytes()-off)]
		if _, err := q.lun.Store.ReadAt(buf, q.offset()+off); err != nil {
			return c.respond(q, &scsiReadError, 0)
		}
		for i := range buf {
			if want > 0 && buf[i] != data[(off+int64(i))%want] {
				return c.respond(q, miscompare(uint64(off)+uint64(i)), 0)
			}
		}
	}
	return c.respond(q, nil, want)
}

// miscompare is MISCOMPARE with the offset of the first byte that differs.
func miscompare(off uint64) *result {
	s := scsi.NewSense(scsi.KeyMiscompare, 0x1d, 0)
	s.Information, s.InformationValid = off, true
	return &result{scsi.StatusCheckCondition, s.Append(nil)}
}

// compareLength is the length of both halves of COMPARE AND WRITE.
func compareLength(q *request) int64 { return 2 * q.bytes() }

func compareAndWrite(c *Conn, q *request, data []byte) error {
	l := q.lun
	if q.Blocks > maxCompare {
		return c.respond(q, &scsiInvalidField, 0)
	}
	n := int(q.bytes())
	if n == 0 {
		return c.respond(q, nil, 0)
	}
	old, fresh := data[:n], data[n:2*n]
	// Atomic with respect to other such commands; plain writes are not
	// serialised with it.
	l.rmw.Lock()
	defer l.rmw.Unlock()
	have := make([]byte, n)
	if _, err := l.Store.ReadAt(have, q.offset()); err != nil {
		return c.respond(q, &scsiReadError, 0)
	}
	if !bytes.Equal(have, old) {
		i := 0
		for have[i] == old[i] {
			i++
		}
		return c.respond(q, miscompare(uint64(i)), 0)
	}
	_, err := l.Store.WriteAt(fresh, q.offset())
	if err == nil && q.FUA {
		err = l.Store.Sync()
	}
	return c.respond(q, l.failed(err), int64(len(data)))
}

// sameLength is the length of the block that WRITE SAME repeats.
func sameLength(q *request) int64 {
	if q.NDOB {
		return 0
	}
	return int64(q.lun.BlockSize)
}

func writeSame(c *Conn, q *request, data []byte) error {
	l := q.lun
	if q.Blocks == 0 { // to the end
		n := l.blocks() - q.LBA
		if n > maxUnmapBlocks {
			return c.respond(q, &scsiInvalidField, 0)
		}
		q.Blocks = uint32(n)
	}
	if q.Blocks > maxUnmapBlocks || q.Anchor || q.Unmap && !l.Thin {
		return c.respond(q, &scsiInvalidField, 0)
	}
	want := int64(len(data))
	zero := q.NDOB || allZero(data)
	var err error
	switch d, _ := l.Store.(Discarder); {
	case zero && q.Unmap && d != nil:
		err = d.Discard(q.offset(), q.bytes())
	case zero:
		err = writeZeroes(l.Store, q.offset(), q.bytes())
	default:
		// Fewer, longer writes.
		pattern := bytes.Repeat(data, max(1, int(min(64<<10, q.bytes()))/len(data)))
		err = fill(l.Store, pattern, q.offset(), q.bytes())
	}
	return c.respond(q, l.failed(err), want)
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func unmap(c *Conn, q *request, data []byte) error {
	l := q.lun
	if !l.Thin {
		return c.respond(q, &scsiInvalidOpcode, 0)
	}
	if q.Anchor {
		return c.respond(q, &scsiInvalidField, 0)
	}
	want := int64(len(data))
	if len(data) == 0 {
		return c.respond(q, nil, 0)
	}
	if len(data) < scsi.UnmapHeaderLength || int(binary.BigEndian.Uint16(data[2:])) > len(data)-scsi.UnmapHeaderLength {
		return c.respond(q, &scsiParameterLength, 0)
	}
	extents, err := scsi.ParseUnmapList(data)
	if err != nil || len(extents) > maxUnmapRanges {
		return c.respond(q, &scsiInvalidList, 0)
	}
	total := uint64(0)
	for _, e := range extents {
		if !l.inRange(e.LBA, uint64(e.Blocks)) {
			return c.respond(q, &scsiOutOfRange, 0)
		}
		if total += uint64(e.Blocks); total > maxUnmapBlocks {
			return c.respond(q, &scsiInvalidList, 0)
		}
	}
	d := l.Store.(Discarder) // LUN.check has seen to it
	bs := int64(l.BlockSize)
	for _, e := range extents {
		if err := d.Discard(int64(e.LBA)*bs, int64(e.Blocks)*bs); err != nil {
			return c.respond(q, l.failed(err), 0)
		}
	}
	return c.respond(q, nil, want)
}

// Resized tells all sessions by a unit attention that the size of the unit's
// store has changed.
func (s *Server) Resized(l *LUN) {
	for _, c := range s.normalSessions(nil) {
		c.attentionUnit(l, ascCapacityChanged)
	}
}
