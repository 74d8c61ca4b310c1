//go:build linux

package nbd

import (
	"encoding/binary"
	"fmt"
)

// Sizes of the transmission phase's fixed structures in bytes (proto.md,
// "Request message" and "Simple reply message").
const (
	RequestSize = 28
	ReplySize   = 16
)

// Magic numbers of the transmission phase.
const (
	RequestMagic     = 0x25609513
	SimpleReplyMagic = 0x67446698
)

// A Command is the type of a transmission request.
type Command uint16

// The commands of the base protocol. Numbers that are not listed are answered
// with EINVAL.
const (
	CmdRead        Command = 0
	CmdWrite       Command = 1
	CmdDisconnect  Command = 2
	CmdFlush       Command = 3
	CmdTrim        Command = 4
	CmdCache       Command = 5
	CmdWriteZeroes Command = 6
)

// String returns the command's name in lower case.
func (c Command) String() string {
	switch c {
	case CmdRead:
		return "read"
	case CmdWrite:
		return "write"
	case CmdDisconnect:
		return "disconnect"
	case CmdFlush:
		return "flush"
	case CmdTrim:
		return "trim"
	case CmdCache:
		return "cache"
	case CmdWriteZeroes:
		return "write-zeroes"
	}
	return fmt.Sprintf("command %d", uint16(c))
}

// CommandFlags modify a request.
type CommandFlags uint16

// The command flags of the base protocol.
const (
	// CmdFlagFUA asks that the data be on stable storage before the reply.
	CmdFlagFUA CommandFlags = 1 << 0
	// CmdFlagNoHole asks WRITE_ZEROES to allocate the range.
	CmdFlagNoHole CommandFlags = 1 << 1
	// CmdFlagDF asks for an unfragmented structured reply; never negotiated here.
	CmdFlagDF CommandFlags = 1 << 2
	// CmdFlagReqOne asks for one extent; never negotiated here.
	CmdFlagReqOne CommandFlags = 1 << 3
	// CmdFlagFastZero asks WRITE_ZEROES to fail when it would be slow; never
	// negotiated here.
	CmdFlagFastZero CommandFlags = 1 << 4
)

// TransmissionFlags tell a client, or the kernel, what an export can do.
type TransmissionFlags uint16

// The transmission flags (proto.md, "Transmission flags"; the kernel calls them
// server flags).
const (
	FlagHasFlags        TransmissionFlags = 1 << 0
	FlagReadOnly        TransmissionFlags = 1 << 1
	FlagSendFlush       TransmissionFlags = 1 << 2
	FlagSendFUA         TransmissionFlags = 1 << 3
	FlagRotational      TransmissionFlags = 1 << 4
	FlagSendTrim        TransmissionFlags = 1 << 5
	FlagSendWriteZeroes TransmissionFlags = 1 << 6
	FlagSendDF          TransmissionFlags = 1 << 7
	FlagCanMultiConn    TransmissionFlags = 1 << 8
)

// A FormatError reports bytes from a peer that are no message of the protocol.
// After it the stream is out of step and of no further use.
type FormatError struct {
	Message string // the structure that was expected
	Field   string // the field that is wrong
	Got     uint64 // what stood there
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("nbd: malformed %s: %s %#x", e.Message, e.Field, e.Got)
}

// A RequestHeader is the fixed part of a request; the payload of a write
// follows it on the wire.
type RequestHeader struct {
	Flags  CommandFlags
	Cmd    Command
	Cookie uint64 // the client's, returned in the reply as it is
	Offset uint64 // bytes
	Length uint32 // bytes
}

// ParseRequest decodes the first RequestSize bytes of b. It returns a
// *FormatError when b is too short or does not start with RequestMagic.
func ParseRequest(b []byte) (RequestHeader, error) {
	var h RequestHeader
	if len(b) < RequestSize {
		return h, &FormatError{Message: "request", Field: "length", Got: uint64(len(b))}
	}
	if m := binary.BigEndian.Uint32(b); m != RequestMagic {
		return h, &FormatError{Message: "request", Field: "magic", Got: uint64(m)}
	}
	h.Flags = CommandFlags(binary.BigEndian.Uint16(b[4:]))
	h.Cmd = Command(binary.BigEndian.Uint16(b[6:]))
	h.Cookie = binary.BigEndian.Uint64(b[8:])
	h.Offset = binary.BigEndian.Uint64(b[16:])
	h.Length = binary.BigEndian.Uint32(b[24:])
	return h, nil
}

// Append appends the RequestSize bytes of h to dst.
func (h *RequestHeader) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, RequestMagic)
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Flags))
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Cmd))
	dst = binary.BigEndian.AppendUint64(dst, h.Cookie)
	dst = binary.BigEndian.AppendUint64(dst, h.Offset)
	return binary.BigEndian.AppendUint32(dst, h.Length)
}

// A SimpleReply answers a request; the data of a successful read follow it on
// the wire.
type SimpleReply struct {
	Error  uint32 // 0, or one of the errors of proto.md ("Error values")
	Cookie uint64 // the request's
}

// ParseSimpleReply decodes the first ReplySize bytes of b. It returns a
// *FormatError when b is too short or does not start with SimpleReplyMagic.
func ParseSimpleReply(b []byte) (SimpleReply, error) {
	var r SimpleReply
	if len(b) < ReplySize {
		return r, &FormatError{Message: "reply", Field: "length", Got: uint64(len(b))}
	}
	if m := binary.BigEndian.Uint32(b); m != SimpleReplyMagic {
		return r, &FormatError{Message: "reply", Field: "magic", Got: uint64(m)}
	}
	r.Error = binary.BigEndian.Uint32(b[4:])
	r.Cookie = binary.BigEndian.Uint64(b[8:])
	return r, nil
}

// Append appends the ReplySize bytes of r to dst.
func (r SimpleReply) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, SimpleReplyMagic)
	dst = binary.BigEndian.AppendUint32(dst, r.Error)
	return binary.BigEndian.AppendUint64(dst, r.Cookie)
}
