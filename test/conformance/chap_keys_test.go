package conformance

import (
	"crypto/md5"  //nolint:gosec // what CHAP uses
	"crypto/sha1" //nolint:gosec // see above
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

func isAuth(err error) bool {
	return errors.Is(err, initiator.ErrAuth) || errors.Is(err, initiator.ErrProtocol)
}

// answering leads a login to the point where the challenge is due, says this
// instead, and checks that the login is refused.
func answering(t *testing.T, pairs ...string) {
	t.Helper()
	for _, chap := range []initiator.CHAP{oneWay, mutual} {
		d, c, req := authenticating(t, chap)
		c.answer(req, false, pairs...)
		denied(t, d, c)
	}
}

// without returns a challenge in which a key has another value; "-" leaves it out.
func without(key, value string) []string {
	var pairs []string
	for _, p := range []string{"CHAP_A=5", "CHAP_I=9", "CHAP_C=" + pdu.FormatHex(someChallenge)} {
		if !strings.HasPrefix(p, key+"=") {
			pairs = append(pairs, p)
		}
	}
	if value != "-" {
		pairs = append(pairs, key+"="+value)
	}
	return pairs
}

// The algorithms are offered in order, MD5 by default, and the one picked is used.
func TestCHAP_1_1_CHAPAValid(t *testing.T) {
	_, c, req := authenticating(t, oneWay)
	if v := c.keysOf(req.Data)["CHAP_A"]; v != "5" {
		t.Errorf("CHAP_A=%s by default", v)
	}
	all := oneWay
	all.Algorithms = []initiator.CHAPAlgorithm{initiator.CHAPSHA3256, initiator.CHAPSHA256, initiator.CHAPSHA1, initiator.CHAPMD5}
	for pick, h := range map[string]hash.Hash{"5": md5.New(), "6": sha1.New(), "7": sha256.New(), "8": sha3.New256(), "0x5": md5.New()} { //nolint:gosec // see above
		d, c, req := authenticating(t, all)
		if v := c.keysOf(req.Data)["CHAP_A"]; v != "8,7,6,5" {
			t.Errorf("CHAP_A=%s", v)
		}
		c.answer(req, false, without("CHAP_A", pick)...)
		req = c.loginRequest()
		h.Write(append(append([]byte{9}, secret...), someChallenge...))
		if got, want := c.keysOf(req.Data)["CHAP_R"], "0x"+hex.EncodeToString(h.Sum(nil)); got != want {
			t.Errorf("algorithm %s: CHAP_R=%s, want %s", pick, got, want)
		}
		c.answer(req, true)
		c.finishLogin(c.loginRequest())
		d.session()
	}
}

func TestCHAP_1_2_1_CHAPAInvalidNumber(t *testing.T) {
	for _, v := range []string{"0", "4", "6", "7", "255", "256", "261", "4294967301"} {
		t.Run(v, func(t *testing.T) { answering(t, without("CHAP_A", v)...) })
	}
}

func TestCHAP_1_2_2_CHAPANotANumber(t *testing.T) {
	for _, v := range []string{"MD5", "", "5,5", "5 ", "-5", "+5", "5.0", "None", "Reject", "NotUnderstood"} {
		t.Run(v, func(t *testing.T) { answering(t, without("CHAP_A", v)...) })
	}
}

// outOfOrder checks that a key that comes before its turn, or is missing when it is
// its turn, ends the login.
func outOfOrder(t *testing.T, key string) {
	t.Helper()
	t.Run("early", func(t *testing.T) {
		st := newStation(t)
		cfg := st.config()
		cfg.CHAP = oneWay
		d := st.dial(cfg)
		c := st.accept()
		for _, p := range without("", "-") {
			if strings.HasPrefix(p, key+"=") {
				c.answer(c.loginRequest(), false, "AuthMethod=CHAP", p)
			}
		}
		denied(t, d, c)
	})
	t.Run("missing", func(t *testing.T) { answering(t, without(key, "-")...) })
	t.Run("late", func(t *testing.T) {
		d, c, req := authenticating(t, oneWay)
		c.challenge(req, 9, someChallenge)
		req, _ = c.responded(9, someChallenge)
		for _, p := range without("", "-") {
			if strings.HasPrefix(p, key+"=") {
				c.answer(req, true, p)
			}
		}
		denied(t, d, c)
	})
	t.Run("twice", func(t *testing.T) {
		pairs := without("", "-")
		i := slices.IndexFunc(pairs, func(p string) bool { return strings.HasPrefix(p, key+"=") })
		answering(t, append(pairs, pairs[i])...)
	})
}

func TestCHAP_1_3_CHAPAOutOfOrder(t *testing.T) { outOfOrder(t, "CHAP_A") }

func TestCHAP_2_1_CHAPIValid(t *testing.T) {
	for _, id := range []byte{0, 1, 127, 128, 255} {
		for _, form := range []string{"%d", "0x%x", "0X%02X"} {
			d, c, req := authenticating(t, oneWay)
			c.answer(req, false, without("CHAP_I", fmt.Sprintf(form, id))...)
			req, _ = c.responded(id, someChallenge)
			c.answer(req, true)
			c.finishLogin(c.loginRequest())
			d.session()
		}
	}
}

func TestCHAP_2_2_CHAPIInvalid(t *testing.T) {
	for _, v := range []string{"256", "0x100", "-1", "one", "", "1,2", "18446744073709551616"} {
		t.Run(v, func(t *testing.T) { answering(t, without("CHAP_I", v)...) })
	}
}

func TestCHAP_2_3_CHAPIOutOfOrder(t *testing.T) { outOfOrder(t, "CHAP_I") }

// again logs in with mutual authentication, loses the connection, and returns what
// the initiator said and the connection of the next login.
func again(t *testing.T, id byte) (first map[string]string, c *conn) {
	t.Helper()
	st := newStation(t)
	cfg := st.config()
	cfg.CHAP = mutual
	d := st.dial(cfg)
	c = st.accept()
	first = c.authenticate(id, someChallenge)
	d.session()
	c.nc.Close()
	return first, st.accept()
}

// A target may use an identifier again with another challenge.
func TestCHAP_2_4_CHAPISameValue(t *testing.T) {
	_, c := again(t, 9)
	c.authenticate(9, pattern(2, 16))
}

// It may use the one that the initiator used; what counts is the challenge. Within a
// login the initiator takes another than the target.
func TestCHAP_2_5_CHAPIReflected(t *testing.T) {
	for _, id := range []byte{0, 9, 255} {
		first, c := again(t, id)
		ours, err := pdu.ParseNumber(first["CHAP_I"])
		if err != nil || byte(ours) == id {
			t.Errorf("CHAP_I=%s in answer to %d", first["CHAP_I"], id)
		}
		c.authenticate(byte(ours), pattern(2, 16))
	}
}

func TestCHAP_2_6_CHAPIDifferent(t *testing.T) {
	_, c := again(t, 9)
	c.authenticate(200, pattern(2, 16))
}

// challengeOf has a target ask with this challenge, in each encoding.
func challengeOf(t *testing.T, challenge []byte) {
	t.Helper()
	for _, v := range []string{pdu.FormatHex(challenge), "0b" + base64.StdEncoding.EncodeToString(challenge)} {
		d, c, req := authenticating(t, oneWay)
		c.answer(req, false, without("CHAP_C", v)...)
		req, _ = c.responded(9, challenge)
		c.answer(req, true)
		c.finishLogin(c.loginRequest())
		d.session()
	}
}

func TestCHAP_3_1_CHAPCLargest(t *testing.T)  { challengeOf(t, pattern(3, 1024)) }
func TestCHAP_3_2_CHAPCSmallest(t *testing.T) { challengeOf(t, []byte{0}) }

func TestCHAP_3_3_CHAPCTooBig(t *testing.T) {
	answering(t, without("CHAP_C", pdu.FormatHex(pattern(3, 1025)))...)
	answering(t, without("CHAP_C", "0b"+base64.StdEncoding.EncodeToString(pattern(3, 1025)))...)
}

func TestCHAP_3_4_CHAPCTooSmall(t *testing.T) {
	for _, v := range []string{"", "0x", "0b", "0b===="} {
		t.Run(v, func(t *testing.T) { answering(t, without("CHAP_C", v)...) })
	}
}

func TestCHAP_3_5_CHAPCOutOfOrder(t *testing.T) { outOfOrder(t, "CHAP_C") }

// A target that asks the same again gets the same answer: that it should not is a
// rule for targets.
func TestCHAP_3_6_1_SameChallengeSerially(t *testing.T) {
	_, c := again(t, 9)
	c.authenticate(9, someChallenge)
}

// pair starts two mutual logins at a time and returns their connections, at the
// point where the challenge is due.
func pair(t *testing.T) (ds [2]*dialing, cs [2]*conn, reqs [2]*pdu.LoginRequest) {
	t.Helper()
	for i := range 2 {
		ds[i], cs[i], reqs[i] = authenticating(t, mutual)
	}
	return ds, cs, reqs
}

func TestCHAP_3_6_2_SameChallengeInParallel(t *testing.T) {
	ds, cs, reqs := pair(t)
	for i, c := range cs {
		c.challenge(reqs[i], 9, someChallenge)
	}
	for i, c := range cs {
		req, keys := c.responded(9, someChallenge)
		c.answer(req, true, c.proof(keys, targetSecret)...)
		c.finishLogin(c.loginRequest())
		ds[i].session()
	}
}

// The initiator asks something else each time.
func TestCHAP_3_6_3_OurChallengesDifferSerially(t *testing.T) {
	first, c := again(t, 9)
	second := c.authenticate(9, pattern(2, 16))
	if first["CHAP_C"] == second["CHAP_C"] {
		t.Errorf("CHAP_C=%s twice", first["CHAP_C"])
	}
}

func TestCHAP_3_6_4_OurChallengesDifferInParallel(t *testing.T) {
	_, cs, reqs := pair(t)
	var said [2]string
	for i, c := range cs {
		c.challenge(reqs[i], 9, someChallenge)
		_, keys := c.responded(9, someChallenge)
		said[i] = keys["CHAP_C"]
	}
	if said[0] == said[1] {
		t.Errorf("CHAP_C=%s twice", said[0])
	}
}

// The initiator must not use the target's challenge for its own (RFC 7143 section
// 9.2.1).
func TestCHAP_3_7_Reflect(t *testing.T) {
	_, c, req := authenticating(t, mutual)
	c.challenge(req, 9, someChallenge)
	_, keys := c.responded(9, someChallenge)
	if slices.Equal(c.ours(keys), someChallenge) {
		t.Error("the challenge of the target comes back")
	}
}

// A target that sends the initiator's challenge back gets no answer to it.
func TestCHAP_3_8_Reflected(t *testing.T) {
	first, c := again(t, 9)
	c.answer(c.offered(), false, "CHAP_A=5", "CHAP_I="+first["CHAP_I"], "CHAP_C="+first["CHAP_C"])
	c.ended()
	c = c.st.accept() // in another encoding
	c.answer(c.offered(), false, "CHAP_A=5", "CHAP_I=7", "CHAP_C="+pdu.FormatBase64(c.ours(first)))
	c.ended()
	c.st.accept().authenticate(9, someChallenge)
}

// Nor does one that sends it to another session, after the login that it came from
// or while that goes on: with the answer it could prove itself there (RFC 7143
// section 9.2.1).
func TestCHAP_3_9_ReflectedToAnotherSession(t *testing.T) {
	for _, when := range []string{"serial", "parallel"} {
		t.Run(when, func(t *testing.T) {
			d, first, req := authenticating(t, mutual)
			first.challenge(req, 9, someChallenge)
			req, keys := first.responded(9, someChallenge)
			goOn := func() {
				first.answer(req, true, first.proof(keys, targetSecret)...)
				first.finishLogin(first.loginRequest())
				d.session()
			}
			if when == "serial" {
				goOn()
			}
			other, second, offered := authenticating(t, mutual)
			second.answer(offered, false, "CHAP_A=5", "CHAP_I="+keys["CHAP_I"], "CHAP_C="+keys["CHAP_C"])
			second.ended()
			other.fails(initiator.ErrAuth)
			if when == "parallel" {
				goOn()
			}
		})
	}
}
