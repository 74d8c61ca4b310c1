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

// until waits for a condition that comes about by itself.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so", what)
		}
	}
}

// conn returns the target's end of the connection with a number, counted from 1.
func (r *rig) conn(t testing.TB, id uint64) *iscsitest.Conn {
	t.Helper()
	conns := r.srv.Conns()
	i := slices.IndexFunc(conns, func(c *iscsitest.Conn) bool { return c.ID() == id })
	if i < 0 {
		t.Fatalf("no connection %d", id)
	}
	return conns[i]
}

// members returns the target's ends of the connections of the only session, the
// leading one first.
func (r *rig) members(t testing.TB) []*iscsitest.Conn {
	t.Helper()
	all := r.srv.Conns()
	cids := r.srv.Sessions()[0].CIDs
	all = slices.DeleteFunc(all, func(c *iscsitest.Conn) bool {
		select {
		case <-c.Done(): // of a former session
			return true
		default:
			return !slices.Contains(cids, c.CID())
		}
	})
	slices.SortFunc(all, func(a, b *iscsitest.Conn) int {
		return slices.Index(cids, a.CID()) - slices.Index(cids, b.CID())
	})
	return all
}

// holdCommands has the target hold up the first n commands until release is called;
// held tells how many there are.
func (r *rig) holdCommands(n int32) (held func() int32, release func()) {
	hold := make(chan struct{})
	var count atomic.Int32
	r.srv.Handle(pdu.OpSCSICommand, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		if count.Add(1) <= n {
			return iscsitest.Delay(hold)
		}
		return iscsitest.Pass()
	})
	return count.Load, sync.OnceFunc(func() { close(hold) })
}

// sameSession fails the test if the session was made anew since the TSIH was noted.
func sameSession(t testing.TB, s *initiator.Session, tsih uint16) {
	t.Helper()
	if i := s.Info(); i.TSIH != tsih || i.Recoveries != 0 || i.State != initiator.StateLoggedIn {
		t.Errorf("TSIH %d, was %d; %d recoveries, %v: %v", i.TSIH, tsih, i.Recoveries, i.State, i.LastError)
	}
}

// The loss of one connection concerns the tasks that were sent there and no others:
// those that may be are carried out again on another one, the others fail. The
// session stays what it is, and gets its connection back.
func TestLossOfOneOfSeveral(t *testing.T) {
	for lost := range 3 {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			events := make(eventLog, 64)
			r, s := groupRig(t, 3, func(c *initiator.Config) { c.OnEvent = events.add })
			tsih := s.Info().TSIH
			held, release := r.holdCommands(6)
			defer release()
			again, once := newCollector(3), newCollector(3)
			for i := range 6 {
				task := writeTask(int64(i)*4096, pattern(uint64(i), 4096))
				task.Owner, task.Replay = again, i < 3
				if !task.Replay {
					task.Owner = once
				}
				s.Submit(task)
			}
			s.Kick()
			until(t, "six commands", func() bool { return held() == 6 })
			r.conn(t, uint64(lost+1)).Reset()
			is(t, once.wait(t).Err, initiator.ErrInterrupted)
			if err := good(again.wait(t)); err != nil {
				t.Error(err)
			}
			e := events.await(t, initiator.EventConnectionLost)
			if e.Connections != 2 || e.Err == nil {
				t.Errorf("event %+v", e)
			}
			if e := events.await(t, initiator.EventConnectionAdded); e.Connections != 3 {
				t.Errorf("event %+v", e)
			}
			release()
			for _, c := range []*collector{again, again, once, once} {
				if err := good(c.wait(t)); err != nil {
					t.Error(err)
				}
			}
			for i := range 3 {
				r.holds(t, int64(i)*4096, pattern(uint64(i), 4096))
			}
			sameSession(t, s, tsih)
			if i := s.Info(); i.Connections != 3 || i.ConnectionRecoveries != 1 {
				t.Errorf("%d connections, %d recoveries of connections", i.Connections, i.ConnectionRecoveries)
			}
			shuffle(t, s, 3, 8192)
		})
	}
}

// Connections are lost again and again under load, the leading one and others in
// turn: no task fails, no byte is lost, and the session is never made anew.
func TestLossesOfConnectionsLoseNothing(t *testing.T) {
	for name, lose := range map[string]func(r *rig, c *iscsitest.Conn){
		"closed": func(_ *rig, c *iscsitest.Conn) { c.Close() },
		"reset":  func(_ *rig, c *iscsitest.Conn) { c.Reset() },
		"within Data-In": func(r *rig, _ *iscsitest.Conn) {
			once(r.srv, pdu.OpDataIn, iscsitest.Truncate())
		},
		"at a command":    func(r *rig, _ *iscsitest.Conn) { once(r.srv, pdu.OpSCSICommand, iscsitest.CloseConn()) },
		"at a response":   func(r *rig, _ *iscsitest.Conn) { once(r.srv, pdu.OpSCSIResponse, iscsitest.ResetConn()) },
		"within Data-Out": func(r *rig, _ *iscsitest.Conn) { once(r.srv, pdu.OpDataOut, iscsitest.ResetConn()) },
		"header digest":   func(r *rig, _ *iscsitest.Conn) { once(r.srv, pdu.OpSCSIResponse, iscsitest.BadHeaderDigest()) },
		"announced by the target": func(_ *rig, c *iscsitest.Conn) {
			if err := c.Send(&pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop, Parameter1: c.CID(), Parameter3: 3600}, false); err != nil {
				c.Close()
			}
		},
	} {
		for level := range 3 {
			t.Run(fmt.Sprintf("%s/level=%d", name, level), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(c *iscsitest.Config) {
					c.Params.MaxConnections, c.Params.ErrorRecoveryLevel = 8, 2
					c.Params.DefaultTime2Retain = 3600 // no machine is too slow to come back in time
					c.Params.MaxRecvDataSegmentLength = 8192
				})
				events := make(eventLog, 1000)
				cfg := r.config(t)
				cfg.OnEvent = events.add
				crc := []initiator.Digest{initiator.DigestCRC32C}
				cfg.Params.HeaderDigest = crc
				cfg.Params.MaxConnections, cfg.Params.ErrorRecoveryLevel = 3, level
				cfg.Params.DefaultTime2Retain = time.Hour
				cfg.Params.FirstBurstLength, cfg.Params.MaxOutstandingR2T = 8192, 2
				s := r.dial(t, cfg)
				tsih := s.Info().TSIH
				stop := startTasks(t, s, 8, level < 2) // on level 2 they go on
				const n = 30
				for i := range n {
					conns := r.members(t)
					lose(r, conns[i%2*(len(conns)-1)])
					events.await(t, initiator.EventConnectionAdded)
				}
				if ops := stop(); ops == 0 {
					t.Error("no load")
				}
				sameSession(t, s, tsih)
				if i := s.Info(); i.Connections != 3 || i.ConnectionRecoveries < n {
					t.Errorf("%d connections, %d recoveries of connections", i.Connections, i.ConnectionRecoveries)
				}
			})
		}
	}
}

// Behind a command that the target never got it carries nothing out. When that
// command's connection is lost its number is filled, and the command is a new one.
func TestHoleInCmdSNIsFilled(t *testing.T) {
	r, s := groupRig(t, 2, func(c *initiator.Config) { c.CmdsMax = 8 })
	lost := make(chan *iscsitest.Conn, 1)
	var dropped atomic.Bool
	r.srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action {
		if dropped.CompareAndSwap(false, true) {
			lost <- c
			return iscsitest.Drop()
		}
		return iscsitest.Pass()
	})
	tsih := s.Info().TSIH
	done := newCollector(4)
	for i := range 4 {
		submit(s, done, writeTask(int64(i)*4096, pattern(uint64(i), 4096)))
	}
	(<-lost).Close()
	for range 4 {
		if err := good(done.wait(t)); err != nil {
			t.Error(err)
		}
	}
	if r.srv.Received(pdu.OpNOPOut) == 0 {
		t.Error("no NOP-Out takes the number")
	}
	sameSession(t, s, tsih)
}

// Nothing is sent again before the target has answered the Logout of the lost
// connection.
func TestNothingIsSentAgainBeforeTheLogout(t *testing.T) {
	r, s := groupRig(t, 2, nil)
	on := make(chan *iscsitest.Conn, 1)
	var first atomic.Bool
	r.srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action {
		if first.CompareAndSwap(false, true) {
			on <- c
			return iscsitest.Delay(c.Done())
		}
		return iscsitest.Pass()
	})
	answer := make(chan struct{})
	r.srv.Handle(pdu.OpLogoutRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if q := p.(*pdu.LogoutRequest); q.Reason != pdu.LogoutConnection {
			return iscsitest.Pass()
		}
		return iscsitest.Delay(answer)
	})
	done := newCollector(1)
	submit(s, done, writeTask(0, pattern(1, 4096)))
	(<-on).Close()
	until(t, "a logout", func() bool { return r.srv.Received(pdu.OpLogoutRequest) == 1 })
	for range 20 { // others go on
		do(t, s, readTask(1<<20, 512))
	}
	select {
	case <-done.done:
		t.Error("the task is finished before the target has closed its connection")
	default:
	}
	close(answer)
	if err := good(done.wait(t)); err != nil {
		t.Error(err)
	}
}

// What does not work out within the session, a new session makes good.
func TestConnectionRecoveryFallsBack(t *testing.T) {
	for name, answer := range map[string]func(*pdu.LogoutRequest) iscsitest.Action{
		"refused": func(q *pdu.LogoutRequest) iscsitest.Action {
			return iscsitest.Reply(&pdu.LogoutResponse{InitiatorTaskTag: q.InitiatorTaskTag, Response: pdu.LogoutCleanupFailed})
		},
		"no answer": func(*pdu.LogoutRequest) iscsitest.Action { return iscsitest.Reply() },
		"rejected": func(q *pdu.LogoutRequest) iscsitest.Action {
			h, _ := q.AppendHeader(nil)
			return iscsitest.Reply(&pdu.Reject{Reason: pdu.RejectCommandNotSupported, Data: h})
		},
		"connection lost": func(*pdu.LogoutRequest) iscsitest.Action { return iscsitest.CloseConn() },
	} {
		t.Run(name, func(t *testing.T) {
			events := make(eventLog, 64)
			r, s := groupRig(t, 3, func(c *initiator.Config) {
				c.OnEvent = events.add
				c.Timeouts.Logout = 50 * time.Millisecond
			})
			r.srv.Handle(pdu.OpLogoutRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				if q := p.(*pdu.LogoutRequest); q.Reason != pdu.LogoutSession {
					return answer(q)
				}
				return iscsitest.Pass()
			})
			stop := startLoad(t, s, 4)
			for range 3 {
				r.members(t)[0].Close()
				events.await(t, initiator.EventRecovered)
			}
			stop()
			if i := s.Info(); i.Connections != 3 || i.ConnectionRecoveries != 0 {
				t.Errorf("%d connections, %d recoveries of connections", i.Connections, i.ConnectionRecoveries)
			}
		})
	}
}

// A connection that is lost while it is asked about another one is lost, too, and
// the next one is asked about both.
func TestConnectionLostDuringTheLogoutOfAnother(t *testing.T) {
	events := make(eventLog, 64)
	r, s := groupRig(t, 4, func(c *initiator.Config) { c.OnEvent = events.add })
	tsih := s.Info().TSIH
	var lost atomic.Bool
	r.srv.Handle(pdu.OpLogoutRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		if lost.CompareAndSwap(false, true) {
			return iscsitest.CloseConn()
		}
		return iscsitest.Pass()
	})
	stop := startLoad(t, s, 8)
	r.conn(t, 2).Close()
	for range 2 {
		events.await(t, initiator.EventConnectionAdded)
	}
	stop()
	sameSession(t, s, tsih)
	if i := s.Info(); i.Connections != 4 || i.ConnectionRecoveries != 2 {
		t.Errorf("%d connections, %d recoveries of connections", i.Connections, i.ConnectionRecoveries)
	}
}

// A target that does not take a connection at the moment is asked again.
func TestConnectionIsAddedBackInTime(t *testing.T) {
	events := make(eventLog, 64)
	r, s := groupRig(t, 3, func(c *initiator.Config) { c.OnEvent = events.add })
	tsih := s.Info().TSIH
	r.srv.RejectLogins(pdu.LoginTargetError, pdu.TargetErrorServiceUnavailable, 3)
	logins := r.srv.Received(pdu.OpLoginRequest)
	r.conn(t, 1).Close()
	events.await(t, initiator.EventConnectionAdded)
	if n := r.srv.Received(pdu.OpLoginRequest) - logins; n != 4 {
		t.Errorf("%d logins", n)
	}
	shuffle(t, s, 3, 8192)
	sameSession(t, s, tsih)
}

// A target that refuses for good to take a connection back is not asked without end:
// the session has those that it has.
func TestConnectionIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := unstartedRig(t, func(c *iscsitest.Config) { c.Params.MaxConnections = 3 })
		cfg := r.pipeConfig(t)
		cfg.Params.MaxConnections, cfg.Params.DefaultTime2Wait = 3, initiator.Immediately
		s := r.dial(t, cfg)
		tsih := s.Info().TSIH
		r.srv.RejectLogins(pdu.LoginInitiatorError, pdu.InitiatorErrorTooManyConnections, -1)
		r.conn(t, 1).Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		logins := r.srv.Received(pdu.OpLoginRequest)
		time.Sleep(time.Hour)
		if n := r.srv.Received(pdu.OpLoginRequest); n != logins || n < 5 {
			t.Errorf("%d logins within a minute, %d within an hour", logins, n)
		}
		if i := s.Info(); i.Connections != 2 {
			t.Errorf("%d connections", i.Connections)
		}
		do(t, s, readTask(0, 512))
		sameSession(t, s, tsih)
	})
}

// The wait that was agreed on is waited before the target is asked about a lost
// connection, and the session goes on meanwhile.
func TestLostConnectionRespite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := unstartedRig(t, func(c *iscsitest.Config) { c.Params.MaxConnections = 2 })
		cfg := r.pipeConfig(t)
		cfg.Params.MaxConnections, cfg.Params.DefaultTime2Wait = 2, 3*time.Second
		s := r.dial(t, cfg)
		begin := time.Now()
		r.conn(t, 2).Close()
		synctest.Wait()
		for range 5 {
			do(t, s, readTask(0, 512))
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("the other connection stood still for %v", took)
		}
		time.Sleep(2999 * time.Millisecond)
		synctest.Wait()
		if n := r.srv.Received(pdu.OpLogoutRequest); n != 0 {
			t.Error("logout before the wait is over")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if i := s.Info(); r.srv.Received(pdu.OpLogoutRequest) != 1 || i.Connections != 2 {
			t.Errorf("%d connections after the wait", i.Connections)
		}
	})
}

// Everybody who waits for something on a lost connection is told.
func TestRequestsOnALostConnection(t *testing.T) {
	r, s := groupRig(t, 2, nil)
	r.srv.Handle(pdu.OpNOPOut, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action { return iscsitest.CloseConn() })
	is(t, s.Ping(t.Context()), initiator.ErrTransport)
	r.srv.Handle(pdu.OpNOPOut, nil)
	until(t, "two connections", func() bool { i := s.Info(); return i.Connections == 2 && i.ConnectionRecoveries == 1 })
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// A session with several connections that is made anew after all leaves the target
// time to take the old ones down.
func TestSeveralConnectionsWaitLonger(t *testing.T) {
	for _, c := range []struct {
		connections          int
		wait, agreed, waited time.Duration
	}{
		{1, 0, 2 * time.Second, 2 * time.Second},
		{2, 0, 2 * time.Second, 5 * time.Second},
		{2, 3 * time.Second, 3 * time.Second, 5 * time.Second},
		{2, 7 * time.Second, 7 * time.Second, 7 * time.Second},
		{2, initiator.Immediately, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := unstartedRig(t, func(c *iscsitest.Config) { c.Params.MaxConnections = 8 })
			events := make(eventLog, 64)
			cfg := r.pipeConfig(t)
			cfg.OnEvent = events.add
			cfg.Params.MaxConnections, cfg.Params.DefaultTime2Wait = c.connections, c.wait
			s := r.dial(t, cfg)
			if got := s.Info().Negotiated.DefaultTime2Wait; got != c.agreed {
				t.Errorf("%d connections, %v offered: %v agreed on, want %v", c.connections, c.wait, got, c.agreed)
			}
			time.Sleep(time.Second) // so that it does not count as one that is lost again and again
			r.srv.DropConnections()
			if c.wait == initiator.Immediately {
				// One may be made good before the other is lost.
				time.Sleep(time.Second)
				if i := s.Info(); i.State != initiator.StateLoggedIn || i.Connections != c.connections {
					t.Errorf("after a second: %v with %d connections, want all %d", i.State, i.Connections, c.connections)
				}
				return
			}
			if e := events.await(t, initiator.EventRecovered); e.Outage != c.waited {
				t.Errorf("%d connections, %v offered: session made anew after %v, want %v", c.connections, c.wait, e.Outage, c.waited)
			}
		})
	}
}
