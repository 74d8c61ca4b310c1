package scsi

import (
	"encoding/binary"
	"strings"
)

// PRCapabilities is the answer to REPORT CAPABILITIES (SPC-5 §6.16.4).
type PRCapabilities struct {
	AllPorts      bool // ATP_C: ALL_TG_PT is supported
	SpecInitiator bool // SIP_C: SPEC_I_PT is supported
	PersistPower  bool // PTPL_C: registrations can outlive power loss
	PowerActive   bool // PTPL_A: and do so now
	TypeMaskValid bool // TMV: Types says what is supported
	Types         []ReservationType
}

// prCapabilitiesLength is the fixed length of REPORT CAPABILITIES data.
const prCapabilitiesLength = 8

// typeBits maps the persistent reservation type mask, bytes 4 and 5 of the
// data taken as one number.
var typeBits = [...]struct {
	mask uint16
	typ  ReservationType
}{
	{0x0200, WriteExclusive},
	{0x0800, ExclusiveAccess},
	{0x2000, WriteExclusiveRegistrantsOnly},
	{0x4000, ExclusiveAccessRegistrants},
	{0x8000, WriteExclusiveAllRegistrants},
	{0x0001, ExclusiveAccessAllRegistrants},
}

// ParsePRCapabilities decodes the answer to REPORT CAPABILITIES.
func ParsePRCapabilities(b []byte) (PRCapabilities, error) {
	if len(b) < prCapabilitiesLength {
		return PRCapabilities{}, short("REPORT CAPABILITIES data", len(b), prCapabilitiesLength)
	}
	c := PRCapabilities{
		SpecInitiator: b[2]&0x08 != 0,
		AllPorts:      b[2]&0x04 != 0,
		PersistPower:  b[2]&0x01 != 0,
		TypeMaskValid: b[3]&0x80 != 0,
		PowerActive:   b[3]&0x01 != 0,
	}
	if c.TypeMaskValid {
		mask := binary.BigEndian.Uint16(b[4:])
		for _, t := range typeBits {
			if mask&t.mask != 0 {
				c.Types = append(c.Types, t.typ)
			}
		}
	}
	return c, nil
}

// Append adds the encoded answer to dst.
func (c PRCapabilities) Append(dst []byte) []byte {
	var mask uint16
	for _, have := range c.Types {
		for _, t := range typeBits {
			if t.typ == have {
				mask |= t.mask
			}
		}
	}
	dst = append(dst, 0, prCapabilitiesLength,
		bit(c.SpecInitiator, 3)|bit(c.AllPorts, 2)|bit(c.PersistPower, 0),
		bit(c.TypeMaskValid, 7)|bit(c.PowerActive, 0))
	dst = binary.BigEndian.AppendUint16(dst, mask)
	return append(dst, 0, 0)
}

// A PRRegistrant is one descriptor of READ FULL STATUS data (SPC-5 §6.16.5).
type PRRegistrant struct {
	Key          uint64 // the reservation key
	AllPorts     bool   // registered through every target port
	Holder       bool   // holds the reservation
	Type         ReservationType
	Scope        uint8  // 0: the logical unit
	RelativePort uint16 // relative target port identifier, unless AllPorts
	TransportID  []byte // the initiator port (SPC-5 §7.6.4)
}

// InitiatorName returns the iSCSI name, with ",i,0x" and the ISID where the
// transport ID has one, of an iSCSI initiator port, or "" for other transports
// (SPC-5 §7.6.4.6).
func (r PRRegistrant) InitiatorName() string {
	id := r.TransportID
	if len(id) < 4 || id[0]&0xf != ProtocolISCSI {
		return ""
	}
	n := int(binary.BigEndian.Uint16(id[2:]))
	if id = id[4:]; len(id) > n {
		id = id[:n]
	}
	return ascii(id)
}

// ISCSITransportID encodes the transport ID of an initiator port: name alone,
// or with an ISID, name + ",i,0x" + hexadecimal ISID. It is padded to a
// multiple of four and at least 24 bytes long (SPC-5 §7.6.4.6).
func ISCSITransportID(name, isid string) []byte {
	format := byte(0)
	if isid != "" {
		format = 0x40
		name += ",i,0x" + isid
	}
	n := max(20, (len(name)+1+3)&^3)
	b := make([]byte, 4+n)
	b[0] = format | ProtocolISCSI
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	copy(b[4:], strings.ToLower(name))
	return b
}

// PRFullStatus is the answer to READ FULL STATUS.
type PRFullStatus struct {
	Generation  uint32
	Registrants []PRRegistrant
}

// prRegistrantLength is the fixed part of a full status descriptor.
const prRegistrantLength = 24

// ParsePRFullStatus decodes the answer to READ FULL STATUS. The transport IDs
// alias b. Descriptors that are cut short are left out.
func ParsePRFullStatus(b []byte) (PRFullStatus, error) {
	gen, _, b, err := prBody(b, "READ FULL STATUS data")
	if err != nil {
		return PRFullStatus{}, err
	}
	s := PRFullStatus{Generation: gen}
	for len(b) >= prRegistrantLength {
		n := uint64(binary.BigEndian.Uint32(b[20:]))
		if n > uint64(len(b)-prRegistrantLength) {
			break
		}
		r := PRRegistrant{
			Key:          binary.BigEndian.Uint64(b),
			AllPorts:     b[12]&0x02 != 0,
			Holder:       b[12]&0x01 != 0,
			RelativePort: binary.BigEndian.Uint16(b[18:]),
			TransportID:  b[prRegistrantLength : prRegistrantLength+n : prRegistrantLength+n],
		}
		if r.Holder {
			r.Scope, r.Type = b[13]>>4, ReservationType(b[13]&0xf)
		}
		s.Registrants = append(s.Registrants, r)
		b = b[prRegistrantLength+n:]
	}
	return s, nil
}

// Append adds the encoded answer to dst.
func (s PRFullStatus) Append(dst []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, s.Generation)
	dst = append(dst, 0, 0, 0, 0)
	for _, r := range s.Registrants {
		dst = binary.BigEndian.AppendUint64(dst, r.Key)
		dst = append(dst, 0, 0, 0, 0, bit(r.AllPorts, 1)|bit(r.Holder, 0))
		if r.Holder {
			dst = append(dst, r.Scope<<4|byte(r.Type&0xf))
		} else {
			dst = append(dst, 0)
		}
		dst = append(dst, 0, 0, 0, 0)
		dst = binary.BigEndian.AppendUint16(dst, r.RelativePort)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.TransportID)))
		dst = append(dst, r.TransportID...)
	}
	binary.BigEndian.PutUint32(dst[start+4:], uint32(len(dst)-start-8))
	return dst
}
