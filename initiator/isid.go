package initiator

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// An ISID is the initiator's part of a session identifier (RFC 7143 section
// 11.12.5). The same ISID, initiator name and target portal group name the same
// session: a login with it reinstates the old one.
type ISID [6]byte

// OpenISCSIISID returns the ISID that open-iscsi gives session number sid:
// 00 02 3d and the low 24 bits of sid.
func OpenISCSIISID(sid uint32) ISID {
	return ISID{0x00, 0x02, 0x3d, byte(sid >> 16), byte(sid >> 8), byte(sid)}
}

// RandomISID returns an ISID of the format "random" (type 10b: first byte
// 0x80).
func RandomISID() ISID {
	id := ISID{0: 0x80}
	rand.Read(id[1:]) //nolint:errcheck // never fails (crypto/rand.Read)
	return id
}

// ParseISID parses twelve hexadecimal digits, as String prints them.
func ParseISID(s string) (ISID, error) {
	var id ISID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("invalid ISID %q: want 12 hexadecimal digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// IsZero reports whether the ISID is not set.
func (id ISID) IsZero() bool { return id == ISID{} }

// String returns twelve hexadecimal digits.
func (id ISID) String() string { return hex.EncodeToString(id[:]) }
