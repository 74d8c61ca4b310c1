package conformance

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// events collects a session's events.
type events chan initiator.Event

func collect(cfg *initiator.Config) events {
	ch := make(events, 100)
	cfg.OnEvent = func(e initiator.Event) {
		select {
		case ch <- e:
		default:
		}
	}
	return ch
}

// async returns the next asynchronous message that the session tells of.
func (ch events) async(t testing.TB) *initiator.AsyncEvent {
	t.Helper()
	for {
		select {
		case e := <-ch:
			if e.Type == initiator.EventAsync {
				return e.Async
			}
		case <-time.After(patience):
			t.Fatal("no event")
		}
	}
}

// A target that asks for a logout gets one, for the reason "close the session", as
// soon as the commands in flight are finished; no new ones are sent before. Then
// the session logs in again.
func TestFFP_14_1_AsyncLogoutRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(nil)
		before := start(t, s, noData())
		cmd := c.command()
		c.send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 10})
		synctest.Wait()
		after := start(t, s, noData())
		synctest.Wait()
		c.respond(cmd)
		before.succeeds()
		if req := c.logout(); req.Reason != pdu.LogoutSession {
			t.Errorf("reason %d", req.Reason)
		}
		c = st.accept()
		c.logIn()
		c.respond(c.command())
		after.succeeds()
	})
}

// With several connections the one that the target has asked for it on is logged out
// of, on itself and for the reason "close the connection", when the commands in flight
// there are finished; new ones go to the others. Then it comes back.
func TestFFP_14_2_AsyncLogoutRequestOfOneOfTwo(t *testing.T) {
	s, c, c2 := two(t, nil)
	before := start(t, s, noData())
	cmd := c2.command()
	c.expCmdSN = c2.expCmdSN
	c2.send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 600}, &pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 1})
	expect[*pdu.NOPOut](c2)
	c.alive(s)
	c.alive(s)
	c2.expCmdSN = c.expCmdSN
	c2.respond(cmd)
	before.succeeds()
	req := c2.removed(c2, pdu.LogoutConnection)
	c.alive(s)
	c2.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag})
	c2.ended()
	c.comesBack(c2)
	if n := s.Info().Recoveries; n != 0 {
		t.Errorf("%d recoveries", n)
	}
}

// The logout comes within the time granted, whatever is in flight.
func TestFFP_14_3_AsyncLogoutRequestWithStuckTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(nil)
		r := start(t, s, replayed(noData()))
		c.command()
		begin := time.Now()
		c.send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 10})
		c.logout()
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("logout after %v of 10s", took)
		}
		c = st.accept()
		c.logIn()
		c.respond(c.command())
		r.succeeds()
	})
}

// Time2Wait of the answer is waited before the next login.
func TestFFP_14_4_LogoutTime2Wait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		_, c := st.logIn(nil)
		c.send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 10})
		req := expect[*pdu.LogoutRequest](c)
		begin := time.Now()
		c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag, Time2Wait: 9})
		c.ended()
		st.accept()
		if waited := time.Since(begin); waited != 9*time.Second {
			t.Errorf("waited %v, want 9s", waited)
		}
	})
}

// With several connections that all are asked for, the session is logged out of, and
// begins anew with as many.
func TestFFP_14_5_AsyncLogoutRequestOfBothOfTwo(t *testing.T) {
	s, c, c2 := two(t, nil)
	r2 := start(t, s, replayed(noData()))
	c2.command()
	c.expCmdSN = c2.expCmdSN
	r := start(t, s, noData())
	c.command()
	c2.expCmdSN = c.expCmdSN
	c2.send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 600}, &pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 1})
	expect[*pdu.NOPOut](c2)
	c.send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 0})
	if req := c.logout(); req.Reason != pdu.LogoutSession {
		t.Errorf("reason %d", req.Reason)
	}
	c2.ended()
	r.fails(initiator.ErrInterrupted)
	again := c.st.accept()
	again.logIn()
	again2 := c.st.accept()
	again2.logIn()
	if again.first.TSIH != 0 || again2.first.TSIH != again.tsih {
		t.Errorf("TSIH %#x and %#x", again.first.TSIH, again2.first.TSIH)
	}
	again2.respond(again2.command())
	r2.succeeds()
}

// What is still in flight when half of the time is over is ended with the connection:
// what may be is sent again, on another one.
func TestFFP_14_6_AsyncLogoutRequestOfOneWithStuckTasks(t *testing.T) {
	s, c, c2 := two(t, nil)
	again, lost := stuck(t, s, c, c2)
	c2.send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 0})
	req := c2.removed(c2, pdu.LogoutConnection)
	c.quiet(s) // nothing is sent again before the answer
	c2.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag})
	c2.ended()
	lost.fails(initiator.ErrInterrupted)
	c.respond(c.command())
	again.succeeds()
	c.comesBack(c2)
}

// A connection of which no Logout comes to an end is logged out of on another one.
func TestFFP_14_7_RefusedLogoutOfOneOfTwo(t *testing.T) {
	for _, response := range []uint8{pdu.LogoutCIDNotFound, pdu.LogoutRecoveryNotSupported, pdu.LogoutCleanupFailed, 200} {
		s, c, c2 := two(t, nil)
		for range 3 {
			c.quiet(s) // the station has one idea of StatSN for both
		}
		c2.send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 10})
		req := c2.removed(c2, pdu.LogoutConnection)
		c2.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag, Response: response})
		c2.ended()
		req = c.removed(c2, pdu.LogoutConnection)
		c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag})
		c.comesBack(c2)
		if n := s.Info().Recoveries; n != 0 {
			t.Errorf("response %d: %d recoveries", response, n)
		}
	}
}

// Event 0 carries sense data of a logical unit to the owner of the session.
func TestFFP_28_1_AsyncSCSIEvent(t *testing.T) {
	var ch events
	s, c := operational(t, func(cfg *initiator.Config) { ch = collect(cfg) })
	c.send(&pdu.AsyncMessage{Event: pdu.AsyncSCSIEvent, LUN: lun1, Data: pdu.AppendSense(nil, sense)})
	if e := ch.async(t); e.LUN != lun1 || !bytes.Equal(e.Sense, sense) {
		t.Errorf("event %+v", e)
	}
	c.alive(s)
}

// Event 2 announces the end of a connection, and how long to wait before the next.
func TestFFP_28_2_AsyncConnectionDrop(t *testing.T) {
	testDrop(t, pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop, Parameter1: 0, Parameter2: 6, Parameter3: 20}, 6*time.Second)
}

// Event 3 does the same with the session.
func TestFFP_28_3_AsyncSessionDrop(t *testing.T) {
	testDrop(t, pdu.AsyncMessage{Event: pdu.AsyncSessionDrop, Parameter2: 11}, 11*time.Second)
	testDrop(t, pdu.AsyncMessage{Event: pdu.AsyncSessionDrop}, 0)
}

func testDrop(t *testing.T, m pdu.AsyncMessage, wait time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(nil)
		r := start(t, s, replayed(noData()))
		c.command()
		begin := time.Now()
		c.send(&m)
		c.ended()
		c = st.accept()
		if waited := time.Since(begin); waited != wait {
			t.Errorf("waited %v, want %v", waited, wait)
		}
		c.logIn()
		c.respond(c.command())
		r.succeeds()
	})
}

// A connection that is not ours may be dropped.
func TestFFP_28_4_AsyncDropOfAnotherConnection(t *testing.T) {
	s, c := operational(t, nil)
	c.send(&pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop, Parameter1: c.first.CID + 1})
	c.alive(s)
}

// The end of a connection may be announced on another one: it counts at once, whether
// or not it can be seen.
func TestFFP_28_7_AsyncConnectionDropOnAnotherConnection(t *testing.T) {
	s, c, c2 := two(t, nil)
	r := start(t, s, replayed(noData()))
	c2.command()
	c.expCmdSN = c2.expCmdSN
	c.send(&pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop, Parameter1: c2.first.CID})
	c2.ended()
	req := c.removed(c2, pdu.LogoutConnection)
	c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag})
	c.respond(c.command())
	r.succeeds()
	c.comesBack(c2)
	if n := s.Info().Recoveries; n != 0 {
		t.Errorf("%d recoveries", n)
	}
}

// Event 4 asks for a negotiation; a logout, and the login that follows, is an
// answer that RFC 7143 section 11.9.1 allows.
func TestFFP_28_5_AsyncNegotiationRequest(t *testing.T) {
	s, c := operational(t, nil)
	c.send(&pdu.AsyncMessage{Event: pdu.AsyncNegotiationRequest, Parameter3: 10})
	c.logout()
	c = c.st.accept()
	c.logIn()
	c.alive(s)
}

// Vendors' events and codes that nobody has defined are passed on and acknowledged,
// and event 5, which was not negotiated.
func TestFFP_28_6_AsyncOtherEvents(t *testing.T) {
	var ch events
	s, c := operational(t, func(cfg *initiator.Config) { ch = collect(cfg) })
	for _, code := range []pdu.AsyncEvent{pdu.AsyncTaskTermination, 6, 77, 247, 248, 255} {
		c.send(&pdu.AsyncMessage{Event: code, VCode: 3, Parameter1: 1, Parameter2: 2, Parameter3: 3, Data: pattern(1, 10)})
		if e := ch.async(t); e.Event != code || e.VendorCode != 3 || e.Parameter1 != 1 || e.Parameter2 != 2 || e.Parameter3 != 3 {
			t.Errorf("event %+v", e)
		}
		c.quiet(s)
		if got := c.header.ExpStatSN(); got != c.statSN-1 {
			t.Errorf("event %d is not acknowledged: ExpStatSN %d, want %d", code, got, c.statSN-1)
		}
	}
	if n := s.Info().Recoveries; n != 0 {
		t.Errorf("%d recoveries", n)
	}
}

// A ping of the target is answered with its tag and LUN, immediately and without a
// task tag.
func TestFFP_15_1_NOPOutAnsweringAPing(t *testing.T) {
	s, c := operational(t, nil)
	for _, ttt := range []uint32{0, 7, 0xfffffffe} {
		c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: ttt, LUN: pdu.LUNFromNumber(uint64(ttt & 0xff))})
		nop := expect[*pdu.NOPOut](c)
		if nop.InitiatorTaskTag != pdu.ReservedTag || nop.TargetTransferTag != ttt || nop.LUN != pdu.LUNFromNumber(uint64(ttt&0xff)) || !nop.Immediate {
			t.Errorf("%+v for TTT %#x", nop, ttt)
		}
	}
	c.nopIn() // asks for none
	c.alive(s)
}

// A ping of ours has a task tag and no transfer tag, and comes when the target has
// been silent for the configured time.
func TestFFP_15_2_NOPOutAsAPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(func(cfg *initiator.Config) {
			cfg.Timeouts.NoopInterval, cfg.Timeouts.NoopTimeout = 5*time.Second, 5*time.Second
		})
		for range 3 {
			begin := time.Now()
			nop := expect[*pdu.NOPOut](c)
			if nop.InitiatorTaskTag == pdu.ReservedTag || nop.TargetTransferTag != pdu.ReservedTag || nop.LUN != 0 || !nop.Immediate {
				t.Errorf("%+v", nop)
			}
			if waited := time.Since(begin); waited != 5*time.Second {
				t.Errorf("pinged after %v, want 5s", waited)
			}
			c.pong(nop)
		}
		c.alive(s)
	})
}

// The answer to a ping acknowledges the statuses before it. A NOP-In without a task
// tag uses up no StatSN.
func TestFFP_15_3_NOPOutConfirmingExpStatSN(t *testing.T) {
	s, c := operational(t, nil)
	for ttt := range uint32(4) {
		c.alive(s)
		c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: ttt})
		if nop := expect[*pdu.NOPOut](c); nop.ExpStatSN != c.statSN {
			t.Errorf("ExpStatSN %d, want %d", nop.ExpStatSN, c.statSN)
		}
	}
}

// A ping that is not answered in time fails the connection.
func TestFFP_15_4_PingTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(func(cfg *initiator.Config) {
			cfg.Timeouts.NoopInterval, cfg.Timeouts.NoopTimeout = 5*time.Second, 3*time.Second
		})
		expect[*pdu.NOPOut](c)
		begin := time.Now()
		c.ended()
		if waited := time.Since(begin); waited != 3*time.Second {
			t.Errorf("given up after %v, want 3s", waited)
		}
		c = st.accept()
		c.logIn()
		c.alive(s)
	})
}

// Data in a ping are the target's business.
func TestFFP_15_5_PingWithData(t *testing.T) {
	s, c := operational(t, nil)
	c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 1, Data: pattern(1, 4000)})
	if nop := expect[*pdu.NOPOut](c); nop.TargetTransferTag != 1 {
		t.Errorf("%+v", nop)
	}
	c.alive(s)
}
