package scsi

import (
	"encoding/binary"
	"fmt"
)

// SelectReport says which logical units REPORT LUNS shall list (SPC-5 table
// 256).
type SelectReport uint8

// The selections of SPC-5 that concern initiators.
const (
	SelectAddressable SelectReport = 0x00 // all but well known ones
	SelectWellKnown   SelectReport = 0x01
	SelectAll         SelectReport = 0x02
)

// ReportLUNsHeaderLength is the length of what precedes the list.
const ReportLUNsHeaderLength = 8

// ReportLUNsLength returns how many bytes the whole list has whose beginning
// is b, header included. Where it is more than was asked for, the list was cut
// and must be asked for again with that allocation length.
func ReportLUNsLength(b []byte) (uint64, error) {
	if len(b) < ReportLUNsHeaderLength {
		return 0, short("REPORT LUNS data", len(b), ReportLUNsHeaderLength)
	}
	return ReportLUNsHeaderLength + uint64(binary.BigEndian.Uint32(b)), nil
}

// ParseReportLUNs decodes REPORT LUNS data into the 8-byte LUN structures, as
// they travel in PDUs, each read as a big-endian number. What was cut short is
// left out.
func ParseReportLUNs(b []byte) ([]uint64, error) {
	n, err := ReportLUNsLength(b)
	if err != nil {
		return nil, err
	}
	if uint64(len(b)) > n {
		b = b[:n]
	}
	b = b[ReportLUNsHeaderLength:]
	luns := make([]uint64, 0, len(b)/8)
	for ; len(b) >= 8; b = b[8:] {
		luns = append(luns, binary.BigEndian.Uint64(b))
	}
	return luns, nil
}

// AppendReportLUNs adds REPORT LUNS data to dst.
func AppendReportLUNs(dst []byte, luns ...uint64) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(8*len(luns)))
	dst = append(dst, 0, 0, 0, 0)
	for _, l := range luns {
		dst = binary.BigEndian.AppendUint64(dst, l)
	}
	return dst
}

// An AddressMethod is how the first level of a LUN is written (SAM-6 §4.7.7).
type AddressMethod uint8

// The addressing methods of SAM-6: the two highest bits of the LUN.
const (
	AddressPeripheral AddressMethod = 0 // bus and an 8-bit number
	AddressFlat       AddressMethod = 1 // a 14-bit number
	AddressUnit       AddressMethod = 2 // logical unit addressing: bus, target, LUN
	AddressExtended   AddressMethod = 3 // extended: longer numbers, well known units
)

// String names the method.
func (m AddressMethod) String() string {
	switch m {
	case AddressPeripheral:
		return "peripheral device"
	case AddressFlat:
		return "flat space"
	case AddressUnit:
		return "logical unit"
	case AddressExtended:
		return "extended"
	}
	return fmt.Sprintf("address method %d", uint8(m))
}

// AddressMethodOf returns the method by which the first level of a LUN is
// written.
func AddressMethodOf(lun uint64) AddressMethod { return AddressMethod(lun >> 62) }

// WellKnown reports whether a LUN is that of a well known logical unit, such
// as the one that answers REPORT LUNS (SAM-6 §4.7.7.5.2), and returns its W-LUN.
func WellKnown(lun uint64) (uint8, bool) {
	if lun>>56 != 0xc1 {
		return 0, false
	}
	return uint8(lun >> 48), true
}
