package conformance

import (
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// levelTwo asks for error recovery level 2.
func levelTwo(cfg *initiator.Config) { cfg.Params.ErrorRecoveryLevel = 2 }

// removed returns the next PDU, the Logout for another connection of the session,
// its fields checked; it is answered by the test.
func (c *conn) removed(lost *conn, reason pdu.LogoutReason) *pdu.LogoutRequest {
	c.t.Helper()
	req := expect[*pdu.LogoutRequest](c)
	if req.Reason != reason || req.CID != lost.first.CID || !req.Immediate || req.ExpStatSN != lost.statSN {
		c.t.Errorf("%+v, connection %d has StatSN %d", req, lost.first.CID, lost.statSN)
	}
	return req
}

// comesBack lets a connection take the place of a lost one.
func (c *conn) comesBack(lost *conn) {
	c.t.Helper()
	again := c.st.accept()
	again.expCmdSN = c.expCmdSN
	again.tsih = c.tsih
	again.logIn()
	if again.first.TSIH != c.tsih || again.first.CID == c.first.CID || again.first.CID == lost.first.CID {
		c.t.Errorf("TSIH %#x, CID %d", again.first.TSIH, again.first.CID)
	}
}

// reassigned returns the next PDU, TASK REASSIGN for a command, and answers it.
func (c *conn) reassigned(cmd *pdu.SCSICommand, expDataSN uint32) {
	c.t.Helper()
	req := expect[*pdu.TaskManagementRequest](c)
	if req.Function != pdu.TaskReassign || !req.Immediate || req.ReferencedTaskTag != cmd.InitiatorTaskTag || req.LUN != cmd.LUN || req.ExpDataSN != expDataSN {
		c.t.Errorf("%+v for %+v", req, cmd)
	}
	c.managed(req, pdu.TaskFunctionComplete)
}

// On error recovery level 2 a task goes on, on another connection, behind the data
// that were acknowledged, after the lost one was removed for recovery.
func TestFFP_7_1_ConnectionReassignment(t *testing.T) {
	s, c, c2 := two(t, levelTwo)
	read, write := readTask(1024), writeTask(pattern(2, 512))
	r := start(t, s, read)
	cmd := c2.command()
	data := pattern(1, 1024)
	c2.send(dataIn(cmd, 0, 0, data[:512]))
	c.expCmdSN = c2.expCmdSN
	c.alive(s) // takes the turn
	c2.expCmdSN = c.expCmdSN
	w := start(t, s, write)
	wcmd := c2.command()
	c.expCmdSN = c2.expCmdSN
	c2.nc.Close()
	req := c.removed(c2, pdu.LogoutRecovery)
	c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag, Time2Retain: 20})
	c.reassigned(cmd, 1)
	c.send(lastDataIn(cmd, 1, 512, data[512:]))
	c.reassigned(wcmd, 0)
	c.respond(wcmd)
	r.succeeds()
	w.succeeds()
	same(t, read.DataIn, data)
	c.comesBack(c2)
}

// The only connection is reinstated: a login with the session's TSIH and the same
// CID. Its tasks are reassigned then; what the target did not get is sent again with
// its tag and its number.
func TestFFP_7_2_ConnectionReinstatement(t *testing.T) {
	s, c := operational(t, levelTwo)
	c.alive(s)
	r := start(t, s, writeTask(pattern(1, 512)))
	cmd := c.command()
	c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag}) // acknowledges it
	r2 := start(t, s, noData())
	lost := c.command()
	c.nc.Close()
	c2 := c.st.accept()
	c2.tsih = c.tsih
	req := c2.loginRequest()
	c2.expCmdSN = lost.CmdSN // that one it did not get
	c2.finishLogin(req)
	if c2.first.TSIH != c.tsih || c2.first.CID != c.first.CID || c2.first.ExpStatSN != c.statSN {
		t.Errorf("TSIH %#x, CID %d, ExpStatSN %d; before %#x, %d, StatSN %d", c2.first.TSIH, c2.first.CID, c2.first.ExpStatSN, c.tsih, c.first.CID, c.statSN)
	}
	again := c2.command()
	if again.InitiatorTaskTag != lost.InitiatorTaskTag || again.CmdSN != lost.CmdSN || again.CDB != lost.CDB {
		t.Errorf("%+v\nin place of\n%+v", again, lost)
	}
	c2.reassigned(cmd, 0)
	c2.respond(again)
	r2.succeeds()
	c2.respond(cmd)
	r.succeeds()
	c2.alive(s)
}

// Below error recovery level 2 tasks are not reassigned: with the only connection
// the session is lost, and they are new commands of a new one.
func TestFFP_7_3_NoReassignmentBelowLevelTwo(t *testing.T) {
	s, c := operational(t, levelOne)
	c.alive(s)
	again, lost := start(t, s, replayed(noData())), start(t, s, noData())
	c.command()
	c.command()
	c.nc.Close()
	lost.fails(initiator.ErrInterrupted)
	c2 := c.st.accept()
	c2.logIn()
	cmd := c2.command()
	if cmd.CmdSN != c2.first.CmdSN || c2.first.TSIH != 0 {
		t.Errorf("CmdSN %d in session %d that begins at %d", cmd.CmdSN, c2.first.TSIH, c2.first.CmdSN)
	}
	c2.respond(cmd)
	again.succeeds()
	if err := <-manage(s, pdu.TaskReassign, lun1); err == nil {
		t.Error("TASK REASSIGN was sent")
	}
	c2.quiet(s)
}

// stuck has two commands in flight on the second of two connections: one that may be
// sent again, and one that may not.
func stuck(t *testing.T, s *initiator.Session, c, c2 *conn) (again, lost *running) {
	t.Helper()
	again = start(t, s, replayed(noData()))
	c2.command()
	c.expCmdSN = c2.expCmdSN
	c.alive(s)
	c2.expCmdSN = c.expCmdSN
	lost = start(t, s, noData())
	c2.command()
	c.expCmdSN = c2.expCmdSN
	return again, lost
}

// A lost connection is closed by a Logout on another one. Only then are its tasks
// sent again, as new commands.
func TestFFP_21_5_LogoutOfALostConnection(t *testing.T) {
	s, c, c2 := two(t, nil)
	again, lost := stuck(t, s, c, c2)
	c2.nc.Close()
	req := c.removed(c2, pdu.LogoutConnection)
	c.quiet(s)
	c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag})
	lost.fails(initiator.ErrInterrupted)
	c.respond(c.command())
	again.succeeds()
	c.comesBack(c2)
}

// The number of a command that the target never got is taken by a NOP-Out, and the
// command is a new one.
func TestFFP_21_6_HoleAfterTheLogoutOfAConnection(t *testing.T) {
	s, c, c2 := two(t, nil)
	r := start(t, s, replayed(noData()))
	missing := c2.command()
	c.expCmdSN = c2.expCmdSN
	behind := start(t, s, noData())
	cmd := c.command()
	c2.nc.Close()
	req := c.removed(c2, pdu.LogoutConnection)
	next := c.expCmdSN
	c.expCmdSN = missing.CmdSN // it waits for that one
	c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag})
	nop := expect[*pdu.NOPOut](c)
	if nop.Immediate || nop.CmdSN != missing.CmdSN || nop.InitiatorTaskTag == pdu.ReservedTag {
		t.Errorf("%+v", nop)
	}
	c.expCmdSN = next
	c.pong(nop)
	c.respond(cmd)
	behind.succeeds()
	if again := c.command(); again.CDB != missing.CDB || again.CmdSN == missing.CmdSN {
		t.Errorf("%+v\nin place of\n%+v", again, missing)
	} else {
		c.respond(again)
	}
	r.succeeds()
	c.comesBack(c2)
}

// A target that does not close the lost connection is left, on all others.
func TestFFP_21_7_RefusedLogoutOfALostConnection(t *testing.T) {
	for _, response := range []uint8{pdu.LogoutCleanupFailed, pdu.LogoutRecoveryNotSupported, 200} {
		s, c, c2 := two(t, nil)
		r := start(t, s, replayed(noData()))
		c2.command()
		c.expCmdSN = c2.expCmdSN
		c2.nc.Close()
		req := c.removed(c2, pdu.LogoutConnection)
		c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag, Response: response})
		c.ended()
		again := c.st.accept()
		again.logIn()
		again2 := c.st.accept()
		again2.expCmdSN = again.expCmdSN
		again2.logIn()
		if again.first.TSIH != 0 {
			t.Errorf("response %d: TSIH %#x", response, again.first.TSIH)
		}
		again2.respond(again2.command())
		r.succeeds()
	}
}
