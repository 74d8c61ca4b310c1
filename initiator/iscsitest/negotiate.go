package iscsitest

import (
	"slices"

	"github.com/goiscsi/goiscsi/pdu"
)

// Negotiated are the operational parameters of a session.
type Negotiated struct {
	HeaderDigest, DataDigest  bool // CRC32C
	InitialR2T, ImmediateData bool // Yes or No
	// MaxRecvDataSegmentLength is the initiator's, in bytes.
	MaxRecvDataSegmentLength uint32
	MaxBurstLength           uint32
	FirstBurstLength         uint32
	DefaultTime2Wait         uint32
	DefaultTime2Retain       uint32
	MaxOutstandingR2T        uint32
	ErrorRecoveryLevel       uint32
	MaxConnections           uint32
}

// defaultNegotiated are the values of keys that are not negotiated.
func defaultNegotiated() Negotiated {
	return Negotiated{
		InitialR2T: true, ImmediateData: true, MaxRecvDataSegmentLength: 8192,
		MaxBurstLength: 262144, FirstBurstLength: 65536,
		DefaultTime2Wait: 2, DefaultTime2Retain: 20, MaxOutstandingR2T: 1, MaxConnections: 1,
	}
}

// A keyKind says what values a key has and how the result is found.
type keyKind uint8

const (
	kindDigest  keyKind = iota // list, first common value
	kindAnd                    // boolean
	kindOr                     // boolean
	kindMin                    // number
	kindMax                    // number
	kindDeclare                // number, no answer
)

// An opKey is an operational key.
type opKey struct {
	name      string
	kind      keyKind
	low, high uint64
	// normal says that the key is irrelevant to discovery sessions.
	normal bool
	// limit returns our value of a number or boolean (1 for Yes).
	limit func(p *Params) uint64
	// digests returns the values we accept.
	digests func(p *Params) []string
	// set takes the result.
	set func(n *Negotiated, v uint64)
}

const maxSegment = pdu.MaxDataSegmentLength

func constant(v uint64) func(*Params) uint64 { return func(*Params) uint64 { return v } }

// ignore is for keys whose result is the same always.
func ignore(*Negotiated, uint64) {}

func truth(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// opKeys is the table of operational keys, never written.
var opKeys = []opKey{
	{
		name: pdu.KeyHeaderDigest, kind: kindDigest, digests: func(p *Params) []string { return p.HeaderDigest },
		set: func(n *Negotiated, v uint64) { n.HeaderDigest = v != 0 },
	},
	{
		name: pdu.KeyDataDigest, kind: kindDigest, digests: func(p *Params) []string { return p.DataDigest },
		set: func(n *Negotiated, v uint64) { n.DataDigest = v != 0 },
	},
	{
		name: pdu.KeyMaxConnections, kind: kindMin, low: 1, high: 65535, normal: true,
		limit: func(p *Params) uint64 { return uint64(p.MaxConnections) },
		set:   func(n *Negotiated, v uint64) { n.MaxConnections = uint32(v) },
	},
	{
		name: pdu.KeyInitialR2T, kind: kindOr, normal: true, limit: func(p *Params) uint64 { return truth(p.InitialR2T) },
		set: func(n *Negotiated, v uint64) { n.InitialR2T = v != 0 },
	},
	{
		name: pdu.KeyImmediateData, kind: kindAnd, normal: true, limit: func(p *Params) uint64 { return truth(!p.NoImmediateData) },
		set: func(n *Negotiated, v uint64) { n.ImmediateData = v != 0 },
	},
	{
		name: pdu.KeyMaxRecvDataSegmentLength, kind: kindDeclare, low: 512, high: maxSegment,
		set: func(n *Negotiated, v uint64) { n.MaxRecvDataSegmentLength = uint32(v) },
	},
	{
		name: pdu.KeyMaxBurstLength, kind: kindMin, low: 512, high: maxSegment, normal: true,
		limit: func(p *Params) uint64 { return uint64(p.MaxBurstLength) },
		set:   func(n *Negotiated, v uint64) { n.MaxBurstLength = uint32(v) },
	},
	{
		name: pdu.KeyFirstBurstLength, kind: kindMin, low: 512, high: maxSegment, normal: true,
		limit: func(p *Params) uint64 { return uint64(p.FirstBurstLength) },
		set:   func(n *Negotiated, v uint64) { n.FirstBurstLength = uint32(v) },
	},
	{
		name: pdu.KeyDefaultTime2Wait, kind: kindMax, high: 3600, limit: func(p *Params) uint64 { return uint64(p.DefaultTime2Wait) },
		set: func(n *Negotiated, v uint64) { n.DefaultTime2Wait = uint32(v) },
	},
	{
		name: pdu.KeyDefaultTime2Retain, kind: kindMin, high: 3600, limit: func(p *Params) uint64 { return uint64(p.DefaultTime2Retain) },
		set: func(n *Negotiated, v uint64) { n.DefaultTime2Retain = uint32(v) },
	},
	{
		name: pdu.KeyMaxOutstandingR2T, kind: kindMin, low: 1, high: 65535, normal: true,
		limit: func(p *Params) uint64 { return uint64(p.MaxOutstandingR2T) },
		set:   func(n *Negotiated, v uint64) { n.MaxOutstandingR2T = uint32(v) },
	},
	{name: pdu.KeyDataPDUInOrder, kind: kindOr, normal: true, limit: constant(1), set: ignore},
	{name: pdu.KeyDataSequenceInOrder, kind: kindOr, normal: true, limit: constant(1), set: ignore},
	{
		name: pdu.KeyErrorRecoveryLevel, kind: kindMin, high: 2, limit: func(p *Params) uint64 { return uint64(p.ErrorRecoveryLevel) },
		set: func(n *Negotiated, v uint64) { n.ErrorRecoveryLevel = uint32(v) },
	},
}

func findOpKey(name string) *opKey {
	i := slices.IndexFunc(opKeys, func(k opKey) bool { return k.name == name })
	if i < 0 {
		return nil
	}
	return &opKeys[i]
}

// negotiate answers one operational key with the result of the negotiation.
// The answer is false for declarations; bad says what is wrong with the
// offer, which is then rejected.
func (k *opKey) negotiate(p *Params, offer string, discovery bool, n *Negotiated) (answer string, ok bool, bad string) {
	if discovery && k.normal {
		return pdu.ValueIrrelevant, true, ""
	}
	switch k.kind {
	case kindDigest:
		list, err := pdu.ParseList(offer)
		if err != nil {
			return pdu.ValueReject, true, err.Error()
		}
		for _, v := range list {
			if slices.Contains(k.digests(p), v) {
				k.set(n, truth(v == pdu.ValueCRC32C))
				return v, true, ""
			}
		}
		return pdu.ValueReject, true, ""
	case kindAnd, kindOr:
		b, err := pdu.ParseBool(offer)
		if err != nil {
			return pdu.ValueReject, true, err.Error()
		}
		v := truth(b) & k.limit(p)
		if k.kind == kindOr {
			v = truth(b) | k.limit(p)
		}
		k.set(n, v)
		return pdu.FormatBool(v != 0), true, ""
	}
	v, err := pdu.ParseNumber(offer)
	if err != nil {
		return pdu.ValueReject, true, err.Error()
	}
	if v < k.low || v > k.high {
		return pdu.ValueReject, true, "value is out of range"
	}
	switch k.kind {
	case kindDeclare:
		k.set(n, v)
		return "", false, ""
	case kindMin:
		v = min(v, k.limit(p))
	case kindMax:
		v = max(v, k.limit(p))
	}
	k.set(n, v)
	return pdu.FormatNumber(v), true, ""
}
