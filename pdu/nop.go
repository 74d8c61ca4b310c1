package pdu

import "encoding/binary"

// A NOPOut is the initiator's ping, or its answer to a target's ping (RFC
// 7143 section 11.18).
type NOPOut struct {
	// Immediate is the I bit; it must be set when InitiatorTaskTag is
	// ReservedTag.
	Immediate bool
	// LUN is copied from the NOPIn that is being answered.
	LUN LUN
	// InitiatorTaskTag is ReservedTag unless an answer is wanted.
	InitiatorTaskTag uint32
	// TargetTransferTag is that of the NOPIn that is being answered,
	// otherwise ReservedTag.
	TargetTransferTag uint32
	CmdSN             uint32
	ExpStatSN         uint32
	// Data is the ping data, which the answer repeats.
	Data []byte
}

var _ PDU = (*NOPOut)(nil)

// Opcode returns OpNOPOut.
func (*NOPOut) Opcode() Opcode { return OpNOPOut }

// Payload returns Data.
func (p *NOPOut) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *NOPOut) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpNOPOut, p.Data)
	if err != nil {
		return dst, err
	}
	b[0] |= bit(p.Immediate, flagImmediate)
	b[1] = flagFinal
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.TargetTransferTag)
	binary.BigEndian.PutUint32(b[24:], p.CmdSN)
	binary.BigEndian.PutUint32(b[28:], p.ExpStatSN)
	return dst, nil
}

// Decode implements PDU.
func (p *NOPOut) Decode(h *Header, data []byte) error {
	if err := h.check(OpNOPOut, data); err != nil {
		return err
	}
	*p = NOPOut{
		Immediate:         h.Immediate(),
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		CmdSN:             h.CmdSN(),
		ExpStatSN:         h.ExpStatSN(),
		Data:              data,
	}
	return nil
}

func (*NOPOut) sealed() {}

// A NOPIn is the target's answer to a ping, its own ping, or news of the
// command window (RFC 7143 section 11.19).
type NOPIn struct {
	// LUN is valid when TargetTransferTag is.
	LUN LUN
	// InitiatorTaskTag is that of the NOPOut that is being answered,
	// otherwise ReservedTag.
	InitiatorTaskTag uint32
	// TargetTransferTag is ReservedTag unless an answer is wanted.
	TargetTransferTag uint32
	// StatSN is the next one; it is advanced only by an answer.
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	// Data repeats the ping data.
	Data []byte
}

var _ PDU = (*NOPIn)(nil)

// Opcode returns OpNOPIn.
func (*NOPIn) Opcode() Opcode { return OpNOPIn }

// Payload returns Data.
func (p *NOPIn) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *NOPIn) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpNOPIn, p.Data)
	if err != nil {
		return dst, err
	}
	b[1] = flagFinal
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.TargetTransferTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	return dst, nil
}

// Decode implements PDU.
func (p *NOPIn) Decode(h *Header, data []byte) error {
	if err := h.check(OpNOPIn, data); err != nil {
		return err
	}
	*p = NOPIn{
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		Data:              data,
	}
	return nil
}

func (*NOPIn) sealed() {}
