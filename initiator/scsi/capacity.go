package scsi

import (
	"encoding/binary"
	"math"
)

// Lengths of the answers to READ CAPACITY.
const (
	Capacity10Length = 8
	Capacity16Length = 32
)

// A Capacity is the answer to READ CAPACITY(10) or (16) (SBC-4 §5.21, §5.22).
type Capacity struct {
	LastLBA   uint64 // address of the last block: one less than their number
	BlockSize uint32 // bytes in a logical block

	// The fields below are known from READ CAPACITY(16) only.

	Protection       bool   // PROT_EN
	ProtectionType   uint8  // P_TYPE, 3 bits
	PhysicalExponent uint8  // 2^n logical blocks to a physical block
	LowestAligned    uint16 // LBA of the first aligned physical block
	Thin             bool   // LBPME: logical block provisioning is enabled
	ThinReadsZero    bool   // LBPRZ: unmapped blocks read as zeroes
}

// Blocks returns the number of logical blocks. The largest possible LastLBA
// gives math.MaxUint64 rather than an overflow to zero.
func (c Capacity) Blocks() uint64 {
	if c.LastLBA == math.MaxUint64 {
		return math.MaxUint64
	}
	return c.LastLBA + 1
}

// ParseCapacity10 decodes the answer to READ CAPACITY(10). A LastLBA of
// 0xffffffff means that the device is larger and READ CAPACITY(16) must be
// asked.
func ParseCapacity10(b []byte) (Capacity, error) {
	if len(b) < Capacity10Length {
		return Capacity{}, short("READ CAPACITY(10) data", len(b), Capacity10Length)
	}
	return Capacity{
		LastLBA:   uint64(binary.BigEndian.Uint32(b)),
		BlockSize: binary.BigEndian.Uint32(b[4:]),
	}, nil
}

// Append10 adds the answer to READ CAPACITY(10) to dst.
func (c Capacity) Append10(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(min(c.LastLBA, math.MaxUint32)))
	return binary.BigEndian.AppendUint32(dst, c.BlockSize)
}

// ParseCapacity16 decodes the answer to READ CAPACITY(16). The first 12 bytes,
// all that SBC-2 had, suffice.
func ParseCapacity16(b []byte) (Capacity, error) {
	if len(b) < 12 {
		return Capacity{}, short("READ CAPACITY(16) data", len(b), 12)
	}
	c := Capacity{
		LastLBA:   binary.BigEndian.Uint64(b),
		BlockSize: binary.BigEndian.Uint32(b[8:]),
	}
	if len(b) >= 16 {
		c.Protection, c.ProtectionType = b[12]&1 != 0, b[12]>>1&7
		c.PhysicalExponent = b[13] & 0xf
		c.Thin, c.ThinReadsZero = b[14]&0x80 != 0, b[14]&0x40 != 0
		c.LowestAligned = binary.BigEndian.Uint16(b[14:]) & 0x3fff
	}
	return c, nil
}

// Append16 adds the answer to READ CAPACITY(16) to dst.
func (c Capacity) Append16(dst []byte) []byte {
	var b [Capacity16Length]byte
	binary.BigEndian.PutUint64(b[:], c.LastLBA)
	binary.BigEndian.PutUint32(b[8:], c.BlockSize)
	b[12] = c.ProtectionType&7<<1 | bit(c.Protection, 0)
	b[13] = c.PhysicalExponent & 0xf
	binary.BigEndian.PutUint16(b[14:], c.LowestAligned&0x3fff)
	b[14] |= bit(c.Thin, 7) | bit(c.ThinReadsZero, 6)
	return append(dst, b[:]...)
}
