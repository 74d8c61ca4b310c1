package iscsitest

import (
	"crypto/hmac"
	"crypto/rand"
	"slices"

	"github.com/goiscsi/goiscsi/initiator/internal/chap"
	"github.com/goiscsi/goiscsi/pdu"
)

// maxChallenge is the greatest binary length of CHAP_C and CHAP_R (RFC 7143
// section 12.1.3).
const maxChallenge = 1024

// chapState is the target's end of a CHAP exchange (RFC 7143 section 12.1.3):
//
//	waiting for CHAP_A → waiting for CHAP_N, CHAP_R → authenticated
type chapState struct {
	sent      bool
	algorithm chap.Algorithm
	id        byte
	challenge []byte
}

func isCHAPKey(k string) bool {
	return slices.Contains([]string{chap.KeyAlgorithm, chap.KeyIdentifier, chap.KeyChallenge, chap.KeyName, chap.KeyResponse}, k)
}

// security handles the keys of the security stage. done says that the target
// is ready to leave it.
func (c *Conn) security(kvs []pdu.KeyValue, creds *CHAP) (answer []pdu.KeyValue, done bool, e *loginError) {
	l := c.login
	denied := initiatorError(pdu.InitiatorErrorAuthentication)
	if offer, ok := pdu.LookupText(kvs, pdu.KeyAuthMethod); ok {
		if l.authMethod != "" {
			return nil, false, denied
		}
		methods, err := pdu.ParseList(offer)
		if err != nil {
			c.violated(pdu.OpLoginRequest, "AuthMethod: %v", err)
			return nil, false, denied
		}
		want := pdu.ValueNone
		if creds.Username != "" {
			want = "CHAP"
		}
		if !slices.Contains(methods, want) {
			return nil, false, denied
		}
		l.authMethod = want
		return []pdu.KeyValue{{Key: pdu.KeyAuthMethod, Value: want}}, want == pdu.ValueNone, nil
	}
	if creds.Username == "" {
		return nil, true, nil
	}
	if _, ok := pdu.LookupText(kvs, chap.KeyAlgorithm); ok && !l.chap.sent && l.authMethod != "" {
		return c.challenge(kvs, creds)
	}
	if _, ok := pdu.LookupText(kvs, chap.KeyName); ok && l.chap.sent && !l.authenticated {
		return c.verify(kvs, creds)
	}
	if l.authMethod != "" && len(kvs) > 0 && !l.authenticated && !l.chap.sent {
		c.violated(pdu.OpLoginRequest, "no CHAP_A after AuthMethod=CHAP (12.1.3)")
	}
	return nil, l.authenticated, nil
}

// challenge answers CHAP_A with a challenge.
func (c *Conn) challenge(kvs []pdu.KeyValue, creds *CHAP) ([]pdu.KeyValue, bool, *loginError) {
	st := &c.login.chap
	denied := initiatorError(pdu.InitiatorErrorAuthentication)
	offer, _ := pdu.LookupText(kvs, chap.KeyAlgorithm)
	list, err := pdu.ParseList(offer)
	if err != nil {
		c.violated(pdu.OpLoginRequest, "CHAP_A: %v", err)
		return nil, false, denied
	}
	md5 := false
	for _, v := range list {
		n, err := pdu.ParseNumber(v)
		if err != nil || n > 255 {
			c.violated(pdu.OpLoginRequest, "CHAP_A=%q is not a list of algorithms (12.1.3)", offer)
			return nil, false, denied
		}
		a := chap.Algorithm(n)
		md5 = md5 || a == chap.MD5
		if st.algorithm == 0 && creds.accepts(a) {
			st.algorithm = a
		}
	}
	if st.algorithm == 0 {
		return nil, false, denied
	}
	st.sent = true
	st.challenge = make([]byte, 1+st.algorithm.Size())
	rand.Read(st.challenge) // never fails
	st.id, st.challenge = st.challenge[0], st.challenge[1:]
	return []pdu.KeyValue{
		{Key: chap.KeyAlgorithm, Value: pdu.FormatNumber(uint64(st.algorithm))},
		{Key: chap.KeyIdentifier, Value: pdu.FormatNumber(uint64(st.id))},
		{Key: chap.KeyChallenge, Value: pdu.FormatHex(st.challenge)},
	}, false, nil
}

// verify checks the initiator's response and answers its challenge, if it has
// one.
func (c *Conn) verify(kvs []pdu.KeyValue, creds *CHAP) ([]pdu.KeyValue, bool, *loginError) {
	l, st := c.login, &c.login.chap
	denied := initiatorError(pdu.InitiatorErrorAuthentication)
	name, _ := pdu.LookupText(kvs, chap.KeyName)
	r, ok := pdu.LookupText(kvs, chap.KeyResponse)
	got, err := pdu.ParseBinary(r, maxChallenge)
	if !ok || err != nil || len(got) != st.algorithm.Size() {
		c.violated(pdu.OpLoginRequest, "CHAP_R is missing or malformed (12.1.3)")
		return nil, false, denied
	}
	want := chap.Response(st.algorithm, st.id, creds.Password, st.challenge)
	if name != creds.Username || !hmac.Equal(got, want) {
		return nil, false, denied
	}
	idText, hasID := pdu.LookupText(kvs, chap.KeyIdentifier)
	chText, hasCh := pdu.LookupText(kvs, chap.KeyChallenge)
	if !hasID && !hasCh {
		l.authenticated = true
		return nil, true, nil
	}
	id, idErr := pdu.ParseNumber(idText)
	challenge, chErr := pdu.ParseBinary(chText, maxChallenge)
	if idErr != nil || chErr != nil || id > 255 {
		c.violated(pdu.OpLoginRequest, "CHAP_I or CHAP_C is missing or malformed (12.1.3)")
		return nil, false, denied
	}
	if slices.Equal(challenge, st.challenge) {
		c.violated(pdu.OpLoginRequest, "CHAP_C is the target's own challenge (9.2.1)")
		return nil, false, denied
	}
	if creds.MutualUsername == "" {
		return nil, false, denied // no target authentication
	}
	l.authenticated = true
	return []pdu.KeyValue{
		{Key: chap.KeyName, Value: creds.MutualUsername},
		{Key: chap.KeyResponse, Value: pdu.FormatHex(chap.Response(st.algorithm, byte(id), creds.MutualPassword, challenge))},
	}, true, nil
}
