package pdu

import "encoding/binary"

const (
	// BHSLen is the length in bytes of the basic header segment, with which
	// every PDU begins (RFC 7143 section 11.2.1).
	BHSLen = 48
	// MaxAHSLen is the greatest length in bytes of all additional header
	// segments together: TotalAHSLength counts words in 8 bits.
	MaxAHSLen = 255 * 4
	// MaxDataSegmentLength is the greatest length in bytes of a data
	// segment: DataSegmentLength has 24 bits.
	MaxDataSegmentLength = 1<<24 - 1
	// DigestLen is the length in bytes of a header or data digest.
	DigestLen = 4
	// ReservedTag is the initiator task tag or target transfer tag that
	// means "no tag".
	ReservedTag = 0xffffffff
)

// Flags of byte 1 that several PDU types share.
const (
	flagFinal     = 0x80 // F, and T of login PDUs
	flagContinue  = 0x40 // C
	flagImmediate = 0x40 // I, in byte 0
)

// A Header is the header of a PDU: the basic header segment and whatever
// additional header segments follow it. The accessors read fields that have
// one place in all PDU types, or in all of one direction.
type Header struct {
	// BHS is the basic header segment as it was received.
	BHS [BHSLen]byte
	// AHS holds the additional header segments including their padding. A
	// Reader's Header has it valid until the next call of Next.
	AHS []byte
}

// Opcode returns the opcode.
func (h *Header) Opcode() Opcode { return Opcode(h.BHS[0] & opcodeMask) }

// Immediate returns the I bit, the mark of immediate delivery. It has a
// meaning in requests only.
func (h *Header) Immediate() bool { return h.BHS[0]&flagImmediate != 0 }

// Final returns the F bit (in login PDUs that is the T bit).
func (h *Header) Final() bool { return h.BHS[1]&flagFinal != 0 }

// TotalAHSLength returns the length in bytes, not in words, of the additional
// header segments.
func (h *Header) TotalAHSLength() int { return int(h.BHS[4]) * 4 }

// DataSegmentLength returns the length in bytes of the data segment without
// padding.
func (h *Header) DataSegmentLength() int {
	return int(h.BHS[5])<<16 | int(h.BHS[6])<<8 | int(h.BHS[7])
}

// LUN returns bytes 8 to 15, the logical unit number of PDU types that have
// one.
func (h *Header) LUN() LUN { return LUN(binary.BigEndian.Uint64(h.BHS[8:])) }

// InitiatorTaskTag returns the initiator task tag, ReservedTag for none.
func (h *Header) InitiatorTaskTag() uint32 { return h.u32(16) }

// TargetTransferTag returns the target transfer tag of the PDU types that
// have one: NOP-Out, Text, Data-Out, SNACK, NOP-In, Data-In, R2T.
func (h *Header) TargetTransferTag() uint32 { return h.u32(20) }

// CmdSN returns the command sequence number of an initiator PDU; Data-Out and
// SNACK have none.
func (h *Header) CmdSN() uint32 { return h.u32(24) }

// ExpStatSN returns the expected status sequence number of an initiator PDU.
func (h *Header) ExpStatSN() uint32 { return h.u32(28) }

// StatSN returns the status sequence number of a target PDU.
func (h *Header) StatSN() uint32 { return h.u32(24) }

// ExpCmdSN returns the next expected command sequence number of a target PDU.
func (h *Header) ExpCmdSN() uint32 { return h.u32(28) }

// MaxCmdSN returns the greatest acceptable command sequence number of a
// target PDU.
func (h *Header) MaxCmdSN() uint32 { return h.u32(32) }

func (h *Header) u16(i int) uint16 { return binary.BigEndian.Uint16(h.BHS[i:]) }
func (h *Header) u32(i int) uint32 { return binary.BigEndian.Uint32(h.BHS[i:]) }

// check is the beginning of every Decode: it refuses a header of another
// type, a data segment of another length, and additional header segments,
// which only SCSI commands have.
func (h *Header) check(op Opcode, data []byte) error {
	if h.Opcode() != op {
		return formatErr(h.Opcode(), "Opcode", "is not "+op.String())
	}
	if data != nil && len(data) != h.DataSegmentLength() {
		return formatErr(op, "DataSegmentLength", "does not match the data")
	}
	if op != OpSCSICommand && h.BHS[4] != 0 {
		return formatErr(op, "TotalAHSLength", "is not 0")
	}
	return nil
}

// checkNoData is check for the PDU types that must not have a data segment.
func (h *Header) checkNoData(op Opcode, data []byte) error {
	if err := h.check(op, data); err != nil {
		return err
	}
	if h.DataSegmentLength() != 0 {
		return formatErr(op, "DataSegmentLength", "is not 0")
	}
	return nil
}

// appendBHS appends a zeroed basic header segment with opcode and
// DataSegmentLength filled in. The second result is the segment.
func appendBHS(dst []byte, op Opcode, payload []byte) (_, bhs []byte, _ error) {
	if len(payload) > MaxDataSegmentLength {
		return dst, nil, formatErr(op, "DataSegmentLength", "data is longer than 24 bits can say")
	}
	n := len(dst)
	dst = append(dst, make([]byte, BHSLen)...)
	bhs = dst[n:]
	bhs[0] = byte(op)
	putSegmentLength(bhs, len(payload))
	return dst, bhs, nil
}

func putSegmentLength(bhs []byte, n int) {
	bhs[5], bhs[6], bhs[7] = byte(n>>16), byte(n>>8), byte(n)
}

// pad returns how many bytes fill n up to a multiple of four.
func pad(n int) int { return -n & 3 }

// bit returns mask if set, else 0.
func bit(set bool, mask byte) byte {
	if set {
		return mask
	}
	return 0
}

// putSerials writes three consecutive sequence numbers: StatSN, ExpCmdSN and
// MaxCmdSN of target PDUs at byte 24.
func putSerials(bhs []byte, statSN, expCmdSN, maxCmdSN uint32) {
	binary.BigEndian.PutUint32(bhs[24:], statSN)
	binary.BigEndian.PutUint32(bhs[28:], expCmdSN)
	binary.BigEndian.PutUint32(bhs[32:], maxCmdSN)
}
