package scsi

import (
	"encoding/binary"
	"fmt"
)

// Provisioning states of a range of blocks (SBC-4 §5.8.2.2).
const (
	LBAMapped      uint8 = 0 // mapped, or the device does not say
	LBADeallocated uint8 = 1
	LBAAnchored    uint8 = 2
)

// An LBAStatus is one descriptor of GET LBA STATUS data: a range of blocks in
// one provisioning state.
type LBAStatus struct {
	Extent
	State uint8 // one of LBAMapped, LBADeallocated, LBAAnchored; 4 bits
}

// Lengths within GET LBA STATUS data.
const (
	LBAStatusHeaderLength     = 8
	LBAStatusDescriptorLength = 16
)

// ParseLBAStatus decodes the answer to GET LBA STATUS. Descriptors that are
// cut short are left out.
func ParseLBAStatus(b []byte) ([]LBAStatus, error) {
	if len(b) < LBAStatusHeaderLength {
		return nil, short("GET LBA STATUS data", len(b), LBAStatusHeaderLength)
	}
	n := uint64(binary.BigEndian.Uint32(b)) + 4 // counts from after itself
	if uint64(len(b)) > n {
		if n < LBAStatusHeaderLength {
			return nil, &FormatError{What: "GET LBA STATUS data", Reason: fmt.Sprintf("length field %d", n-4)}
		}
		b = b[:n]
	}
	b = b[LBAStatusHeaderLength:]
	list := make([]LBAStatus, 0, len(b)/LBAStatusDescriptorLength)
	for ; len(b) >= LBAStatusDescriptorLength; b = b[LBAStatusDescriptorLength:] {
		list = append(list, LBAStatus{
			Extent: Extent{LBA: binary.BigEndian.Uint64(b), Blocks: binary.BigEndian.Uint32(b[8:])},
			State:  b[12] & 0xf,
		})
	}
	return list, nil
}

// AppendLBAStatus adds the answer to GET LBA STATUS to dst.
func AppendLBAStatus(dst []byte, list ...LBAStatus) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(list)*LBAStatusDescriptorLength))
	dst = append(dst, 0, 0, 0, 0)
	for _, s := range list {
		dst = binary.BigEndian.AppendUint64(dst, s.LBA)
		dst = binary.BigEndian.AppendUint32(dst, s.Blocks)
		dst = append(dst, s.State&0xf, 0, 0, 0)
	}
	return dst
}
