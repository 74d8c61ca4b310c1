package iscsitest_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// discover logs in to a discovery session.
func discover(t testing.TB, srv *iscsitest.Server, keys ...pdu.KeyValue) *client {
	t.Helper()
	c := dial(t, srv)
	c.session = ""
	c.login(keys...)
	return c
}

// text carries out a whole text negotiation and returns the answer and the
// number of responses.
func (c *client) text(kvs ...pdu.KeyValue) ([]pdu.KeyValue, int) {
	c.t.Helper()
	req := &pdu.TextRequest{
		Final: true, InitiatorTaskTag: c.tag(), TargetTransferTag: pdu.ReservedTag,
		CmdSN: c.next(), ExpStatSN: c.expStat, Data: pdu.AppendText(nil, kvs...),
	}
	var answer []byte
	for n := 1; ; n++ {
		c.send(req)
		rsp := expect[*pdu.TextResponse](c)
		answer = append(answer, rsp.Data...)
		if rsp.Final {
			if rsp.TargetTransferTag != pdu.ReservedTag {
				c.t.Errorf("final response has target transfer tag %#x", rsp.TargetTransferTag)
			}
			got, err := pdu.ParseText(answer, pdu.TextLimits{Strict: true})
			if err != nil {
				c.t.Fatal(err)
			}
			return got, n
		}
		req.Data, req.TargetTransferTag, req.LUN = nil, rsp.TargetTransferTag, rsp.LUN
		req.CmdSN, req.ExpStatSN = c.next(), c.expStat
	}
}

func TestSendTargets(t *testing.T) {
	many := func(c *iscsitest.Config) {
		for i := range 50 {
			c.Targets = append(c.Targets, iscsitest.Target{
				Name: fmt.Sprintf("iqn.2001-04.com.example:%02d", i), Portals: []string{"192.0.2.1:3260,1", "[2001:db8::1]:3260,2"},
			})
		}
		c.Targets = append(c.Targets, iscsitest.Target{Name: "iqn.2001-04.com.example:hidden", Initiators: []string{"iqn.other"}})
	}
	for _, segment := range []int{0, 7} {
		t.Run(fmt.Sprintf("segment=%d", segment), func(t *testing.T) {
			srv, _ := newServer(t, func(c *iscsitest.Config) {
				many(c)
				c.TextSegment = segment
			})
			c := discover(t, srv, kv("MaxRecvDataSegmentLength", "512"))
			kvs, n := c.text(kv("SendTargets", "All"))
			if len(kvs) != 2+50*3 {
				t.Errorf("%d pairs", len(kvs))
			}
			if kvs[0] != kv("TargetName", target) || kvs[1] != kv("TargetAddress", srv.Portal()+",1") {
				t.Errorf("the first pairs are %v", kvs[:2])
			}
			if last := kvs[len(kvs)-1]; last != kv("TargetAddress", "[2001:db8::1]:3260,2") {
				t.Errorf("the last pair is %v", last)
			}
			if n < 6 {
				t.Errorf("all came in %d responses", n)
			}
			if kvs, _ = c.text(kv("SendTargets", "iqn.2001-04.com.example:07")); len(kvs) != 3 {
				t.Errorf("one target: %v", kvs)
			}
			if kvs, _ = c.text(kv("SendTargets", "iqn.none")); len(kvs) != 0 {
				t.Errorf("no target: %v", kvs)
			}
			c.logout(pdu.LogoutSession, 0)
			noViolations(t, srv)
		})
	}
}

func TestSendTargetsInNormalSession(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) {
		c.Targets = append(c.Targets, iscsitest.Target{Name: "iqn.2001-04.com.example:other"})
	})
	c := login(t, srv)
	if kvs, _ := c.text(kv("SendTargets", "")); len(kvs) != 2 || kvs[0].Value != target {
		t.Errorf("pairs %v", kvs)
	}
	if kvs, _ := c.text(kv("X-foo", "1")); len(kvs) != 1 || kvs[0].Value != "NotUnderstood" {
		t.Errorf("pairs %v", kvs)
	}
}

func TestDiscoverySessionIsLimited(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := discover(t, srv, kv("MaxBurstLength", "4096"))
	if c.answer("MaxBurstLength") != "Irrelevant" {
		t.Errorf("MaxBurstLength=%s", c.answer("MaxBurstLength"))
	}
	p := c.command(1, scsi.TestUnitReady, 0)
	c.send(p)
	if r := expect[*pdu.Reject](c); r.Reason != pdu.RejectProtocolError {
		t.Errorf("reject %+v", r)
	}
	wantViolation(t, srv, "discovery session")
}

func TestDiscoveryCHAP(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) { c.DiscoveryCHAP = iscsitest.CHAP{Username: "u", Password: "p"} })
	c := dial(t, srv)
	c.session = ""
	if rsp := c.loginStep(pdu.StageOperational, pdu.StageFullFeature, c.names()...); rsp.StatusClass != 2 {
		t.Errorf("response %+v", rsp)
	}
}

func (c *client) logout(reason pdu.LogoutReason, cid uint16) *pdu.LogoutResponse {
	c.t.Helper()
	c.send(&pdu.LogoutRequest{Immediate: true, Reason: reason, CID: cid, InitiatorTaskTag: c.tag(), CmdSN: c.cmdSN, ExpStatSN: c.expStat})
	return expect[*pdu.LogoutResponse](c)
}

func TestLogout(t *testing.T) {
	for _, reason := range []pdu.LogoutReason{pdu.LogoutSession, pdu.LogoutConnection} {
		srv, _ := newServer(t, nil)
		c := login(t, srv)
		if r := c.logout(pdu.LogoutRecovery, 0); r.Response != pdu.LogoutRecoveryNotSupported {
			t.Errorf("recovery: response %d", r.Response)
		}
		if r := c.logout(pdu.LogoutConnection, 5); r.Response != pdu.LogoutCIDNotFound {
			t.Errorf("another connection: response %d", r.Response)
		}
		if r := c.logout(reason, 0); r.Response != pdu.LogoutSuccess {
			t.Errorf("reason %d: response %d", reason, r.Response)
		}
		c.closed()
		if len(srv.Sessions()) != 0 {
			t.Error("the session remains")
		}
		noViolations(t, srv)
	}
}

func TestRequestAfterLogout(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	c.send(&pdu.LogoutRequest{InitiatorTaskTag: c.tag(), CmdSN: c.next(), ExpStatSN: c.expStat},
		c.command(1, scsi.TestUnitReady, 0))
	expect[*pdu.LogoutResponse](c)
	c.closed()
	srv.Close()
	wantViolation(t, srv, "after logout")
}

func TestNOP(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv, kv("MaxRecvDataSegmentLength", "512"))
	data := pattern(600, 3)
	c.send(&pdu.NOPOut{InitiatorTaskTag: c.tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: c.next(), ExpStatSN: c.expStat, Data: data})
	if n := expect[*pdu.NOPIn](c); !bytes.Equal(n.Data, data[:512]) || n.TargetTransferTag != pdu.ReservedTag || n.InitiatorTaskTag != c.itt {
		t.Errorf("nop-in %+v", n)
	}
	srv.Ping(1)
	ping := expect[*pdu.NOPIn](c)
	if ping.InitiatorTaskTag != pdu.ReservedTag || ping.TargetTransferTag == pdu.ReservedTag || ping.LUN != pdu.LUNFromNumber(1) {
		t.Fatalf("ping %+v", ping)
	}
	c.send(&pdu.NOPOut{
		Immediate: true, LUN: ping.LUN, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: ping.TargetTransferTag,
		CmdSN: c.cmdSN, ExpStatSN: c.expStat,
	})
	c.in(1, scsi.TestUnitReady, 0).good(t)
	noViolations(t, srv)
	c.send(&pdu.NOPOut{
		Immediate: true, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: ping.TargetTransferTag,
		CmdSN: c.cmdSN, ExpStatSN: c.expStat,
	})
	c.in(1, scsi.TestUnitReady, 0).good(t)
	wantViolation(t, srv, "not that of a ping")
}

// manage sends a task management function and returns the answer to it.
func (c *client) manage(fn pdu.TaskFunction, lun uint64, ref *pdu.SCSICommand) pdu.TaskResponse {
	c.t.Helper()
	p := &pdu.TaskManagementRequest{
		Immediate: true, Function: fn, LUN: pdu.LUNFromNumber(lun), InitiatorTaskTag: c.tag(),
		ReferencedTaskTag: pdu.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.expStat,
	}
	if ref != nil {
		p.ReferencedTaskTag, p.RefCmdSN = ref.InitiatorTaskTag, ref.CmdSN
	}
	c.send(p)
	return expect[*pdu.TaskManagementResponse](c).Response
}

// pendingWrite sends a write and takes the R2T for it.
func (c *client) pendingWrite() (*pdu.SCSICommand, *pdu.R2T) {
	c.t.Helper()
	p := c.command(1, writeCDB(0, 8), 4096)
	p.Write = true
	c.send(p)
	return p, expect[*pdu.R2T](c)
}

func TestAbortTask(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	p, r := c.pendingWrite()
	if got := c.manage(pdu.TaskQueryTask, 1, p); got != pdu.TaskFunctionSucceeded {
		t.Errorf("query of a pending task: %v", got)
	}
	if got := c.manage(pdu.TaskAbortTask, 1, p); got != pdu.TaskFunctionComplete {
		t.Errorf("abort of a pending task: %v", got)
	}
	// Data that were on their way do no harm.
	c.sendSequence(p, r.TargetTransferTag, pattern(4096, 1), 0, 4096, 1024)
	if o := c.in(1, readCDB(0, 8), 4096).good(t); !bytes.Equal(o.data, make([]byte, 4096)) {
		t.Error("the aborted write was executed")
	}
	if got := c.manage(pdu.TaskAbortTask, 1, p); got != pdu.TaskDoesNotExist {
		t.Errorf("abort of a task that is gone: %v", got)
	}
	if n := c.maxCmd - c.lastExp + 1; n != 128 {
		t.Errorf("a window of %d is left", n)
	}
	noViolations(t, srv)
}

func TestResets(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	other := dial(t, srv)
	other.isid = 2
	other.login()
	for _, fn := range []pdu.TaskFunction{pdu.TaskAbortTaskSet, pdu.TaskClearTaskSet, pdu.TaskLogicalUnitReset, pdu.TaskTargetWarmReset} {
		c.pendingWrite()
		if got := c.manage(fn, 1, nil); got != pdu.TaskFunctionComplete {
			t.Errorf("%v: %v", fn, got)
		}
		switch fn {
		case pdu.TaskAbortTaskSet:
		case pdu.TaskClearTaskSet:
			other.in(1, scsi.TestUnitReady, 0).fails(t, scsi.KeyUnitAttention, 0x2f, 0)
		case pdu.TaskLogicalUnitReset:
			c.in(1, scsi.TestUnitReady, 0).fails(t, scsi.KeyUnitAttention, 0x29, 3)
			other.in(1, scsi.TestUnitReady, 0).fails(t, scsi.KeyUnitAttention, 0x29, 3)
		case pdu.TaskTargetWarmReset:
			c.in(1, scsi.TestUnitReady, 0).fails(t, scsi.KeyUnitAttention, 0x29, 2)
			other.in(1, scsi.TestUnitReady, 0).fails(t, scsi.KeyUnitAttention, 0x29, 2)
		}
		c.in(1, scsi.TestUnitReady, 0).good(t)
		other.in(1, scsi.TestUnitReady, 0).good(t)
	}
	for fn, want := range map[pdu.TaskFunction]pdu.TaskResponse{
		pdu.TaskReassign: pdu.TaskReassignNotSupported, pdu.TaskITNexusReset: pdu.TaskFunctionNotSupported,
	} {
		if got := c.manage(fn, 1, nil); got != want {
			t.Errorf("%v: %v", fn, got)
		}
	}
	if got := c.manage(pdu.TaskLogicalUnitReset, 9, nil); got != pdu.TaskLUNDoesNotExist {
		t.Errorf("reset of no unit: %v", got)
	}
	if got := c.manage(pdu.TaskTargetColdReset, 0, nil); got != pdu.TaskFunctionComplete {
		t.Errorf("cold reset: %v", got)
	}
	c.closed()
	other.closed()
	noViolations(t, srv)
}

func TestAsyncMessage(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 5})
	if m := expect[*pdu.AsyncMessage](c); m.Event != pdu.AsyncLogoutRequest || m.Parameter3 != 5 {
		t.Errorf("message %+v", m)
	}
	c.in(1, scsi.TestUnitReady, 0).good(t)
}

func TestUnknownOpcodeIsRejected(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	raw, err := (&pdu.NOPOut{InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag, ExpStatSN: c.expStat}).AppendHeader(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw[0] = 0x1c
	c.w.AppendRaw(raw)
	c.send()
	if r := expect[*pdu.Reject](c); r.Reason != pdu.RejectCommandNotSupported || !bytes.Equal(r.Data, raw) {
		t.Errorf("reject %+v", r)
	}
	c.in(1, scsi.TestUnitReady, 0).good(t)
	wantViolation(t, srv, "not one of an initiator")
}

func TestMalformedPDUIsRejected(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv)
	raw, err := c.command(1, scsi.TestUnitReady, 0).AppendHeader(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw[1] |= 7 // reserved task attribute
	c.w.AppendRaw(raw)
	c.send()
	if r := expect[*pdu.Reject](c); r.Reason != pdu.RejectInvalidField {
		t.Errorf("reject %+v", r)
	}
	wantViolation(t, srv, "ATTR")
}

func TestOverlongSegmentEndsConnection(t *testing.T) {
	srv, _ := newServer(t, func(c *iscsitest.Config) { c.Params.MaxRecvDataSegmentLength = 512 })
	c := login(t, srv)
	c.send(&pdu.NOPOut{InitiatorTaskTag: c.tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: c.next(), Data: make([]byte, 513)})
	c.closed()
	srv.Close()
	wantViolation(t, srv, "MaxRecvDataSegmentLength")
}

func TestDataDigestErrorIsRejected(t *testing.T) {
	srv, _ := newServer(t, nil)
	c := login(t, srv, kv("DataDigest", "CRC32C"))
	p := c.command(1, writeCDB(0, 1), 512)
	p.Write = true
	p.Data = pattern(512, 1)
	raw, err := p.AppendHeader(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.w.AppendRaw(append(append(raw, p.Data...), 1, 2, 3, 4))
	c.send()
	if r := expect[*pdu.Reject](c); r.Reason != pdu.RejectDataDigest {
		t.Errorf("reject %+v", r)
	}
	p.ExpStatSN = c.expStat
	c.send(p) // once more, in order
	c.outcome(p).good(t)
	noViolations(t, srv)
}

func TestLogfTellsOfLogins(t *testing.T) {
	var lines strings.Builder
	srv, _ := newServer(t, func(c *iscsitest.Config) {
		c.Logf = func(f string, a ...any) { fmt.Fprintf(&lines, f+"\n", a...) }
	})
	login(t, srv)
	srv.Close()
	if !strings.Contains(lines.String(), "logged in to \""+target) {
		t.Errorf("log:\n%s", lines.String())
	}
}
