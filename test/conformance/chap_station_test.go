package conformance

import (
	"crypto/md5" //nolint:gosec // what CHAP uses
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

const (
	user         = "user"
	secret       = "secretsecret12" // the initiator's
	targetUser   = "target"
	targetSecret = "othersecret123"
)

var (
	oneWay = initiator.CHAP{Username: user, Password: secret}
	mutual = initiator.CHAP{Username: user, Password: secret, UsernameIn: targetUser, PasswordIn: targetSecret}

	// someChallenge is what the station asks when it does not matter.
	someChallenge = pattern(77, 16)
)

// md5Response computes a response as RFC 1994 section 4.1 has it, with none of
// the initiator's code.
func md5Response(id byte, secret string, challenge []byte) string {
	sum := md5.Sum(append(append([]byte{id}, secret...), challenge...)) //nolint:gosec // see above
	return "0x" + hex.EncodeToString(sum[:])
}

// authenticating starts a login with these credentials and leads it to the point
// where the initiator has offered its algorithms: the request returned has CHAP_A.
func authenticating(t testing.TB, chap initiator.CHAP) (*dialing, *conn, *pdu.LoginRequest) {
	t.Helper()
	st := newStation(t)
	cfg := st.config()
	cfg.CHAP = chap
	d := st.dial(cfg)
	c := st.accept()
	return d, c, c.offered()
}

// offered answers the first request of a login and returns the one with CHAP_A.
func (c *conn) offered() *pdu.LoginRequest {
	c.t.Helper()
	c.answer(c.loginRequest(), false, "AuthMethod=CHAP", "TargetPortalGroupTag=1")
	req := c.loginRequest()
	if keys := c.keysOf(req.Data); len(keys) != 1 || keys["CHAP_A"] == "" {
		c.t.Errorf("%v where CHAP_A is expected", keys)
	}
	return req
}

// challenge sends a challenge for MD5.
func (c *conn) challenge(req *pdu.LoginRequest, id byte, challenge []byte) {
	c.t.Helper()
	c.answer(req, false, "CHAP_A=5", fmt.Sprintf("CHAP_I=%d", id), "CHAP_C="+pdu.FormatHex(challenge))
}

// responded returns the request with the initiator's response, which must be right,
// and its keys.
func (c *conn) responded(id byte, challenge []byte) (*pdu.LoginRequest, map[string]string) {
	c.t.Helper()
	req := c.loginRequest()
	keys := c.keysOf(req.Data)
	if want := md5Response(id, secret, challenge); keys["CHAP_R"] != want || keys["CHAP_N"] != user {
		c.t.Errorf("response %v, want CHAP_R=%s", keys, want)
	}
	return req, keys
}

// proof returns the target's answer to the challenge in keys.
func (c *conn) proof(keys map[string]string, secret string) []string {
	c.t.Helper()
	id, err := pdu.ParseNumber(keys["CHAP_I"])
	if err != nil || id > 255 {
		c.t.Fatalf("CHAP_I=%q", keys["CHAP_I"])
	}
	return []string{"CHAP_N=" + targetUser, "CHAP_R=" + md5Response(byte(id), secret, c.ours(keys))}
}

// ours returns the initiator's challenge.
func (c *conn) ours(keys map[string]string) []byte {
	c.t.Helper()
	b, err := pdu.ParseBinary(keys["CHAP_C"], 1024)
	if err != nil || len(b) < 16 {
		c.t.Fatalf("CHAP_C=%q", keys["CHAP_C"])
	}
	return b
}

// authenticate goes through all of CHAP and the operational stage, and returns the
// keys with which the initiator answered the challenge.
func (c *conn) authenticate(id byte, challenge []byte) map[string]string {
	c.t.Helper()
	c.challenge(c.offered(), id, challenge)
	req, keys := c.responded(id, challenge)
	var proof []string
	if keys["CHAP_C"] != "" {
		proof = c.proof(keys, targetSecret)
	}
	c.answer(req, true, proof...)
	c.finishLogin(c.loginRequest())
	return keys
}

// denied checks that a login fails and its connection ends without another word:
// no response in particular.
func denied(t *testing.T, d *dialing, c *conn) {
	t.Helper()
	if err := d.fails(); err == nil {
		t.Error("no error")
	} else if !isAuth(err) {
		t.Errorf("error %v is neither one of authentication nor of the protocol", err)
	}
	c.ended()
	c.st.unwanted()
}
