package pdu

import "encoding/binary"

// A SNACKType says what a SNACK asks for (RFC 7143 section 11.16.1).
type SNACKType uint8

// SNACK types.
const (
	SNACKData    SNACKType = 0 // resend Data-In or R2T PDUs
	SNACKStatus  SNACKType = 1 // resend numbered responses
	SNACKDataACK SNACKType = 2 // Data-In PDUs have arrived
	SNACKRData   SNACKType = 3 // resend Data-In PDUs, perhaps resegmented
)

const snackTypeMask = 0x0f

// A SNACK asks the target to send PDUs again, or acknowledges Data-In PDUs
// (RFC 7143 section 11.16). Sessions of ErrorRecoveryLevel 0 do not send it.
type SNACK struct {
	Type SNACKType
	LUN  LUN
	// InitiatorTaskTag is ReservedTag for SNACKStatus and SNACKDataACK.
	InitiatorTaskTag uint32
	// TargetTransferTag is that of the Data-In for SNACKDataACK, the SNACK
	// tag for SNACKRData, otherwise ReservedTag.
	TargetTransferTag uint32
	ExpStatSN         uint32
	// BegRun is the first number wanted, RunLength how many; 0 means all
	// that follow.
	BegRun, RunLength uint32
}

var _ PDU = (*SNACK)(nil)

// Opcode returns OpSNACK.
func (*SNACK) Opcode() Opcode { return OpSNACK }

// Payload returns nil.
func (*SNACK) Payload() []byte { return nil }

// AppendHeader implements PDU.
func (p *SNACK) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpSNACK, nil)
	if err != nil {
		return dst, err
	}
	b[1] = flagFinal | byte(p.Type)&snackTypeMask
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.TargetTransferTag)
	binary.BigEndian.PutUint32(b[28:], p.ExpStatSN)
	binary.BigEndian.PutUint32(b[40:], p.BegRun)
	binary.BigEndian.PutUint32(b[44:], p.RunLength)
	return dst, nil
}

// Decode implements PDU.
func (p *SNACK) Decode(h *Header, data []byte) error {
	if err := h.checkNoData(OpSNACK, data); err != nil {
		return err
	}
	*p = SNACK{
		Type:              SNACKType(h.BHS[1] & snackTypeMask),
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		ExpStatSN:         h.ExpStatSN(),
		BegRun:            h.u32(40),
		RunLength:         h.u32(44),
	}
	if p.Type > SNACKRData {
		return formatErr(OpSNACK, "Type", "reserved value")
	}
	return nil
}

func (*SNACK) sealed() {}
