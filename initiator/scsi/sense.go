package scsi

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// A SenseKey is the coarse reason in sense data (SPC-5 §4.4.8).
type SenseKey uint8

// The sense keys of SPC-5.
const (
	KeyNoSense        SenseKey = 0x0
	KeyRecoveredError SenseKey = 0x1
	KeyNotReady       SenseKey = 0x2
	KeyMediumError    SenseKey = 0x3
	KeyHardwareError  SenseKey = 0x4
	KeyIllegalRequest SenseKey = 0x5
	KeyUnitAttention  SenseKey = 0x6
	KeyDataProtect    SenseKey = 0x7
	KeyBlankCheck     SenseKey = 0x8
	KeyVendorSpecific SenseKey = 0x9
	KeyCopyAborted    SenseKey = 0xa
	KeyAbortedCommand SenseKey = 0xb
	KeyVolumeOverflow SenseKey = 0xd
	KeyMiscompare     SenseKey = 0xe
	KeyCompleted      SenseKey = 0xf
)

var keyNames = [16]string{
	"no sense", "recovered error", "not ready", "medium error",
	"hardware error", "illegal request", "unit attention", "data protect",
	"blank check", "vendor specific", "copy aborted", "aborted command",
	"sense key 0xc", "volume overflow", "miscompare", "completed",
}

// String returns the sense key's name in lower case.
func (k SenseKey) String() string { return keyNames[k&0xf] }

// Response codes of sense data: current and deferred errors in fixed and in
// descriptor format (SPC-5 §4.4.1).
const (
	SenseFixed              uint8 = 0x70
	SenseFixedDeferred      uint8 = 0x71
	SenseDescriptor         uint8 = 0x72
	SenseDescriptorDeferred uint8 = 0x73
)

// MaxSenseLength is the most bytes sense data can have (SPC-5 §4.4.1: 252).
const MaxSenseLength = 252

// A Sense is decoded sense data of either format.
type Sense struct {
	// ResponseCode is one of the four Sense constants; 0 means there is no
	// sense data. Encoding chooses the format by it.
	ResponseCode uint8
	Key          SenseKey
	ASC, ASCQ    uint8

	// Information is command-dependent, usually the first LBA in error, or
	// the offset of the first unequal byte after a miscompare. It counts
	// only if InformationValid.
	Information      uint64
	InformationValid bool

	// CommandSpecific is the command-specific information field, 0 if none.
	CommandSpecific uint64

	Filemark, EOM, ILI bool  // bits of tapes
	FRU                uint8 // field replaceable unit code

	// KeySpecific is the sense-key specific field with its SKSV bit cleared,
	// if KeySpecificValid.
	KeySpecific      [3]byte
	KeySpecificValid bool
}

// Valid reports whether s holds sense data.
func (s Sense) Valid() bool { return s.ResponseCode != 0 }

// Deferred reports whether the sense belongs to an earlier command that had
// been answered already (SPC-5 §4.4.7).
func (s Sense) Deferred() bool {
	return s.ResponseCode == SenseFixedDeferred || s.ResponseCode == SenseDescriptorDeferred
}

// Is reports whether the sense has the key and the additional sense code and
// qualifier given.
func (s Sense) Is(key SenseKey, asc, ascq uint8) bool {
	return s.Key == key && s.ASC == asc && s.ASCQ == ascq
}

// Code returns ASC and ASCQ as one number, ASC in the upper byte.
func (s Sense) Code() uint16 { return uint16(s.ASC)<<8 | uint16(s.ASCQ) }

// FieldPointer returns the byte of the CDB or of the parameter list that an
// ILLEGAL REQUEST complains about (SPC-5 §4.4.2.4.2).
func (s Sense) FieldPointer() (offset uint16, inCDB, ok bool) {
	if s.Key != KeyIllegalRequest || !s.KeySpecificValid {
		return 0, false, false
	}
	return binary.BigEndian.Uint16(s.KeySpecific[1:]), s.KeySpecific[0]&0x40 != 0, true
}

// Progress returns how far an operation has come that makes the unit not
// ready, in 65536ths (SPC-5 §4.4.2.4.4).
func (s Sense) Progress() (uint16, bool) {
	if !s.KeySpecificValid || s.Key != KeyNotReady && s.Key != KeyNoSense {
		return 0, false
	}
	return binary.BigEndian.Uint16(s.KeySpecific[1:]), true
}

// String describes the sense in words with the numbers that an administrator
// searches for: "medium error: unrecovered read error (3/11/00) at 0x1234".
func (s Sense) String() string {
	if !s.Valid() {
		return "no sense data"
	}
	var b strings.Builder
	if s.Deferred() {
		b.WriteString("deferred ")
	}
	b.WriteString(s.Key.String())
	if t := CodeText(s.ASC, s.ASCQ); t != "" {
		b.WriteString(": ")
		b.WriteString(t)
	}
	fmt.Fprintf(&b, " (%x/%02x/%02x)", uint8(s.Key), s.ASC, s.ASCQ)
	if s.InformationValid {
		fmt.Fprintf(&b, " at 0x%x", s.Information)
	}
	return b.String()
}

// ParseSense decodes sense data in fixed or descriptor format. Data cut short
// after the additional sense code are accepted; earlier, only the key is
// required, as SCSI-2 devices send no more.
func ParseSense(b []byte) (Sense, error) {
	if len(b) == 0 {
		return Sense{}, short("sense data", 0, 3)
	}
	switch b[0] & 0x7f {
	case SenseFixed, SenseFixedDeferred:
		return parseFixedSense(b)
	case SenseDescriptor, SenseDescriptorDeferred:
		return parseDescriptorSense(b)
	}
	return Sense{}, &FormatError{What: "sense data", Reason: fmt.Sprintf("response code 0x%02x", b[0])}
}

func parseFixedSense(b []byte) (Sense, error) {
	if len(b) < 3 {
		return Sense{}, short("sense data", len(b), 3)
	}
	s := Sense{
		ResponseCode: b[0] & 0x7f,
		Key:          SenseKey(b[2] & 0xf),
		Filemark:     b[2]&0x80 != 0,
		EOM:          b[2]&0x40 != 0,
		ILI:          b[2]&0x20 != 0,
	}
	if len(b) < 8 {
		return s, nil
	}
	if b[0]&0x80 != 0 {
		s.Information, s.InformationValid = uint64(binary.BigEndian.Uint32(b[3:])), true
	}
	// The additional length bounds what counts; bytes past it are padding.
	if n := 8 + int(b[7]); len(b) > n {
		b = b[:n]
	}
	if len(b) >= 12 {
		s.CommandSpecific = uint64(binary.BigEndian.Uint32(b[8:]))
	}
	if len(b) >= 13 {
		s.ASC = b[12]
	}
	if len(b) >= 14 {
		s.ASCQ = b[13]
	}
	if len(b) >= 15 {
		s.FRU = b[14]
	}
	if len(b) >= 18 && b[15]&0x80 != 0 {
		s.KeySpecific, s.KeySpecificValid = [3]byte{b[15] & 0x7f, b[16], b[17]}, true
	}
	return s, nil
}

// Descriptor types of descriptor-format sense data (SPC-5 table 29).
const (
	descInformation     = 0x00
	descCommandSpecific = 0x01
	descKeySpecific     = 0x02
	descFRU             = 0x03
	descStream          = 0x04
	descBlock           = 0x05
	descDirectAccess    = 0x0d
)

func parseDescriptorSense(b []byte) (Sense, error) {
	if len(b) < 4 {
		return Sense{}, short("sense data", len(b), 4)
	}
	s := Sense{
		ResponseCode: b[0] & 0x7f,
		Key:          SenseKey(b[1] & 0xf),
		ASC:          b[2],
		ASCQ:         b[3],
	}
	if len(b) < 8 {
		return s, nil
	}
	d := b[8:]
	if n := int(b[7]); len(d) > n {
		d = d[:n]
	}
	for len(d) >= 2 {
		n := 2 + int(d[1])
		if n > len(d) {
			break // cut short by an allocation length; what came before holds
		}
		s.descriptor(d[:n])
		d = d[n:]
	}
	return s, nil
}

// descriptor takes over one complete sense data descriptor. Those too short
// for their type are ignored.
func (s *Sense) descriptor(d []byte) {
	switch {
	case d[0] == descInformation && len(d) >= 12:
		s.Information = binary.BigEndian.Uint64(d[4:])
		s.InformationValid = d[2]&0x80 != 0
		if !s.InformationValid {
			s.Information = 0
		}
	case d[0] == descCommandSpecific && len(d) >= 12:
		s.CommandSpecific = binary.BigEndian.Uint64(d[4:])
	case d[0] == descKeySpecific && len(d) >= 8:
		if d[4]&0x80 != 0 {
			s.KeySpecific, s.KeySpecificValid = [3]byte{d[4] & 0x7f, d[5], d[6]}, true
		}
	case d[0] == descFRU && len(d) >= 4:
		s.FRU = d[3]
	case d[0] == descStream && len(d) >= 4:
		s.Filemark, s.EOM, s.ILI = d[3]&0x80 != 0, d[3]&0x40 != 0, d[3]&0x20 != 0
	case d[0] == descBlock && len(d) >= 4:
		s.ILI = d[3]&0x20 != 0
	case d[0] == descDirectAccess && len(d) >= 32:
		s.directAccess(d)
	}
}

// directAccess takes over the direct-access block device descriptor, which
// unites five of the others (SBC-4 §4.18.2).
func (s *Sense) directAccess(d []byte) {
	s.ILI = d[2]&0x20 != 0
	if d[4]&0x80 != 0 {
		s.KeySpecific, s.KeySpecificValid = [3]byte{d[4] & 0x7f, d[5], d[6]}, true
	}
	s.FRU = d[7]
	if d[2]&0x80 != 0 {
		s.Information, s.InformationValid = binary.BigEndian.Uint64(d[8:]), true
	}
	s.CommandSpecific = binary.BigEndian.Uint64(d[16:])
}
