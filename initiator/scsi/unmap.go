package scsi

import (
	"encoding/binary"
	"fmt"
)

// An Extent is a range of logical blocks.
type Extent struct {
	LBA    uint64
	Blocks uint32
}

// Lengths within the parameter list of UNMAP (SBC-4 §5.35.2).
const (
	UnmapHeaderLength     = 8
	UnmapDescriptorLength = 16
	// MaxUnmapDescriptors is how many descriptors the 16-bit length of the
	// list leaves room for.
	MaxUnmapDescriptors = (0xffff - UnmapHeaderLength + 2) / UnmapDescriptorLength
)

// AppendUnmapList adds the parameter list of UNMAP for the extents to dst.
// There are at most MaxUnmapDescriptors of them; what is beyond is left out.
func AppendUnmapList(dst []byte, extents ...Extent) []byte {
	if len(extents) > MaxUnmapDescriptors {
		extents = extents[:MaxUnmapDescriptors]
	}
	n := len(extents) * UnmapDescriptorLength
	dst = binary.BigEndian.AppendUint16(dst, uint16(UnmapHeaderLength-2+n))
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	dst = append(dst, 0, 0, 0, 0)
	for _, e := range extents {
		dst = binary.BigEndian.AppendUint64(dst, e.LBA)
		dst = binary.BigEndian.AppendUint32(dst, e.Blocks)
		dst = append(dst, 0, 0, 0, 0)
	}
	return dst
}

// ParseUnmapList decodes the parameter list of UNMAP. Nothing in it may be cut
// short: data would be discarded that were not meant.
func ParseUnmapList(b []byte) ([]Extent, error) {
	if len(b) == 0 {
		return nil, nil // a parameter list length of zero is not an error
	}
	if len(b) < UnmapHeaderLength {
		return nil, short("UNMAP parameter list", len(b), UnmapHeaderLength)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if total := 2 + int(binary.BigEndian.Uint16(b)); n > total-UnmapHeaderLength || n > len(b)-UnmapHeaderLength {
		return nil, &FormatError{
			What:   "UNMAP parameter list",
			Reason: fmt.Sprintf("%d bytes of descriptors in %d bytes of data", n, min(total, len(b))),
		}
	}
	if n%UnmapDescriptorLength != 0 {
		// SBC-4 §5.35.2: not a multiple of 16 → only whole descriptors count.
		n -= n % UnmapDescriptorLength
	}
	b = b[UnmapHeaderLength : UnmapHeaderLength+n]
	extents := make([]Extent, 0, n/UnmapDescriptorLength)
	for ; len(b) > 0; b = b[UnmapDescriptorLength:] {
		extents = append(extents, Extent{LBA: binary.BigEndian.Uint64(b), Blocks: binary.BigEndian.Uint32(b[8:])})
	}
	return extents, nil
}
