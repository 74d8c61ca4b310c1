package scsi

import (
	"encoding/binary"
	"fmt"
)

// An AccessState is the asymmetric access state of a target port group (SPC-5
// table 267).
type AccessState uint8

// The access states of SPC-5.
const (
	AccessOptimized    AccessState = 0x0
	AccessNonOptimized AccessState = 0x1
	AccessStandby      AccessState = 0x2
	AccessUnavailable  AccessState = 0x3
	AccessLBADependent AccessState = 0x4
	AccessOffline      AccessState = 0xe
	AccessTransition   AccessState = 0xf
)

// String names the state in the standard's words.
func (s AccessState) String() string {
	switch s {
	case AccessOptimized:
		return "active/optimized"
	case AccessNonOptimized:
		return "active/non-optimized"
	case AccessStandby:
		return "standby"
	case AccessUnavailable:
		return "unavailable"
	case AccessLBADependent:
		return "logical block dependent"
	case AccessOffline:
		return "offline"
	case AccessTransition:
		return "transitioning"
	}
	return fmt.Sprintf("access state 0x%x", uint8(s))
}

// A PortGroup is one descriptor of REPORT TARGET PORT GROUPS data (SPC-5
// §6.36).
type PortGroup struct {
	ID        uint16 // TARGET PORT GROUP
	State     AccessState
	Preferred bool     // PREF: the group to use if there is a choice
	Supported uint8    // bit mask of the states the group can take, as on the wire
	Status    uint8    // why the state changed last
	Ports     []uint16 // relative target port identifiers
}

// ParsePortGroups decodes REPORT TARGET PORT GROUPS data with the length-only
// header. Descriptors that are cut short are left out.
func ParsePortGroups(b []byte) ([]PortGroup, error) {
	const what = "REPORT TARGET PORT GROUPS data"
	if len(b) < 4 {
		return nil, short(what, len(b), 4)
	}
	n := uint64(binary.BigEndian.Uint32(b))
	if b = b[4:]; uint64(len(b)) > n {
		b = b[:n]
	}
	var groups []PortGroup
	for len(b) >= 8 {
		size := 8 + 4*int(b[7])
		if size > len(b) {
			break
		}
		g := PortGroup{
			Preferred: b[0]&0x80 != 0,
			State:     AccessState(b[0] & 0xf),
			Supported: b[1],
			ID:        binary.BigEndian.Uint16(b[2:]),
			Status:    b[5],
		}
		for p := b[8:size]; len(p) >= 4; p = p[4:] {
			g.Ports = append(g.Ports, binary.BigEndian.Uint16(p[2:]))
		}
		groups = append(groups, g)
		b = b[size:]
	}
	return groups, nil
}

// AppendPortGroups adds REPORT TARGET PORT GROUPS data to dst. A group lists
// at most 255 ports; what is beyond is left out.
func AppendPortGroups(dst []byte, groups ...PortGroup) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	for _, g := range groups {
		ports := g.Ports
		if len(ports) > 255 {
			ports = ports[:255]
		}
		dst = append(dst, bit(g.Preferred, 7)|byte(g.State&0xf), g.Supported)
		dst = binary.BigEndian.AppendUint16(dst, g.ID)
		dst = append(dst, 0, g.Status, 0, byte(len(ports)))
		for _, p := range ports {
			dst = append(dst, 0, 0)
			dst = binary.BigEndian.AppendUint16(dst, p)
		}
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}
