package initiator

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A Digest is a checksum over headers or data (RFC 7143 section 13.1).
type Digest uint8

// The digests of RFC 7143.
const (
	DigestNone Digest = iota
	DigestCRC32C
)

// String returns the digest's name in negotiation.
func (d Digest) String() string {
	switch d {
	case DigestNone:
		return pdu.ValueNone
	case DigestCRC32C:
		return pdu.ValueCRC32C
	}
	return fmt.Sprintf("digest %d", uint8(d))
}

// Limits of the numeric parameters in bytes (RFC 7143 section 13).
const (
	minSegment = 512
	maxSegment = 1<<24 - 1
	// lengthMask rounds lengths down to whole words, as open-iscsi does.
	lengthMask = ^3
	// maxTime2 is the largest DefaultTime2Wait and DefaultTime2Retain.
	maxTime2 = 3600 * time.Second
	// maxR2T is the largest MaxOutstandingR2T.
	maxR2T = 65535
	// groupWait is the least time that a target gets to take several connections
	// down before the session is made anew.
	groupWait = 5 * time.Second
	// maxConnections is the most connections that a session may have. More
	// than that gains nothing.
	maxConnections = 32
	// maxRecoveryLevel is the highest ErrorRecoveryLevel that we know.
	maxRecoveryLevel = 2
	// levelTwoRetain is DefaultTime2Retain on error recovery level 2, the default
	// of RFC 7143.
	levelTwoRetain = 20 * time.Second
)

// Params are the operational parameters of a session and its connection (RFC
// 7143 section 13). In a Config they are what we offer, and zero means the
// default given here; in Info they are what was agreed on.
type Params struct {
	// HeaderDigest and DataDigest are the digests that we accept, most wanted
	// first. Nil means None alone. Negotiated: the one in use.
	HeaderDigest, DataDigest []Digest

	// InitialR2T asks the target to have R2T for all data that is not
	// immediate. Default no.
	InitialR2T bool

	// NoImmediateData refuses data in the SCSI Command PDU. Default: data may
	// be there.
	NoImmediateData bool

	// FirstBurstLength is how many bytes of a command are sent unasked, in the
	// command and after it. 512 to 16777215, default 262144. At most
	// MaxBurstLength.
	FirstBurstLength int

	// MaxBurstLength bounds what one R2T asks for, in bytes. 512 to 16777215,
	// default 16776192.
	MaxBurstLength int

	// MaxRecvDataSegmentLength is the longest data segment that we receive, in
	// bytes. 512 to 16777215, default 262144.
	MaxRecvDataSegmentLength int

	// MaxXmitDataSegmentLength is the longest data segment that we send, in
	// bytes. Zero, the default: as long as the target takes. Negotiated: the
	// lower of both.
	MaxXmitDataSegmentLength int

	// MaxOutstandingR2T is how many R2Ts a task may have at a time. 1 to
	// 65535, default 1.
	MaxOutstandingR2T int

	// DefaultTime2Wait is how long to wait after the loss of a connection
	// before the next login, or before the target is asked to close it; whole seconds up to an hour, the larger offer
	// counts. Default 2 s; Immediately offers zero.
	DefaultTime2Wait time.Duration

	// DefaultTime2Retain is how long after that the target keeps tasks for
	// reassignment, which only error recovery level 2 uses; whole seconds.
	// Default 0, on level 2 20 s.
	DefaultTime2Retain time.Duration

	// ErrorRecoveryLevel is the highest error recovery level that we offer
	// (RFC 7143 section 13.20). Default 0: every fault of the connection is the
	// end of it, and recovery is a new login. On level 1 PDUs that were damaged
	// or lost are sent again within the connection. On level 2 the tasks of a lost
	// connection go on, where they were, on another or a new one. 0 to 2.
	ErrorRecoveryLevel int

	// MaxConnections is how many connections the session shall have, 1 to 32;
	// default 1. Commands are spread over them. The target may agree to fewer,
	// and may refuse to take part in what it agreed to; Info tells how many there
	// are. All go to the same portal. The session goes on when one is lost, and
	// gets it back. When a session that had several is made anew after all, at
	// least 5 s are waited first, unless DefaultTime2Wait is Immediately: the
	// kernel's target (LIO, seen with Linux 6.1) crashes when it is still taking
	// the old connections down.
	MaxConnections int

	// UnorderedPDUs and UnorderedSequences offer DataPDUInOrder=No and
	// DataSequenceInOrder=No. Default: in order.
	UnorderedPDUs, UnorderedSequences bool
}

// withDefaults returns the parameters to offer.
func (p Params) withDefaults(log *slog.Logger) (Params, error) {
	var err error
	if p.HeaderDigest, err = checkDigests("HeaderDigest", p.HeaderDigest); err != nil {
		return p, err
	}
	if p.DataDigest, err = checkDigests("DataDigest", p.DataDigest); err != nil {
		return p, err
	}
	length := func(name string, v *int, def int) {
		switch {
		case *v == 0:
			*v = def
		case *v < minSegment || *v > maxSegment:
			log.Warn("value out of range", "parameter", name, "value", *v, "min", minSegment, "max", maxSegment, "using", def)
			*v = def
		}
		*v &= lengthMask
	}
	length("FirstBurstLength", &p.FirstBurstLength, 262144)
	length("MaxBurstLength", &p.MaxBurstLength, 16776192)
	length("MaxRecvDataSegmentLength", &p.MaxRecvDataSegmentLength, 262144)
	if p.MaxXmitDataSegmentLength != 0 {
		length("MaxXmitDataSegmentLength", &p.MaxXmitDataSegmentLength, 262144)
	}
	if p.FirstBurstLength > p.MaxBurstLength {
		log.Warn("FirstBurstLength above MaxBurstLength", "first", p.FirstBurstLength, "using", p.MaxBurstLength)
		p.FirstBurstLength = p.MaxBurstLength
	}
	if p.MaxOutstandingR2T == 0 {
		p.MaxOutstandingR2T = 1
	}
	if p.MaxOutstandingR2T < 1 || p.MaxOutstandingR2T > maxR2T {
		log.Warn("value out of range", "parameter", "MaxOutstandingR2T", "value", p.MaxOutstandingR2T, "using", 1)
		p.MaxOutstandingR2T = 1
	}
	if p.DefaultTime2Wait == 0 {
		p.DefaultTime2Wait = 2 * time.Second
	}
	if p.MaxConnections == 0 {
		p.MaxConnections = 1
	}
	if n := min(max(p.MaxConnections, 1), maxConnections); n != p.MaxConnections {
		log.Warn("value out of range", "parameter", "MaxConnections", "value", p.MaxConnections, "using", n)
		p.MaxConnections = n
	}
	if p.ErrorRecoveryLevel < 0 || p.ErrorRecoveryLevel > maxRecoveryLevel {
		level := min(max(p.ErrorRecoveryLevel, 0), maxRecoveryLevel)
		log.Warn("value out of range", "parameter", "ErrorRecoveryLevel", "value", p.ErrorRecoveryLevel, "using", level)
		p.ErrorRecoveryLevel = level
	}
	if p.ErrorRecoveryLevel == 2 && p.DefaultTime2Retain == 0 {
		p.DefaultTime2Retain = levelTwoRetain
	}
	p.DefaultTime2Wait = min(max(p.DefaultTime2Wait, 0), maxTime2).Truncate(time.Second)
	p.DefaultTime2Retain = min(max(p.DefaultTime2Retain, 0), maxTime2).Truncate(time.Second)
	return p, nil
}

func checkDigests(field string, list []Digest) ([]Digest, error) {
	if len(list) == 0 {
		return []Digest{DigestNone}, nil
	}
	for i, d := range list {
		if d > DigestCRC32C {
			return nil, &ConfigError{Field: field, Reason: "unknown " + d.String()}
		}
		for _, e := range list[:i] {
			if d == e {
				return nil, &ConfigError{Field: field, Reason: d.String() + " given twice"}
			}
		}
	}
	return list, nil
}

// uses reports whether a negotiated digest is CRC32C.
func uses(list []Digest) bool { return len(list) == 1 && list[0] == DigestCRC32C }
