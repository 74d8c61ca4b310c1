package pdu

import "encoding/binary"

// An R2T asks the initiator for a part of the data of a write (Ready To
// Transfer, RFC 7143 section 11.8).
type R2T struct {
	LUN              LUN
	InitiatorTaskTag uint32 // the write's
	// TargetTransferTag is what the answering DataOut PDUs carry. It is
	// never ReservedTag.
	TargetTransferTag uint32
	// StatSN is the next one; an R2T does not advance it.
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	// R2TSN counts the R2Ts of the command from 0.
	R2TSN uint32
	// BufferOffset is the place of the wanted data in the transfer, in
	// bytes.
	BufferOffset uint32
	// DesiredDataTransferLength is how many bytes the target wants, at
	// least 1 and at most MaxBurstLength.
	DesiredDataTransferLength uint32
}

var _ PDU = (*R2T)(nil)

// Opcode returns OpR2T.
func (*R2T) Opcode() Opcode { return OpR2T }

// Payload returns nil.
func (*R2T) Payload() []byte { return nil }

// AppendHeader implements PDU.
func (p *R2T) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpR2T, nil)
	if err != nil {
		return dst, err
	}
	b[1] = flagFinal
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.TargetTransferTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	binary.BigEndian.PutUint32(b[36:], p.R2TSN)
	binary.BigEndian.PutUint32(b[40:], p.BufferOffset)
	binary.BigEndian.PutUint32(b[44:], p.DesiredDataTransferLength)
	return dst, nil
}

// Decode implements PDU.
func (p *R2T) Decode(h *Header, data []byte) error {
	if err := h.checkNoData(OpR2T, data); err != nil {
		return err
	}
	*p = R2T{
		LUN:                       h.LUN(),
		InitiatorTaskTag:          h.InitiatorTaskTag(),
		TargetTransferTag:         h.TargetTransferTag(),
		StatSN:                    h.StatSN(),
		ExpCmdSN:                  h.ExpCmdSN(),
		MaxCmdSN:                  h.MaxCmdSN(),
		R2TSN:                     h.u32(36),
		BufferOffset:              h.u32(40),
		DesiredDataTransferLength: h.u32(44),
	}
	switch {
	case p.TargetTransferTag == ReservedTag:
		return formatErr(OpR2T, "TargetTransferTag", "is the reserved tag")
	case p.DesiredDataTransferLength == 0:
		return formatErr(OpR2T, "DesiredDataTransferLength", "is 0")
	}
	return nil
}

func (*R2T) sealed() {}
