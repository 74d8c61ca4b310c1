package pdu

import "encoding/binary"

// A LogoutReason says what a LogoutRequest is to end (RFC 7143 section
// 11.14.1).
type LogoutReason uint8

// Logout reasons.
const (
	LogoutSession    LogoutReason = 0
	LogoutConnection LogoutReason = 1
	LogoutRecovery   LogoutReason = 2
)

const logoutReasonMask = 0x7f

// Responses of a LogoutResponse (RFC 7143 section 11.15.1).
const (
	LogoutSuccess              uint8 = 0
	LogoutCIDNotFound          uint8 = 1
	LogoutRecoveryNotSupported uint8 = 2
	LogoutCleanupFailed        uint8 = 3
)

// A LogoutRequest asks for the end of a connection or the session (RFC 7143
// section 11.14).
type LogoutRequest struct {
	// Immediate is the I bit.
	Immediate        bool
	Reason           LogoutReason
	InitiatorTaskTag uint32
	// CID is the connection to end; reserved for LogoutSession.
	CID       uint16
	CmdSN     uint32
	ExpStatSN uint32
}

var _ PDU = (*LogoutRequest)(nil)

// Opcode returns OpLogoutRequest.
func (*LogoutRequest) Opcode() Opcode { return OpLogoutRequest }

// Payload returns nil.
func (*LogoutRequest) Payload() []byte { return nil }

// AppendHeader implements PDU.
func (p *LogoutRequest) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpLogoutRequest, nil)
	if err != nil {
		return dst, err
	}
	b[0] |= bit(p.Immediate, flagImmediate)
	b[1] = flagFinal | byte(p.Reason)&logoutReasonMask
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint16(b[20:], p.CID)
	binary.BigEndian.PutUint32(b[24:], p.CmdSN)
	binary.BigEndian.PutUint32(b[28:], p.ExpStatSN)
	return dst, nil
}

// Decode implements PDU.
func (p *LogoutRequest) Decode(h *Header, data []byte) error {
	if err := h.checkNoData(OpLogoutRequest, data); err != nil {
		return err
	}
	*p = LogoutRequest{
		Immediate:        h.Immediate(),
		Reason:           LogoutReason(h.BHS[1] & logoutReasonMask),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		CID:              h.u16(20),
		CmdSN:            h.CmdSN(),
		ExpStatSN:        h.ExpStatSN(),
	}
	return nil
}

func (*LogoutRequest) sealed() {}

// A LogoutResponse answers a LogoutRequest (RFC 7143 section 11.15).
type LogoutResponse struct {
	// Response is LogoutSuccess or the reason why not.
	Response         uint8
	InitiatorTaskTag uint32
	StatSN           uint32
	ExpCmdSN         uint32
	MaxCmdSN         uint32
	// Time2Wait and Time2Retain are in seconds.
	Time2Wait, Time2Retain uint16
}

var _ PDU = (*LogoutResponse)(nil)

// Opcode returns OpLogoutResponse.
func (*LogoutResponse) Opcode() Opcode { return OpLogoutResponse }

// Payload returns nil.
func (*LogoutResponse) Payload() []byte { return nil }

// AppendHeader implements PDU.
func (p *LogoutResponse) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpLogoutResponse, nil)
	if err != nil {
		return dst, err
	}
	b[1] = flagFinal
	b[2] = p.Response
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	binary.BigEndian.PutUint16(b[40:], p.Time2Wait)
	binary.BigEndian.PutUint16(b[42:], p.Time2Retain)
	return dst, nil
}

// Decode implements PDU.
func (p *LogoutResponse) Decode(h *Header, data []byte) error {
	if err := h.checkNoData(OpLogoutResponse, data); err != nil {
		return err
	}
	*p = LogoutResponse{
		Response:         h.BHS[2],
		InitiatorTaskTag: h.InitiatorTaskTag(),
		StatSN:           h.StatSN(),
		ExpCmdSN:         h.ExpCmdSN(),
		MaxCmdSN:         h.MaxCmdSN(),
		Time2Wait:        h.u16(40),
		Time2Retain:      h.u16(42),
	}
	return nil
}

func (*LogoutResponse) sealed() {}
