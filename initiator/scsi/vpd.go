package scsi

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// A VPDPage is the code of a vital product data page (SPC-5 §7.7).
type VPDPage uint8

// The pages that this package decodes.
const (
	VPDSupportedPages      VPDPage = 0x00
	VPDUnitSerial          VPDPage = 0x80
	VPDDeviceID            VPDPage = 0x83
	VPDBlockLimits         VPDPage = 0xb0
	VPDCharacteristics     VPDPage = 0xb1
	VPDLogicalProvisioning VPDPage = 0xb2
)

// String names the page by its code.
func (p VPDPage) String() string { return fmt.Sprintf("VPD page 0x%02x", uint8(p)) }

// VPDHeaderLength is the length of what precedes the contents of every page.
const VPDHeaderLength = 4

// vpdBody checks the header of a page and returns its contents, as much of
// them as b holds. Devices that do not know the page sometimes send standard
// INQUIRY data or another page; the code in the header tells.
func vpdBody(b []byte, page VPDPage) ([]byte, error) {
	if len(b) < VPDHeaderLength {
		return nil, short(page.String(), len(b), VPDHeaderLength)
	}
	if b[1] != byte(page) {
		return nil, &FormatError{What: page.String(), Reason: fmt.Sprintf("the data are of page 0x%02x", b[1])}
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if b = b[VPDHeaderLength:]; len(b) > n {
		b = b[:n]
	}
	return b, nil
}

// VPDLength returns the whole length of the page whose header b starts with,
// 0 if b is too short for a header. An initiator asks again with it when the
// first answer was cut.
func VPDLength(b []byte) int {
	if len(b) < VPDHeaderLength {
		return 0
	}
	return VPDHeaderLength + int(binary.BigEndian.Uint16(b[2:]))
}

// AppendVPD adds a page with the contents body to dst. Contents beyond 65535
// bytes are cut.
func AppendVPD(dst []byte, qualifier uint8, typ DeviceType, page VPDPage, body []byte) []byte {
	if len(body) > 0xffff {
		body = body[:0xffff]
	}
	dst = append(dst, qualifier<<5|byte(typ)&0x1f, byte(page))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(body)))
	return append(dst, body...)
}

// VPDPages is the set of pages a device has, decoded from page 0x00.
type VPDPages [4]uint64

// Has reports whether the device has the page.
func (p *VPDPages) Has(page VPDPage) bool { return p[page>>6]>>(page&63)&1 != 0 }

// Add puts the page into the set.
func (p *VPDPages) Add(page VPDPage) { p[page>>6] |= 1 << (page & 63) }

// ParseSupportedPages decodes VPD page 0x00.
func ParseSupportedPages(b []byte) (VPDPages, error) {
	var set VPDPages
	b, err := vpdBody(b, VPDSupportedPages)
	for _, p := range b {
		set.Add(VPDPage(p))
	}
	return set, err
}

// Append adds the contents of VPD page 0x00, for AppendVPD, to dst: the codes
// in ascending order.
func (p *VPDPages) Append(dst []byte) []byte {
	for c := range 256 {
		if p.Has(VPDPage(c)) {
			dst = append(dst, byte(c))
		}
	}
	return dst
}

// ParseUnitSerial decodes VPD page 0x80, the unit serial number. Blanks around
// it, by which devices right-align it, are removed.
func ParseUnitSerial(b []byte) (string, error) {
	b, err := vpdBody(b, VPDUnitSerial)
	return strings.TrimLeft(ascii(b), " "), err
}
