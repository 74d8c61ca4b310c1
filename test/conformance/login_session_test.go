package conformance

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// number checks a numeric key: what is offered, and what becomes of answers.
func number(t *testing.T, key, offer string, mod func(*initiator.Config), get func(initiator.Params) int, results map[string]int, bad ...string) {
	t.Helper()
	if v := offers(t, mod)[key]; v != offer {
		t.Errorf("%s=%s offered, want %s", key, v, offer)
	}
	for answer, want := range results {
		s, _ := operational(t, mod, key+"="+answer)
		if got := get(s.Info().Negotiated); got != want {
			t.Errorf("%s=%s leads to %d, want %d", key, answer, got, want)
		}
	}
	for _, answer := range bad {
		t.Run(key+"="+answer, func(t *testing.T) { refused(t, mod, key+"="+answer) })
	}
}

func TestLogin_17_1_DefaultTime2Retain(t *testing.T) {
	number(t, "DefaultTime2Retain", "30", func(cfg *initiator.Config) { cfg.Params.DefaultTime2Retain = 30 * time.Second },
		func(p initiator.Params) int { return int(p.DefaultTime2Retain / time.Second) },
		map[string]int{"30": 30, "5": 5, "0": 0, "-": 20, "Reject": 20}, "3601", "-1", "soon")
}

func TestLogin_18_1_DefaultTime2Wait(t *testing.T) {
	number(t, "DefaultTime2Wait", "3", func(cfg *initiator.Config) { cfg.Params.DefaultTime2Wait = 3 * time.Second },
		func(p initiator.Params) int { return int(p.DefaultTime2Wait / time.Second) },
		map[string]int{"3": 3, "60": 60, "-": 3, "Irrelevant": 3}, "3601", "-1", "1.5")
}

// The negotiated time is waited after the loss of a connection.
func TestLogin_18_2_DefaultTime2WaitIsWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		_, c := st.logIn(nil, "DefaultTime2Wait=7")
		lost := time.Now()
		c.nc.Close()
		st.accept().logIn()
		if waited := time.Since(lost); waited != 7*time.Second {
			t.Errorf("logged in again after %v, want 7s", waited)
		}
	})
}

func TestLogin_19_1_MaxOutstandingR2T(t *testing.T) {
	number(t, "MaxOutstandingR2T", "8", func(cfg *initiator.Config) { cfg.Params.MaxOutstandingR2T = 8 },
		func(p initiator.Params) int { return p.MaxOutstandingR2T },
		map[string]int{"8": 8, "1": 1, "-": 1, "Reject": 1}, "0", "65536")
}

func TestLogin_20_1_ErrorRecoveryLevel(t *testing.T) {
	s, c := operational(t, nil)
	if v := c.keysOf(c.first.Data)["ErrorRecoveryLevel"]; v != "0" {
		t.Errorf("ErrorRecoveryLevel=%s offered", v)
	}
	c.alive(s)
	refused(t, nil, "ErrorRecoveryLevel=1")
	refused(t, nil, "ErrorRecoveryLevel=3")
	one := func(cfg *initiator.Config) { cfg.Params.ErrorRecoveryLevel = 1 }
	number(t, "ErrorRecoveryLevel", "1", one, func(p initiator.Params) int { return p.ErrorRecoveryLevel },
		map[string]int{"1": 1, "0": 0, "-": 0, "Reject": 0}, "2", "-1", "x")
	number(t, "ErrorRecoveryLevel", "2", levelTwo, func(p initiator.Params) int { return p.ErrorRecoveryLevel },
		map[string]int{"2": 2, "1": 1, "0": 0, "-": 0, "Reject": 0}, "3", "-1")
}

// Sessions say what they are; a discovery session names no target, offers nothing
// that has no meaning for it, and has a TSIH of zero in all requests.
func TestLogin_21_1_SessionType(t *testing.T) {
	if v := offers(t, nil)["SessionType"]; v != "Normal" {
		t.Errorf("SessionType=%s", v)
	}
	st := newStation(t)
	d := st.discover(nil)
	c := st.accept()
	req := c.loginRequest()
	keys := c.keysOf(req.Data)
	if keys["SessionType"] != "Discovery" || keys["TargetName"] != "" || keys["InitiatorName"] != initiatorName {
		t.Errorf("keys %v", keys)
	}
	for _, k := range []string{"MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T", "DataPDUInOrder", "DataSequenceInOrder"} {
		if v, ok := keys[k]; ok {
			t.Errorf("%s=%s is irrelevant for discovery", k, v)
		}
	}
	c.finishLogin(req)
	tr := expect[*pdu.TextRequest](c)
	if keys := c.keysOf(tr.Data); len(keys) != 1 || keys["SendTargets"] != "All" {
		t.Errorf("text request %v", keys)
	}
	c.send(&pdu.TextResponse{Final: true, InitiatorTaskTag: tr.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag})
	c.logout()
	d.found(0)
}

// A discovery is a call of initiator.Discover that goes on while the test plays
// the target.
type discovery struct {
	t    testing.TB
	done chan struct{}
	got  []initiator.DiscoveredPortal
	err  error
}

func (st *station) discover(mod func(*initiator.DiscoveryConfig)) *discovery {
	d := &discovery{t: st.t, done: make(chan struct{})}
	cfg := initiator.DiscoveryConfig{
		InitiatorName: initiatorName,
		Portal:        initiator.Portal{Host: "192.0.2.1", TPGT: initiator.UnknownTPGT},
		Dial:          st.connect,
		Logger:        testLogger(st.t),
	}
	if mod != nil {
		mod(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(d.done)
		d.got, d.err = initiator.Discover(ctx, cfg)
	}()
	st.t.Cleanup(func() { cancel(); <-d.done })
	return d
}

// found returns the result, of n portals.
func (d *discovery) found(n int) []initiator.DiscoveredPortal {
	d.t.Helper()
	<-d.done
	if d.err != nil || len(d.got) != n {
		d.t.Fatalf("%v found, want %d: %v", d.got, n, d.err)
	}
	return d.got
}

// logout answers the logout that must come, and sees the connection closed.
func (c *conn) logout() *pdu.LogoutRequest {
	c.t.Helper()
	req := expect[*pdu.LogoutRequest](c)
	c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag})
	c.ended()
	return req
}

// Without credentials there is no security stage; with them CHAP is offered, and
// None as well unless the target has to prove itself.
func TestLogin_22_1_AuthMethod(t *testing.T) {
	if v, ok := offers(t, nil)["AuthMethod"]; ok {
		t.Errorf("AuthMethod=%s offered without credentials", v)
	}
	for want, chap := range map[string]initiator.CHAP{
		"CHAP,None": {Username: "user", Password: "secretsecret12"},
		"CHAP":      {Username: "user", Password: "secretsecret12", UsernameIn: "target", PasswordIn: "othersecret123"},
	} {
		st := newStation(t)
		cfg := st.config()
		cfg.CHAP = chap
		st.dial(cfg)
		c := st.accept()
		req := c.loginRequest()
		if v := c.keysOf(req.Data)["AuthMethod"]; v != want || req.CurrentStage != pdu.StageSecurity {
			t.Errorf("AuthMethod=%s offered in %v, want %s", v, req.CurrentStage, want)
		}
	}
}

// Declarations of the target are taken and not answered.
func TestLogin_23_1_TargetAliasAndOtherDeclarations(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.loginRequest()
	c.answer(req, false, append(c.agree(req, "TargetPortalGroupTag=7"), "TargetAlias=a disk of theirs",
		"TargetAddress=192.0.2.7:3260,7", "X#NodeArchitecture=ExampleOS/v1234")...)
	req = c.loginRequest()
	if len(req.Data) > 0 {
		t.Errorf("declarations answered with %q", req.Data)
	}
	c.answer(req, true)
	if i := d.session().Info(); i.TargetAlias != "a disk of theirs" || i.TPGT != 7 || i.Portal.Host != "192.0.2.1" {
		t.Errorf("info %+v", i)
	}
}

func TestLogin_23_2_PortalGroupTagOutOfRange(t *testing.T) {
	refused(t, nil, "TargetPortalGroupTag=65536")
	refused(t, nil, "TargetPortalGroupTag=x")
}

// A portal of another group than the one that discovery named is refused, whatever
// stage the tag comes in; without a tag on one side there is nothing to compare.
func TestLogin_23_9_PortalGroupTagOfAnotherGroup(t *testing.T) {
	known := func(tpgt int) func(*initiator.Config) {
		return func(cfg *initiator.Config) { cfg.Portal.TPGT = tpgt }
	}
	for _, tpgt := range []int{initiator.UnknownTPGT, 0, 7} {
		operational(t, known(tpgt), "TargetPortalGroupTag=7")
		operational(t, known(tpgt), "TargetPortalGroupTag=-")
	}
	st := newStation(t)
	cfg := st.config()
	known(3)(&cfg)
	d := st.dial(cfg)
	c := st.accept()
	c.logIn("TargetPortalGroupTag=7")
	var other *initiator.PortalGroupError
	if err := d.fails(); !errors.As(err, &other) || other.Want != 3 || other.Got != 7 {
		t.Errorf("error %v", err)
	}
	c.ended()
	st.unwanted()
}

// What only initiators say is not taken from a target.
func TestLogin_23_3_KeysThatTargetsMustNotSend(t *testing.T) {
	for _, k := range []string{"InitiatorName=" + initiatorName, "InitiatorAlias=x", "TargetName=" + targetName, "SessionType=Normal", "SendTargets=All", "AuthMethod=None"} {
		t.Run(k, func(t *testing.T) { refused(t, nil, k) })
	}
}

// TaskReporting is a key of RFC 7143 and so must be understood; only the RFC 3720
// semantics are supported.
func TestLogin_23_4_TaskReporting(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.loginRequest()
	c.answer(req, false, append(c.agree(req), "TaskReporting=FastAbort,ResponseFence,RFC3720")...)
	req = c.loginRequest()
	if keys := c.keysOf(req.Data); len(keys) != 1 || keys["TaskReporting"] != "RFC3720" {
		t.Errorf("answered %v", keys)
	}
	c.answer(req, true)
	d.session()
}

// A refusal of whatever key leaves its default, and the login succeeds.
func TestLogin_23_5_EveryKeyRefused(t *testing.T) {
	for _, v := range []string{"Reject", "Irrelevant", "NotUnderstood", "-"} {
		t.Run(v, func(t *testing.T) {
			var answers []string
			for k := range offers(t, nil) {
				if k != "InitiatorName" && k != "TargetName" && k != "SessionType" {
					answers = append(answers, k+"="+v)
				}
			}
			s, c := operational(t, func(cfg *initiator.Config) {
				cfg.Params.HeaderDigest, cfg.Params.DataDigest = both, both
				cfg.Params.MaxOutstandingR2T = 8
			}, answers...)
			n := s.Info().Negotiated
			if n.HeaderDigest[0] != initiator.DigestNone || n.DataDigest[0] != initiator.DigestNone || !n.InitialR2T || n.NoImmediateData ||
				n.FirstBurstLength != 65536 || n.MaxBurstLength != 262144 || n.MaxOutstandingR2T != 1 || n.MaxXmitDataSegmentLength != 8192 ||
				n.DefaultTime2Wait != 2*time.Second || n.UnorderedPDUs || n.UnorderedSequences {
				t.Errorf("negotiated %+v", n)
			}
			c.alive(s)
		})
	}
}

// The text of a response may come in pieces that end anywhere, also within a key.
// Each is answered with an empty request without T (RFC 7143 section 6.2).
func TestLogin_24_1_KeyContinuation(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.loginRequest()
	whole := text(c.agree(req, "MaxBurstLength=8192", "FirstBurstLength=4096")...)
	for i, piece := range [][]byte{whole[:3], nil, whole[3:40], whole[40 : len(whole)-1]} {
		r := c.loginAnswer(req, false)
		r.Continue, r.Data = true, piece
		c.send(r)
		req = c.loginRequest()
		if req.Transit || req.Continue || len(req.Data) > 0 {
			t.Errorf("piece %d answered with T %v, C %v, %q", i, req.Transit, req.Continue, req.Data)
		}
	}
	r := c.loginAnswer(req, false)
	r.Data = whole[len(whole)-1:]
	c.send(r)
	c.answer(c.loginRequest(), true)
	s := d.session()
	if n := s.Info().Negotiated; n.MaxBurstLength != 8192 || n.FirstBurstLength != 4096 {
		t.Errorf("negotiated %+v", n)
	}
	c.fullFeature()
	c.alive(s)
}

// Keys may be spread over as many responses as the target likes.
func TestLogin_24_2_KeysOverSeveralPDUs(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.loginRequest()
	answers := c.agree(req, "ImmediateData=No")
	for _, a := range answers {
		c.answer(req, false, a)
		req = c.loginRequest()
	}
	c.answer(req, true)
	if n := d.session().Info().Negotiated; !n.NoImmediateData || n.InitialR2T {
		t.Errorf("negotiated %+v", n)
	}
}

func TestLogin_24_3_TransitWhileContinued(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	c.loginRequest()
	b := make([]byte, pdu.BHSLen)
	b[0], b[1], b[15] = byte(pdu.OpLoginResponse), 0xc7, 1
	c.sendRaw(b)
	d.fails(initiator.ErrProtocol)
	c.ended()
}

// A login that never comes to an end is given up, whether text flows or not.
func TestLogin_24_4_LoginWithoutEnd(t *testing.T) {
	for name, mod := range map[string]func(*pdu.LoginResponse){
		"no transit": func(*pdu.LoginResponse) {},
		"no end of text": func(r *pdu.LoginResponse) {
			r.Continue, r.Data = true, make([]byte, 8000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStation(t)
			d := st.dial(st.config())
			c := st.accept()
			for n := 0; ; n++ {
				p, err := c.read()
				if err != nil {
					break
				}
				if n > 1000 {
					t.Fatal("a thousand requests")
				}
				r := c.loginAnswer(p.(*pdu.LoginRequest), false)
				mod(r)
				c.send(r)
			}
			d.fails(initiator.ErrProtocol)
		})
	}
}

// The target must not go on to a stage that the initiator did not ask for.
func TestLogin_24_5_TransitUnasked(t *testing.T) {
	st := newStation(t)
	cfg := st.config()
	cfg.CHAP = initiator.CHAP{Username: "user", Password: "secretsecret12"}
	d := st.dial(cfg)
	c := st.accept()
	r := c.loginAnswer(c.loginRequest(), false, "AuthMethod=None")
	r.Transit, r.NextStage, r.TSIH = true, pdu.StageFullFeature, 1
	c.send(r)
	d.fails(initiator.ErrProtocol)
	c.ended()
}
