package scsi

import (
	"encoding/binary"
	"fmt"
)

// A ReservationType says who may still access a reserved unit (SPC-5 table
// 209).
type ReservationType uint8

// The reservation types of SPC-5.
const (
	WriteExclusive                ReservationType = 0x1
	ExclusiveAccess               ReservationType = 0x3
	WriteExclusiveRegistrantsOnly ReservationType = 0x5
	ExclusiveAccessRegistrants    ReservationType = 0x6
	WriteExclusiveAllRegistrants  ReservationType = 0x7
	ExclusiveAccessAllRegistrants ReservationType = 0x8
)

// String names the type in the standard's words.
func (t ReservationType) String() string {
	switch t {
	case 0:
		return "none"
	case WriteExclusive:
		return "write exclusive"
	case ExclusiveAccess:
		return "exclusive access"
	case WriteExclusiveRegistrantsOnly:
		return "write exclusive, registrants only"
	case ExclusiveAccessRegistrants:
		return "exclusive access, registrants only"
	case WriteExclusiveAllRegistrants:
		return "write exclusive, all registrants"
	case ExclusiveAccessAllRegistrants:
		return "exclusive access, all registrants"
	}
	return fmt.Sprintf("reservation type 0x%x", uint8(t))
}

// PRInAction is a service action of PERSISTENT RESERVE IN.
type PRInAction uint8

// The service actions of PERSISTENT RESERVE IN (SPC-5 table 204).
const (
	PRInReadKeys           PRInAction = 0x00
	PRInReadReservation    PRInAction = 0x01
	PRInReportCapabilities PRInAction = 0x02
	PRInReadFullStatus     PRInAction = 0x03
)

// PROutAction is a service action of PERSISTENT RESERVE OUT.
type PROutAction uint8

// The service actions of PERSISTENT RESERVE OUT (SPC-5 table 215).
const (
	PROutRegister          PROutAction = 0x00
	PROutReserve           PROutAction = 0x01
	PROutRelease           PROutAction = 0x02
	PROutClear             PROutAction = 0x03
	PROutPreempt           PROutAction = 0x04
	PROutPreemptAndAbort   PROutAction = 0x05
	PROutRegisterAndIgnore PROutAction = 0x06
	PROutRegisterAndMove   PROutAction = 0x07
)

// PROutLength is the length of the basic parameter list of PERSISTENT RESERVE
// OUT.
const PROutLength = 24

// PROutList is the basic parameter list of PERSISTENT RESERVE OUT (SPC-5
// §6.17.3).
type PROutList struct {
	Key           uint64 // the registered key of the caller
	ServiceKey    uint64 // the new key, or the key to preempt
	AllPorts      bool   // ALL_TG_PT: register through all target ports
	PersistPower  bool   // APTPL: keep registrations over power loss
	SpecInitiator bool   // SPEC_I_PT: a list of initiator ports follows
}

// Append adds the encoded list to dst.
func (l PROutList) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, l.Key)
	dst = binary.BigEndian.AppendUint64(dst, l.ServiceKey)
	return append(dst, 0, 0, 0, 0, bit(l.SpecInitiator, 3)|bit(l.AllPorts, 2)|bit(l.PersistPower, 0), 0, 0, 0)
}

// ParsePROutList decodes the basic parameter list.
func ParsePROutList(b []byte) (PROutList, error) {
	if len(b) < PROutLength {
		return PROutList{}, short("PERSISTENT RESERVE OUT list", len(b), PROutLength)
	}
	return PROutList{
		Key:           binary.BigEndian.Uint64(b),
		ServiceKey:    binary.BigEndian.Uint64(b[8:]),
		SpecInitiator: b[20]&0x08 != 0,
		AllPorts:      b[20]&0x04 != 0,
		PersistPower:  b[20]&0x01 != 0,
	}, nil
}

// PRKeys is the answer to READ KEYS (SPC-5 §6.16.2).
type PRKeys struct {
	Generation uint32   // counts every change of the registrations
	Keys       []uint64 // one for each registered nexus, so doubles occur
}

// prBody checks the header that all answers of PERSISTENT RESERVE IN but one
// share, and returns generation, announced length and contents.
func prBody(b []byte, what string) (gen uint32, n uint64, body []byte, err error) {
	if len(b) < 8 {
		return 0, 0, nil, short(what, len(b), 8)
	}
	n = uint64(binary.BigEndian.Uint32(b[4:]))
	if body = b[8:]; uint64(len(body)) > n {
		body = body[:n]
	}
	return binary.BigEndian.Uint32(b), n, body, nil
}

// PRInLength returns the whole length of an answer to READ KEYS, READ
// RESERVATION or READ FULL STATUS of which b is the beginning, 0 if that is
// too short to tell.
func PRInLength(b []byte) uint64 {
	_, n, _, err := prBody(b, "")
	if err != nil {
		return 0
	}
	return 8 + n
}

// ParsePRKeys decodes the answer to READ KEYS.
func ParsePRKeys(b []byte) (PRKeys, error) {
	gen, _, b, err := prBody(b, "READ KEYS data")
	if err != nil {
		return PRKeys{}, err
	}
	k := PRKeys{Generation: gen, Keys: make([]uint64, 0, len(b)/8)}
	for ; len(b) >= 8; b = b[8:] {
		k.Keys = append(k.Keys, binary.BigEndian.Uint64(b))
	}
	return k, nil
}

// Append adds the encoded answer to dst.
func (k PRKeys) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, k.Generation)
	dst = binary.BigEndian.AppendUint32(dst, uint32(8*len(k.Keys)))
	for _, key := range k.Keys {
		dst = binary.BigEndian.AppendUint64(dst, key)
	}
	return dst
}

// PRReservation is the answer to READ RESERVATION (SPC-5 §6.16.3).
type PRReservation struct {
	Generation uint32 // PRGENERATION: grows with each change of the registrations
	Held       bool   // there is a reservation; else the rest is zero
	Key        uint64 // key of the holder, 0 for the all-registrants types
	Type       ReservationType
	Scope      uint8 // 0: the logical unit
}

// ParsePRReservation decodes the answer to READ RESERVATION.
func ParsePRReservation(b []byte) (PRReservation, error) {
	const what = "READ RESERVATION data"
	gen, n, b, err := prBody(b, what)
	if err != nil {
		return PRReservation{}, err
	}
	r := PRReservation{Generation: gen}
	if n == 0 {
		return r, nil
	}
	if len(b) < 16 {
		return PRReservation{}, short(what, len(b)+8, 24)
	}
	r.Held = true
	r.Key = binary.BigEndian.Uint64(b)
	r.Scope, r.Type = b[13]>>4, ReservationType(b[13]&0xf)
	return r, nil
}

// Append adds the encoded answer to dst.
func (r PRReservation) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, r.Generation)
	if !r.Held {
		return append(dst, 0, 0, 0, 0)
	}
	dst = append(dst, 0, 0, 0, 16)
	dst = binary.BigEndian.AppendUint64(dst, r.Key)
	return append(dst, 0, 0, 0, 0, 0, r.Scope<<4|byte(r.Type&0xf), 0, 0)
}
