package initiator

import (
	"slices"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A result is how the outcome of a negotiated key follows from both values (RFC
// 7143 section 6.2).
type result uint8

const (
	resultMin  result = iota // the lower number
	resultMax                // the higher number
	resultAnd                // Yes if both say so
	resultOr                 // Yes if one says so
	resultList               // the target's pick, one of ours
	resultUpTo               // a number not above ours
	resultNo                 // an obsolete option that nobody may want
)

// A keyRule is how we negotiate one operational key.
type keyRule struct {
	key      string
	result   result
	min, max uint64 // of numbers
	// normal: the key has no meaning in a discovery session.
	normal bool
	// conn: the key is about a connection; all others are negotiated for the
	// session, by its leading connection.
	conn bool
}

// operational are the negotiated keys in the order in which open-iscsi offers
// them. MaxRecvDataSegmentLength, which each side declares for itself, follows.
var operational = [...]keyRule{
	{key: pdu.KeyHeaderDigest, result: resultList, conn: true},
	{key: pdu.KeyDataDigest, result: resultList, conn: true},
	{key: pdu.KeyDefaultTime2Wait, result: resultMax, max: 3600},
	{key: pdu.KeyDefaultTime2Retain, result: resultMin, max: 3600},
	{key: pdu.KeyIFMarker, result: resultNo},
	{key: pdu.KeyOFMarker, result: resultNo},
	{key: pdu.KeyErrorRecoveryLevel, result: resultUpTo, max: 2},
	{key: pdu.KeyInitialR2T, result: resultOr, normal: true},
	{key: pdu.KeyImmediateData, result: resultAnd, normal: true},
	{key: pdu.KeyMaxBurstLength, result: resultMin, min: minSegment, max: maxSegment, normal: true},
	{key: pdu.KeyFirstBurstLength, result: resultMin, min: minSegment, max: maxSegment, normal: true},
	{key: pdu.KeyMaxOutstandingR2T, result: resultMin, min: 1, max: maxR2T, normal: true},
	{key: pdu.KeyMaxConnections, result: resultUpTo, min: 1, max: 65535, normal: true},
	{key: pdu.KeyDataPDUInOrder, result: resultOr, normal: true},
	{key: pdu.KeyDataSequenceInOrder, result: resultOr, normal: true},
}

// A negotiation is the operational part of one login. Used by one goroutine.
type negotiation struct {
	offered   map[string]string // what we offered; nothing before offers was called
	answered  map[string]string // the outcome of what was answered
	refused   map[string]string // the answer, where it was a refusal
	discovery bool
	session   *Params // what was agreed on for the session that the connection joins; nil: it makes one

	own Params // what we offer

	// What the target declared.
	targetMaxRecv int
	recvDeclared  bool // targetMaxRecv is not the default
	targetAlias   string
	targetAddress string
	tpgt          int
}

func newNegotiation(p Params, discovery bool) *negotiation {
	return &negotiation{
		own:           p,
		discovery:     discovery,
		offered:       make(map[string]string),
		answered:      make(map[string]string),
		refused:       make(map[string]string),
		targetMaxRecv: 8192, // RFC 7143 section 13.12
		tpgt:          UnknownTPGT,
	}
}

// value returns our value of a key.
func (n *negotiation) value(key string) string {
	num := func(v int) string { return pdu.FormatNumber(uint64(v)) }
	switch key {
	case pdu.KeyHeaderDigest:
		return digestList(n.own.HeaderDigest)
	case pdu.KeyDataDigest:
		return digestList(n.own.DataDigest)
	case pdu.KeyDefaultTime2Wait:
		return num(int(n.own.DefaultTime2Wait / time.Second))
	case pdu.KeyDefaultTime2Retain:
		return num(int(n.own.DefaultTime2Retain / time.Second))
	case pdu.KeyIFMarker, pdu.KeyOFMarker:
		return pdu.ValueNo
	case pdu.KeyErrorRecoveryLevel:
		return num(n.own.ErrorRecoveryLevel)
	case pdu.KeyInitialR2T:
		return pdu.FormatBool(n.own.InitialR2T)
	case pdu.KeyImmediateData:
		return pdu.FormatBool(!n.own.NoImmediateData)
	case pdu.KeyMaxBurstLength:
		return num(n.own.MaxBurstLength)
	case pdu.KeyFirstBurstLength:
		return num(n.own.FirstBurstLength)
	case pdu.KeyMaxOutstandingR2T:
		return num(n.own.MaxOutstandingR2T)
	case pdu.KeyMaxConnections:
		return num(n.own.MaxConnections)
	case pdu.KeyDataPDUInOrder:
		return pdu.FormatBool(!n.own.UnorderedPDUs)
	case pdu.KeyDataSequenceInOrder:
		return pdu.FormatBool(!n.own.UnorderedSequences)
	}
	return ""
}

func digestList(list []Digest) string {
	names := make([]string, len(list))
	for i, d := range list {
		names[i] = d.String()
	}
	return pdu.FormatList(names...)
}

// offers returns the keys with which the operational stage begins.
func (n *negotiation) offers() []pdu.KeyValue {
	var out []pdu.KeyValue
	for _, r := range operational {
		if r.normal && n.discovery || !r.conn && n.session != nil {
			continue
		}
		v := n.value(r.key)
		n.offered[r.key] = v
		out = append(out, pdu.KeyValue{Key: r.key, Value: v})
	}
	return append(out, pdu.KeyValue{
		Key:   pdu.KeyMaxRecvDataSegmentLength,
		Value: pdu.FormatNumber(uint64(n.own.MaxRecvDataSegmentLength)),
	})
}

// declared takes a key that the target declares at any stage and reports
// whether key is one.
func (n *negotiation) declared(kv pdu.KeyValue) (bool, error) {
	switch kv.Key {
	case pdu.KeyTargetAlias:
		n.targetAlias = printable(kv.Value)
	case pdu.KeyTargetAddress:
		n.targetAddress = kv.Value
	case pdu.KeyTargetPortalGroupTag:
		v, err := pdu.ParseNumber(kv.Value)
		if err != nil || v > 65535 {
			return true, protocolErrorf("%s=%q", kv.Key, kv.Value)
		}
		if n.tpgt != UnknownTPGT && n.tpgt != int(v) {
			return true, protocolErrorf("%s declared as %d and as %d", kv.Key, n.tpgt, v)
		}
		n.tpgt = int(v)
	default:
		return false, nil
	}
	return true, nil
}

// receive takes the keys of an answer in the operational stage and returns what
// must be said to them.
func (n *negotiation) receive(kvs []pdu.KeyValue) (reply []pdu.KeyValue, err error) {
	for _, kv := range kvs {
		if ok, err := n.declared(kv); err != nil {
			return nil, err
		} else if ok {
			continue
		}
		if kv.Key == pdu.KeyMaxRecvDataSegmentLength {
			if err := n.declareMaxRecv(kv.Value); err != nil {
				return nil, err
			}
			continue
		}
		r := ruleOf(kv.Key)
		_, asked := n.offered[kv.Key]
		switch {
		case r != nil && asked:
			if _, again := n.answered[kv.Key]; again {
				// RFC 7143 section 6.3: no key is negotiated twice.
				return nil, protocolErrorf("%s negotiated twice", kv.Key)
			}
			v, err := r.outcome(n.offered[kv.Key], kv.Value)
			if err != nil {
				return nil, err
			}
			n.answered[kv.Key] = v
			if isRefusal(kv.Value) {
				n.refused[kv.Key] = kv.Value
			}
		case isRefusal(kv.Value):
			// An answer to what we never said; there is nothing to answer.
		case r != nil:
			reply = append(reply, pdu.KeyValue{Key: kv.Key, Value: pdu.ValueIrrelevant})
		case kv.Key == pdu.KeyInitiatorName || kv.Key == pdu.KeyInitiatorAlias || kv.Key == pdu.KeyTargetName ||
			kv.Key == pdu.KeySessionType || kv.Key == pdu.KeySendTargets || kv.Key == pdu.KeyAuthMethod:
			return nil, protocolErrorf("the target must not send %s", kv.Key)
		default:
			if v := n.respond(kv); v != "" {
				reply = append(reply, pdu.KeyValue{Key: kv.Key, Value: v})
			}
		}
	}
	return reply, nil
}

// respond returns our answer to a key that the target proposes and that we never
// offer ourselves; "" is none.
func (n *negotiation) respond(kv pdu.KeyValue) string {
	switch kv.Key {
	case "IFMarkInt", "OFMarkInt":
		return pdu.ValueReject // RFC 7143 section 13.25; NotUnderstood is forbidden
	case "X#NodeArchitecture":
		return "" // a declaration, RFC 7143 section 13.26
	case "TaskReporting": // RFC 7143 section 13.23
		if n.discovery {
			return pdu.ValueIrrelevant
		}
		if slices.Contains(strings.Split(kv.Value, ","), taskReporting) {
			return taskReporting
		}
		return pdu.ValueReject
	}
	return pdu.ValueNotUnderstood
}

// taskReporting is the one value of TaskReporting that we work by.
const taskReporting = "RFC3720"

func (n *negotiation) declareMaxRecv(value string) error {
	if isRefusal(value) {
		return nil
	}
	v, err := pdu.ParseNumber(value)
	if err != nil || v < minSegment || v > maxSegment {
		return protocolErrorf("%s=%q", pdu.KeyMaxRecvDataSegmentLength, value)
	}
	if n.recvDeclared {
		// RFC 7143 section 6.3: no key is declared twice.
		return protocolErrorf("%s declared twice", pdu.KeyMaxRecvDataSegmentLength)
	}
	n.targetMaxRecv, n.recvDeclared = int(v), true
	return nil
}

func ruleOf(key string) *keyRule {
	for i := range operational {
		if operational[i].key == key {
			return &operational[i]
		}
	}
	return nil
}

// isRefusal reports whether a value says that a key was not negotiated.
func isRefusal(v string) bool {
	return v == pdu.ValueNotUnderstood || v == pdu.ValueIrrelevant || v == pdu.ValueReject
}

// outcome returns what follows from our offer and the target's answer; "" means
// the default of the RFC.
func (r *keyRule) outcome(ours, theirs string) (string, error) {
	if isRefusal(theirs) {
		return "", nil
	}
	bad := func() (string, error) { return "", protocolErrorf("%s=%q in answer to %q", r.key, theirs, ours) }
	switch r.result {
	case resultAnd, resultOr:
		b, err := pdu.ParseBool(theirs)
		if err != nil {
			return bad()
		}
		mine := ours == pdu.ValueYes
		if r.result == resultAnd {
			return pdu.FormatBool(mine && b), nil
		}
		return pdu.FormatBool(mine || b), nil
	case resultMin, resultMax:
		v, err := pdu.ParseNumber(theirs)
		if err != nil || v < r.min || v > r.max {
			return bad()
		}
		// A target that answers outside of our offer is taken at the value
		// that the rule gives, as open-iscsi does.
		mine, _ := pdu.ParseNumber(ours)
		if r.result == resultMin {
			return pdu.FormatNumber(min(mine, v)), nil
		}
		return pdu.FormatNumber(max(mine, v)), nil
	case resultList:
		for _, o := range strings.Split(ours, ",") {
			if o == theirs {
				return theirs, nil
			}
		}
		if theirs == DigestNone.String() || theirs == DigestCRC32C.String() {
			return "", &digestError{r.key, ours, theirs}
		}
	case resultUpTo:
		// More than we offered is more than we can do.
		mine, _ := pdu.ParseNumber(ours)
		if v, err := pdu.ParseNumber(theirs); err == nil && v >= r.min && v <= mine {
			return pdu.FormatNumber(v), nil
		}
	case resultNo:
		if theirs == pdu.ValueNo {
			return theirs, nil
		}
	}
	return bad()
}

// rfcDefaults are the values of keys that were not negotiated (RFC 7143 section
// 13), where they do not go beyond what we offered.
var rfcDefaults = Params{
	HeaderDigest:       []Digest{DigestNone},
	DataDigest:         []Digest{DigestNone},
	InitialR2T:         true,
	FirstBurstLength:   65536,
	MaxBurstLength:     262144,
	MaxOutstandingR2T:  1,
	MaxConnections:     1,
	DefaultTime2Wait:   2 * time.Second,
	DefaultTime2Retain: 20 * time.Second,
}

// finish returns the parameters that were agreed on.
func (n *negotiation) finish() Params {
	p := rfcDefaults
	// Without an answer the more careful of default and offer counts.
	p.FirstBurstLength = min(p.FirstBurstLength, n.own.FirstBurstLength)
	p.MaxBurstLength = min(p.MaxBurstLength, n.own.MaxBurstLength)
	p.NoImmediateData = n.own.NoImmediateData
	p.DefaultTime2Wait = max(p.DefaultTime2Wait, n.own.DefaultTime2Wait)

	num := func(key string, set func(int)) {
		if v := n.answered[key]; v != "" {
			i, _ := pdu.ParseNumber(v)
			set(int(i))
		}
	}
	yes := func(key string, set func(bool)) {
		if v := n.answered[key]; v != "" {
			set(v == pdu.ValueYes)
		}
	}
	digest := func(key string, d *[]Digest) {
		if n.answered[key] == DigestCRC32C.String() {
			*d = []Digest{DigestCRC32C}
		}
	}
	digest(pdu.KeyHeaderDigest, &p.HeaderDigest)
	digest(pdu.KeyDataDigest, &p.DataDigest)
	num(pdu.KeyDefaultTime2Wait, func(v int) { p.DefaultTime2Wait = time.Duration(v) * time.Second })
	num(pdu.KeyDefaultTime2Retain, func(v int) { p.DefaultTime2Retain = time.Duration(v) * time.Second })
	yes(pdu.KeyInitialR2T, func(v bool) { p.InitialR2T = v })
	yes(pdu.KeyImmediateData, func(v bool) { p.NoImmediateData = !v })
	num(pdu.KeyMaxBurstLength, func(v int) { p.MaxBurstLength = v })
	num(pdu.KeyFirstBurstLength, func(v int) { p.FirstBurstLength = v })
	num(pdu.KeyMaxOutstandingR2T, func(v int) { p.MaxOutstandingR2T = v })
	num(pdu.KeyMaxConnections, func(v int) { p.MaxConnections = v })
	num(pdu.KeyErrorRecoveryLevel, func(v int) { p.ErrorRecoveryLevel = v })
	yes(pdu.KeyDataPDUInOrder, func(v bool) { p.UnorderedPDUs = !v })
	yes(pdu.KeyDataSequenceInOrder, func(v bool) { p.UnorderedSequences = !v })
	p.FirstBurstLength = min(p.FirstBurstLength, p.MaxBurstLength)
	if n.session != nil {
		own := p
		p = *n.session
		p.HeaderDigest, p.DataDigest = own.HeaderDigest, own.DataDigest
	}

	p.MaxRecvDataSegmentLength = n.own.MaxRecvDataSegmentLength
	p.MaxXmitDataSegmentLength = n.targetMaxRecv
	if limit := n.own.MaxXmitDataSegmentLength; limit != 0 {
		p.MaxXmitDataSegmentLength = min(p.MaxXmitDataSegmentLength, limit)
	}
	return p
}

// printable returns s without characters that could do harm on a terminal or
// in a log, and not longer than a name.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
	if len(s) > 255 {
		s = strings.ToValidUTF8(s[:255], "")
	}
	return s
}
