package scsi

import (
	"encoding/binary"
	"math"
)

// Append adds the encoded sense data to dst: 18 bytes of fixed format, or
// descriptor format where ResponseCode says so or where Information does not
// fit the 32 bits of the fixed format. A zero ResponseCode counts as
// SenseFixed.
func (s Sense) Append(dst []byte) []byte {
	wide := s.InformationValid && s.Information > math.MaxUint32 || s.CommandSpecific > math.MaxUint32
	descriptors := s.ResponseCode == SenseDescriptor || s.ResponseCode == SenseDescriptorDeferred
	if descriptors || wide {
		return s.appendDescriptor(dst)
	}
	return s.appendFixed(dst)
}

func (s Sense) appendFixed(dst []byte) []byte {
	var b [18]byte
	b[0] = SenseFixed
	if s.Deferred() {
		b[0] = SenseFixedDeferred
	}
	b[2] = byte(s.Key&0xf) | bit(s.Filemark, 7) | bit(s.EOM, 6) | bit(s.ILI, 5)
	if s.InformationValid {
		b[0] |= 0x80
		binary.BigEndian.PutUint32(b[3:], uint32(s.Information))
	}
	b[7] = 18 - 8
	binary.BigEndian.PutUint32(b[8:], uint32(s.CommandSpecific))
	b[12], b[13], b[14] = s.ASC, s.ASCQ, s.FRU
	if s.KeySpecificValid {
		copy(b[15:], s.KeySpecific[:])
		b[15] |= 0x80
	}
	return append(dst, b[:]...)
}

func (s Sense) appendDescriptor(dst []byte) []byte {
	start := len(dst)
	code := SenseDescriptor
	if s.Deferred() {
		code = SenseDescriptorDeferred
	}
	dst = append(dst, code, byte(s.Key&0xf), s.ASC, s.ASCQ, 0, 0, 0, 0)
	if s.InformationValid {
		dst = append(dst, descInformation, 10, 0x80, 0)
		dst = binary.BigEndian.AppendUint64(dst, s.Information)
	}
	if s.CommandSpecific != 0 {
		dst = append(dst, descCommandSpecific, 10, 0, 0)
		dst = binary.BigEndian.AppendUint64(dst, s.CommandSpecific)
	}
	if s.KeySpecificValid {
		k := s.KeySpecific
		dst = append(dst, descKeySpecific, 6, 0, 0, k[0]|0x80, k[1], k[2], 0)
	}
	if s.FRU != 0 {
		dst = append(dst, descFRU, 2, 0, s.FRU)
	}
	if s.Filemark || s.EOM || s.ILI {
		dst = append(dst, descStream, 2, 0, bit(s.Filemark, 7)|bit(s.EOM, 6)|bit(s.ILI, 5))
	}
	dst[start+7] = byte(len(dst) - start - 8)
	return dst
}

// bit returns 1<<n if v, else 0.
func bit(v bool, n uint) byte {
	if v {
		return 1 << n
	}
	return 0
}

// InvalidFieldInCDB is the sense for an ILLEGAL REQUEST that points at a byte
// of the CDB (SPC-5 §4.4.2.4.2).
func InvalidFieldInCDB(offset uint16) Sense {
	return Sense{
		ResponseCode: SenseFixed, Key: KeyIllegalRequest, ASC: 0x24,
		KeySpecificValid: true, KeySpecific: [3]byte{0x40, byte(offset >> 8), byte(offset)},
	}
}

// NewSense is current sense data of the fixed format with key and additional
// sense code only.
func NewSense(key SenseKey, asc, ascq uint8) Sense {
	return Sense{ResponseCode: SenseFixed, Key: key, ASC: asc, ASCQ: ascq}
}
