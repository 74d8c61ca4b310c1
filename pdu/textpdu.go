package pdu

import "encoding/binary"

// A TextRequest carries key=value pairs to the target in the full feature
// phase (RFC 7143 section 11.10).
type TextRequest struct {
	// Immediate is the I bit.
	Immediate bool
	// Final is the F bit: the initiator has no more to say.
	Final bool
	// Continue is the C bit: Data ends in the middle of the pairs.
	Continue bool
	// LUN and TargetTransferTag are copied from the TextResponse this
	// request continues; TargetTransferTag is ReservedTag at the beginning.
	LUN               LUN
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	CmdSN             uint32
	ExpStatSN         uint32
	// Data is the text, see ParseText and AppendText.
	Data []byte
}

var _ PDU = (*TextRequest)(nil)

// Opcode returns OpTextRequest.
func (*TextRequest) Opcode() Opcode { return OpTextRequest }

// Payload returns Data.
func (p *TextRequest) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *TextRequest) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpTextRequest, p.Data)
	if err != nil {
		return dst, err
	}
	b[0] |= bit(p.Immediate, flagImmediate)
	b[1] = bit(p.Final, flagFinal) | bit(p.Continue, flagContinue)
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.TargetTransferTag)
	binary.BigEndian.PutUint32(b[24:], p.CmdSN)
	binary.BigEndian.PutUint32(b[28:], p.ExpStatSN)
	return dst, nil
}

// Decode implements PDU.
func (p *TextRequest) Decode(h *Header, data []byte) error {
	if err := h.check(OpTextRequest, data); err != nil {
		return err
	}
	*p = TextRequest{
		Immediate:         h.Immediate(),
		Final:             h.Final(),
		Continue:          h.BHS[1]&flagContinue != 0,
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		CmdSN:             h.CmdSN(),
		ExpStatSN:         h.ExpStatSN(),
		Data:              data,
	}
	if p.Final && p.Continue {
		return formatErr(OpTextRequest, "C", "is set together with F")
	}
	return nil
}

func (*TextRequest) sealed() {}

// A TextResponse answers a TextRequest (RFC 7143 section 11.11).
type TextResponse struct {
	// Final is the F bit: the exchange is over.
	Final bool
	// Continue is the C bit: Data ends in the middle of the pairs.
	Continue bool
	LUN      LUN
	// InitiatorTaskTag is that of the request.
	InitiatorTaskTag uint32
	// TargetTransferTag is not ReservedTag when the target has more to say.
	TargetTransferTag uint32
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	// Data is the text.
	Data []byte
}

var _ PDU = (*TextResponse)(nil)

// Opcode returns OpTextResponse.
func (*TextResponse) Opcode() Opcode { return OpTextResponse }

// Payload returns Data.
func (p *TextResponse) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *TextResponse) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpTextResponse, p.Data)
	if err != nil {
		return dst, err
	}
	b[1] = bit(p.Final, flagFinal) | bit(p.Continue, flagContinue)
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.TargetTransferTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	return dst, nil
}

// Decode implements PDU.
func (p *TextResponse) Decode(h *Header, data []byte) error {
	if err := h.check(OpTextResponse, data); err != nil {
		return err
	}
	*p = TextResponse{
		Final:             h.Final(),
		Continue:          h.BHS[1]&flagContinue != 0,
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		Data:              data,
	}
	if p.Final && p.Continue {
		return formatErr(OpTextResponse, "C", "is set together with F")
	}
	return nil
}

func (*TextResponse) sealed() {}
