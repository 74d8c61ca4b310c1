package scsi

import (
	"encoding/hex"
	"fmt"
)

// A DesignatorType tells how an identifier of VPD page 0x83 is formed (SPC-5
// table 461).
type DesignatorType uint8

// The designator types of SPC-5.
const (
	DesignatorVendor      DesignatorType = 0x0 // vendor specific
	DesignatorT10Vendor   DesignatorType = 0x1 // T10 vendor ID based
	DesignatorEUI64       DesignatorType = 0x2
	DesignatorNAA         DesignatorType = 0x3
	DesignatorRelPort     DesignatorType = 0x4 // relative target port
	DesignatorPortGroup   DesignatorType = 0x5 // target port group
	DesignatorUnitGroup   DesignatorType = 0x6 // logical unit group
	DesignatorMD5         DesignatorType = 0x7 // MD5 logical unit identifier
	DesignatorName        DesignatorType = 0x8 // SCSI name string
	DesignatorProtocol    DesignatorType = 0x9 // protocol specific port identifier
	DesignatorUUID        DesignatorType = 0xa
	designatorTypeUnknown DesignatorType = 0xb
)

var designatorNames = [designatorTypeUnknown]string{
	"vendor", "t10", "eui", "naa", "relative-port", "port-group", "unit-group", "md5", "name", "protocol", "uuid",
}

// String returns a short name of the type.
func (t DesignatorType) String() string {
	if t < designatorTypeUnknown {
		return designatorNames[t]
	}
	return fmt.Sprintf("designator type 0x%x", uint8(t))
}

// Code sets of a designator (SPC-5 table 459).
const (
	CodeSetBinary uint8 = 1
	CodeSetASCII  uint8 = 2
	CodeSetUTF8   uint8 = 3
)

// Associations of a designator (SPC-5 table 460).
const (
	AssocUnit   uint8 = 0 // the logical unit
	AssocPort   uint8 = 1 // the target port that answered
	AssocDevice uint8 = 2 // the target device
)

// A Designator is one identifier of VPD page 0x83.
type Designator struct {
	Type        DesignatorType
	CodeSet     uint8  // 4 bits
	Association uint8  // 2 bits
	Protocol    uint8  // protocol identifier, 4 bits, if PIV
	PIV         bool   // protocol identifier valid
	ID          []byte // the designator itself
}

// ProtocolISCSI is the protocol identifier of iSCSI (SPC-5 §7.6.1).
const ProtocolISCSI uint8 = 5

// NAA returns the first four bits of an NAA designator, which tell its format:
// 2, 3, 5 or 6; 0 for designators of other types.
func (d Designator) NAA() uint8 {
	if d.Type != DesignatorNAA || len(d.ID) == 0 {
		return 0
	}
	return d.ID[0] >> 4
}

// String gives the identifier as it is written: hexadecimal for the binary
// code set, text for the others.
func (d Designator) String() string {
	if d.CodeSet == CodeSetBinary {
		return d.Type.String() + "." + hex.EncodeToString(d.ID)
	}
	return d.Type.String() + "." + ascii(d.ID)
}

// maxDesignators bounds what a page of 64 KiB may make us keep. Real devices
// send fewer than ten.
const maxDesignators = 256

// ParseDeviceID decodes VPD page 0x83. The identifiers alias b. A descriptor
// that is cut short ends the list without an error.
func ParseDeviceID(b []byte) ([]Designator, error) {
	b, err := vpdBody(b, VPDDeviceID)
	if err != nil {
		return nil, err
	}
	var ds []Designator
	for len(b) >= 4 && len(ds) < maxDesignators {
		n := 4 + int(b[3])
		if n > len(b) {
			break
		}
		d := Designator{
			Protocol:    b[0] >> 4,
			CodeSet:     b[0] & 0xf,
			PIV:         b[1]&0x80 != 0,
			Association: b[1] >> 4 & 3,
			Type:        DesignatorType(b[1] & 0xf),
			ID:          b[4:n:n],
		}
		if !d.PIV {
			d.Protocol = 0
		}
		ds = append(ds, d)
		b = b[n:]
	}
	return ds, nil
}

// AppendDesignators adds the contents of VPD page 0x83, for AppendVPD, to dst.
// Identifiers beyond 255 bytes are cut.
func AppendDesignators(dst []byte, ds ...Designator) []byte {
	for _, d := range ds {
		id := d.ID
		if len(id) > 255 {
			id = id[:255]
		}
		b0 := d.CodeSet & 0xf
		if d.PIV {
			b0 |= d.Protocol << 4
		}
		dst = append(dst, b0, bit(d.PIV, 7)|d.Association&3<<4|byte(d.Type)&0xf, 0, byte(len(id)))
		dst = append(dst, id...)
	}
	return dst
}
