package chap

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"github.com/goiscsi/goiscsi/pdu"
)

// Text keys of CHAP.
const (
	KeyAlgorithm  = "CHAP_A"
	KeyIdentifier = "CHAP_I"
	KeyChallenge  = "CHAP_C"
	KeyName       = "CHAP_N"
	KeyResponse   = "CHAP_R"
)

// maxChallenge is the longest challenge in bytes (RFC 7143 section 12.1.3).
const maxChallenge = 1024

// maxName is the longest name in bytes (RFC 7143 section 6.1).
const maxName = 255

// ErrTarget is found in the errors about a target that could not prove who it is.
var ErrTarget = errors.New("target failed to authenticate itself")

// ErrProtocol is found in the errors about keys that are missing, repeated, out
// of order or malformed.
var ErrProtocol = errors.New("invalid chap exchange")

// Credentials are the names and secrets of both ends.
type Credentials struct {
	Name, Secret             string // ours
	TargetName, TargetSecret string // the target's; a secret asks for mutual authentication
}

func (c *Credentials) mutual() bool { return c.TargetSecret != "" }

type state uint8

const (
	stateOffered   state = iota // CHAP_A sent
	stateResponded              // CHAP_N and CHAP_R sent
	stateDone
)

// An Initiator is our end of one authentication.
type Initiator struct {
	cred    Credentials
	offered []Algorithm
	history *History

	state     state
	algorithm Algorithm
	id        byte   // of our challenge
	challenge []byte // ours
}

// New begins an authentication with the given algorithms, most wanted first. The
// history remembers our challenges over several authentications; nil is none. The
// caller ends it with End.
func New(cred Credentials, offered []Algorithm, history *History) *Initiator {
	return &Initiator{cred: cred, offered: offered, history: history}
}

// Offer returns the keys of our first message.
func (c *Initiator) Offer() []pdu.KeyValue {
	list := make([]string, len(c.offered))
	for i, a := range c.offered {
		list[i] = pdu.FormatNumber(uint64(a))
	}
	return []pdu.KeyValue{{Key: KeyAlgorithm, Value: pdu.FormatList(list...)}}
}

// Final reports whether the next message of ours is the last: with it the
// initiator may ask to leave the security stage.
func (c *Initiator) Final() bool { return c.state != stateOffered }

// Done reports whether the authentication succeeded.
func (c *Initiator) Done() bool { return c.state == stateDone }

// End ends the authentication, whatever came of it.
func (c *Initiator) End() {
	if c.challenge != nil {
		c.history.end(c.challenge)
		c.challenge = nil
	}
}

// Next takes the CHAP keys of a message of the target, other keys are skipped,
// and returns those of our answer. Errors wrap ErrTarget or ErrProtocol.
func (c *Initiator) Next(in []pdu.KeyValue) ([]pdu.KeyValue, error) {
	keys, err := collect(in)
	if err != nil {
		return nil, err
	}
	switch c.state {
	case stateOffered:
		return c.respond(keys)
	case stateResponded:
		return nil, c.verify(keys)
	}
	if len(keys) > 0 {
		return nil, protocolErrorf("keys after the end")
	}
	return nil, nil
}

// collect returns the CHAP keys of a message; none may be there twice.
func collect(in []pdu.KeyValue) (map[string]string, error) {
	keys := make(map[string]string, 4)
	for _, kv := range in {
		if !strings.HasPrefix(kv.Key, "CHAP_") {
			continue
		}
		if _, dup := keys[kv.Key]; dup {
			return nil, protocolErrorf("%s repeated", kv.Key)
		}
		keys[kv.Key] = kv.Value
	}
	return keys, nil
}

// expect checks that keys are exactly those wanted.
func expect(keys map[string]string, want ...string) error {
	for _, k := range want {
		if _, ok := keys[k]; !ok {
			return protocolErrorf("%s missing", k)
		}
	}
	if len(keys) != len(want) {
		return protocolErrorf("unexpected key")
	}
	return nil
}

// respond answers the target's challenge.
func (c *Initiator) respond(keys map[string]string) ([]pdu.KeyValue, error) {
	if err := expect(keys, KeyAlgorithm, KeyIdentifier, KeyChallenge); err != nil {
		return nil, err
	}
	n, err := pdu.ParseNumber(keys[KeyAlgorithm])
	if err != nil || !c.offers(n) {
		return nil, protocolErrorf("%s is none of those offered", KeyAlgorithm)
	}
	c.algorithm = Algorithm(n)
	id, err := pdu.ParseNumber(keys[KeyIdentifier])
	if err != nil || id > 255 {
		return nil, protocolErrorf("%s is not a number from 0 to 255", KeyIdentifier)
	}
	challenge, err := pdu.ParseBinary(keys[KeyChallenge], maxChallenge)
	if err != nil || len(challenge) == 0 {
		return nil, protocolErrorf("%s is not binary data of 1 to %d bytes", KeyChallenge, maxChallenge)
	}
	if c.history.issued(challenge) {
		// Somebody sends our own challenge back in the hope that we answer it
		// for them (RFC 7143 section 9.2.1).
		return nil, fmt.Errorf("reflected challenge: %w", ErrTarget)
	}
	out := []pdu.KeyValue{
		{Key: KeyName, Value: c.cred.Name},
		{Key: KeyResponse, Value: pdu.FormatHex(Response(c.algorithm, byte(id), c.cred.Secret, challenge))},
	}
	if !c.cred.mutual() {
		c.state = stateDone
		return out, nil
	}
	// The identifier differs from the target's, so that even equal challenges
	// would have different responses.
	c.id = byte(id) + 1
	c.challenge = make([]byte, max(c.algorithm.Size(), 16))
	rand.Read(c.challenge) //nolint:errcheck // never fails (crypto/rand.Read)
	c.history.open(c.challenge)
	c.state = stateResponded
	return append(out,
		pdu.KeyValue{Key: KeyIdentifier, Value: pdu.FormatNumber(uint64(c.id))},
		pdu.KeyValue{Key: KeyChallenge, Value: pdu.FormatHex(c.challenge)}), nil
}

func (c *Initiator) offers(n uint64) bool {
	for _, a := range c.offered {
		if uint64(a) == n && a.Known() {
			return true
		}
	}
	return false
}

// verify checks the target's response to our challenge. A message without
// CHAP keys is not an answer.
func (c *Initiator) verify(keys map[string]string) error {
	if err := expect(keys, KeyName, KeyResponse); err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	if len(keys[KeyName]) > maxName {
		return fmt.Errorf("%w: %w", ErrTarget, protocolErrorf("%s is longer than %d bytes", KeyName, maxName))
	}
	want := Response(c.algorithm, c.id, c.cred.TargetSecret, c.challenge)
	got, err := pdu.ParseBinary(keys[KeyResponse], maxChallenge)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, protocolErrorf("%s is not binary data", KeyResponse))
	}
	// An empty name accepts any: open-iscsi compares it only if it is set.
	sameName := c.cred.TargetName == "" ||
		subtle.ConstantTimeCompare([]byte(keys[KeyName]), []byte(c.cred.TargetName)) == 1
	if subtle.ConstantTimeCompare(got, want) != 1 || !sameName {
		return ErrTarget
	}
	c.state = stateDone
	return nil
}

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}
