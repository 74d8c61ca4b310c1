package conformance

import (
	"errors"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// discovering logs a discovery session in and returns the text request.
func discovering(t *testing.T) (*discovery, *conn, *pdu.TextRequest) {
	t.Helper()
	st := newStation(t)
	d := st.discover(nil)
	c := st.accept()
	c.finishLogin(c.loginRequest())
	return d, c, expect[*pdu.TextRequest](c)
}

// A text request is numbered like a command and names the key.
func TestFFP_22_1_TextRequest(t *testing.T) {
	d, c, req := discovering(t)
	if !req.Final || req.Continue || req.TargetTransferTag != pdu.ReservedTag || req.Immediate || req.InitiatorTaskTag == pdu.ReservedTag || string(req.Data) != "SendTargets=All\x00" {
		t.Errorf("%+v", req)
	}
	c.send(&pdu.TextResponse{
		Final: true, InitiatorTaskTag: req.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag,
		Data: text("TargetName="+targetName, "TargetAddress=192.0.2.1:3260,1", "TargetAddress=[2001:db8::1]:3260,2", "TargetName=iqn.2001-04.com.example:other"),
	})
	if req := c.logout(); req.Reason != pdu.LogoutSession {
		t.Errorf("%+v", req)
	}
	got := d.found(3)
	if got[0].Target != targetName || got[0].Portal.String() != "192.0.2.1:3260,1" || got[1].Portal.String() != "[2001:db8::1]:3260,2" ||
		got[2].Target != "iqn.2001-04.com.example:other" || got[2].Portal.Host != "192.0.2.1" {
		t.Errorf("found %v", got)
	}
}

// A long answer comes in pieces: each is asked for by an empty request with the
// tags of the one before (RFC 7143 section 11.10.4).
func TestFFP_22_2_TextContinuation(t *testing.T) {
	d, c, req := discovering(t)
	itt := req.InitiatorTaskTag
	whole := string(text("TargetName="+targetName, "TargetAddress=192.0.2.1:3260,1", "TargetAddress=192.0.2.2:3260,1"))
	pieces := []string{whole[:5], whole[5:30], "", whole[30:]}
	for i, piece := range pieces {
		last := i == len(pieces)-1
		r := &pdu.TextResponse{Final: last, Continue: !last, InitiatorTaskTag: itt, TargetTransferTag: uint32(100 + i), LUN: lun1, Data: []byte(piece)}
		if last {
			r.TargetTransferTag, r.LUN = pdu.ReservedTag, 0
		}
		c.send(r)
		if last {
			break
		}
		req := expect[*pdu.TextRequest](c)
		if req.InitiatorTaskTag != itt || req.TargetTransferTag != uint32(100+i) || req.LUN != lun1 || len(req.Data) > 0 || req.Continue {
			t.Errorf("after piece %d: %+v", i, req)
		}
	}
	c.logout()
	d.found(2)
}

// A response that is to be continued needs a tag to continue with, and an answer
// the tag of its request.
func TestFFP_22_3_TextResponseWithWrongTags(t *testing.T) {
	for name, mod := range map[string]func(*pdu.TextResponse){
		"no transfer tag":  func(r *pdu.TextResponse) { r.Final, r.Continue = false, true },
		"another task tag": func(r *pdu.TextResponse) { r.InitiatorTaskTag++ },
	} {
		t.Run(name, func(t *testing.T) {
			d, c, req := discovering(t)
			r := &pdu.TextResponse{Final: true, InitiatorTaskTag: req.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}
			mod(r)
			c.send(r)
			<-d.done
			is(t, d.err, initiator.ErrProtocol)
			c.ended()
		})
	}
}

// Pings and asynchronous messages may come in between.
func TestFFP_22_4_PingWithinTextExchange(t *testing.T) {
	d, c, req := discovering(t)
	c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 3, LUN: lun1}, &pdu.AsyncMessage{Event: 250})
	if nop := expect[*pdu.NOPOut](c); nop.TargetTransferTag != 3 || nop.LUN != lun1 || nop.InitiatorTaskTag != pdu.ReservedTag {
		t.Errorf("%+v", nop)
	}
	c.send(&pdu.TextResponse{Final: true, InitiatorTaskTag: req.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag})
	c.logout()
	d.found(0)
}

// Names and addresses that cannot be right are left out, one by one.
func TestFFP_22_5_InvalidRecordsInTextResponse(t *testing.T) {
	st := newStation(t)
	var skipped []initiator.SkippedRecord
	d := st.discover(func(cfg *initiator.DiscoveryConfig) {
		cfg.OnSkip = func(r initiator.SkippedRecord) { skipped = append(skipped, r) }
	})
	c := st.accept()
	c.finishLogin(c.loginRequest())
	req := expect[*pdu.TextRequest](c)
	c.send(&pdu.TextResponse{
		Final: true, InitiatorTaskTag: req.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag,
		Data: text("TargetName=../../etc/passwd", "TargetAddress=192.0.2.1:3260,1", "TargetName="+targetName,
			"TargetAddress=a b", "TargetAddress=192.0.2.1:99999", "TargetAddress=192.0.2.2:3260,1", "TargetName="+strings.Repeat("x", 300)),
	})
	c.logout()
	if got := d.found(1); got[0].Portal.Host != "192.0.2.2" {
		t.Errorf("found %v", got)
	}
	if len(skipped) != 4 {
		t.Errorf("skipped %v", skipped)
	}
}

// rejects answers a PDU with a Reject.
func (c *conn) rejects(reason pdu.RejectReason) {
	c.t.Helper()
	c.send(&pdu.Reject{Reason: reason, Data: append([]byte(nil), c.header.BHS[:]...)})
}

// A rejected command was not carried out, and its task says so.
func TestFFP_23_1_RejectedCommand(t *testing.T) {
	s, c := operational(t, nil)
	for _, reason := range []pdu.RejectReason{
		pdu.RejectProtocolError, pdu.RejectCommandNotSupported, pdu.RejectTooManyImmediate, pdu.RejectInvalidField, pdu.RejectOutOfResources, 0x55,
	} {
		r := start(t, s, noData())
		c.command()
		c.rejects(reason)
		var rejected *initiator.RejectError
		if err := r.finished().Err; !errors.As(err, &rejected) || rejected.Reason != reason || !initiator.SafeToRetry(err) {
			t.Errorf("error %v for reason %v", err, reason)
		}
	}
	c.alive(s)
}

// A target that got immediate data damaged has discarded the command, and waits for
// its CmdSN (RFC 7143 section 7.8): on error recovery level 0 the session recovers,
// and the command goes out again.
func TestFFP_23_2_RejectedImmediateData(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, replayed(writeTask(make([]byte, 512))))
	c.command()
	c.rejects(pdu.RejectDataDigest)
	c.ended()
	c = c.st.accept()
	c.logIn()
	c.respond(c.command())
	r.succeeds()
}

// After the reject of damaged Data-Out a response follows, which counts.
func TestFFP_23_6_RejectedDataOut(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	r := start(t, s, writeTask(make([]byte, 512)))
	cmd := c.command()
	c.send(r2t(cmd, 0, 1, 0, 512))
	c.burst(cmd, 1, 0, 512)
	c.rejects(pdu.RejectDataDigest)
	crcError := []byte{0x70, 0, 0xb, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x47, 5, 0, 0, 0, 0}
	c.send(&pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, Status: 2, Data: pdu.AppendSense(nil, crcError)})
	if task := r.finished(); task.Err != nil || task.Status != 2 || len(task.Sense) == 0 {
		t.Errorf("error %v, status %v, sense % x", task.Err, task.Status, task.Sense)
	}
	c.alive(s)
}

// Rejected requests of other kinds fail, each by itself.
func TestFFP_23_3_RejectedRequests(t *testing.T) {
	s, c := operational(t, nil)
	var rejected *initiator.RejectError
	done := ping(s)
	expect[*pdu.NOPOut](c)
	c.rejects(pdu.RejectTooManyImmediate)
	if err := <-done; !errors.As(err, &rejected) {
		t.Errorf("ping: %v", err)
	}
	done = manage(s, pdu.TaskLogicalUnitReset, lun1)
	expect[*pdu.TaskManagementRequest](c)
	c.rejects(pdu.RejectTooManyImmediate)
	if err := <-done; !errors.As(err, &rejected) {
		t.Errorf("task management: %v", err)
	}
	c.alive(s)
	done = leave(s)
	expect[*pdu.LogoutRequest](c)
	c.rejects(pdu.RejectProtocolError)
	if err := <-done; err != nil {
		t.Errorf("logout: %v", err)
	}
	c.ended()
}

// A target that rejects a command because it waits for our logout gets the logout;
// the command goes out again on the next connection.
func TestFFP_23_4_RejectWaitingForLogout(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, noData())
	c.command()
	c.rejects(pdu.RejectWaitingForLogout)
	c.logout()
	c = c.st.accept()
	c.logIn()
	c.respond(c.command())
	r.succeeds()
}

// With several connections the command goes to another one; its number, which the
// target has not got (RFC 7143 section 7.3), is taken by a NOP-Out.
func TestFFP_23_7_RejectWaitingForLogoutOfOneOfTwo(t *testing.T) {
	s, c, c2 := two(t, nil)
	r := start(t, s, noData())
	cmd := c2.command()
	next := c2.expCmdSN
	c2.expCmdSN, c.expCmdSN = cmd.CmdSN, cmd.CmdSN
	h, err := cmd.AppendHeader(nil)
	if err != nil {
		t.Fatal(err)
	}
	c2.send(&pdu.Reject{Reason: pdu.RejectWaitingForLogout, Data: h})
	nop := expect[*pdu.NOPOut](c)
	if nop.Immediate || nop.CmdSN != cmd.CmdSN {
		t.Errorf("%+v", nop)
	}
	again := c.command()
	if again.CDB != cmd.CDB || again.CmdSN != next {
		t.Errorf("%+v\nin place of\n%+v", again, cmd)
	}
	c.pong(nop)
	c.respond(again)
	r.succeeds()
	c2.expCmdSN = c.expCmdSN
	req := c2.removed(c2, pdu.LogoutConnection)
	c2.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag})
	c2.ended()
	c.comesBack(c2)
}

// A Reject that does not say of what is a violation.
func TestFFP_23_5_RejectWithoutHeader(t *testing.T) {
	for _, n := range []int{0, 4, 47} {
		_, c := operational(t, nil)
		c.send(&pdu.Reject{Reason: pdu.RejectProtocolError, Data: make([]byte, n)})
		c.ended()
	}
}

// PDUs that a target must not send in full feature phase, or that are none, end the
// connection; the session recovers, and its tasks are carried out.
func TestFFP_24_1_UnknownOpcodes(t *testing.T) {
	var opcodes []byte
	for op := byte(0); op < 0x40; op++ {
		switch pdu.Opcode(op) {
		case pdu.OpNOPIn, pdu.OpSCSIResponse, pdu.OpTaskManagementResponse, pdu.OpTextResponse,
			pdu.OpDataIn, pdu.OpLogoutResponse, pdu.OpR2T, pdu.OpAsyncMessage, pdu.OpReject:
		default:
			opcodes = append(opcodes, op)
		}
	}
	s, c := operational(t, nil)
	for _, op := range opcodes {
		r := start(t, s, replayed(noData()))
		c.command()
		b := make([]byte, pdu.BHSLen)
		b[0], b[1] = op, 0x80
		c.sendRaw(b)
		c.ended()
		c = c.st.accept()
		c.logIn()
		c.respond(c.command())
		r.succeeds()
	}
}

// So do answers that no request waits for, when their tags were never given out.
func TestFFP_24_2_AnswersNobodyAskedFor(t *testing.T) {
	for name, p := range map[string]pdu.PDU{
		"response":                 &pdu.SCSIResponse{InitiatorTaskTag: 0x00100001},
		"data":                     &pdu.DataIn{InitiatorTaskTag: 0x00100001, TargetTransferTag: pdu.ReservedTag, Final: true, Data: make([]byte, 4)},
		"R2T":                      &pdu.R2T{InitiatorTaskTag: 0x00100001, TargetTransferTag: 1, DesiredDataTransferLength: 4},
		"task management response": &pdu.TaskManagementResponse{InitiatorTaskTag: 0x00100001},
		"text response":            &pdu.TextResponse{InitiatorTaskTag: 0x00100001, Final: true, TargetTransferTag: pdu.ReservedTag},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := operational(t, nil)
			c.send(p)
			c.ended()
			c = c.st.accept()
			c.logIn()
			c.alive(s)
		})
	}
}
