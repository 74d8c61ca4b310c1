package isns

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
)

// Sizes and limits of messages (RFC 4171 section 5).
const (
	headerLen  = 12
	maxPDU     = 65535    // the length field has 16 bits
	maxMessage = 16 << 20 // all PDUs of one answer
	version    = 1
)

// Functions (RFC 4171 section 4.1.2).
const (
	devAttrQry    = 0x0002
	devAttrQryRsp = 0x8002
)

// Flags of the header (RFC 4171 section 5.1.4).
const (
	flagClient = 0x8000
	flagServer = 0x4000
	flagAuth   = 0x2000
	flagLast   = 0x0800
	flagFirst  = 0x0400
)

// Attributes (RFC 4171 section 6.1).
const (
	tagDelimiter = 0
	tagName      = 32 // iSCSI name
	tagNodeType  = 33
	tagPGName    = 48 // portal group: iSCSI name
	tagPGAddress = 49
	tagPGPort    = 50
	tagPGT       = 51 // portal group tag; without a value there is no access
)

// nodeTarget is the bit of the node type that says that a node is a target
// (RFC 4171 section 6.4.2).
const nodeTarget = 1

// A header stands before each PDU.
type header struct {
	function    uint16
	length      int // of the payload
	flags       uint16
	transaction uint16
	sequence    uint16
}

func appendHeader(b []byte, h header) []byte {
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, h.function)
	b = binary.BigEndian.AppendUint16(b, uint16(h.length))
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint16(b, h.transaction)
	return binary.BigEndian.AppendUint16(b, h.sequence)
}

func readHeader(r io.Reader) (header, error) {
	var b [headerLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, err
	}
	if v := binary.BigEndian.Uint16(b[0:]); v != version {
		return header{}, &ProtocolError{Reason: fmt.Sprintf("version %d of the protocol", v)}
	}
	return header{
		function:    binary.BigEndian.Uint16(b[2:]),
		length:      int(binary.BigEndian.Uint16(b[4:])),
		flags:       binary.BigEndian.Uint16(b[6:]),
		transaction: binary.BigEndian.Uint16(b[8:]),
		sequence:    binary.BigEndian.Uint16(b[10:]),
	}, nil
}

// An attribute is a tag with a value, which aliases the message.
type attribute struct {
	tag   uint32
	value []byte
}

// appendAttribute appends an attribute. Values are multiples of four bytes
// long, which is for the caller to see to.
func appendAttribute(b []byte, tag uint32, value []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...)
}

// nextAttribute splits the first attribute off b.
func nextAttribute(b []byte) (attribute, []byte, error) {
	if len(b) < 8 {
		return attribute{}, nil, &ProtocolError{Reason: "cut off attribute"}
	}
	a := attribute{tag: binary.BigEndian.Uint32(b)}
	n := binary.BigEndian.Uint32(b[4:])
	b = b[8:]
	if uint64(n) > uint64(len(b)) {
		return attribute{}, nil, &ProtocolError{Reason: fmt.Sprintf("attribute %d is longer than its message", a.tag)}
	}
	a.value = b[:n:n]
	return a, b[n:], nil
}

// nameValue makes the value of a name: it ends with a NUL and is filled up to
// a multiple of four bytes (RFC 4171 section 6.2).
func nameValue(name string) []byte {
	b := append([]byte(name), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// text reads a name.
func (a attribute) text() string {
	for i, c := range a.value {
		if c == 0 {
			return string(a.value[:i])
		}
	}
	return string(a.value)
}

// number reads a value of four bytes.
func (a attribute) number() (uint32, error) {
	if len(a.value) != 4 {
		return 0, &ProtocolError{Reason: fmt.Sprintf("attribute %d has %d bytes, not 4", a.tag, len(a.value))}
	}
	return binary.BigEndian.Uint32(a.value), nil
}

// address reads an address of 16 bytes. IPv4 is mapped into IPv6 (RFC 4171
// section 6.3.1); open-isns writes the older compatible form instead, twelve
// bytes of zero before the address.
func (a attribute) address() (netip.Addr, error) {
	if len(a.value) != 16 {
		return netip.Addr{}, &ProtocolError{Reason: fmt.Sprintf("attribute %d has %d bytes, not 16", a.tag, len(a.value))}
	}
	b := [16]byte(a.value)
	addr := netip.AddrFrom16(b).Unmap()
	if addr.Is6() && [12]byte(b[:12]) == ([12]byte{}) && b[12] != 0 {
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr, nil
}
