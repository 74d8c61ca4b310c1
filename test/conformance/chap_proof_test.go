package conformance

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// proving leads a mutual login to the point where the target must prove itself;
// answer gives the keys that it does it with.
func proving(t *testing.T, chap initiator.CHAP, answer func(c *conn, keys map[string]string) []string) (*dialing, *conn) {
	t.Helper()
	d, c, req := authenticating(t, chap)
	c.challenge(req, 9, someChallenge)
	req = c.loginRequest()
	c.answer(req, true, answer(c, c.keysOf(req.Data))...)
	return d, c
}

// disbelieved checks that the target's proof is refused.
func disbelieved(t *testing.T, chap initiator.CHAP, answer func(c *conn, keys map[string]string) []string) {
	t.Helper()
	d, c := proving(t, chap, answer)
	is(t, d.fails(), initiator.ErrAuth)
	c.ended()
	c.st.unwanted()
}

// believed checks that it is accepted.
func believed(t *testing.T, chap initiator.CHAP, answer func(c *conn, keys map[string]string) []string) {
	t.Helper()
	d, c := proving(t, chap, answer)
	c.finishLogin(c.loginRequest())
	c.alive(d.session())
}

// named returns the right proof under another name.
func named(name string) func(c *conn, keys map[string]string) []string {
	return func(c *conn, keys map[string]string) []string {
		return []string{"CHAP_N=" + name, c.proof(keys, targetSecret)[1]}
	}
}

func TestCHAP_4_1_CHAPNValid(t *testing.T) {
	believed(t, mutual, named(targetUser))
	anybody := mutual
	anybody.UsernameIn = "" // as with open-iscsi, then the name does not matter
	believed(t, anybody, named("whoever"))
}

// withNames checks names of a length in both directions.
func withNames(t *testing.T, n int) {
	t.Helper()
	chap := mutual
	chap.Username, chap.UsernameIn = strings.Repeat("u", n), strings.Repeat("t", n)
	believed(t, chap, func(c *conn, keys map[string]string) []string {
		if keys["CHAP_N"] != chap.Username {
			t.Errorf("CHAP_N=%s", keys["CHAP_N"])
		}
		return named(chap.UsernameIn)(c, keys)
	})
}

func TestCHAP_4_2_CHAPNLargest(t *testing.T)  { withNames(t, 255) }
func TestCHAP_4_3_CHAPNSmallest(t *testing.T) { withNames(t, 1) }

// A name has at most 255 bytes (RFC 7143 section 6.1): a longer one is neither sent
// nor accepted.
func TestCHAP_4_4_CHAPNTooBig(t *testing.T) {
	anybody := mutual
	anybody.UsernameIn = ""
	disbelieved(t, anybody, named(strings.Repeat("t", 256)))
	disbelieved(t, mutual, named(strings.Repeat("t", 256)))
	st := newStation(t)
	cfg := st.config()
	cfg.CHAP = mutual
	cfg.CHAP.Username = strings.Repeat("u", 256)
	var bad *initiator.ConfigError
	if err := st.dial(cfg).fails(); !errors.As(err, &bad) {
		t.Errorf("error %v", err)
	}
	st.unwanted()
}

func TestCHAP_4_5_CHAPNOutOfOrder(t *testing.T) {
	answering(t, append(without("", "-"), "CHAP_N="+targetUser)...)
	answering(t, "CHAP_N="+targetUser, "CHAP_R=0x00")
	d, c, req := authenticating(t, oneWay) // where none was asked for
	c.challenge(req, 9, someChallenge)
	req, _ = c.responded(9, someChallenge)
	c.answer(req, true, "CHAP_N="+targetUser)
	denied(t, d, c)
}

// A target that calls itself by the initiator's name is not the one that was
// configured.
func TestCHAP_4_6_CHAPNReflected(t *testing.T) { disbelieved(t, mutual, named(user)) }

// Names may be the same in every login.
func TestCHAP_4_7_CHAPNSame(t *testing.T) {
	_, c := again(t, 9)
	if keys := c.authenticate(10, pattern(1, 16)); keys["CHAP_N"] != user {
		t.Errorf("CHAP_N=%s", keys["CHAP_N"])
	}
}

func TestCHAP_4_8_CHAPNDifferent(t *testing.T) {
	for _, name := range []string{"Target", "target ", "targe", "targett", ""} {
		t.Run(name, func(t *testing.T) { disbelieved(t, mutual, named(name)) })
	}
}

// responding returns a proof with the response that f makes of the right one.
func responding(f func(right []byte) string) func(c *conn, keys map[string]string) []string {
	return func(c *conn, keys map[string]string) []string {
		right, err := pdu.ParseBinary(strings.TrimPrefix(c.proof(keys, targetSecret)[1], "CHAP_R="), 1024)
		if err != nil {
			c.t.Fatal(err)
		}
		return []string{"CHAP_N=" + targetUser, "CHAP_R=" + f(right)}
	}
}

func TestCHAP_5_1_CHAPRInvalid(t *testing.T) {
	disbelieved(t, mutual, responding(func(b []byte) string { b[15] ^= 1; return pdu.FormatHex(b) }))
	for _, v := range []string{"", "0x", "0xzz", "0b!!", "right", "0"} {
		t.Run(v, func(t *testing.T) { disbelieved(t, mutual, responding(func([]byte) string { return v })) })
	}
}

func TestCHAP_5_2_CHAPRTooBig(t *testing.T) {
	disbelieved(t, mutual, responding(func(b []byte) string { return pdu.FormatHex(append(b, 0)) }))
	disbelieved(t, mutual, responding(func(b []byte) string { return pdu.FormatHex(append(make([]byte, 1), b...)) }))
	disbelieved(t, mutual, responding(func(b []byte) string { return pdu.FormatHex(append(b, make([]byte, 2000)...)) }))
}

func TestCHAP_5_3_CHAPRTooSmall(t *testing.T) {
	disbelieved(t, mutual, responding(func(b []byte) string { return pdu.FormatHex(b[:15]) }))
	disbelieved(t, mutual, responding(func(b []byte) string { return pdu.FormatHex(b[:1]) }))
}

// Our own response, and that of the initiator's secret, prove nothing (RFC 7143
// section 9.2.1).
func TestCHAP_5_4_CHAPRReflected(t *testing.T) {
	disbelieved(t, mutual, func(_ *conn, keys map[string]string) []string {
		return []string{"CHAP_N=" + targetUser, "CHAP_R=" + keys["CHAP_R"]}
	})
	disbelieved(t, mutual, func(c *conn, keys map[string]string) []string { return c.proof(keys, secret) })
}

// Both secrets must differ: a configuration with one for both directions is refused.
func TestCHAP_5_5_OneSecretForBothDirections(t *testing.T) {
	st := newStation(t)
	cfg := st.config()
	cfg.CHAP = mutual
	cfg.CHAP.PasswordIn = cfg.CHAP.Password
	var bad *initiator.ConfigError
	if err := st.dial(cfg).fails(); !errors.As(err, &bad) {
		t.Errorf("error %v", err)
	}
	st.unwanted()
}

// Binary values are understood in every encoding, in either case, with and without
// the padding of base64.
func TestCHAP_6_1_Encodings(t *testing.T) {
	encodings := map[string]func([]byte) string{
		"0x": pdu.FormatHex,
		"0X": func(b []byte) string { return "0X" + strings.ToUpper(pdu.FormatHex(b)[2:]) },
		"0b": pdu.FormatBase64,
		"0B": func(b []byte) string { return "0B" + base64.StdEncoding.EncodeToString(b) },
		"0b without padding": func(b []byte) string {
			return "0b" + base64.RawStdEncoding.EncodeToString(b)
		},
	}
	for name, encode := range encodings {
		t.Run(name, func(t *testing.T) {
			d, c, req := authenticating(t, mutual)
			c.answer(req, false, without("CHAP_C", encode(someChallenge))...)
			req, keys := c.responded(9, someChallenge)
			c.answer(req, true, responding(encode)(c, keys)...)
			c.finishLogin(c.loginRequest())
			d.session()
		})
	}
}

// A target that goes on without authentication is not followed.
func TestCHAP_6_2_TargetSkipsAuthentication(t *testing.T) {
	begin := func(t *testing.T, chap initiator.CHAP) (*dialing, *conn, *pdu.LoginRequest) {
		st := newStation(t)
		cfg := st.config()
		cfg.CHAP = chap
		d := st.dial(cfg)
		c := st.accept()
		return d, c, c.loginRequest()
	}
	for name, chap := range map[string]initiator.CHAP{"one way": oneWay, "mutual": mutual} {
		t.Run(name+" by T", func(t *testing.T) {
			d, c, req := begin(t, chap)
			r := c.loginAnswer(req, false, "AuthMethod=CHAP")
			r.Transit, r.NextStage = true, pdu.StageOperational
			c.send(r)
			denied(t, d, c)
		})
		t.Run(name+" by stage", func(t *testing.T) {
			d, c, req := begin(t, chap)
			r := c.loginAnswer(req, false)
			r.CurrentStage, r.Transit, r.NextStage, r.TSIH = pdu.StageOperational, true, pdu.StageFullFeature, 1
			c.send(r)
			denied(t, d, c)
		})
		t.Run(name+" after the offer", func(t *testing.T) {
			d, c, req := authenticating(t, chap)
			r := c.loginAnswer(req, false)
			r.Transit, r.NextStage = true, pdu.StageOperational
			c.send(r)
			denied(t, d, c)
		})
	}
	t.Run("None for mutual", func(t *testing.T) {
		d, c, req := begin(t, mutual)
		c.answer(req, false, "AuthMethod=None")
		denied(t, d, c)
	})
}

// A target that does not care who we are may say so, if it has nothing to prove
// itself.
func TestCHAP_6_3_TargetWantsNoAuthentication(t *testing.T) {
	st := newStation(t)
	cfg := st.config()
	cfg.CHAP = oneWay
	d := st.dial(cfg)
	c := st.accept()
	c.answer(c.loginRequest(), false, "AuthMethod=None")
	c.answer(c.loginRequest(), true)
	c.finishLogin(c.loginRequest())
	c.alive(d.session())
}

// A target that does not answer our challenge is refused, however it goes on.
func TestCHAP_6_4_MutualNotAnswered(t *testing.T) {
	for name, answer := range map[string]func(c *conn, keys map[string]string) []string{
		"nothing":   func(*conn, map[string]string) []string { return nil },
		"name only": func(c *conn, keys map[string]string) []string { return c.proof(keys, targetSecret)[:1] },
		"response only": func(c *conn, keys map[string]string) []string {
			return c.proof(keys, targetSecret)[1:]
		},
		"a challenge": func(*conn, map[string]string) []string { return without("", "-") },
		"too much": func(c *conn, keys map[string]string) []string {
			return append(c.proof(keys, targetSecret), "CHAP_A=5")
		},
	} {
		t.Run(name, func(t *testing.T) { disbelieved(t, mutual, answer) })
	}
}

func TestCHAP_6_5_MutualAnsweredWithAnotherSecret(t *testing.T) {
	disbelieved(t, mutual, func(c *conn, keys map[string]string) []string { return c.proof(keys, "thirdsecret123") })
}

// The proof may come before the target is ready to go on.
func TestCHAP_6_6_MutualAnsweredWithoutTransit(t *testing.T) {
	d, c, req := authenticating(t, mutual)
	c.challenge(req, 9, someChallenge)
	req, keys := c.responded(9, someChallenge)
	c.answer(req, false, c.proof(keys, targetSecret)...)
	req = c.loginRequest()
	if !req.Transit || len(req.Data) > 0 {
		t.Errorf("T %v, text %q", req.Transit, req.Data)
	}
	c.answer(req, true)
	c.finishLogin(c.loginRequest())
	d.session()
}

// The response has the keys that are due and no others; T is set with it.
func TestCHAP_6_7_KeysOfTheResponse(t *testing.T) {
	for chap, want := range map[*initiator.CHAP]int{&oneWay: 2, &mutual: 4} {
		_, c, req := authenticating(t, *chap)
		c.challenge(req, 9, someChallenge)
		req, keys := c.responded(9, someChallenge)
		if len(keys) != want || !req.Transit || req.CurrentStage != pdu.StageSecurity || req.NextStage != pdu.StageOperational {
			t.Errorf("%d keys, want %d; %+v", len(keys), want, req)
		}
	}
}

// Secrets are never sent.
func TestCHAP_6_8_SecretsStayHere(t *testing.T) {
	d, c, req := authenticating(t, mutual)
	c.challenge(req, 9, someChallenge)
	last, keys := c.responded(9, someChallenge)
	for _, r := range []*pdu.LoginRequest{c.first, req, last} {
		for _, s := range []string{secret, targetSecret} {
			if bytes.Contains(r.Data, []byte(s)) {
				t.Errorf("a secret in %q", r.Data)
			}
		}
	}
	c.answer(last, true, c.proof(keys, secret)...)
	if err := d.fails(); strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), targetSecret) {
		t.Errorf("a secret in the error %q", err)
	}
}

// Keys of the operational stage have no place in that of security.
func TestCHAP_6_9_OperationalKeysInTheSecurityStage(t *testing.T) {
	for _, k := range []string{"InitialR2T=No", "MaxRecvDataSegmentLength=8192", "HeaderDigest=None"} {
		t.Run(k, func(t *testing.T) { answering(t, append(without("", "-"), k)...) })
	}
}

// A target that falls silent is given up after the time for authentication.
func TestCHAP_6_10_SilentTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		cfg := st.config()
		cfg.CHAP, cfg.Timeouts.Auth = mutual, 6*time.Second
		d := st.dial(cfg)
		c := st.accept()
		c.offered()
		begin := time.Now()
		d.fails(initiator.ErrTimeout)
		if took := time.Since(begin); took != 6*time.Second {
			t.Errorf("given up after %v, want 6s", took)
		}
	})
}

// Discovery sessions authenticate in the same way.
func TestCHAP_6_11_DiscoverySession(t *testing.T) {
	st := newStation(t)
	d := st.discover(func(cfg *initiator.DiscoveryConfig) { cfg.CHAP = mutual })
	c := st.accept()
	c.authenticate(9, someChallenge)
	req := expect[*pdu.TextRequest](c)
	c.send(&pdu.TextResponse{Final: true, InitiatorTaskTag: req.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag})
	c.logout()
	d.found(0)
}
