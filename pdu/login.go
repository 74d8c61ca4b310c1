package pdu

import (
	"encoding/binary"
	"fmt"
)

// A Stage is a stage of a session's login (RFC 7143 section 11.12.3).
type Stage uint8

// Login stages. The value 2 is reserved.
const (
	StageSecurity    Stage = 0
	StageOperational Stage = 1
	StageFullFeature Stage = 3
)

// String returns the stage's name as the RFC has it.
func (s Stage) String() string {
	switch s {
	case StageSecurity:
		return "SecurityNegotiation"
	case StageOperational:
		return "LoginOperationalNegotiation"
	case StageFullFeature:
		return "FullFeaturePhase"
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// Status classes of a LoginResponse (RFC 7143 section 11.13.5).
const (
	LoginSuccess        uint8 = 0
	LoginRedirection    uint8 = 1
	LoginInitiatorError uint8 = 2
	LoginTargetError    uint8 = 3
)

// Status details of a LoginResponse, each for the class its name begins with.
const (
	RedirectionTemporary uint8 = 0x01
	RedirectionPermanent uint8 = 0x02

	InitiatorErrorMiscellaneous      uint8 = 0x00
	InitiatorErrorAuthentication     uint8 = 0x01
	InitiatorErrorAuthorization      uint8 = 0x02
	InitiatorErrorNotFound           uint8 = 0x03
	InitiatorErrorRemoved            uint8 = 0x04
	InitiatorErrorVersion            uint8 = 0x05
	InitiatorErrorTooManyConnections uint8 = 0x06
	InitiatorErrorMissingParameter   uint8 = 0x07
	InitiatorErrorCannotInclude      uint8 = 0x08
	InitiatorErrorSessionType        uint8 = 0x09
	InitiatorErrorNoSession          uint8 = 0x0a
	InitiatorErrorInvalidRequest     uint8 = 0x0b

	TargetErrorMiscellaneous      uint8 = 0x00
	TargetErrorServiceUnavailable uint8 = 0x01
	TargetErrorOutOfResources     uint8 = 0x02
)

// flags of byte 1 of both login PDUs, besides flagFinal (T) and flagContinue.
const (
	csgShift  = 2
	stageMask = 0x03
)

func stageFlags(transit, cont bool, csg, nsg Stage) byte {
	f := bit(transit, flagFinal) | bit(cont, flagContinue) | byte(csg)&stageMask<<csgShift
	if transit {
		f |= byte(nsg) & stageMask
	}
	return f
}

// checkStage refuses what byte 1 of a login PDU must not say.
func checkStage(op Opcode, transit, cont bool, csg, nsg Stage) error {
	switch {
	case transit && cont:
		return formatErr(op, "C", "is set together with T")
	case csg != StageSecurity && csg != StageOperational:
		return formatErr(op, "CSG", "is no stage of a login")
	case transit && nsg != StageOperational && nsg != StageFullFeature:
		return formatErr(op, "NSG", "is no stage to go to")
	case transit && nsg <= csg:
		return formatErr(op, "NSG", "does not follow CSG")
	}
	return nil
}

// A LoginRequest carries one step of the login to the target (RFC 7143
// section 11.12). It is always immediate.
type LoginRequest struct {
	// Transit is the T bit: the initiator is ready to go to NextStage.
	Transit bool
	// Continue is the C bit: Data ends in the middle of the pairs.
	Continue bool
	// CurrentStage and NextStage are CSG and NSG. NextStage is 0 without
	// Transit.
	CurrentStage, NextStage Stage
	VersionMax, VersionMin  uint8
	// ISID is the initiator's part of the session identifier.
	ISID [6]byte
	// TSIH is the target's part of it: 0 asks for a new session.
	TSIH             uint16
	InitiatorTaskTag uint32
	// CID identifies the connection in the session.
	CID       uint16
	CmdSN     uint32
	ExpStatSN uint32
	// Data is the text.
	Data []byte
}

var _ PDU = (*LoginRequest)(nil)

// Opcode returns OpLoginRequest.
func (*LoginRequest) Opcode() Opcode { return OpLoginRequest }

// Payload returns Data.
func (p *LoginRequest) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *LoginRequest) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpLoginRequest, p.Data)
	if err != nil {
		return dst, err
	}
	b[0] |= flagImmediate
	b[1] = stageFlags(p.Transit, p.Continue, p.CurrentStage, p.NextStage)
	b[2] = p.VersionMax
	b[3] = p.VersionMin
	copy(b[8:14], p.ISID[:])
	binary.BigEndian.PutUint16(b[14:], p.TSIH)
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint16(b[20:], p.CID)
	binary.BigEndian.PutUint32(b[24:], p.CmdSN)
	binary.BigEndian.PutUint32(b[28:], p.ExpStatSN)
	return dst, nil
}

// Decode implements PDU.
func (p *LoginRequest) Decode(h *Header, data []byte) error {
	if err := h.check(OpLoginRequest, data); err != nil {
		return err
	}
	*p = LoginRequest{
		Transit:          h.Final(),
		Continue:         h.BHS[1]&flagContinue != 0,
		CurrentStage:     Stage(h.BHS[1] >> csgShift & stageMask),
		NextStage:        Stage(h.BHS[1] & stageMask),
		VersionMax:       h.BHS[2],
		VersionMin:       h.BHS[3],
		ISID:             [6]byte(h.BHS[8:14]),
		TSIH:             h.u16(14),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		CID:              h.u16(20),
		CmdSN:            h.CmdSN(),
		ExpStatSN:        h.ExpStatSN(),
		Data:             data,
	}
	if !p.Transit {
		p.NextStage = 0 // reserved
	}
	return checkStage(OpLoginRequest, p.Transit, p.Continue, p.CurrentStage, p.NextStage)
}

func (*LoginRequest) sealed() {}

// A LoginResponse answers a LoginRequest (RFC 7143 section 11.13).
type LoginResponse struct {
	// Transit is the T bit: the target goes to NextStage.
	Transit bool
	// Continue is the C bit: Data ends in the middle of the pairs.
	Continue bool
	// CurrentStage and NextStage are CSG and NSG. NextStage is 0 without
	// Transit.
	CurrentStage, NextStage   Stage
	VersionMax, VersionActive uint8
	ISID                      [6]byte
	// TSIH is valid in the final response of a session's first login.
	TSIH             uint16
	InitiatorTaskTag uint32
	// StatSN, ExpCmdSN and MaxCmdSN are valid for LoginSuccess only.
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	// StatusClass and StatusDetail tell the outcome; a class other than
	// LoginSuccess ends the login and the connection.
	StatusClass, StatusDetail uint8
	// Data is the text.
	Data []byte
}

var _ PDU = (*LoginResponse)(nil)

// Opcode returns OpLoginResponse.
func (*LoginResponse) Opcode() Opcode { return OpLoginResponse }

// Payload returns Data.
func (p *LoginResponse) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *LoginResponse) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpLoginResponse, p.Data)
	if err != nil {
		return dst, err
	}
	b[1] = stageFlags(p.Transit, p.Continue, p.CurrentStage, p.NextStage)
	b[2] = p.VersionMax
	b[3] = p.VersionActive
	copy(b[8:14], p.ISID[:])
	binary.BigEndian.PutUint16(b[14:], p.TSIH)
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	b[36] = p.StatusClass
	b[37] = p.StatusDetail
	return dst, nil
}

// Decode implements PDU. The stages are checked only in a response that says
// LoginSuccess: targets that refuse a login do not always care about them.
func (p *LoginResponse) Decode(h *Header, data []byte) error {
	if err := h.check(OpLoginResponse, data); err != nil {
		return err
	}
	*p = LoginResponse{
		Transit:          h.Final(),
		Continue:         h.BHS[1]&flagContinue != 0,
		CurrentStage:     Stage(h.BHS[1] >> csgShift & stageMask),
		NextStage:        Stage(h.BHS[1] & stageMask),
		VersionMax:       h.BHS[2],
		VersionActive:    h.BHS[3],
		ISID:             [6]byte(h.BHS[8:14]),
		TSIH:             h.u16(14),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		StatSN:           h.StatSN(),
		ExpCmdSN:         h.ExpCmdSN(),
		MaxCmdSN:         h.MaxCmdSN(),
		StatusClass:      h.BHS[36],
		StatusDetail:     h.BHS[37],
		Data:             data,
	}
	if !p.Transit {
		p.NextStage = 0 // reserved
	}
	if p.StatusClass != LoginSuccess {
		return nil
	}
	return checkStage(OpLoginResponse, p.Transit, p.Continue, p.CurrentStage, p.NextStage)
}

func (*LoginResponse) sealed() {}
