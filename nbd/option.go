//go:build linux

package nbd

import (
	"encoding/binary"
	"fmt"
)

// Magic numbers of the newstyle handshake (proto.md, "Newstyle negotiation").
const (
	HandshakeMagic   = 0x4e42444d41474943 // "NBDMAGIC"
	OptionMagic      = 0x49484156454f5054 // "IHAVEOPT"
	OptionReplyMagic = 0x0003e889045565a9
)

// Sizes of the handshake's fixed structures in bytes.
const (
	GreetingSize          = 18
	OptionHeaderSize      = 16
	OptionReplyHeaderSize = 20
)

// Handshake flags, of the server's greeting and the client's answer.
const (
	HandshakeFixedNewstyle = 1 << 0
	HandshakeNoZeroes      = 1 << 1
)

// An Option is what a client asks for in the handshake.
type Option uint32

// The options that have a name here; a Server answers the others, and those of
// them that it does not serve, with RepErrUnsup.
const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
	OptExtendedHeaders Option = 11
)

// An OptionReplyType says how an option fared.
type OptionReplyType uint32

// The types of option replies; those with the top bit are errors, whose payload
// is a text for humans.
const (
	RepAck                OptionReplyType = 1
	RepServer             OptionReplyType = 2
	RepInfo               OptionReplyType = 3
	RepErrUnsup           OptionReplyType = 1<<31 + 1
	RepErrPolicy          OptionReplyType = 1<<31 + 2
	RepErrInvalid         OptionReplyType = 1<<31 + 3
	RepErrPlatform        OptionReplyType = 1<<31 + 4
	RepErrTLSReqd         OptionReplyType = 1<<31 + 5
	RepErrUnknown         OptionReplyType = 1<<31 + 6
	RepErrShutdown        OptionReplyType = 1<<31 + 7
	RepErrBlockSizeReqd   OptionReplyType = 1<<31 + 8
	RepErrTooBig          OptionReplyType = 1<<31 + 9
	repErrBit             OptionReplyType = 1 << 31
	maxOptionReplyPayload                 = 64 << 10
)

// IsError reports whether the reply refuses the option.
func (t OptionReplyType) IsError() bool { return t&repErrBit != 0 }

// An InfoType names a piece of information about an export.
type InfoType uint16

// The pieces of information that a Server gives.
const (
	InfoExport      InfoType = 0
	InfoName        InfoType = 1
	InfoDescription InfoType = 2
	InfoBlockSize   InfoType = 3
)

// An OptionHeader precedes an option's data.
type OptionHeader struct {
	Option Option
	Length uint32
}

// ParseOptionHeader decodes the first OptionHeaderSize bytes of b.
func ParseOptionHeader(b []byte) (OptionHeader, error) {
	if len(b) < OptionHeaderSize {
		return OptionHeader{}, &FormatError{Message: "option", Field: "length", Got: uint64(len(b))}
	}
	if m := binary.BigEndian.Uint64(b); m != OptionMagic {
		return OptionHeader{}, &FormatError{Message: "option", Field: "magic", Got: m}
	}
	return OptionHeader{Option(binary.BigEndian.Uint32(b[8:])), binary.BigEndian.Uint32(b[12:])}, nil
}

// AppendOption appends an option with its data to dst.
func AppendOption(dst []byte, o Option, data []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, OptionMagic)
	dst = binary.BigEndian.AppendUint32(dst, uint32(o))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)))
	return append(dst, data...)
}

// An OptionReplyHeader precedes the payload of a reply to an option.
type OptionReplyHeader struct {
	Option Option
	Type   OptionReplyType
	Length uint32
}

// ParseOptionReplyHeader decodes the first OptionReplyHeaderSize bytes of b. It
// refuses lengths above 64 KiB, which no reply has a use for.
func ParseOptionReplyHeader(b []byte) (OptionReplyHeader, error) {
	var h OptionReplyHeader
	if len(b) < OptionReplyHeaderSize {
		return h, &FormatError{Message: "option reply", Field: "length", Got: uint64(len(b))}
	}
	if m := binary.BigEndian.Uint64(b); m != OptionReplyMagic {
		return h, &FormatError{Message: "option reply", Field: "magic", Got: m}
	}
	h.Option = Option(binary.BigEndian.Uint32(b[8:]))
	h.Type = OptionReplyType(binary.BigEndian.Uint32(b[12:]))
	h.Length = binary.BigEndian.Uint32(b[16:])
	if h.Length > maxOptionReplyPayload {
		return h, &FormatError{Message: "option reply", Field: "payload length", Got: uint64(h.Length)}
	}
	return h, nil
}

// AppendOptionReply appends a reply with its payload to dst.
func AppendOptionReply(dst []byte, o Option, t OptionReplyType, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, OptionReplyMagic)
	dst = binary.BigEndian.AppendUint32(dst, uint32(o))
	dst = binary.BigEndian.AppendUint32(dst, uint32(t))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...)
}

// An InfoRequest is the data of OptInfo and OptGo.
type InfoRequest struct {
	Name  string     // of the export
	Infos []InfoType // what the client would like to know besides InfoExport
}

// ParseInfoRequest decodes the data of OptInfo or OptGo; all of b has to be used
// up. Names longer than 4096 bytes are refused.
func ParseInfoRequest(b []byte) (*InfoRequest, error) {
	bad := func(field string, got int) (*InfoRequest, error) {
		return nil, &FormatError{Message: "info request", Field: field, Got: uint64(got)}
	}
	if len(b) < 6 {
		return bad("length", len(b))
	}
	n := binary.BigEndian.Uint32(b)
	if n > maxNameLen || int(n) > len(b)-6 {
		return bad("name length", int(n))
	}
	r := &InfoRequest{Name: string(b[4 : 4+n])}
	b = b[4+n:]
	count := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) != 2*count {
		return bad("number of infos", count)
	}
	for ; len(b) > 0; b = b[2:] {
		r.Infos = append(r.Infos, InfoType(binary.BigEndian.Uint16(b)))
	}
	return r, nil
}

// Append appends the encoded request to dst.
func (r *InfoRequest) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Name)))
	dst = append(dst, r.Name...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(r.Infos)))
	for _, i := range r.Infos {
		dst = binary.BigEndian.AppendUint16(dst, uint16(i))
	}
	return dst
}

// An Info is the payload of a RepInfo reply: one piece of information.
type Info struct {
	Type InfoType
	// Size and Flags are of InfoExport.
	Size  uint64
	Flags TransmissionFlags
	// Text is of InfoName and InfoDescription.
	Text string
	// The block sizes in bytes are of InfoBlockSize.
	Minimum, Preferred, Maximum uint32
}

// ParseInfo decodes the payload of a RepInfo reply. Types it does not know have
// nothing but the type filled in.
func ParseInfo(b []byte) (Info, error) {
	if len(b) < 2 {
		return Info{}, &FormatError{Message: "info", Field: "length", Got: uint64(len(b))}
	}
	i := Info{Type: InfoType(binary.BigEndian.Uint16(b))}
	b = b[2:]
	want := -1
	switch i.Type {
	case InfoExport:
		want = 10
	case InfoBlockSize:
		want = 12
	case InfoName, InfoDescription:
		i.Text = string(b)
	}
	if want >= 0 && len(b) != want {
		return Info{}, &FormatError{Message: "info", Field: "length", Got: uint64(len(b))}
	}
	switch i.Type {
	case InfoExport:
		i.Size = binary.BigEndian.Uint64(b)
		i.Flags = TransmissionFlags(binary.BigEndian.Uint16(b[8:]))
	case InfoBlockSize:
		i.Minimum = binary.BigEndian.Uint32(b)
		i.Preferred = binary.BigEndian.Uint32(b[4:])
		i.Maximum = binary.BigEndian.Uint32(b[8:])
	}
	return i, nil
}

// Append appends the encoded information to dst.
func (i Info) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(i.Type))
	switch i.Type {
	case InfoExport:
		dst = binary.BigEndian.AppendUint64(dst, i.Size)
		dst = binary.BigEndian.AppendUint16(dst, uint16(i.Flags))
	case InfoName, InfoDescription:
		dst = append(dst, i.Text...)
	case InfoBlockSize:
		dst = binary.BigEndian.AppendUint32(dst, i.Minimum)
		dst = binary.BigEndian.AppendUint32(dst, i.Preferred)
		dst = binary.BigEndian.AppendUint32(dst, i.Maximum)
	}
	return dst
}

// An OptionError is a server's refusal of an option.
type OptionError struct {
	Option  Option
	Type    OptionReplyType
	Message string // the server's text, may be empty
}

// Error implements error.
func (e *OptionError) Error() string {
	return fmt.Sprintf("nbd: option %d refused with %#x: %q", e.Option, uint32(e.Type), e.Message)
}
