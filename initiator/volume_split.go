package initiator

import "github.com/goiscsi/goiscsi/initiator/scsi"

// A pieceKind is a command that a piece of a request is carried out by.
type pieceKind uint8

const (
	pieceNone       pieceKind = iota // the device cannot do it
	pieceRead                        // READ
	pieceWrite                       // WRITE
	pieceSync                        // SYNCHRONIZE CACHE of everything
	pieceUnmap                       // UNMAP
	pieceSameUnmap                   // WRITE SAME(16) of zeroes with UNMAP
	pieceSameAnchor                  // the same with ANCHOR, which keeps the space
	pieceSame                        // WRITE SAME(16) of zeroes
	pieceZeroes                      // WRITE of zeroes, as often as it takes
	pieceKinds
)

// Bounds of the range of one piece, in bytes, where the device names none or a
// greater one. They keep a command well below its timeout, and other commands
// from waiting long.
const (
	mostUnmapped = 4 << 30  // without writing
	mostSame     = 64 << 20 // written by the device
	mostZeroes   = 16 << 20 // written by us, in a row of commands
)

// zeroBlocks is what zeroes are written from. It is never written to, so it
// takes no memory but the kernel's page of zeroes.
var zeroBlocks [1 << 20]byte

// splitRules say by which commands requests are carried out and how long one
// command may be. Volume.mu protects those of a volume.
type splitRules struct {
	maxTransfer int64 // bytes of one READ or WRITE

	discard   pieceKind // pieceNone, pieceUnmap or pieceSameUnmap
	zero      pieceKind // with NoUnmap: pieceSameAnchor or what zeroData is
	zeroUnmap pieceKind // without: pieceSameUnmap or what zeroData is
	zeroData  pieceKind // by writing them: pieceSame or pieceZeroes

	ndob bool // WRITE SAME needs no data

	most [pieceKinds]int64 // bytes that one piece covers

	// Granules of UNMAP in bytes. Parts of a granule may not be unmapped, so
	// ranges are cut between granules.
	granularity, alignment int64
}

// splitRulesOf derives the rules from what the device says.
func splitRulesOf(d *diskState, maxTransfer int64) splitRules {
	bs := int64(d.blockSize)
	atMost := func(bound int64, blocks uint64) int64 {
		n := bound
		if blocks > 0 && blocks < uint64(bound/bs) {
			n = int64(blocks) * bs
		}
		return max(n-n%bs, bs)
	}
	s := splitRules{
		maxTransfer: atMost(maxTransfer, uint64(d.limits.MaxTransfer)),
		ndob:        d.ndob,
		granularity: max(int64(d.limits.UnmapGranularity), 1) * bs,
	}
	if d.limits.UnmapAlignmentValid {
		s.alignment = int64(d.limits.UnmapAlignment) * bs % s.granularity
	}
	s.most = [pieceKinds]int64{
		pieceRead:      s.maxTransfer,
		pieceWrite:     s.maxTransfer,
		pieceUnmap:     atMost(mostUnmapped, uint64(d.limits.MaxUnmapBlocks)),
		pieceSameUnmap: atMost(mostUnmapped, d.limits.MaxWriteSame),
		// Space may have to be reserved for it, but nothing is written.
		pieceSameAnchor: atMost(mostUnmapped, d.limits.MaxWriteSame),
		pieceSame:       atMost(mostSame, d.limits.MaxWriteSame),
		pieceZeroes:     mostZeroes,
	}
	s.discard = discardOf(d)
	s.zeroData = pieceSame
	if d.same16 == supportNo {
		s.zeroData = pieceZeroes
	}
	s.zero, s.zeroUnmap = s.zeroData, s.zeroData
	if unmapsBySame(d) && (d.capacity.ThinReadsZero || d.prov.UnmappedZero()) {
		s.zeroUnmap = pieceSameUnmap
		if d.prov.Anchor {
			s.zero = pieceSameAnchor
		}
	}
	return s
}

// discardOf chooses the command for OpDiscard: UNMAP, which may do nothing for
// parts of granules and takes no data, before WRITE SAME.
func discardOf(d *diskState) pieceKind {
	if !d.capacity.Thin {
		return pieceNone
	}
	unmap := d.prov.Unmap || d.prov == (scsi.Provisioning{}) // no page 0xB2: SBC-3's first drafts
	switch {
	case unmap && d.limits.MaxUnmapBlocks > 0 && d.limits.MaxUnmapDescriptors > 0:
		return pieceUnmap
	case unmapsBySame(d):
		return pieceSameUnmap
	}
	return pieceNone
}

// unmapsBySame reports whether WRITE SAME(16) takes the UNMAP bit.
func unmapsBySame(d *diskState) bool {
	return d.capacity.Thin && d.prov.WriteSame16 && d.same16 != supportNo
}

// kindOf returns by what command a request starts to be carried out.
func (s *splitRules) kindOf(r *Request) pieceKind {
	switch r.Op {
	case OpRead:
		return pieceRead
	case OpWrite:
		return pieceWrite
	case OpFlush:
		return pieceSync
	case OpDiscard:
		return s.discard
	case OpWriteZeroes:
		if r.NoUnmap {
			return s.zero
		}
		return s.zeroUnmap
	}
	return pieceNone
}

// cut returns how much of the range one piece of the kind covers.
func (s *splitRules) cut(k pieceKind, off, left int64) int64 {
	n := min(left, s.most[k])
	if k != pieceUnmap || n == left || s.granularity <= 1 {
		return n
	}
	// End at the end of a granule, if the piece reaches one.
	over := (off + n - s.alignment) % s.granularity
	if over < 0 {
		over += s.granularity
	}
	if over < n {
		n -= over
	}
	return n
}

// build fills in the command for the first part of a piece's range and notes
// how much it covers.
func (s *splitRules) build(io *ioTask, v *Volume) {
	t := &io.task
	t.DataIn, t.DataOut, t.Buffer, t.Timeout = nil, nil, nil, commandTimeout
	io.size, io.fua, io.ndob = s.commandSize(io), false, false
	lba, blocks := uint64(io.off)>>v.shift, uint32(io.size>>v.shift)
	switch io.kind {
	case pieceRead:
		if io.req.late() {
			t.Buffer, t.DataInLength = v.queue.buffer, int(io.size)
		} else {
			t.DataIn = io.data(io.size)
		}
		scsi.Read(&t.CDB, lba, blocks, 0)
	case pieceWrite:
		t.DataOut = io.data(io.size)
		scsi.Write(&t.CDB, lba, blocks, v.fua(io))
	case pieceZeroes:
		t.DataOut = zeroBlocks[:io.size]
		scsi.Write(&t.CDB, lba, blocks, v.fua(io))
	case pieceSync:
		t.Timeout = flushTimeout
		scsi.SynchronizeCache10(&t.CDB, 0, 0, false)
	case pieceUnmap:
		t.Timeout = bulkTimeout
		t.DataOut = scsi.AppendUnmapList(io.param[:0], scsi.Extent{LBA: lba, Blocks: blocks})
		scsi.Unmap(&t.CDB, uint16(len(t.DataOut)))
	case pieceSame, pieceSameUnmap, pieceSameAnchor:
		t.Timeout = bulkTimeout
		var f scsi.WriteSameFlags
		switch io.kind {
		case pieceSameUnmap:
			f = scsi.SameUnmap
		case pieceSameAnchor:
			f = scsi.SameUnmap | scsi.SameAnchor
		}
		if io.ndob = s.ndob; io.ndob {
			f |= scsi.SameNDOB
		} else {
			t.DataOut = zeroBlocks[:v.blockSize]
		}
		scsi.WriteSame16(&t.CDB, lba, blocks, f)
	}
}

// fua returns the flags of the write at hand and notes whether they make it
// durable by themselves.
func (v *Volume) fua(io *ioTask) scsi.RWFlags {
	if io.fua = io.req.FUA && v.state.dpofua && v.state.writeCache; io.fua {
		return scsi.FUA
	}
	return 0
}

// commandSize returns the bytes that the next command of a piece covers.
func (s *splitRules) commandSize(io *ioTask) int64 {
	switch io.kind {
	case pieceSync:
		return 0
	case pieceZeroes:
		return min(io.left, s.maxTransfer, int64(len(zeroBlocks)))
	case pieceUnmap, pieceSame, pieceSameUnmap, pieceSameAnchor:
		// A piece may have been cut by the rules of another kind.
		return s.cut(io.kind, io.off, io.left)
	}
	return min(io.left, s.maxTransfer)
}
