package iscsitest_test

import (
	"cmp"
	"slices"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// pair logs in with two connections, CID 0 and 1, at an error recovery level.
func pair(t *testing.T, level string) (srv *iscsitest.Server, c, c2 *client) {
	srv, _ = newServer(t, func(c *iscsitest.Config) {
		c.Params.MaxConnections, c.Params.ErrorRecoveryLevel, c.UnitAttention = 2, 2, true
	})
	c = login(t, srv, kv("MaxConnections", "2"), kv("ErrorRecoveryLevel", level), kv("DefaultTime2Wait", "0"))
	return srv, c, c.joinAs(srv, 1)
}

// joinAs logs in to the session of c with a CID.
func (c *client) joinAs(srv *iscsitest.Server, cid uint16) *client {
	c.t.Helper()
	c2 := dial(c.t, srv)
	c2.join, c2.cid, c2.cmdSN, c2.itt = c.tsih, cid, c.cmdSN, c.itt+0x100*uint32(cid+1)
	c2.login()
	return c2
}

// pendingWrite has a write wait for data on c2.
func pendingWrite(c, c2 *client) *pdu.SCSICommand {
	c.t.Helper()
	for i := range 3 { // the unit attention of a new session, and two that wait for nothing
		q := c.command(1, writeCDB(uint64(i), 0), 0)
		c.send(q)
		c.outcome(q)
	}
	c2.cmdSN = c.cmdSN
	p := c2.command(1, writeCDB(8, 2), 1024)
	p.Write = true
	c2.send(p)
	c.cmdSN = c2.cmdSN
	expect[*pdu.R2T](c2)
	return p
}

// logoutOf logs out of another connection.
func (c *client) logoutOf(c2 *client, reason pdu.LogoutReason) *pdu.LogoutResponse {
	c.t.Helper()
	c.send(&pdu.LogoutRequest{Immediate: true, Reason: reason, CID: c2.cid, InitiatorTaskTag: c.tag(), CmdSN: c.cmdSN, ExpStatSN: c2.expStat})
	return expect[*pdu.LogoutResponse](c)
}

// A connection that is lost waits for a logout; its tasks are ended, which the
// session finds out.
func TestLogoutOfALostConnection(t *testing.T) {
	srv, c, c2 := pair(t, "1")
	p := pendingWrite(c, c2)
	c2.nc.Close()
	if r := c.logoutOf(c2, pdu.LogoutRecovery); r.Response != pdu.LogoutRecoveryNotSupported {
		t.Errorf("for recovery: response %d", r.Response)
	}
	for _, want := range []uint8{pdu.LogoutSuccess, pdu.LogoutCIDNotFound} {
		if r := c.logoutOf(c2, pdu.LogoutConnection); r.Response != want {
			t.Errorf("response %d, want %d", r.Response, want)
		}
	}
	if r := c.reassign(p, 0); r != pdu.TaskReassignNotSupported {
		t.Errorf("reassignment: %v", r)
	}
	q := c.command(1, writeCDB(0, 0), 0)
	c.send(q)
	c.outcome(q).fails(t, 6, 0x47, 0x7f)
	c.joinAs(srv, 1)
	if s := srv.Sessions(); len(s) != 1 || len(s[0].CIDs) != 2 {
		t.Errorf("%+v", s)
	}
	noViolations(t, srv)
}

// reassign asks for a task.
func (c *client) reassign(p *pdu.SCSICommand, expDataSN uint32) pdu.TaskResponse {
	c.t.Helper()
	c.send(&pdu.TaskManagementRequest{
		Immediate: true, Function: pdu.TaskReassign, LUN: p.LUN, InitiatorTaskTag: c.tag(), ReferencedTaskTag: p.InitiatorTaskTag,
		CmdSN: c.cmdSN, ExpStatSN: c.expStat, ExpDataSN: expDataSN,
	})
	return expect[*pdu.TaskManagementResponse](c).Response
}

// On level 2 a task can be reassigned once its connection was logged out for that, by
// a Logout or by a login that takes its place, and then asks for its data again.
func TestReassign(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		srv, c, c2 := pair(t, "2")
		p := pendingWrite(c, c2)
		if r := c.reassign(p, 0); r != pdu.TaskStillAllegiant {
			t.Errorf("of a live connection: %v", r)
		}
		if implicit {
			c.joinAs(srv, 1)
			c2.closed()
		} else if r := c.logoutOf(c2, pdu.LogoutRecovery); r.Response != pdu.LogoutSuccess || r.Time2Retain == 0 {
			t.Errorf("logout: %+v", r)
		}
		if r := c.reassign(p, 0); r != pdu.TaskFunctionComplete {
			t.Errorf("reassignment: %v", r)
		}
		r := expect[*pdu.R2T](c)
		if r.InitiatorTaskTag != p.InitiatorTaskTag || r.R2TSN != 0 || r.BufferOffset != 0 || r.DesiredDataTransferLength != 1024 {
			t.Errorf("%+v", r)
		}
		c.send(&pdu.DataOut{
			Final: true, LUN: r.LUN, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: r.TargetTransferTag,
			ExpStatSN: c.expStat, Data: pattern(1024, 1),
		})
		c.outcome(p).good(t)
		if r := c.reassign(p, 0); r != pdu.TaskDoesNotExist {
			t.Errorf("of a task that has ended: %v", r)
		}
		wantViolation(t, srv, "is allegiant")
	}
}

// A loss is announced on another connection where the target is told to do so, with
// the times that hold.
func TestAnnounceDrops(t *testing.T) {
	for _, level := range []string{"0", "2"} {
		srv, _ := newServer(t, func(c *iscsitest.Config) {
			c.Params.MaxConnections, c.Params.ErrorRecoveryLevel, c.AnnounceDrops = 3, 2, true
		})
		c := login(t, srv, kv("MaxConnections", "3"), kv("ErrorRecoveryLevel", level), kv("DefaultTime2Wait", "5"), kv("DefaultTime2Retain", "9"))
		c2, c3 := c.joinAs(srv, 1), c.joinAs(srv, 77)
		want := pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop, Parameter1: 77, Parameter2: 5}
		if level == "2" {
			want.Parameter3 = 9
		}
		c3.nc.Close()
		m := expect[*pdu.AsyncMessage](c)
		if m.Event != want.Event || m.Parameter1 != want.Parameter1 || m.Parameter2 != want.Parameter2 || m.Parameter3 != want.Parameter3 {
			t.Errorf("level %s: %+v", level, m)
		}
		if r := c.logoutOf(c3, pdu.LogoutConnection); r.Response != pdu.LogoutSuccess {
			t.Errorf("response %d", r.Response)
		}
		// One that was logged out of is no loss, and of the last one nobody can be told.
		if r := c2.logoutOf(c2, pdu.LogoutConnection); r.Response != pdu.LogoutSuccess {
			t.Errorf("response %d", r.Response)
		}
		c2.closed()
		c.in(1, readCDB(0, 1), 512)
		c.nc.Close()
		noViolations(t, srv)
	}
}

// A logout on the connection itself ends its tasks, and makes room for another one,
// before the answer.
func TestLogoutOnTheConnection(t *testing.T) {
	srv, c, c2 := pair(t, "1")
	p := pendingWrite(c, c2)
	// end waits until the server is through with the connection made last.
	end := func(c *client) func() {
		conns := srv.Conns()
		last := slices.MaxFunc(conns, func(a, b *iscsitest.Conn) int { return cmp.Compare(a.ID(), b.ID()) })
		return func() { c.closed(); <-last.Done() }
	}
	end2 := end(c2)
	if r := c2.logoutOf(c2, pdu.LogoutConnection); r.Response != pdu.LogoutSuccess {
		t.Errorf("response %d", r.Response)
	}
	c3 := c.joinAs(srv, 2)
	end3 := end(c3)
	q := c.command(1, writeCDB(0, 0), 0)
	c.send(q)
	c.outcome(q).fails(t, 6, 0x47, 0x7f)
	if r := c.logoutOf(c2, pdu.LogoutConnection); r.Response != pdu.LogoutCIDNotFound {
		t.Errorf("response %d", r.Response)
	}
	// Data that were on their way are no new request; a command is.
	c2.send(&pdu.DataOut{Final: true, LUN: p.LUN, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: 1, ExpStatSN: c2.expStat, Data: pattern(1024, 1)})
	end2()
	noViolations(t, srv)
	if r := c3.logoutOf(c3, pdu.LogoutConnection); r.Response != pdu.LogoutSuccess {
		t.Errorf("response %d", r.Response)
	}
	c3.send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: c3.tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c3.expStat})
	end3()
	if s := srv.Sessions(); len(s) != 1 || len(s[0].CIDs) != 1 {
		t.Errorf("%+v", s)
	}
	wantViolation(t, srv, "after logout")
}
