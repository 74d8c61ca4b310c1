package pdu

import (
	"encoding/binary"
	"fmt"
)

// A RejectReason says why a PDU was rejected (RFC 7143 section 11.17.1).
type RejectReason uint8

// Reject reasons.
const (
	RejectDataDigest          RejectReason = 0x02
	RejectSNACK               RejectReason = 0x03
	RejectProtocolError       RejectReason = 0x04
	RejectCommandNotSupported RejectReason = 0x05
	RejectTooManyImmediate    RejectReason = 0x06
	RejectTaskInProgress      RejectReason = 0x07
	RejectInvalidDataACK      RejectReason = 0x08
	RejectInvalidField        RejectReason = 0x09
	RejectOutOfResources      RejectReason = 0x0a
	RejectNegotiationReset    RejectReason = 0x0b // deprecated: a failed negotiation
	RejectWaitingForLogout    RejectReason = 0x0c
)

// String returns the reason in words.
func (r RejectReason) String() string {
	names := [...]string{
		"", "", "data digest error", "snack reject", "protocol error",
		"command not supported", "too many immediate commands", "task in progress",
		"invalid data ack", "invalid pdu field", "out of resources", "negotiation reset",
		"waiting for logout",
	}
	if int(r) < len(names) && names[r] != "" {
		return names[r]
	}
	return fmt.Sprintf("reject reason %#02x", uint8(r))
}

// A Reject tells the initiator that the target could not accept a PDU (RFC
// 7143 section 11.17).
type Reject struct {
	Reason   RejectReason
	StatSN   uint32 // its own
	ExpCmdSN uint32 // the command window, as in every PDU of a target
	MaxCmdSN uint32 // the command window, as in every PDU of a target
	// DataSN is valid if a Data/R2T SNACK was rejected for a protocol error.
	DataSN uint32
	// Data begins with the header of the rejected PDU, see BadHeader.
	Data []byte
}

var _ PDU = (*Reject)(nil)

// Opcode returns OpReject.
func (*Reject) Opcode() Opcode { return OpReject }

// Payload returns Data.
func (p *Reject) Payload() []byte { return p.Data }

// BadHeader returns the header of the rejected PDU. It is false if the target
// sent less than a basic header segment. AHS aliases Data and is cut to what
// the target sent.
func (p *Reject) BadHeader() (h Header, ok bool) {
	if len(p.Data) < BHSLen {
		return h, false
	}
	h.BHS = [BHSLen]byte(p.Data)
	rest := p.Data[BHSLen:]
	h.AHS = rest[:min(h.TotalAHSLength(), len(rest))]
	return h, true
}

// AppendHeader implements PDU.
func (p *Reject) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpReject, p.Data)
	if err != nil {
		return dst, err
	}
	b[1] = flagFinal
	b[2] = byte(p.Reason)
	binary.BigEndian.PutUint32(b[16:], ReservedTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	binary.BigEndian.PutUint32(b[36:], p.DataSN)
	return dst, nil
}

// Decode implements PDU.
func (p *Reject) Decode(h *Header, data []byte) error {
	if err := h.check(OpReject, data); err != nil {
		return err
	}
	*p = Reject{
		Reason:   RejectReason(h.BHS[2]),
		StatSN:   h.StatSN(),
		ExpCmdSN: h.ExpCmdSN(),
		MaxCmdSN: h.MaxCmdSN(),
		DataSN:   h.u32(36),
		Data:     data,
	}
	return nil
}

func (*Reject) sealed() {}
