package conformance

import (
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

func TestLogin_1_1_StandardLogin(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.logIn()
	keys := c.keysOf(req.Data)
	if keys["InitiatorName"] != initiatorName || keys["TargetName"] != targetName || keys["SessionType"] != "Normal" {
		t.Errorf("keys %v", keys)
	}
	if !req.Transit || req.Continue || req.CurrentStage != pdu.StageOperational || req.NextStage != pdu.StageFullFeature {
		t.Errorf("stages of the first request: %+v", req)
	}
	s := d.session()
	c.alive(s)
	if i := s.Info(); i.State != initiator.StateLoggedIn || i.TSIH != c.tsih {
		t.Errorf("info %+v", i)
	}
}

// The TSIH is zero in all requests of a leading login, and the one of the final
// response becomes the session's.
func TestLogin_2_1_TSIHIsZeroUntilTheFinalResponse(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	c.tsih = 0xbeef
	req := c.loginRequest()
	for range 3 {
		if req.TSIH != 0 {
			t.Errorf("TSIH %#x in a leading login", req.TSIH)
		}
		c.answer(req, false)
		req = c.loginRequest()
	}
	c.finishLogin(req)
	if got := d.session().Info().TSIH; got != 0xbeef {
		t.Errorf("TSIH %#x, want 0xbeef", got)
	}
}

func TestLogin_2_2_TSIHInvalidValue(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	c.tsih = 0 // reserved
	c.logIn()
	d.fails(initiator.ErrProtocol)
	c.ended()
}

// two logs in with two connections and returns the station's ends of them.
func two(t *testing.T, mod func(*initiator.Config)) (*initiator.Session, *conn, *conn) {
	t.Helper()
	st := newStation(t)
	cfg := st.config()
	cfg.Params.MaxConnections = 2
	if mod != nil {
		mod(&cfg)
	}
	d := st.dial(cfg)
	c := st.accept()
	c.logIn()
	c2 := st.accept()
	c2.logIn()
	s := d.session()
	if n := s.Info().Connections; n != 2 {
		t.Fatalf("%d connections", n)
	}
	return s, c, c2
}

// A second connection has the TSIH that the target gave, the ISID of the session
// and a CID of its own, and negotiates what is about the connection and nothing else.
func TestLogin_2_3_TSIHInSecondConnection(t *testing.T) {
	s, c, c2 := two(t, nil)
	req := c2.first
	if req.TSIH != c.tsih || req.ISID != c.first.ISID || req.CID == c.first.CID || req.CmdSN != c.first.CmdSN {
		t.Errorf("TSIH %#x, ISID %x, CID %d, CmdSN %d; first login: ISID %x, CID %d, CmdSN %d", req.TSIH, req.ISID, req.CID, req.CmdSN, c.first.ISID, c.first.CID, c.first.CmdSN)
	}
	allowed := map[string]bool{"InitiatorName": true, "TargetName": true, "HeaderDigest": true, "DataDigest": true, "MaxRecvDataSegmentLength": true}
	for k := range c2.keysOf(req.Data) {
		if !allowed[k] {
			t.Errorf("%s on a further connection", k)
		}
	}
	// CmdSN counts for the session, StatSN for each connection.
	for i := range 6 {
		on, other := c, c2
		if i%2 == 0 {
			on, other = c2, c
		}
		on.alive(s)
		other.expCmdSN = on.expCmdSN
	}
}

// A target that names another session is not believed; the session has the
// connections that it has.
func TestLogin_2_4_TSIHOfAnotherSession(t *testing.T) {
	st := newStation(t)
	cfg := st.config()
	cfg.Params.MaxConnections = 3
	d := st.dial(cfg)
	c := st.accept()
	c.logIn()
	c2 := st.accept()
	c2.tsih++
	c2.logIn()
	c2.ended()
	s := d.session()
	if n := s.Info().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
	c.alive(s)
	st.unwanted()
}

// A session that has lost its only connection is reinstated: the same ISID and CID,
// and a TSIH of zero.
func TestLogin_2_5_TSIHAfterALoss(t *testing.T) {
	s, c := operational(t, nil)
	c.nc.Close()
	c2 := c.st.accept()
	req := c2.logIn()
	if req.TSIH != 0 || req.ISID != c.first.ISID || req.CID != c.first.CID {
		t.Errorf("TSIH %#x, ISID %x, CID %d; first login: ISID %x, CID %d", req.TSIH, req.ISID, req.CID, c.first.ISID, c.first.CID)
	}
	c2.alive(s)
}

// Where T is not set, NSG is reserved and zero; where it is, NSG follows CSG.
func TestLogin_3_1_TBit(t *testing.T) {
	st := newStation(t)
	cfg := st.config()
	cfg.CHAP = initiator.CHAP{Username: "user", Password: "secretsecret12"}
	d := st.dial(cfg)
	c := st.accept()
	req := c.loginRequest()
	if flags := c.header.BHS[1]; flags != 0 {
		t.Errorf("flags %#02x of a first request that has to negotiate the authentication, want 0", flags)
	}
	c.answer(req, false, "AuthMethod=None", "TargetPortalGroupTag=1")
	req = c.loginRequest()
	if flags := c.header.BHS[1]; flags != 0x81 {
		t.Errorf("flags %#02x when the security stage is done, want T, CSG 0, NSG 1", flags)
	}
	c.answer(req, true)
	req = c.loginRequest()
	if flags := c.header.BHS[1]; flags != 0x87 {
		t.Errorf("flags %#02x in the operational stage, want T, CSG 1, NSG 3", flags)
	}
	c.finishLogin(req)
	d.session()
}

// RFC 7143 section 6.3.3: a target that is not ready yet answers without T, and the
// initiator goes on asking with T set, if with empty requests.
func TestLogin_3_2_TBitDelay(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.loginRequest()
	c.answer(req, false, c.agree(req)...)
	for range 6 {
		req = c.loginRequest()
		if !req.Transit || req.NextStage != pdu.StageFullFeature || len(req.Data) != 0 {
			t.Errorf("T bit %v, NSG %v, text %q while the target is not ready", req.Transit, req.NextStage, req.Data)
		}
		c.answer(req, false)
	}
	c.answer(c.loginRequest(), true)
	c.fullFeature()
	c.alive(d.session())
}

// testStatSN logs in at a target whose StatSN begins at first, in a login of
// several steps, and goes on in full feature phase.
func testStatSN(t *testing.T, first uint32) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	req := c.loginRequest()
	c.statSN, c.expStatSN = first, first
	for i := range uint32(3) {
		c.answer(req, false)
		if req = c.loginRequest(); req.ExpStatSN != first+i+1 {
			t.Errorf("ExpStatSN %d after StatSN %d", req.ExpStatSN, first+i)
		}
	}
	c.finishLogin(req)
	s := d.session()
	r := start(t, s, noData())
	cmd := c.command()
	if cmd.ExpStatSN != first+4 {
		t.Errorf("ExpStatSN %d in the first command, want %d", cmd.ExpStatSN, first+4)
	}
	c.respond(cmd)
	r.succeeds()
}

func TestLogin_4_1_StatSNZero(t *testing.T)    { testStatSN(t, 0) }
func TestLogin_4_2_StatSNNonZero(t *testing.T) { testStatSN(t, 0x12345678) }

// In a login ExpStatSN acknowledges each response, also where the numbers wrap.
func TestLogin_5_1_ExpStatSN(t *testing.T) { testStatSN(t, 0xfffffffe) }

// What comes where a Login Response must come ends the login and the connection.
func TestLogin_8_1_InvalidPDU(t *testing.T) {
	both := make([]byte, pdu.BHSLen) // login response with T and C
	both[0], both[1] = byte(pdu.OpLoginResponse), 0xc7
	unknown := make([]byte, pdu.BHSLen)
	unknown[0] = 0x3c
	long := make([]byte, pdu.BHSLen) // text of 16 MiB, which is more than the 8192 bytes of a login
	long[0], long[1], long[5], long[6], long[7] = byte(pdu.OpLoginResponse), 0x87, 0xff, 0xff, 0xff
	for name, answer := range map[string]func(c *conn, req *pdu.LoginRequest){
		"NOP-In": func(c *conn, _ *pdu.LoginRequest) {
			c.send(&pdu.NOPIn{InitiatorTaskTag: 0, TargetTransferTag: pdu.ReservedTag})
		},
		"SCSI response": func(c *conn, _ *pdu.LoginRequest) { c.send(&pdu.SCSIResponse{}) },
		"text response": func(c *conn, _ *pdu.LoginRequest) {
			c.send(&pdu.TextResponse{Final: true, TargetTransferTag: pdu.ReservedTag})
		},
		"async message":         func(c *conn, _ *pdu.LoginRequest) { c.send(&pdu.AsyncMessage{Event: pdu.AsyncSessionDrop}) },
		"an initiator's opcode": func(c *conn, _ *pdu.LoginRequest) { c.send(&pdu.NOPOut{}) },
		"reject": func(c *conn, _ *pdu.LoginRequest) {
			c.send(&pdu.Reject{Reason: pdu.RejectProtocolError, Data: make([]byte, 48)})
		},
		"unassigned opcode":   func(c *conn, _ *pdu.LoginRequest) { c.sendRaw(unknown) },
		"T and C":             func(c *conn, _ *pdu.LoginRequest) { c.sendRaw(both) },
		"segment without end": func(c *conn, _ *pdu.LoginRequest) { c.sendRaw(long) },
		"text that is none": func(c *conn, req *pdu.LoginRequest) {
			r := c.loginAnswer(req, true)
			r.Data = []byte("nonsense\x00")
			c.send(r)
		},
		"key with spaces": func(c *conn, req *pdu.LoginRequest) {
			r := c.loginAnswer(req, true)
			r.Data = []byte("a b=1\x00")
			c.send(r)
		},
		"another task tag":          func(c *conn, req *pdu.LoginRequest) { r := c.loginAnswer(req, true); r.InitiatorTaskTag++; c.send(r) },
		"another stage":             func(c *conn, req *pdu.LoginRequest) { r := c.loginAnswer(req, false); r.CurrentStage = 0; c.send(r) },
		"a version not asked for":   func(c *conn, req *pdu.LoginRequest) { r := c.loginAnswer(req, true); r.VersionActive = 1; c.send(r) },
		"an undefined status class": func(c *conn, req *pdu.LoginRequest) { c.refuse(req, 9, 9) },
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			st := newStation(t)
			d := st.dial(st.config())
			c := st.accept()
			answer(c, c.loginRequest())
			err := d.fails()
			if name != "an undefined status class" {
				is(t, err, initiator.ErrProtocol)
			}
			c.ended()
			st.unwanted()
		})
	}
}
