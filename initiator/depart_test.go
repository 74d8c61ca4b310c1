package initiator_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// tell sends an asynchronous message on one connection.
func tell(t testing.TB, c *iscsitest.Conn, event pdu.AsyncEvent, p1, p2, p3 uint16) {
	t.Helper()
	if err := c.Send(&pdu.AsyncMessage{Event: event, Parameter1: p1, Parameter2: p2, Parameter3: p3}, false); err != nil {
		t.Fatal(err)
	}
}

// turnAway has the target reject the next command on a connection, since it waits for
// a logout. As RFC 7143 section 7.3 wants it, the command was not received then.
func turnAway(t testing.TB, r *rig, id uint64) {
	var used atomic.Bool
	r.srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if c.ID() != id || !used.CompareAndSwap(false, true) {
			return iscsitest.Pass()
		}
		h, err := p.AppendHeader(nil)
		if err == nil {
			err = c.Send(&pdu.Reject{Reason: pdu.RejectWaitingForLogout, Data: h}, false)
		}
		if err != nil {
			t.Error(err)
		}
		return iscsitest.Drop()
	})
}

// logouts records the Logout requests that come to the target.
func (r *rig) logouts() func() []pdu.LogoutRequest {
	var mu sync.Mutex
	var got []pdu.LogoutRequest
	r.srv.Handle(pdu.OpLogoutRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, *p.(*pdu.LogoutRequest))
		return iscsitest.Pass()
	})
	return func() []pdu.LogoutRequest {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

// A connection that the target wants to be logged out of is left, and no other.
func TestDepartureFromOneOfSeveral(t *testing.T) {
	for name, ask := range map[string]func(t testing.TB, r *rig, c *iscsitest.Conn){
		"logout request": func(t testing.TB, _ *rig, c *iscsitest.Conn) { tell(t, c, pdu.AsyncLogoutRequest, 0, 0, 60) },
		"no time given":  func(t testing.TB, _ *rig, c *iscsitest.Conn) { tell(t, c, pdu.AsyncLogoutRequest, 0, 0, 0) },
		"asked twice": func(t testing.TB, _ *rig, c *iscsitest.Conn) {
			tell(t, c, pdu.AsyncLogoutRequest, 0, 0, 60)
			_ = c.Send(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 1}, false) // it may have gone
		},
		"negotiation": func(t testing.TB, _ *rig, c *iscsitest.Conn) { tell(t, c, pdu.AsyncNegotiationRequest, 0, 0, 60) },
		"reject":      func(t testing.TB, r *rig, c *iscsitest.Conn) { turnAway(t, r, c.ID()) },
	} {
		for which := range 3 {
			t.Run(fmt.Sprintf("%s/%d", name, which), func(t *testing.T) {
				events := make(eventLog, 64)
				r, s := groupRig(t, 3, func(c *initiator.Config) { c.OnEvent = events.add })
				logouts := r.logouts()
				tsih := s.Info().TSIH
				conns := r.members(t)
				asked := conns[which]
				ask(t, r, asked)
				for range 3 { // on each once
					do(t, s, writeTask(0, pattern(1, 4096)))
				}
				if e := events.await(t, initiator.EventConnectionLost); e.Err == nil || e.Connections != 2 {
					t.Errorf("event %+v", e)
				}
				if e := events.await(t, initiator.EventConnectionAdded); e.Connections != 3 {
					t.Errorf("event %+v", e)
				}
				got := logouts()
				if len(got) != 1 || got[0].Reason != pdu.LogoutConnection || got[0].CID != asked.CID() || !got[0].Immediate {
					t.Errorf("logouts %+v", got)
				}
				<-asked.Done()
				now := r.members(t)
				for i, c := range conns {
					if kept := slices.Contains(now, c); kept != (i != which) {
						t.Errorf("connection %d of the session is kept: %v", i, kept)
					}
				}
				shuffle(t, s, 3, 8192)
				sameSession(t, s, tsih)
				if i := s.Info(); i.Connections != 3 || i.ConnectionRecoveries != 1 {
					t.Errorf("%d connections, %d recoveries of connections", i.Connections, i.ConnectionRecoveries)
				}
			})
		}
	}
}

// What is in flight on the connection is finished there. New commands go to the
// others meanwhile, and nobody waits.
func TestDepartureWaitsForTasks(t *testing.T) {
	events := make(eventLog, 64)
	r, s := groupRig(t, 2, func(c *initiator.Config) { c.OnEvent = events.add })
	tsih := s.Info().TSIH
	logouts := r.logouts()
	hold, on := make(chan struct{}), make(chan *iscsitest.Conn, 1)
	var first atomic.Bool
	var after atomic.Int32
	var asked atomic.Pointer[iscsitest.Conn]
	r.srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action {
		if first.CompareAndSwap(false, true) {
			on <- c
			return iscsitest.Delay(hold)
		}
		if asked.Load() == c {
			after.Add(1)
		}
		return iscsitest.Pass()
	})
	data := pattern(1, 300*512) // with R2Ts after the request
	task := writeTask(0, data)
	task.Replay = false
	done := newCollector(1)
	submit(s, done, task)
	c := <-on
	tell(t, c, pdu.AsyncLogoutRequest, 0, 0, 600)
	events.await(t, initiator.EventAsync)
	until(t, "the request is taken", func() bool { // behind it commands do not go there
		before := r.srv.Received(pdu.OpSCSICommand)
		asked.Store(c)
		after.Store(0)
		for range 4 {
			do(t, s, readTask(1<<20, 512))
		}
		return after.Load() == 0 && r.srv.Received(pdu.OpSCSICommand) == before+4
	})
	for range 20 {
		do(t, s, readTask(1<<20, 512))
	}
	if n := after.Load(); n != 0 {
		t.Errorf("%d new commands", n)
	}
	if got := logouts(); len(got) != 0 {
		t.Errorf("logout before the task in flight has ended: %+v", got)
	}
	close(hold)
	if err := good(done.wait(t)); err != nil {
		t.Error(err)
	}
	events.await(t, initiator.EventConnectionAdded)
	if got := logouts(); len(got) != 1 || got[0].Reason != pdu.LogoutConnection || got[0].CID != c.CID() {
		t.Errorf("logouts %+v", got)
	}
	r.holds(t, 0, data)
	sameSession(t, s, tsih)
}

// A task that does not end within half of the time granted is ended with the
// connection: it is sent again if it may be. The others do not wait, nor for the time
// that the target wants to pass before the next login.
func TestDepartureInTime(t *testing.T) {
	for level := range 3 {
		synctest.Test(t, func(t *testing.T) {
			r := unstartedRig(t, func(c *iscsitest.Config) {
				c.Params.MaxConnections, c.Params.ErrorRecoveryLevel, c.Params.DefaultTime2Wait = 2, 2, 7
			})
			events := make(eventLog, 64)
			cfg := r.pipeConfig(t)
			cfg.OnEvent = events.add
			cfg.Params.MaxConnections, cfg.Params.ErrorRecoveryLevel = 2, level
			s := r.dial(t, cfg)
			tsih := s.Info().TSIH
			held, release := r.holdCommands(4)
			done := map[bool]*collector{false: newCollector(2), true: newCollector(2)}
			for i := range 4 {
				task := writeTask(int64(i)*4096, pattern(uint64(i), 4096))
				task.Replay = i < 2
				submit(s, done[task.Replay], task)
			}
			synctest.Wait()
			if n := held(); n != 4 {
				t.Fatalf("%d commands held", n)
			}
			begin := time.Now()
			waited := func(what string, want time.Duration) {
				t.Helper()
				if took := time.Since(begin); took != want {
					t.Errorf("level %d: %s after %v, want %v", level, what, took, want)
				}
			}
			tell(t, r.members(t)[1], pdu.AsyncLogoutRequest, 0, 0, 20)
			for range 5 {
				do(t, s, readTask(1<<20, 512))
			}
			waited("others", 0)
			is(t, done[false].wait(t).Err, initiator.ErrInterrupted)
			waited("logout", 10*time.Second)
			if err := good(done[true].wait(t)); err != nil {
				t.Error(err)
			}
			do(t, s, readTask(1<<20, 512))
			waited("task", 10*time.Second)
			events.await(t, initiator.EventConnectionAdded)
			waited("connection", 17*time.Second)
			release()
			for _, c := range done {
				if err := good(c.wait(t)); err != nil {
					t.Error(err)
				}
			}
			sameSession(t, s, tsih)
		})
	}
}

// A target that does not let a connection go as it asked has it closed like one that
// was lost, on another one.
func TestDepartureThatFails(t *testing.T) {
	for name, answer := range map[string]func(*pdu.LogoutRequest) iscsitest.Action{
		"refused": func(q *pdu.LogoutRequest) iscsitest.Action {
			return iscsitest.Reply(&pdu.LogoutResponse{InitiatorTaskTag: q.InitiatorTaskTag, Response: pdu.LogoutCleanupFailed})
		},
		"not found": func(q *pdu.LogoutRequest) iscsitest.Action {
			return iscsitest.Reply(&pdu.LogoutResponse{InitiatorTaskTag: q.InitiatorTaskTag, Response: pdu.LogoutCIDNotFound})
		},
		"other answer": func(q *pdu.LogoutRequest) iscsitest.Action {
			return iscsitest.Reply(&pdu.TextResponse{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag})
		},
		"no answer": func(*pdu.LogoutRequest) iscsitest.Action { return iscsitest.Reply() },
		"rejected": func(q *pdu.LogoutRequest) iscsitest.Action {
			h, _ := q.AppendHeader(nil)
			return iscsitest.Reply(&pdu.Reject{Reason: pdu.RejectCommandNotSupported, Data: h})
		},
		"closed": func(*pdu.LogoutRequest) iscsitest.Action { return iscsitest.CloseConn() },
		"reset":  func(*pdu.LogoutRequest) iscsitest.Action { return iscsitest.ResetConn() },
	} {
		t.Run(name, func(t *testing.T) {
			events := make(eventLog, 64)
			r, s := groupRig(t, 3, func(c *initiator.Config) {
				c.OnEvent = events.add
				c.Timeouts.Logout = time.Second
			})
			var own atomic.Int32
			r.srv.Handle(pdu.OpLogoutRequest, func(c *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				if q := p.(*pdu.LogoutRequest); q.Reason == pdu.LogoutConnection && q.CID == c.CID() {
					own.Add(1)
					return answer(q)
				}
				return iscsitest.Pass()
			})
			tsih := s.Info().TSIH
			stop := startLoad(t, s, 4)
			const n = 3
			for range n {
				tell(t, r.members(t)[1], pdu.AsyncLogoutRequest, 0, 0, 600)
				if name == "other answer" { // which is a violation, and one of the session
					events.await(t, initiator.EventRecovered)
				} else {
					events.await(t, initiator.EventConnectionAdded)
				}
			}
			stop()
			if got := own.Load(); got != n {
				t.Errorf("%d logouts on the connections themselves", got)
			}
			if name != "other answer" {
				sameSession(t, s, tsih)
			}
			shuffle(t, s, 3, 8192)
		})
	}
}

// When the target asks for it on all connections, the session is logged out of, once.
func TestAsyncLogoutOfAllConnections(t *testing.T) {
	events := make(eventLog, 64)
	r, s := groupRig(t, 3, func(c *initiator.Config) { c.OnEvent = events.add })
	logouts := r.logouts()
	held, release := r.holdCommands(3)
	defer release()
	done := newCollector(3)
	for i := range 3 {
		task := writeTask(int64(i)*4096, pattern(uint64(i), 4096))
		task.Replay = false
		submit(s, done, task)
	}
	until(t, "three commands", func() bool { return held() == 3 })
	r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 600})
	until(t, "logout requested", func() bool { return s.Info().ConnState == initiator.ConnLogoutRequested })
	release()
	for range 3 {
		if err := good(done.wait(t)); err != nil {
			t.Error(err)
		}
	}
	events.await(t, initiator.EventRecovered)
	if got := logouts(); len(got) != 1 || got[0].Reason != pdu.LogoutSession {
		t.Errorf("logouts %+v", got)
	}
	if i := s.Info(); i.Connections != 3 || i.Recoveries != 1 {
		t.Errorf("%d connections, %d recoveries", i.Connections, i.Recoveries)
	}
}

// A connection that is to be left does not stand in for all others: when they are
// lost, be it before its Logout or behind it, the session begins anew, and nothing is
// lost that may be sent again.
func TestOthersAreLostDuringADeparture(t *testing.T) {
	for _, parted := range []bool{false, true} {
		for level := range 3 {
			t.Run(fmt.Sprintf("parted=%v/level=%d", parted, level), func(t *testing.T) {
				r := newRig(t, func(c *iscsitest.Config) { c.Params.MaxConnections, c.Params.ErrorRecoveryLevel = 2, 2 })
				events := make(eventLog, 1000)
				cfg := r.config(t)
				cfg.OnEvent = events.add
				cfg.Params.MaxConnections, cfg.Params.ErrorRecoveryLevel = 2, level
				s := r.dial(t, cfg)
				reached := make(chan struct{})
				if parted {
					var first atomic.Bool
					r.srv.Handle(pdu.OpLogoutRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
						if first.CompareAndSwap(false, true) {
							close(reached)
							return iscsitest.Reply() // no answer
						}
						return iscsitest.Pass()
					})
				}
				_, release := r.holdCommands(2)
				defer release()
				if parted {
					release()
				}
				done := r.twoWrites(t, s)
				conns := r.members(t)
				tell(t, conns[1], pdu.AsyncLogoutRequest, 0, 0, 600)
				events.await(t, initiator.EventAsync)
				if parted {
					<-reached
				}
				conns[0].Reset()
				until(t, "its end is noticed", func() bool { i := s.Info(); return i.ConnectionRecoveries+i.Recoveries > 0 || i.Connections < 2 })
				release()
				for range 2 {
					if err := good(done.wait(t)); err != nil {
						t.Error(err)
					}
				}
				until(t, "two connections", func() bool { i := s.Info(); return i.State == initiator.StateLoggedIn && i.Connections == 2 })
				shuffle(t, s, 3, 8192)
				for i := range 2 {
					if off := int64(i) * 4096; off >= 8*8192 {
						r.holds(t, off, pattern(uint64(i), 4096))
					}
				}
			})
		}
	}
}

// twoWrites sends two writes and waits until the target has them.
func (r *rig) twoWrites(t *testing.T, s *initiator.Session) *collector {
	t.Helper()
	done := newCollector(2)
	for i := range 2 {
		submit(s, done, writeTask(int64(i)*4096, pattern(uint64(i), 4096)))
	}
	until(t, "two commands", func() bool { return r.srv.Received(pdu.OpSCSICommand) == 2 })
	return done
}

// Logout ends a session while one of its connections is about to be left.
func TestLogoutDuringADeparture(t *testing.T) {
	for _, parted := range []bool{false, true} {
		t.Run(fmt.Sprintf("parted=%v", parted), func(t *testing.T) {
			events := make(eventLog, 64)
			r, s := groupRig(t, 2, func(c *initiator.Config) { c.OnEvent = events.add })
			reached := make(chan struct{})
			r.srv.Handle(pdu.OpLogoutRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				if p.(*pdu.LogoutRequest).Reason == pdu.LogoutConnection {
					close(reached)
					return iscsitest.Reply() // no answer
				}
				return iscsitest.Pass()
			})
			_, release := r.holdCommands(2)
			defer release()
			if parted {
				release()
			}
			done := r.twoWrites(t, s)
			tell(t, r.members(t)[0], pdu.AsyncLogoutRequest, 0, 0, 600)
			events.await(t, initiator.EventAsync)
			if parted {
				<-reached
			}
			out := make(chan error, 1)
			go func() { out <- s.Logout(t.Context()) }()
			until(t, "logging out", func() bool { return s.Info().State >= initiator.StateLoggingOut })
			release()
			for range 2 {
				if err := good(done.wait(t)); err != nil {
					t.Error(err)
				}
			}
			if err := <-out; err != nil {
				t.Error(err)
			}
		})
	}
}

// A user's request that has to go to a connection that is left waits for its end: a
// reset of the unit ends the tasks on all connections.
func TestResetDuringADeparture(t *testing.T) {
	r, s := groupRig(t, 2, func(c *initiator.Config) { c.Timeouts.Logout = time.Second })
	reached := make(chan struct{})
	var first atomic.Bool
	r.srv.Handle(pdu.OpLogoutRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		if first.CompareAndSwap(false, true) {
			close(reached)
			return iscsitest.Reply()
		}
		return iscsitest.Pass()
	})
	tsih := s.Info().TSIH
	tell(t, r.members(t)[0], pdu.AsyncLogoutRequest, 0, 0, 600)
	<-reached
	if err := s.TaskManagement(t.Context(), pdu.TaskLogicalUnitReset, lun1); err != nil {
		t.Error(err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	sameSession(t, s, tsih)
}

// The target asks again and again for the logout of a connection under load: no task
// fails, though none may be carried out twice, no byte is lost, and the session is
// never made anew.
func TestDeparturesLoseNothing(t *testing.T) {
	for name, ask := range map[string]func(t testing.TB, r *rig, c *iscsitest.Conn){
		"logout request": func(t testing.TB, _ *rig, c *iscsitest.Conn) { tell(t, c, pdu.AsyncLogoutRequest, 0, 0, 600) },
		"then lost": func(t testing.TB, r *rig, c *iscsitest.Conn) {
			tell(t, c, pdu.AsyncLogoutRequest, 0, 0, 600)
			c.Close()
		},
		"reject":  func(t testing.TB, r *rig, c *iscsitest.Conn) { turnAway(t, r, c.ID()) },
		"at once": func(t testing.TB, _ *rig, c *iscsitest.Conn) { tell(t, c, pdu.AsyncLogoutRequest, 0, 0, 0) },
		"and lost": func(t testing.TB, r *rig, c *iscsitest.Conn) {
			tell(t, c, pdu.AsyncLogoutRequest, 0, 0, 600)
			conns := r.members(t)
			conns[slices.IndexFunc(conns, func(o *iscsitest.Conn) bool { return o != c })].Reset()
		},
	} {
		drained, each := name == "logout request", 1
		if name == "and lost" {
			each = 2
		}
		for level := range 3 {
			t.Run(fmt.Sprintf("%s/level=%d", name, level), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(c *iscsitest.Config) {
					c.Params.MaxConnections, c.Params.ErrorRecoveryLevel = 8, 2
					c.Params.MaxRecvDataSegmentLength = 8192
					c.AnnounceDrops = true
				})
				cfg := r.config(t)
				cfg.Params.MaxConnections, cfg.Params.ErrorRecoveryLevel = 3, level
				cfg.Params.FirstBurstLength, cfg.Params.MaxOutstandingR2T = 8192, 2
				s := r.dial(t, cfg)
				tsih := s.Info().TSIH
				stop := startTasks(t, s, 8, !drained)
				const n = 20
				for round := range n {
					conns := r.members(t)
					ask(t, r, conns[round%2*(len(conns)-1)])
					until(t, "three connections", func() bool {
						i := s.Info()
						return i.Connections == 3 && i.ConnectionRecoveries == uint64(each*(round+1)) && len(r.members(t)) == 3
					})
				}
				if ops := stop(); ops == 0 {
					t.Error("no load")
				}
				sameSession(t, s, tsih)
			})
		}
	}
}
