package scsi

import (
	"encoding/binary"
	"fmt"
)

// A ModePage is a page code of MODE SENSE (SPC-5 §7.5).
type ModePage uint8

// The pages that concern a block device's caller.
const (
	ModeCaching ModePage = 0x08
	ModeControl ModePage = 0x0a
	ModeAll     ModePage = 0x3f // every page the device has
)

// A ModeHeader is the mode parameter header of a direct-access device with the
// length of what follows it (SPC-5 §7.5.5, SBC-4 §6.5.1).
type ModeHeader struct {
	WriteProtect bool  // WP
	DPOFUA       bool  // READ and WRITE take the DPO and FUA bits
	MediumType   uint8 // 0 for disks

	// Descriptors is the length of the block descriptors that precede the
	// pages; encoding writes none.
	Descriptors int
	// header is the length of the header itself: 4 or 8.
	header int
}

// ParseModeHeader6 decodes the header of MODE SENSE(6) data.
func ParseModeHeader6(b []byte) (ModeHeader, error) {
	if len(b) < 4 {
		return ModeHeader{}, short("MODE SENSE(6) data", len(b), 4)
	}
	return ModeHeader{
		MediumType:   b[1],
		WriteProtect: b[2]&0x80 != 0,
		DPOFUA:       b[2]&0x10 != 0,
		Descriptors:  int(b[3]),
		header:       4,
	}, nil
}

// ParseModeHeader10 decodes the header of MODE SENSE(10) data.
func ParseModeHeader10(b []byte) (ModeHeader, error) {
	if len(b) < 8 {
		return ModeHeader{}, short("MODE SENSE(10) data", len(b), 8)
	}
	return ModeHeader{
		MediumType:   b[2],
		WriteProtect: b[3]&0x80 != 0,
		DPOFUA:       b[3]&0x10 != 0,
		Descriptors:  int(binary.BigEndian.Uint16(b[6:])),
		header:       8,
	}, nil
}

// Page finds a page in the data that the header came from and returns its
// bytes from the page code on, nil if it is not there. Pages with a subpage
// are passed over. b must be what the header was parsed from.
func (h ModeHeader) Page(b []byte, page ModePage) []byte {
	// The mode data length counts from after itself.
	n := 0
	switch {
	case h.header == 4 && len(b) >= 4:
		n = 1 + int(b[0])
	case h.header == 8 && len(b) >= 8:
		n = 2 + int(binary.BigEndian.Uint16(b))
	default:
		return nil
	}
	b = b[:min(len(b), n)]
	if skip := h.header + h.Descriptors; skip < len(b) {
		b = b[skip:]
	} else {
		return nil
	}
	for len(b) >= 2 {
		size := 2 + int(b[1])
		subpage := b[0]&0x40 != 0
		if subpage {
			if len(b) < 4 {
				return nil
			}
			size = 4 + int(binary.BigEndian.Uint16(b[2:]))
		}
		if size > len(b) {
			size = len(b)
		}
		if !subpage && ModePage(b[0]&0x3f) == page {
			return b[:size]
		}
		b = b[size:]
	}
	return nil
}

// AppendModeSense6 adds a MODE SENSE(6) answer with the pages given, encoded,
// to dst. Together they have at most 252 bytes; what is beyond is cut.
func (h ModeHeader) AppendModeSense6(dst []byte, pages ...[]byte) []byte {
	start := len(dst)
	dst = append(dst, 0, h.MediumType, bit(h.WriteProtect, 7)|bit(h.DPOFUA, 4), 0)
	for _, p := range pages {
		dst = append(dst, p...)
	}
	if len(dst)-start > 256 {
		dst = dst[:start+256]
	}
	dst[start] = byte(len(dst) - start - 1)
	return dst
}

// AppendModeSense10 adds a MODE SENSE(10) answer with the pages given,
// encoded, to dst. Together they have at most 65529 bytes; what is beyond is
// cut.
func (h ModeHeader) AppendModeSense10(dst []byte, pages ...[]byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, h.MediumType, bit(h.WriteProtect, 7)|bit(h.DPOFUA, 4), 0, 0, 0, 0)
	for _, p := range pages {
		dst = append(dst, p...)
	}
	if len(dst)-start > 0x10001 {
		dst = dst[:start+0x10001]
	}
	binary.BigEndian.PutUint16(dst[start:], uint16(len(dst)-start-2))
	return dst
}

// CachingPage is mode page 0x08 as far as callers need it (SBC-4 §6.5.5).
type CachingPage struct {
	WriteCache       bool // WCE: writes may be answered from a volatile cache
	ReadCacheDisable bool // RCD
	// DisableReadAhead is the DRA bit.
	DisableReadAhead bool
}

// ParseCachingPage decodes the page that ModeHeader.Page returned. The first
// three bytes suffice.
func ParseCachingPage(b []byte) (CachingPage, error) {
	if len(b) < 3 {
		return CachingPage{}, short("caching mode page", len(b), 3)
	}
	if b[0]&0x7f != byte(ModeCaching) {
		return CachingPage{}, &FormatError{What: "caching mode page", Reason: fmt.Sprintf("the data are of page 0x%02x", b[0]&0x7f)}
	}
	c := CachingPage{WriteCache: b[2]&0x04 != 0, ReadCacheDisable: b[2]&0x01 != 0}
	if len(b) > 12 {
		c.DisableReadAhead = b[12]&0x20 != 0
	}
	return c, nil
}

// Append adds the encoded page of 20 bytes to dst.
func (c CachingPage) Append(dst []byte) []byte {
	var b [20]byte
	b[0], b[1] = byte(ModeCaching), 18
	b[2] = bit(c.WriteCache, 2) | bit(c.ReadCacheDisable, 0)
	b[12] = bit(c.DisableReadAhead, 5)
	return append(dst, b[:]...)
}

// ControlPage is mode page 0x0A as far as callers need it (SPC-5 §7.5.12).
type ControlPage struct {
	DescriptorSense bool // D_SENSE: sense data come in descriptor format
	SoftwareWP      bool // SWP
}

// ParseControlPage decodes the page that ModeHeader.Page returned.
func ParseControlPage(b []byte) (ControlPage, error) {
	if len(b) < 5 {
		return ControlPage{}, short("control mode page", len(b), 5)
	}
	if b[0]&0x7f != byte(ModeControl) {
		return ControlPage{}, &FormatError{What: "control mode page", Reason: fmt.Sprintf("the data are of page 0x%02x", b[0]&0x7f)}
	}
	return ControlPage{DescriptorSense: b[2]&0x04 != 0, SoftwareWP: b[4]&0x08 != 0}, nil
}

// Append adds the encoded page of 12 bytes to dst.
func (c ControlPage) Append(dst []byte) []byte {
	var b [12]byte
	b[0], b[1] = byte(ModeControl), 10
	b[2] = bit(c.DescriptorSense, 2)
	b[3] = 0x10 // unrestricted reordering: each command stands alone
	b[4] = bit(c.SoftwareWP, 3)
	return append(dst, b[:]...)
}
