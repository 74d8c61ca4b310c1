package iscsitest_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator/internal/chap"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

func TestLoginNegotiatesKeys(t *testing.T) {
	tests := []struct {
		key, offer string
		params     iscsitest.Params
		want       string
	}{
		{"HeaderDigest", "CRC32C,None", iscsitest.Params{}, "CRC32C"},
		{"HeaderDigest", "None,CRC32C", iscsitest.Params{}, "None"},
		{"DataDigest", "CRC32C,None", iscsitest.Params{DataDigest: []string{"None"}}, "None"},
		{"DataDigest", "CRC32C", iscsitest.Params{DataDigest: []string{"None"}}, "Reject"},
		{"DataDigest", "X-foo,CRC32C", iscsitest.Params{}, "CRC32C"},
		{"InitialR2T", "No", iscsitest.Params{}, "No"},
		{"InitialR2T", "No", iscsitest.Params{InitialR2T: true}, "Yes"},
		{"InitialR2T", "Yes", iscsitest.Params{}, "Yes"},
		{"ImmediateData", "Yes", iscsitest.Params{}, "Yes"},
		{"ImmediateData", "Yes", iscsitest.Params{NoImmediateData: true}, "No"},
		{"ImmediateData", "No", iscsitest.Params{}, "No"},
		{"MaxBurstLength", "262144", iscsitest.Params{}, "262144"},
		{"MaxBurstLength", "0x40000", iscsitest.Params{MaxBurstLength: 65536}, "65536"},
		{"FirstBurstLength", "65536", iscsitest.Params{FirstBurstLength: 4096}, "4096"},
		{"MaxOutstandingR2T", "65535", iscsitest.Params{}, "16"},
		{"MaxConnections", "8", iscsitest.Params{}, "1"},
		{"DefaultTime2Wait", "2", iscsitest.Params{DefaultTime2Wait: 5}, "5"},
		{"DefaultTime2Retain", "30", iscsitest.Params{}, "20"},
		{"ErrorRecoveryLevel", "2", iscsitest.Params{}, "0"},
		{"DataPDUInOrder", "No", iscsitest.Params{}, "Yes"},
		{"DataSequenceInOrder", "No", iscsitest.Params{}, "Yes"},
		{"IFMarker", "No", iscsitest.Params{}, "Reject"},
		{"X-com.example.key", "1", iscsitest.Params{}, "NotUnderstood"},
	}
	for _, tt := range tests {
		t.Run(tt.key+"="+tt.offer+"→"+tt.want, func(t *testing.T) {
			srv, _ := newServer(t, func(c *iscsitest.Config) { c.Params = tt.params })
			c := login(t, srv, kv(tt.key, tt.offer))
			if got := c.answer(tt.key); got != tt.want {
				t.Errorf("answer %q, want %q", got, tt.want)
			}
			if got := c.answer("MaxRecvDataSegmentLength"); got != "262144" {
				t.Errorf("MaxRecvDataSegmentLength %q was declared", got)
			}
			if got := c.answer("TargetPortalGroupTag"); got != "1" {
				t.Errorf("TargetPortalGroupTag %q", got)
			}
			if got := c.answer("TargetAlias"); got != "a disk" {
				t.Errorf("TargetAlias %q", got)
			}
			c.in(1, scsi.TestUnitReady, 0).good(t)
			noViolations(t, srv)
		})
	}
}

func TestLoginRecordsViolations(t *testing.T) {
	tests := []struct {
		name  string
		offer []pdu.KeyValue
		want  string
		rule  string
	}{
		{"out of range", []pdu.KeyValue{kv("MaxBurstLength", "511")}, "Reject", "out of range"},
		{"no number", []pdu.KeyValue{kv("MaxBurstLength", "much")}, "Reject", "not a digit"},
		{"no boolean", []pdu.KeyValue{kv("InitialR2T", "yes")}, "Reject", "neither Yes nor No"},
		{"twice", []pdu.KeyValue{kv("InitialR2T", "Yes"), kv("InitialR2T", "Yes")}, "Yes", "more than once"},
		{"security key", []pdu.KeyValue{kv("AuthMethod", "None")}, "", "outside of the security stage"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv, _ := newServer(t, nil)
			c := login(t, srv, tt.offer...)
			if got := c.answer(tt.offer[0].Key); got != tt.want {
				t.Errorf("answer %q, want %q", got, tt.want)
			}
			wantViolation(t, srv, tt.rule)
		})
	}
}

func TestLoginRefuses(t *testing.T) {
	closedTo := func(c *iscsitest.Config) { c.Targets[0].Initiators = []string{"iqn.2001-04.com.example:other"} }
	withCHAP := func(c *iscsitest.Config) { c.Targets[0].CHAP = iscsitest.CHAP{Username: "u", Password: "p"} }
	tests := []struct {
		name   string
		config func(*iscsitest.Config)
		keys   []pdu.KeyValue
		status uint16
	}{
		{"no such target", nil, []pdu.KeyValue{kv("InitiatorName", initiator), kv("TargetName", "iqn.x")}, 0x0203},
		{"no initiator name", nil, []pdu.KeyValue{kv("TargetName", target)}, 0x0207},
		{"no target name", nil, []pdu.KeyValue{kv("InitiatorName", initiator)}, 0x0207},
		{"not allowed", closedTo, []pdu.KeyValue{kv("InitiatorName", initiator), kv("TargetName", target)}, 0x0202},
		{"not authenticated", withCHAP, []pdu.KeyValue{kv("InitiatorName", initiator), kv("TargetName", target)}, 0x0201},
		{"session type", nil, []pdu.KeyValue{kv("InitiatorName", initiator), kv("SessionType", "Odd")}, 0x0209},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv, _ := newServer(t, tt.config)
			c := dial(t, srv)
			rsp := c.loginStep(pdu.StageOperational, pdu.StageFullFeature, tt.keys...)
			if got := uint16(rsp.StatusClass)<<8 | uint16(rsp.StatusDetail); got != tt.status {
				t.Errorf("status %04x, want %04x", got, tt.status)
			}
			c.closed()
			if n := len(srv.Sessions()); n != 0 {
				t.Errorf("%d sessions", n)
			}
		})
	}
}

func TestLoginSecurityStageWithoutAuthentication(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := dial(t, srv)
	rsp := c.loginStep(pdu.StageSecurity, pdu.StageOperational, append(c.names(), kv("AuthMethod", "CHAP,None"))...)
	if c.answer("AuthMethod") != "None" || !rsp.Transit {
		t.Fatalf("AuthMethod %q, %+v", c.answer("AuthMethod"), rsp)
	}
	if rsp.TSIH != 0 {
		t.Errorf("TSIH %d before the end of the login", rsp.TSIH)
	}
	rsp = c.loginStep(pdu.StageOperational, pdu.StageFullFeature, kv("MaxRecvDataSegmentLength", "65536"))
	if !rsp.Transit || rsp.TSIH == 0 {
		t.Fatalf("final response %+v", rsp)
	}
	c.in(1, scsi.TestUnitReady, 0).good(t)
	noViolations(t, srv)
	if s := srv.Sessions(); len(s) != 1 || s[0].TSIH != rsp.TSIH || s[0].Initiator != initiator ||
		s[0].Target != target || s[0].Negotiated.MaxRecvDataSegmentLength != 65536 {
		t.Errorf("sessions %+v", s)
	}
}

func TestLoginCHAP(t *testing.T) {
	const secret, mutual = "a secret of the host", "a secret of the target"
	tests := []struct {
		name     string
		offer    string
		accepted []uint8
		want     chap.Algorithm
		user     string
		secret   string
		mutual   bool
		ok       bool
	}{
		{"md5", "5", nil, chap.MD5, "host", secret, false, true},
		{"sha1", "6,5", nil, chap.SHA1, "host", secret, false, true},
		{"sha256", "7,5", nil, chap.SHA256, "host", secret, false, true},
		{"sha3-256", "8,5", nil, chap.SHA3256, "host", secret, false, true},
		{"only md5 accepted", "8,7,6,5", []uint8{5}, chap.MD5, "host", secret, false, true},
		{"unknown ones", "99,5", nil, chap.MD5, "host", secret, false, true},
		{"mutual md5", "5", nil, chap.MD5, "host", secret, true, true},
		{"mutual sha3-256", "8", nil, chap.SHA3256, "host", secret, true, true},
		{"wrong secret", "5", nil, chap.MD5, "host", "wrong", false, false},
		{"wrong name", "5", nil, chap.MD5, "guest", secret, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv, _ := newServer(t, func(c *iscsitest.Config) {
				c.Targets[0].CHAP = iscsitest.CHAP{
					Username: "host", Password: secret, MutualUsername: "target", MutualPassword: mutual, Algorithms: tt.accepted,
				}
			})
			c := dial(t, srv)
			rsp := c.loginStep(pdu.StageSecurity, pdu.StageOperational, append(c.names(), kv("AuthMethod", "CHAP,None"))...)
			if c.answer("AuthMethod") != "CHAP" || rsp.Transit {
				t.Fatalf("AuthMethod %q, %+v", c.answer("AuthMethod"), rsp)
			}
			c.loginStep(pdu.StageSecurity, 0, kv("CHAP_A", tt.offer))
			if got := c.answer("CHAP_A"); got != fmt.Sprint(uint8(tt.want)) {
				t.Fatalf("CHAP_A=%s, want %d", got, tt.want)
			}
			keys := []pdu.KeyValue{kv("CHAP_N", tt.user), kv("CHAP_R", respond(tt.want, c.answer("CHAP_I"), tt.secret, c.answer("CHAP_C")))}
			const id, challenge = "17", "0x000102030405060708090a0b0c0d0e0f"
			if tt.mutual {
				keys = append(keys, kv("CHAP_I", id), kv("CHAP_C", challenge))
			}
			c.answers = nil
			rsp = c.loginStep(pdu.StageSecurity, pdu.StageOperational, keys...)
			if !tt.ok {
				if rsp.StatusClass != 2 || rsp.StatusDetail != 1 {
					t.Errorf("status %02x%02x, want 0201", rsp.StatusClass, rsp.StatusDetail)
				}
				c.closed()
				return
			}
			if !rsp.Transit {
				t.Fatalf("authenticated, but no transit: %+v", rsp)
			}
			if tt.mutual && (c.answer("CHAP_N") != "target" || c.answer("CHAP_R") != respond(tt.want, id, mutual, challenge)) {
				t.Errorf("the target did not authenticate itself: %v", c.answers)
			}
			if rsp = c.loginStep(pdu.StageOperational, pdu.StageFullFeature); !rsp.Transit {
				t.Fatalf("final response %+v", rsp)
			}
			noViolations(t, srv)
		})
	}
}

func TestLoginCHAPReflectedChallenge(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) {
		c.Targets[0].CHAP = iscsitest.CHAP{Username: "u", Password: "p", MutualUsername: "m", MutualPassword: "q"}
	})
	c := dial(t, srv)
	c.loginStep(pdu.StageSecurity, 0, append(c.names(), kv("AuthMethod", "CHAP"))...)
	c.loginStep(pdu.StageSecurity, 0, kv("CHAP_A", "5"))
	rsp := c.loginStep(pdu.StageSecurity, pdu.StageOperational,
		kv("CHAP_N", "u"), kv("CHAP_R", respond(chap.MD5, c.answer("CHAP_I"), "p", c.answer("CHAP_C"))),
		kv("CHAP_I", "1"), kv("CHAP_C", c.answer("CHAP_C")))
	if rsp.StatusClass != 2 || rsp.StatusDetail != 1 {
		t.Errorf("status %02x%02x", rsp.StatusClass, rsp.StatusDetail)
	}
	wantViolation(t, srv, "own challenge")
}

func TestLoginCannotSkipAuthentication(t *testing.T) {
	steps := map[string]func(c *client) *pdu.LoginResponse{
		"transit without a method": func(c *client) *pdu.LoginResponse {
			return c.loginStep(pdu.StageSecurity, pdu.StageOperational, c.names()...)
		},
		"only None offered": func(c *client) *pdu.LoginResponse {
			return c.loginStep(pdu.StageSecurity, pdu.StageOperational, append(c.names(), kv("AuthMethod", "None"))...)
		},
		"response without challenge": func(c *client) *pdu.LoginResponse {
			c.loginStep(pdu.StageSecurity, 0, append(c.names(), kv("AuthMethod", "CHAP"))...)
			rsp := c.loginStep(pdu.StageSecurity, pdu.StageFullFeature, kv("CHAP_N", "u"), kv("CHAP_R", "0x00"))
			if rsp.StatusClass == 0 && !rsp.Transit {
				rsp.StatusClass = 2 // as good as refused
			}
			return rsp
		},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			srv, _ := newServer(t, func(c *iscsitest.Config) {
				c.Targets[0].CHAP = iscsitest.CHAP{Username: "u", Password: "p"}
			})
			if rsp := step(dial(t, srv)); rsp.StatusClass != 2 {
				t.Errorf("response %+v", rsp)
			}
			if len(srv.Sessions()) != 0 {
				t.Error("there is a session")
			}
		})
	}
}

func TestLoginTextInPieces(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) { c.LoginSegment = 5 })
	c := dial(t, srv)
	// Ours in pieces too: the text of one key, split.
	text := pdu.AppendText(nil, append(c.names(), kv("MaxBurstLength", "4096"))...)
	req := &pdu.LoginRequest{
		Continue: true, CurrentStage: pdu.StageOperational, ISID: [6]byte{0x80, 5: 1}, InitiatorTaskTag: 7, CmdSN: c.cmdSN,
		Data: text[:len(text)-9],
	}
	c.send(req)
	rsp := expect[*pdu.LoginResponse](c)
	if len(rsp.Data) != 0 || rsp.Transit || rsp.Continue {
		t.Fatalf("answer to the C bit: %+v", rsp)
	}
	req.Continue, req.Transit, req.NextStage = false, true, pdu.StageFullFeature
	req.Data, req.ExpStatSN = text[len(text)-9:], c.expStat
	c.send(req)
	var answer []byte
	for {
		rsp = expect[*pdu.LoginResponse](c)
		answer = append(answer, rsp.Data...)
		if len(rsp.Data) > 5 {
			t.Fatalf("piece of %d bytes", len(rsp.Data))
		}
		if !rsp.Continue {
			break
		}
		req.Data, req.Transit, req.NextStage, req.ExpStatSN = nil, false, 0, c.expStat
		c.send(req)
	}
	if !rsp.Transit || !strings.Contains(string(answer), "MaxBurstLength=4096\x00") {
		t.Errorf("final response %+v, text %q", rsp, answer)
	}
	noViolations(t, srv)
}

func TestLoginTextWithoutEnd(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := dial(t, srv)
	req := &pdu.LoginRequest{
		Continue: true, CurrentStage: pdu.StageOperational, ISID: [6]byte{0x80}, InitiatorTaskTag: 7, Data: make([]byte, 8192),
	}
	for range 9 {
		c.send(req)
		rsp := expect[*pdu.LoginResponse](c)
		req.ExpStatSN = c.expStat
		if rsp.StatusClass != 0 {
			return
		}
	}
	t.Error("the server takes text without end")
}

func TestLoginChangedMidway(t *testing.T) {
	changes := map[string]func(*pdu.LoginRequest){
		"task tag": func(p *pdu.LoginRequest) { p.InitiatorTaskTag++ },
		"ISID":     func(p *pdu.LoginRequest) { p.ISID[5]++ },
		"CID":      func(p *pdu.LoginRequest) { p.CID++ },
		"CmdSN":    func(p *pdu.LoginRequest) { p.CmdSN++ },
		"stage":    func(p *pdu.LoginRequest) { p.CurrentStage = pdu.StageSecurity },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			srv, _ := newServer(t, nil)
			c := dial(t, srv)
			req := &pdu.LoginRequest{CurrentStage: pdu.StageOperational, ISID: [6]byte{0x80}, Data: pdu.AppendText(nil, c.names()...)}
			c.send(req)
			if rsp := expect[*pdu.LoginResponse](c); rsp.StatusClass != 0 {
				t.Fatalf("first response %+v", rsp)
			}
			req.Data, req.ExpStatSN = nil, c.expStat
			change(req)
			c.send(req)
			if rsp := expect[*pdu.LoginResponse](c); rsp.StatusClass != 2 {
				t.Errorf("second response %+v", rsp)
			}
			if len(srv.Violations()) != 1 {
				t.Errorf("violations %v", srv.Violations())
			}
			c.closed()
		})
	}
}

func TestRejectLogins(t *testing.T) {
	srv, _ := newServer(t, nil)
	srv.RejectLogins(pdu.LoginTargetError, pdu.TargetErrorServiceUnavailable, 2)
	for range 2 {
		c := dial(t, srv)
		rsp := c.loginStep(pdu.StageOperational, pdu.StageFullFeature, c.names()...)
		if rsp.StatusClass != 3 || rsp.StatusDetail != 1 {
			t.Errorf("status %02x%02x", rsp.StatusClass, rsp.StatusDetail)
		}
		c.closed()
	}
	login(t, srv)
}

func TestRedirectTo(t *testing.T) {
	srv, _ := newServer(t, nil)
	srv.RedirectTo(target, "192.0.2.1:3260,1", false, 1)
	c := dial(t, srv)
	rsp := c.loginStep(pdu.StageOperational, pdu.StageFullFeature, c.names()...)
	if rsp.StatusClass != 1 || rsp.StatusDetail != 1 || c.answer("TargetAddress") != "192.0.2.1:3260,1" {
		t.Errorf("response %+v, TargetAddress %q", rsp, c.answer("TargetAddress"))
	}
	c.closed()
	login(t, srv)
}

func TestSessionReinstatement(t *testing.T) {
	srv, _ := newServer(t, nil)
	old := login(t, srv)
	fresh := login(t, srv)
	old.closed()
	if fresh.tsih == old.tsih {
		t.Errorf("both sessions have TSIH %d", old.tsih)
	}
	if s := srv.Sessions(); len(s) != 1 || s[0].TSIH != fresh.tsih {
		t.Errorf("sessions %+v", s)
	}
	fresh.in(1, scsi.TestUnitReady, 0).good(t)
	noViolations(t, srv)
}

func TestSessionsOfDifferentISIDsCoexist(t *testing.T) {
	srv, _ := newServer(t, nil)
	a := login(t, srv)
	b := dial(t, srv)
	b.isid = 2
	b.login()
	a.in(1, scsi.TestUnitReady, 0).good(t)
	b.in(1, scsi.TestUnitReady, 0).good(t)
	if n := len(srv.Sessions()); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

func TestLoginToExistingSessionIsRefused(t *testing.T) {
	srv, _ := newServer(t, nil)
	first := login(t, srv)
	for tsih, detail := range map[uint16]uint8{
		first.tsih:     pdu.InitiatorErrorTooManyConnections,
		first.tsih + 1: pdu.InitiatorErrorNoSession,
	} {
		c := dial(t, srv)
		c.send(&pdu.LoginRequest{
			Transit: true, CurrentStage: pdu.StageOperational, NextStage: pdu.StageFullFeature,
			ISID: [6]byte{0x80, 5: 1}, TSIH: tsih, CID: 1, Data: pdu.AppendText(nil, c.names()...),
		})
		if rsp := expect[*pdu.LoginResponse](c); rsp.StatusClass != 2 || rsp.StatusDetail != detail {
			t.Errorf("TSIH %d: status %02x%02x", tsih, rsp.StatusClass, rsp.StatusDetail)
		}
	}
}

func TestFirstPDUIsNoLogin(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := dial(t, srv)
	c.send(&pdu.NOPOut{InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag})
	c.closed()
	wantViolation(t, srv, "before the login")
}

func TestLoginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := iscsitest.NewUnstartedServer(iscsitest.Config{
			Targets:      []iscsitest.Target{{Name: target, LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(1 << 20)}}}},
			LoginTimeout: time.Minute,
		})
		pipe := func() (*client, chan error) {
			a, b := net.Pipe()
			done := make(chan error, 1)
			go func() { done <- srv.ServeConn(b) }()
			return &client{t: t, nc: a, r: pdu.NewReader(a, 0), w: pdu.NewWriter(a), name: initiator, session: target}, done
		}
		idle, ended := pipe()
		c, _ := pipe()
		c.login()
		start := time.Now()
		if err := <-ended; err != nil || time.Since(start) != time.Minute {
			t.Errorf("ended after %v, %v", time.Since(start), err)
		}
		idle.nc.Close()
		time.Sleep(time.Hour) // of the bubble's time: the session has no timeout
		c.in(1, scsi.TestUnitReady, 0).good(t)
		c.nc.Close()
		srv.Close()
	})
}

func TestServeConnWithoutNetwork(t *testing.T) {
	srv := iscsitest.NewUnstartedServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: target, LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(1 << 20)}},
	}}})
	a, b := net.Pipe()
	done := make(chan error)
	go func() { done <- srv.ServeConn(b) }()
	r := pdu.NewReader(a, 0)
	c := &client{t: t, nc: a, r: r, w: pdu.NewWriter(a), name: initiator, session: target}
	c.login()
	c.in(1, scsi.TestUnitReady, 0).good(t)
	a.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	srv.Close()
}
