package conformance

import (
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

var both = []initiator.Digest{initiator.DigestCRC32C, initiator.DigestNone}

// offers returns the keys of the first login request under a Config.
func offers(t *testing.T, mod func(*initiator.Config)) map[string]string {
	t.Helper()
	_, c := operational(t, mod)
	return c.keysOf(c.first.Data)
}

// refused checks that a login fails as a protocol violation when the target says
// this in the operational stage, and that the connection is closed at once.
func refused(t *testing.T, mod func(*initiator.Config), answers ...string) {
	t.Helper()
	st := newStation(t)
	cfg := st.config()
	if mod != nil {
		mod(&cfg)
	}
	d := st.dial(cfg)
	c := st.accept()
	c.logIn(answers...)
	d.fails(initiator.ErrProtocol)
	c.ended()
	st.unwanted()
}

// No key is offered or declared twice in a login, however long it takes.
func TestLogin_6_1_NegotiateOnce(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	seen := map[string]bool{}
	req := c.loginRequest()
	answers := c.agree(req)
	for {
		for k := range c.keysOf(req.Data) {
			if seen[k] {
				t.Errorf("%s was said before", k)
			}
			seen[k] = true
		}
		if len(answers) == 0 {
			break
		}
		c.answer(req, false, answers[0])
		answers = answers[1:]
		req = c.loginRequest()
	}
	c.answer(req, true)
	c.fullFeature()
	c.alive(d.session())
}

func TestLogin_6_2_NegotiateOnceInSeparatePDUs(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	c.answer(c.loginRequest(), false, "ImmediateData=Yes")
	c.answer(c.loginRequest(), false, "ImmediateData=No")
	d.fails(initiator.ErrProtocol)
	c.ended()
}

func TestLogin_6_3_NegotiateOnceInOnePDU(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	c.answer(c.loginRequest(), true, "ImmediateData=Yes", "ImmediateData=No")
	d.fails(initiator.ErrProtocol)
	c.ended()
}

// RFC 7143 section 6.3: declarations must not be repeated either.
func TestLogin_6_4_DeclareOnce(t *testing.T) {
	for _, keys := range [][2]string{
		{"MaxRecvDataSegmentLength=8192", "MaxRecvDataSegmentLength=4096"},
		{"TargetPortalGroupTag=1", "TargetPortalGroupTag=2"},
	} {
		t.Run(keys[1], func(t *testing.T) {
			st := newStation(t)
			d := st.dial(st.config())
			c := st.accept()
			c.answer(c.loginRequest(), false, keys[0])
			c.answer(c.loginRequest(), true, keys[1])
			d.fails(initiator.ErrProtocol)
			c.ended()
		})
	}
}

// The text of the request has the form that RFC 7143 section 6.1 wants: keys that
// are known, values without blanks, a null behind each pair.
func TestLogin_7_1_LoginRequest(t *testing.T) {
	known := strings.Fields(`InitiatorName InitiatorAlias TargetName SessionType AuthMethod HeaderDigest DataDigest
		MaxConnections InitialR2T ImmediateData MaxRecvDataSegmentLength MaxBurstLength FirstBurstLength DefaultTime2Wait
		DefaultTime2Retain MaxOutstandingR2T DataPDUInOrder DataSequenceInOrder ErrorRecoveryLevel IFMarker OFMarker`)
	_, c := operational(t, func(cfg *initiator.Config) { cfg.InitiatorAlias = "a client of ours" })
	keys := c.keysOf(c.first.Data)
	for k, v := range keys {
		if !slices.Contains(known, k) {
			t.Errorf("key %s is none of RFC 7143", k)
		}
		if v == "" || k != "InitiatorAlias" && strings.ContainsAny(v, " \t") || len(v) > 255 {
			t.Errorf("%s=%q", k, v)
		}
	}
	if keys["InitiatorAlias"] != "a client of ours" {
		t.Errorf("InitiatorAlias=%q", keys["InitiatorAlias"])
	}
}

// From a list the target picks one value, and that holds.
func TestLogin_7_2_ListNegotiation(t *testing.T) {
	for _, pick := range []string{"CRC32C", "None"} {
		t.Run(pick, func(t *testing.T) {
			s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.HeaderDigest = both }, "HeaderDigest="+pick)
			if v := c.keysOf(c.first.Data)["HeaderDigest"]; v != "CRC32C,None" {
				t.Errorf("offered %q", v)
			}
			if got := s.Info().Negotiated.HeaderDigest; len(got) != 1 || got[0].String() != pick {
				t.Errorf("negotiated %v", got)
			}
			c.alive(s)
		})
	}
}

func TestLogin_7_3_InvalidAuthMethod(t *testing.T) {
	for _, answer := range []string{"AuthMethod=Kerberos5", "AuthMethod=CHAP,None", "AuthMethod=", "AuthMethod=Reject", "AuthMethod=Irrelevant", "TargetAlias=none"} {
		t.Run(answer, func(t *testing.T) {
			st := newStation(t)
			cfg := st.config()
			cfg.CHAP = initiator.CHAP{Username: "user", Password: "secretsecret12"}
			d := st.dial(cfg)
			c := st.accept()
			c.answer(c.loginRequest(), false, answer)
			d.fails(initiator.ErrAuth)
			c.ended()
		})
	}
}

// A value that no FirstBurstLength can have ends the login. One that is legal but
// more than was offered is not obeyed: the result is the minimum.
func TestLogin_7_4_FirstBurstLengthTooHigh(t *testing.T) {
	refused(t, nil, "FirstBurstLength=16777216")
	s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.FirstBurstLength = 2048 }, "FirstBurstLength=4096", "ImmediateData=No", "InitialR2T=No")
	data := pattern(1, 8192)
	r := start(t, s, writeTask(data))
	cmd := c.command()
	c.burst(cmd, pdu.ReservedTag, 0, 2048)
	c.send(r2t(cmd, 0, 1, 2048, 6144))
	c.burst(cmd, 1, 2048, 6144)
	c.respond(cmd)
	r.succeeds()
}

func TestLogin_7_5_ImmediateDataInvalidValue(t *testing.T) {
	refused(t, nil, "ImmediateData=Maybe")
}

// A key that nobody knows is answered with NotUnderstood, and the login goes on.
func TestLogin_7_6_InvalidKey(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.loginRequest()
	c.answer(req, false, append(c.agree(req), "X-com.example.key=5", "NoSuchKey=a,b")...)
	req = c.loginRequest()
	keys := c.keysOf(req.Data)
	if len(keys) != 2 || keys["X-com.example.key"] != "NotUnderstood" || keys["NoSuchKey"] != "NotUnderstood" {
		t.Errorf("answered %v", keys)
	}
	c.answer(req, true)
	c.fullFeature()
	c.alive(d.session())
}

// Digests are offered as configured: none by default, lists in order.
func TestLogin_9_1_HeaderAndDataDigestOffer(t *testing.T) {
	for _, tc := range []struct {
		header, data []initiator.Digest
		want         [2]string
	}{
		{nil, nil, [2]string{"None", "None"}},
		{both, both[1:], [2]string{"CRC32C,None", "None"}},
		{both[:1], []initiator.Digest{initiator.DigestNone, initiator.DigestCRC32C}, [2]string{"CRC32C", "None,CRC32C"}},
	} {
		keys := offers(t, func(cfg *initiator.Config) { cfg.Params.HeaderDigest, cfg.Params.DataDigest = tc.header, tc.data })
		if got := [2]string{keys["HeaderDigest"], keys["DataDigest"]}; got != tc.want {
			t.Errorf("offered %v, want %v", got, tc.want)
		}
	}
}

// A digest that was not offered is refused; without an answer there is none.
func TestLogin_9_2_DigestResponse(t *testing.T) {
	for _, answer := range []string{"HeaderDigest=CRC32C", "DataDigest=CRC32C", "HeaderDigest=CRC64", "DataDigest=None,CRC32C", "HeaderDigest="} {
		t.Run(answer, func(t *testing.T) { refused(t, nil, answer) })
	}
	for _, answer := range []string{"HeaderDigest=None", "HeaderDigest=Reject", "HeaderDigest=NotUnderstood", "HeaderDigest=-"} {
		t.Run(answer, func(t *testing.T) {
			s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.HeaderDigest = both }, answer)
			if got := s.Info().Negotiated.HeaderDigest; len(got) != 1 || got[0] != initiator.DigestNone {
				t.Errorf("negotiated %v", got)
			}
			c.alive(s)
		})
	}
}

// With CRC32C every PDU of the full feature phase has its digests: the station's
// reader checks them, and its writer's are accepted.
func TestLogin_9_3_CRC32CSupported(t *testing.T) {
	s, c := operational(t, func(cfg *initiator.Config) {
		cfg.Params.HeaderDigest, cfg.Params.DataDigest = both[:1], both[:1]
	})
	data := pattern(3, 1024)
	w := start(t, s, writeTask(data))
	cmd := c.command()
	if string(cmd.Data) != string(data) {
		t.Error("data changed on the way to the target")
	}
	c.respond(cmd)
	w.succeeds()
	r := start(t, s, readTask(1024))
	c.send(lastDataIn(c.command(), 0, 0, data))
	r.succeeds()
	if string(r.DataIn) != string(data) {
		t.Error("data changed on the way back")
	}
	long := &initiator.Task{LUN: lun1, ExtendedCDB: []byte{1, 2, 3, 4, 5}} // header digests cover the AHS
	long.CDB[0] = 0x7f
	x := start(t, s, long)
	c.respond(c.command())
	x.succeeds()
	c.quiet(s)
}

// A session has one connection unless more are wanted; a target that grants more
// than were asked for is refused.
func TestLogin_10_1_MaxConnections(t *testing.T) {
	s, c := operational(t, nil)
	if v := c.keysOf(c.first.Data)["MaxConnections"]; v != "1" {
		t.Errorf("MaxConnections=%s", v)
	}
	c.alive(s)
	c.st.unwanted()
	refused(t, nil, "MaxConnections=2")
	refused(t, nil, "MaxConnections=0")
	one := func(cfg *initiator.Config) { cfg.Params.MaxConnections = 8 }
	number(t, "MaxConnections", "8", one, func(p initiator.Params) int { return p.MaxConnections },
		map[string]int{"1": 1, "-": 1, "Reject": 1}, "9", "0", "x")
}

// Both names stand in the first request and in no other.
func TestLogin_11_1_InitiatorNameAndTargetName(t *testing.T) {
	longest := "iqn.2001-04.com.example:" + strings.Repeat("x", 223-len("iqn.2001-04.com.example:"))
	for _, name := range []string{initiatorName, longest, "eui.02004567a425678d", "naa.52004567ba64678d"} {
		t.Run(name[:8], func(t *testing.T) {
			st := newStation(t)
			cfg := st.config()
			cfg.InitiatorName, cfg.Target = name, name
			d := st.dial(cfg)
			c := st.accept()
			req := c.loginRequest()
			if keys := c.keysOf(req.Data); keys["InitiatorName"] != name || keys["TargetName"] != name {
				t.Errorf("names %q and %q", keys["InitiatorName"], keys["TargetName"])
			}
			c.answer(req, false, c.agree(req)...)
			req = c.loginRequest()
			if keys := c.keysOf(req.Data); keys["InitiatorName"] != "" || keys["TargetName"] != "" {
				t.Errorf("names again: %v", keys)
			}
			c.answer(req, true)
			d.session()
		})
	}
}

// Markers are no part of RFC 7143 (section 13.25): we say No, accept every way to
// say no, and reject the target's intervals.
func TestLogin_12_1_Markers(t *testing.T) {
	for _, v := range []string{"No", "Reject", "NotUnderstood", "Irrelevant", "-"} {
		_, c := operational(t, nil, "IFMarker="+v, "OFMarker="+v)
		if keys := c.keysOf(c.first.Data); keys["IFMarker"] != "No" || keys["OFMarker"] != "No" {
			t.Errorf("offered %v", keys)
		}
	}
	refused(t, nil, "IFMarker=Yes")
	refused(t, nil, "OFMarker=Yes")
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.loginRequest()
	c.answer(req, false, append(c.agree(req), "IFMarkInt=2048~4096", "OFMarkInt=1")...)
	req = c.loginRequest()
	if keys := c.keysOf(req.Data); len(keys) != 2 || keys["IFMarkInt"] != "Reject" || keys["OFMarkInt"] != "Reject" {
		t.Errorf("answered %v", keys)
	}
	c.answer(req, true)
	c.fullFeature()
	c.alive(d.session())
}

// The results of Boolean keys follow AND and OR from both values.
func TestLogin_13_1_BooleanNegotiation(t *testing.T) {
	for _, ours := range []bool{true, false} {
		for _, theirs := range []bool{true, false} {
			s, c := operational(t, func(cfg *initiator.Config) {
				p := &cfg.Params
				p.InitialR2T, p.NoImmediateData, p.UnorderedPDUs, p.UnorderedSequences = ours, !ours, !ours, !ours
			}, "InitialR2T="+pdu.FormatBool(theirs), "ImmediateData="+pdu.FormatBool(theirs),
				"DataPDUInOrder="+pdu.FormatBool(theirs), "DataSequenceInOrder="+pdu.FormatBool(theirs))
			keys, want := c.keysOf(c.first.Data), pdu.FormatBool(ours)
			for _, k := range []string{"InitialR2T", "ImmediateData", "DataPDUInOrder", "DataSequenceInOrder"} {
				if keys[k] != want {
					t.Errorf("%s=%s, want %s", k, keys[k], want)
				}
			}
			n, and, or := s.Info().Negotiated, ours && theirs, ours || theirs
			if n.InitialR2T != or || n.NoImmediateData == and || n.UnorderedPDUs == or || n.UnorderedSequences == or {
				t.Errorf("%v and %v become %+v", ours, theirs, n)
			}
		}
	}
}

// Answers to Boolean keys that need none may be left out (RFC 7143 section 6.2.2).
func TestLogin_13_2_BooleanLegal(t *testing.T) {
	s, _ := operational(t, func(cfg *initiator.Config) {
		cfg.Params.InitialR2T, cfg.Params.NoImmediateData = true, true
	}, "InitialR2T=-", "ImmediateData=-", "DataPDUInOrder=-", "DataSequenceInOrder=-")
	if n := s.Info().Negotiated; !n.InitialR2T || !n.NoImmediateData || n.UnorderedPDUs || n.UnorderedSequences {
		t.Errorf("negotiated %+v", n)
	}
}

func TestLogin_13_3_BooleanIllegal(t *testing.T) {
	for _, k := range []string{"InitialR2T", "ImmediateData", "DataPDUInOrder", "DataSequenceInOrder"} {
		for _, v := range []string{"yes", "NO", "True", "1", "", "None", "Yes,No"} {
			t.Run(k+"="+v, func(t *testing.T) { refused(t, nil, k+"="+v) })
		}
	}
}

// Each side declares what it takes. Ours is kept by the target; the target's
// bounds every data segment of ours.
func TestLogin_14_1_MaxRecvDataSegmentLength(t *testing.T) {
	for _, limit := range []string{"512", "4096", "0x2000", "-"} {
		t.Run(limit, func(t *testing.T) {
			s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.MaxRecvDataSegmentLength = 65536 },
				"MaxRecvDataSegmentLength="+limit, "InitialR2T=No")
			if v := c.keysOf(c.first.Data)["MaxRecvDataSegmentLength"]; v != "65536" {
				t.Errorf("declared %s", v)
			}
			r := start(t, s, writeTask(pattern(1, 20480)))
			cmd := c.command() // c's reader refuses longer segments than were declared
			c.burst(cmd, pdu.ReservedTag, len(cmd.Data), 20480-len(cmd.Data))
			c.respond(cmd)
			r.succeeds()
		})
	}
	for _, v := range []string{"511", "16777216", "-1", "8k", ""} {
		t.Run(v, func(t *testing.T) { refused(t, nil, "MaxRecvDataSegmentLength="+v) })
	}
}

// The result is the minimum, and an R2T for more is a violation.
func TestLogin_15_1_MaxBurstLength(t *testing.T) {
	s, c := operational(t, func(cfg *initiator.Config) { cfg.Params.MaxBurstLength = 65536 }, "MaxBurstLength=4096", "ImmediateData=No", "InitialR2T=Yes")
	if v := c.keysOf(c.first.Data)["MaxBurstLength"]; v != "65536" {
		t.Errorf("offered %s", v)
	}
	r := start(t, s, writeTask(pattern(1, 8192)))
	cmd := c.command()
	c.send(r2t(cmd, 0, 1, 0, 4096))
	c.burst(cmd, 1, 0, 4096)
	c.send(r2t(cmd, 1, 2, 4096, 4096+4))
	r.fails(initiator.ErrProtocol)
	c.ended()
	refused(t, nil, "MaxBurstLength=511")
	refused(t, nil, "MaxBurstLength=16777216")
}

// testFirstBurst checks how much comes unasked of a long write.
func testFirstBurst(t *testing.T, mod func(*initiator.Config), want int, answers ...string) {
	t.Helper()
	s, c := operational(t, mod, append(answers, "ImmediateData=No", "InitialR2T=No")...)
	r := start(t, s, writeTask(pattern(1, 32768)))
	cmd := c.command()
	c.burst(cmd, pdu.ReservedTag, 0, want)
	c.quiet(s)
	c.send(&pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, Status: uint8(scsi.StatusBusy)})
	if task := r.finished(); task.Status != scsi.StatusBusy {
		t.Errorf("status %v", task.Status)
	}
}

func TestLogin_16_1_FirstBurstLengthBelowMaxBurstLength(t *testing.T) {
	testFirstBurst(t, nil, 4096, "FirstBurstLength=4096", "MaxBurstLength=8192")
}

// FirstBurstLength must not exceed MaxBurstLength (RFC 7143 section 13.14); where
// the target's answers make it so, the lower counts.
func TestLogin_16_2_FirstBurstLengthAboveMaxBurstLength(t *testing.T) {
	testFirstBurst(t, nil, 4096, "FirstBurstLength=8192", "MaxBurstLength=4096")
}

func TestLogin_16_3_FirstBurstLengthAsOffered(t *testing.T) {
	offer := func(first, burst int) func(*initiator.Config) {
		return func(cfg *initiator.Config) { cfg.Params.FirstBurstLength, cfg.Params.MaxBurstLength = first, burst }
	}
	testFirstBurst(t, offer(8192, 16384), 8192)
	testFirstBurst(t, offer(16384, 8192), 8192) // a record that has it wrong
	keys := offers(t, offer(16384, 8192))
	if keys["FirstBurstLength"] != "8192" || keys["MaxBurstLength"] != "8192" {
		t.Errorf("offered %v", keys)
	}
}
