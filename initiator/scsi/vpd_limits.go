package scsi

import "encoding/binary"

// BlockLimits is VPD page 0xB0 (SBC-4 §6.6.3). Lengths are in logical blocks;
// zero means that the device reports no limit, save where it is said otherwise.
type BlockLimits struct {
	// WriteSameNonZero (WSNZ) says that WRITE SAME with a length of zero,
	// "to the end", is refused.
	WriteSameNonZero bool

	MaxCompareAndWrite uint8  // 0: COMPARE AND WRITE is not supported
	OptimalGranularity uint16 // transfers should be a multiple of it
	MaxTransfer        uint32 // the longest READ or WRITE
	OptimalTransfer    uint32 // the READ or WRITE that suits the device best
	MaxPrefetch        uint32 // the longest PRE-FETCH

	MaxUnmapBlocks      uint32 // per UNMAP command; 0: UNMAP is not supported, 0xffffffff: no limit
	MaxUnmapDescriptors uint32 // per UNMAP command; 0: UNMAP is not supported, 0xffffffff: no limit
	UnmapGranularity    uint32 // ranges should start and end on multiples of it
	UnmapAlignment      uint32 // first LBA of a granule, if UnmapAlignmentValid
	UnmapAlignmentValid bool   // UGAVALID

	MaxWriteSame uint64 // 0: no limit reported
}

// Contents of the page in the versions of the standard that count: SBC-2 had
// 12 bytes, SBC-3 and later have 60.
const (
	blockLimitsShort = 12
	blockLimitsFull  = 60
)

// ParseBlockLimits decodes VPD page 0xB0. The short page of SBC-2 is accepted.
func ParseBlockLimits(b []byte) (BlockLimits, error) {
	b, err := vpdBody(b, VPDBlockLimits)
	if err != nil {
		return BlockLimits{}, err
	}
	if len(b) < blockLimitsShort {
		return BlockLimits{}, short(VPDBlockLimits.String(), len(b), blockLimitsShort)
	}
	var full [blockLimitsFull]byte
	copy(full[:], b)
	be := binary.BigEndian
	l := BlockLimits{
		WriteSameNonZero:    full[0]&1 != 0,
		MaxCompareAndWrite:  full[1],
		OptimalGranularity:  be.Uint16(full[2:]),
		MaxTransfer:         be.Uint32(full[4:]),
		OptimalTransfer:     be.Uint32(full[8:]),
		MaxPrefetch:         be.Uint32(full[12:]),
		MaxUnmapBlocks:      be.Uint32(full[16:]),
		MaxUnmapDescriptors: be.Uint32(full[20:]),
		UnmapGranularity:    be.Uint32(full[24:]),
		MaxWriteSame:        be.Uint64(full[32:]),
	}
	if a := be.Uint32(full[28:]); a&(1<<31) != 0 {
		l.UnmapAlignmentValid, l.UnmapAlignment = true, a&^(1<<31)
	}
	return l, nil
}

// Append adds the contents of the page, for AppendVPD, to dst.
func (l BlockLimits) Append(dst []byte) []byte {
	var b [blockLimitsFull]byte
	be := binary.BigEndian
	b[0], b[1] = bit(l.WriteSameNonZero, 0), l.MaxCompareAndWrite
	be.PutUint16(b[2:], l.OptimalGranularity)
	be.PutUint32(b[4:], l.MaxTransfer)
	be.PutUint32(b[8:], l.OptimalTransfer)
	be.PutUint32(b[12:], l.MaxPrefetch)
	be.PutUint32(b[16:], l.MaxUnmapBlocks)
	be.PutUint32(b[20:], l.MaxUnmapDescriptors)
	be.PutUint32(b[24:], l.UnmapGranularity)
	if l.UnmapAlignmentValid {
		be.PutUint32(b[28:], l.UnmapAlignment|1<<31)
	}
	be.PutUint64(b[32:], l.MaxWriteSame)
	return append(dst, b[:]...)
}

// Characteristics is VPD page 0xB1 (SBC-4 §6.6.2).
type Characteristics struct {
	// RotationRate is 0 if not reported, 1 for media that do not rotate, and
	// else the revolutions a minute.
	RotationRate uint16
	FormFactor   uint8 // nominal form factor, 4 bits
	Zoned        uint8 // 0 not reported, 1 host aware, 2 device managed
}

// Rotational reports whether the device says that its medium rotates.
func (c Characteristics) Rotational() bool { return c.RotationRate > 1 }

// ParseCharacteristics decodes VPD page 0xB1.
func ParseCharacteristics(b []byte) (Characteristics, error) {
	b, err := vpdBody(b, VPDCharacteristics)
	if err != nil {
		return Characteristics{}, err
	}
	if len(b) < 2 {
		return Characteristics{}, short(VPDCharacteristics.String(), len(b), 2)
	}
	c := Characteristics{RotationRate: binary.BigEndian.Uint16(b)}
	if len(b) >= 4 {
		c.FormFactor = b[3] & 0xf
	}
	if len(b) >= 5 {
		c.Zoned = b[4] >> 4 & 3
	}
	return c, nil
}

// Append adds the contents of the page, for AppendVPD, to dst.
func (c Characteristics) Append(dst []byte) []byte {
	var b [60]byte
	binary.BigEndian.PutUint16(b[:], c.RotationRate)
	b[3], b[4] = c.FormFactor&0xf, c.Zoned&3<<4
	return append(dst, b[:]...)
}

// Provisioning types of VPD page 0xB2 (SBC-4 table 281).
const (
	ProvisioningFull    uint8 = 0 // fully provisioned, or not reported
	ProvisioningReserve uint8 = 1 // resource provisioned
	ProvisioningThin    uint8 = 2
)

// Provisioning is VPD page 0xB2 (SBC-4 §6.6.5).
type Provisioning struct {
	ThresholdExponent uint8 // a threshold covers 2^n blocks; 0: no thresholds
	Unmap             bool  // LBPU: UNMAP
	WriteSame16       bool  // LBPWS: WRITE SAME(16) with UNMAP
	WriteSame10       bool  // LBPWS10: WRITE SAME(10) with UNMAP
	ReadZeros         uint8 // LBPRZ: 1 (xx1b): unmapped blocks read as zeroes, 2: as a pattern
	Anchor            bool  // ANC_SUP
	Type              uint8 // one of the Provisioning constants
}

// UnmappedZero reports whether blocks that are unmapped read as zeroes.
func (p Provisioning) UnmappedZero() bool { return p.ReadZeros&1 != 0 }

// ParseProvisioning decodes VPD page 0xB2.
func ParseProvisioning(b []byte) (Provisioning, error) {
	b, err := vpdBody(b, VPDLogicalProvisioning)
	if err != nil {
		return Provisioning{}, err
	}
	if len(b) < 2 {
		return Provisioning{}, short(VPDLogicalProvisioning.String(), len(b), 2)
	}
	p := Provisioning{
		ThresholdExponent: b[0],
		Unmap:             b[1]&0x80 != 0,
		WriteSame16:       b[1]&0x40 != 0,
		WriteSame10:       b[1]&0x20 != 0,
		ReadZeros:         b[1] >> 2 & 7,
		Anchor:            b[1]&0x02 != 0,
	}
	if len(b) >= 3 {
		p.Type = b[2] & 7
	}
	return p, nil
}

// Append adds the contents of the page, for AppendVPD, to dst.
func (p Provisioning) Append(dst []byte) []byte {
	flags := bit(p.Unmap, 7) | bit(p.WriteSame16, 6) | bit(p.WriteSame10, 5) | p.ReadZeros&7<<2 | bit(p.Anchor, 1)
	return append(dst, p.ThresholdExponent, flags, p.Type&7, 0)
}
