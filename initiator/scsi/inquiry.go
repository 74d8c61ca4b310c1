package scsi

import (
	"fmt"
	"strings"
)

// A DeviceType is the peripheral device type of INQUIRY data (SPC-5 table 150).
type DeviceType uint8

// The device types that targets of network storage present.
const (
	TypeDisk       DeviceType = 0x00
	TypeTape       DeviceType = 0x01
	TypeProcessor  DeviceType = 0x03
	TypeOptical    DeviceType = 0x05 // CD and DVD
	TypeMemory     DeviceType = 0x07 // optical memory
	TypeChanger    DeviceType = 0x08
	TypeController DeviceType = 0x0c // storage array controller
	TypeEnclosure  DeviceType = 0x0d
	TypeSimpleDisk DeviceType = 0x0e // reduced block commands
	TypeObject     DeviceType = 0x11
	TypeZonedDisk  DeviceType = 0x14 // host managed zoned
	TypeWellKnown  DeviceType = 0x1e // well known logical unit
	TypeUnknown    DeviceType = 0x1f // unknown, or no device there
)

// String returns the type in a word or two.
func (t DeviceType) String() string {
	switch t {
	case TypeDisk:
		return "disk"
	case TypeTape:
		return "tape"
	case TypeProcessor:
		return "processor"
	case TypeOptical:
		return "cd/dvd"
	case TypeMemory:
		return "optical memory"
	case TypeChanger:
		return "medium changer"
	case TypeController:
		return "storage array controller"
	case TypeEnclosure:
		return "enclosure"
	case TypeSimpleDisk:
		return "simplified disk"
	case TypeObject:
		return "object storage"
	case TypeZonedDisk:
		return "zoned disk"
	case TypeWellKnown:
		return "well known logical unit"
	case TypeUnknown:
		return "no device"
	}
	return fmt.Sprintf("device type 0x%02x", uint8(t))
}

// Peripheral qualifiers (SPC-5 table 149).
const (
	QualifierConnected    uint8 = 0 // a device is there, or there is no way to tell
	QualifierDisconnected uint8 = 1 // the LUN could have a device but has none now
	QualifierUnsupported  uint8 = 3 // no device can be at this LUN
)

// InquiryLength is the length of standard INQUIRY data as far as this package
// encodes them, and what an initiator asks for first (SPC-5 §6.7.2).
const InquiryLength = 36

// InquiryData is the standard INQUIRY data.
type InquiryData struct {
	Qualifier uint8 // peripheral qualifier, 3 bits
	Type      DeviceType
	Removable bool  // RMB: the medium can be taken out
	Version   uint8 // 5 SPC-3, 6 SPC-4, 7 SPC-5
	TPGS      uint8 // ALUA: 0 none, 1 implicit, 2 explicit, 3 both
	ThirdPart bool  // 3PC: third-party copy
	Protect   bool  // protection information supported
	CmdQueue  bool  // full task management

	// Vendor, Product and Revision have their trailing blanks removed. They
	// are 8, 16 and 4 bytes of ASCII by the standard; bytes outside the
	// printable range come as '?'.
	Vendor, Product, Revision string
}

// Present reports whether a device answers at this LUN.
func (d InquiryData) Present() bool {
	return d.Qualifier == QualifierConnected && d.Type != TypeUnknown
}

// ParseInquiry decodes standard INQUIRY data. Only the first five bytes must
// be there; the identification of older and simpler devices may be short.
func ParseInquiry(b []byte) (InquiryData, error) {
	if len(b) < 5 {
		return InquiryData{}, short("INQUIRY data", len(b), 5)
	}
	if n := 5 + int(b[4]); len(b) > n {
		b = b[:n]
	}
	var full [InquiryLength]byte
	n := copy(full[:], b)
	d := InquiryData{
		Qualifier: full[0] >> 5,
		Type:      DeviceType(full[0] & 0x1f),
		Removable: full[1]&0x80 != 0,
		Version:   full[2],
		TPGS:      full[5] >> 4 & 3,
		ThirdPart: full[5]&0x08 != 0,
		Protect:   full[5]&0x01 != 0,
		CmdQueue:  full[7]&0x02 != 0,
	}
	if n > 8 {
		d.Vendor = ascii(full[8:min(n, 16)])
	}
	if n > 16 {
		d.Product = ascii(full[16:min(n, 32)])
	}
	if n > 32 {
		d.Revision = ascii(full[32:n])
	}
	return d, nil
}

// Append adds the 36 bytes of standard INQUIRY data to dst. Names that are too
// long are cut.
func (d InquiryData) Append(dst []byte) []byte {
	dst = append(dst,
		d.Qualifier<<5|byte(d.Type)&0x1f,
		bit(d.Removable, 7),
		d.Version,
		0x10|2, // HISUP; response data format 2 is the only one left
		InquiryLength-5,
		d.TPGS&3<<4|bit(d.ThirdPart, 3)|bit(d.Protect, 0),
		0,
		bit(d.CmdQueue, 1),
	)
	dst = appendPadded(dst, d.Vendor, 8)
	dst = appendPadded(dst, d.Product, 16)
	return appendPadded(dst, d.Revision, 4)
}

// ascii returns the printable form of a fixed-width ASCII field, without the
// padding: trailing blanks, and all from the first NUL on, as some devices
// terminate their names.
func ascii(b []byte) string {
	s := make([]byte, 0, len(b))
	for _, c := range b {
		if c == 0 {
			break
		}
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		s = append(s, c)
	}
	return strings.TrimRight(string(s), " ")
}

// appendPadded adds s cut or padded with blanks to n bytes.
func appendPadded(dst []byte, s string, n int) []byte {
	if len(s) > n {
		s = s[:n]
	}
	dst = append(dst, s...)
	for range n - len(s) {
		dst = append(dst, ' ')
	}
	return dst
}
