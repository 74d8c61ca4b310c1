package pdu

import (
	"encoding/binary"
	"fmt"
)

// An AsyncEvent says what an AsyncMessage is about (RFC 7143 section 11.9.1).
type AsyncEvent uint8

// Asynchronous events. Values from 248 are vendor specific.
const (
	AsyncSCSIEvent          AsyncEvent = 0
	AsyncLogoutRequest      AsyncEvent = 1
	AsyncConnectionDrop     AsyncEvent = 2
	AsyncSessionDrop        AsyncEvent = 3
	AsyncNegotiationRequest AsyncEvent = 4
	AsyncTaskTermination    AsyncEvent = 5
)

// String returns the event's name in lower case.
func (e AsyncEvent) String() string {
	names := [...]string{
		"scsi event", "logout request", "connection drop",
		"session drop", "negotiation request", "task termination",
	}
	if int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("async event %d", uint8(e))
}

// An AsyncMessage tells the initiator something that no request asked for
// (RFC 7143 section 11.9).
type AsyncMessage struct {
	// LUN is valid for AsyncSCSIEvent and AsyncTaskTermination.
	LUN      LUN
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	Event    AsyncEvent
	// VCode is valid for vendor specific events.
	VCode uint8
	// Parameter1 to Parameter3 depend on the event: for AsyncLogoutRequest
	// and AsyncNegotiationRequest Parameter3 is a time in seconds; for
	// AsyncConnectionDrop Parameter1 is the CID; for both drops Parameter2
	// and Parameter3 are Time2Wait and Time2Retain in seconds.
	Parameter1, Parameter2, Parameter3 uint16
	// Data has the form of that of a SCSIResponse.
	Data []byte
}

var _ PDU = (*AsyncMessage)(nil)

// Opcode returns OpAsyncMessage.
func (*AsyncMessage) Opcode() Opcode { return OpAsyncMessage }

// Payload returns Data.
func (p *AsyncMessage) Payload() []byte { return p.Data }

// Sense returns the sense data in Data, nil if there is none.
func (p *AsyncMessage) Sense() []byte { return senseOf(p.Data) }

// AppendHeader implements PDU.
func (p *AsyncMessage) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpAsyncMessage, p.Data)
	if err != nil {
		return dst, err
	}
	b[1] = flagFinal
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], ReservedTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	b[36] = byte(p.Event)
	b[37] = p.VCode
	binary.BigEndian.PutUint16(b[38:], p.Parameter1)
	binary.BigEndian.PutUint16(b[40:], p.Parameter2)
	binary.BigEndian.PutUint16(b[42:], p.Parameter3)
	return dst, nil
}

// Decode implements PDU.
func (p *AsyncMessage) Decode(h *Header, data []byte) error {
	if err := h.check(OpAsyncMessage, data); err != nil {
		return err
	}
	*p = AsyncMessage{
		LUN:        h.LUN(),
		StatSN:     h.StatSN(),
		ExpCmdSN:   h.ExpCmdSN(),
		MaxCmdSN:   h.MaxCmdSN(),
		Event:      AsyncEvent(h.BHS[36]),
		VCode:      h.BHS[37],
		Parameter1: h.u16(38),
		Parameter2: h.u16(40),
		Parameter3: h.u16(42),
		Data:       data,
	}
	return nil
}

func (*AsyncMessage) sealed() {}
