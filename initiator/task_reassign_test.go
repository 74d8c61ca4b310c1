package initiator_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// levelTwoRig starts a target of error recovery level 2 and logs in with n
// connections, and no data that are not asked for. Tasks are kept for so long that no
// machine is too slow to come back for them.
func levelTwoRig(t testing.TB, n int, mod func(*initiator.Config)) (*rig, *initiator.Session) {
	t.Helper()
	r := newRig(t, func(c *iscsitest.Config) {
		c.Params.MaxConnections, c.Params.ErrorRecoveryLevel = uint32(n), 2
		c.Params.DefaultTime2Retain = 3600
		c.Params.MaxRecvDataSegmentLength = 4096
	})
	cfg := r.config(t)
	cfg.Params.MaxConnections, cfg.Params.ErrorRecoveryLevel = n, 2
	cfg.Params.DefaultTime2Retain = time.Hour
	cfg.Params.InitialR2T, cfg.Params.NoImmediateData = true, true
	cfg.Params.MaxRecvDataSegmentLength, cfg.Params.MaxBurstLength, cfg.Params.FirstBurstLength = 4096, 8192, 8192
	cfg.Params.MaxOutstandingR2T = 2
	if mod != nil {
		mod(&cfg)
	}
	s := r.dial(t, cfg)
	if i := s.Info(); i.Connections != n || i.Negotiated.ErrorRecoveryLevel != 2 {
		t.Fatalf("%d connections, level %d", i.Connections, i.Negotiated.ErrorRecoveryLevel)
	}
	return r, s
}

// unchanged fails the test if the session is not the one with the TSIH.
func unchanged(t testing.TB, s *initiator.Session, tsih uint16) {
	t.Helper()
	until(t, "recovery of a connection", func() bool { return s.Info().ConnectionRecoveries > 0 }) // noted when the last task has gone on
	if i := s.Info(); i.TSIH != tsih || i.State != initiator.StateLoggedIn {
		t.Errorf("TSIH %d, was %d; %v, %d connections recovered: %v", i.TSIH, tsih, i.State, i.ConnectionRecoveries, i.LastError)
	}
}

// nth has the nth PDU of an opcode meet an action, and no other.
func nth(srv *iscsitest.Server, op pdu.Opcode, n int32, a iscsitest.Action) {
	var count atomic.Int32
	srv.Handle(op, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		if count.Add(1) == n {
			return a
		}
		return iscsitest.Pass()
	})
}

// A task that may not be carried out twice goes on on another connection, or on the
// one that takes the place of the only one, wherever it was when its own was lost.
func TestTasksGoOnAfterTheLossOfTheirConnection(t *testing.T) {
	const size = 32 << 10
	for name, tc := range map[string]struct {
		write bool
		fault func(*iscsitest.Server)
	}{
		"read, no data yet":          {false, func(s *iscsitest.Server) { nth(s, pdu.OpDataIn, 1, iscsitest.ResetConn()) }},
		"read, in the middle":        {false, func(s *iscsitest.Server) { nth(s, pdu.OpDataIn, 4, iscsitest.CloseConn()) }},
		"read, cut within a Data-In": {false, func(s *iscsitest.Server) { nth(s, pdu.OpDataIn, 4, iscsitest.Truncate()) }},
		"read, status lost":          {false, func(s *iscsitest.Server) { nth(s, pdu.OpDataIn, 8, iscsitest.CloseConn()) }},
		"write, first R2T lost":      {true, func(s *iscsitest.Server) { nth(s, pdu.OpR2T, 1, iscsitest.CloseConn()) }},
		"write, a later R2T lost":    {true, func(s *iscsitest.Server) { nth(s, pdu.OpR2T, 3, iscsitest.ResetConn()) }},
		"write, data lost":           {true, func(s *iscsitest.Server) { nth(s, pdu.OpDataOut, 4, iscsitest.CloseConn()) }},
		"write, status lost":         {true, func(s *iscsitest.Server) { nth(s, pdu.OpSCSIResponse, 1, iscsitest.ResetConn()) }},
	} {
		for n := 1; n <= 2; n++ {
			t.Run(fmt.Sprintf("%s/connections=%d", name, n), func(t *testing.T) {
				r, s := levelTwoRig(t, n, nil)
				tsih := s.Info().TSIH
				want := pattern(9, size)
				do(t, s, writeTask(0, want))
				commands := r.srv.Received(pdu.OpSCSICommand)
				task := readTask(0, size)
				if tc.write {
					want = pattern(10, size)
					task = writeTask(0, want)
				}
				task.Replay = false
				tc.fault(r.srv)
				do(t, s, task)
				if got := r.srv.Received(pdu.OpSCSICommand) - commands; got != 1 {
					t.Errorf("%d commands for one task", got)
				}
				if !tc.write && !bytes.Equal(task.DataIn, want) {
					t.Error("other data")
				}
				r.holds(t, 0, want)
				unchanged(t, s, tsih)
				for _, op := range []pdu.Opcode{pdu.OpDataIn, pdu.OpR2T, pdu.OpDataOut, pdu.OpSCSIResponse} {
					r.srv.Handle(op, nil)
				}
				shuffle(t, s, 2, 8192)
			})
		}
	}
}

// The data of a read that are here are not sent again.
func TestReassignedReadGoesOnWhereItWas(t *testing.T) {
	r, s := levelTwoRig(t, 2, nil)
	do(t, s, writeTask(0, pattern(1, 32<<10)))
	var mu sync.Mutex
	sent := map[uint64][]uint32{}
	r.srv.Handle(pdu.OpDataIn, func(c *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		d := p.(*pdu.DataIn)
		mu.Lock()
		defer mu.Unlock()
		if len(sent) == 0 && d.DataSN == 5 {
			return iscsitest.CloseConn()
		}
		if d.DataSN == 5 && len(sent) == 1 && sent[c.ID()] != nil {
			return iscsitest.CloseConn()
		}
		sent[c.ID()] = append(sent[c.ID()], d.DataSN)
		return iscsitest.Pass()
	})
	task := readTask(0, 32<<10)
	task.Replay = false
	do(t, s, task)
	mu.Lock()
	defer mu.Unlock()
	total := 0
	for _, list := range sent {
		total += len(list)
	}
	if len(sent) != 2 || total != 8 || !bytes.Equal(task.DataIn, pattern(1, 32<<10)) {
		t.Errorf("DataSN by connection: %v", sent)
	}
}

// A command that the target never got is sent again as it was, under its number, and
// those behind it are carried out then.
func TestUnacknowledgedCommandIsRetried(t *testing.T) {
	for n := 1; n <= 2; n++ {
		t.Run(fmt.Sprintf("connections=%d", n), func(t *testing.T) {
			r, s := levelTwoRig(t, n, func(c *initiator.Config) { c.Timeouts.NoopInterval = -1 }) // no other NOP-Outs
			tsih := s.Info().TSIH
			var mu sync.Mutex
			var first, again *pdu.SCSICommand
			on := make(chan *iscsitest.Conn, 1)
			r.srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				mu.Lock()
				defer mu.Unlock()
				cmd := p.(*pdu.SCSICommand)
				switch {
				case first == nil:
					first = cmd
					on <- c
					return iscsitest.Drop()
				case cmd.InitiatorTaskTag == first.InitiatorTaskTag:
					again = cmd
				}
				return iscsitest.Pass()
			})
			done := newCollector(4)
			for i := range 4 {
				task := writeTask(int64(i)*4096, pattern(uint64(i), 4096))
				task.Replay = false
				submit(s, done, task)
			}
			(<-on).Close()
			for range 4 {
				if err := good(done.wait(t)); err != nil {
					t.Error(err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if again == nil || again.CmdSN != first.CmdSN || again.CDB != first.CDB {
				t.Errorf("%+v\nafter\n%+v", again, first)
			}
			if r.srv.Received(pdu.OpNOPOut) != 0 {
				t.Error("a NOP-Out took the number")
			}
			unchanged(t, s, tsih)
		})
	}
}

// The only connection is lost again and again under load of tasks that may not be
// carried out twice: none fails, no byte is lost, and the session is the same.
func TestLossesOfTheOnlyConnectionLoseNothing(t *testing.T) {
	for name, lose := range map[string]func(r *rig){
		"closed":           func(r *rig) { r.srv.DropConnections() },
		"reset":            func(r *rig) { r.srv.ResetConnections() },
		"cut within a PDU": func(r *rig) { once(r.srv, pdu.OpDataIn, iscsitest.Truncate()) },
		"at a command":     func(r *rig) { once(r.srv, pdu.OpSCSICommand, iscsitest.CloseConn()) },
		"within Data-Out":  func(r *rig) { once(r.srv, pdu.OpDataOut, iscsitest.ResetConn()) },
		"at a response":    func(r *rig) { once(r.srv, pdu.OpSCSIResponse, iscsitest.CloseConn()) },
		"at an R2T":        func(r *rig) { once(r.srv, pdu.OpR2T, iscsitest.CloseConn()) },
		"in the login": func(r *rig) {
			once(r.srv, pdu.OpLoginResponse, iscsitest.CloseConn())
			r.srv.DropConnections()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events := make(eventLog, 1000)
			r, s := levelTwoRig(t, 1, func(c *initiator.Config) {
				c.OnEvent = events.add
				c.Params.InitialR2T, c.Params.NoImmediateData = false, false
			})
			tsih := s.Info().TSIH
			stop := startTasks(t, s, 8, false)
			const n = 30
			for range n {
				lose(r)
				events.await(t, initiator.EventRecovered)
			}
			if ops := stop(); ops == 0 {
				t.Error("no load")
			}
			unchanged(t, s, tsih)
			until(t, "recovery of all connections", func() bool { return s.Info().ConnectionRecoveries >= n })
		})
	}
}

// What the target answers to TASK REASSIGN decides what becomes of the task.
func TestReassignmentRefused(t *testing.T) {
	for _, tc := range []struct {
		response pdu.TaskResponse
		anew     bool // the session is made anew
	}{
		{pdu.TaskDoesNotExist, false},
		{pdu.TaskStillAllegiant, true},
		{pdu.TaskReassignNotSupported, true},
		{pdu.TaskFunctionNotSupported, true},
		{pdu.TaskFunctionRejected, true},
	} {
		t.Run(tc.response.String(), func(t *testing.T) {
			r, s := levelTwoRig(t, 2, nil)
			tsih := s.Info().TSIH
			r.srv.Handle(pdu.OpTaskManagementRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				return iscsitest.Reply(&pdu.TaskManagementResponse{InitiatorTaskTag: p.(*pdu.TaskManagementRequest).InitiatorTaskTag, Response: tc.response})
			})
			held, release := r.holdCommands(4)
			defer release()
			again, once := newCollector(2), newCollector(2)
			for i := range 4 {
				task := writeTask(int64(i)*4096, pattern(uint64(i), 4096))
				if task.Replay = i < 2; task.Replay {
					submit(s, again, task)
				} else {
					submit(s, once, task)
				}
			}
			until(t, "four commands", func() bool { return held() == 4 })
			do(t, s, readTask(1<<20, 512)) // in its turn: the target has them all
			r.conn(t, 2).Close()
			if err := good(again.wait(t)); err != nil {
				t.Error(err)
			}
			is(t, once.wait(t).Err, initiator.ErrInterrupted)
			if tc.anew {
				is(t, once.wait(t).Err, initiator.ErrInterrupted)
				if i := s.Info(); i.Recoveries != 1 {
					t.Errorf("%d recoveries", i.Recoveries)
				}
				return
			}
			release()
			if err := good(once.wait(t)); err != nil {
				t.Error(err)
			}
			sameSession(t, s, tsih)
		})
	}
}

// Where the target does not keep to level 2, the lost connection is closed, as on
// the levels below.
func TestRemovalForRecoveryRefused(t *testing.T) {
	r, s := levelTwoRig(t, 2, nil)
	tsih := s.Info().TSIH
	var mu sync.Mutex // guards reasons
	var reasons []pdu.LogoutReason
	r.srv.Handle(pdu.OpLogoutRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		q := p.(*pdu.LogoutRequest)
		mu.Lock()
		defer mu.Unlock()
		if reasons = append(reasons, q.Reason); q.Reason == pdu.LogoutRecovery {
			return iscsitest.Reply(&pdu.LogoutResponse{InitiatorTaskTag: q.InitiatorTaskTag, Response: pdu.LogoutRecoveryNotSupported})
		}
		return iscsitest.Pass()
	})
	stop := startLoad(t, s, 4)
	r.conn(t, 1).Close()
	until(t, "two connections", func() bool { i := s.Info(); return i.Connections == 2 && i.ConnectionRecoveries == 1 })
	stop()
	sameSession(t, s, tsih)
	mu.Lock()
	defer mu.Unlock()
	if len(reasons) != 2 || reasons[0] != pdu.LogoutRecovery || reasons[1] != pdu.LogoutConnection {
		t.Errorf("logouts for the reasons %v", reasons)
	}
}

// A task whose time is over while it has no connection is aborted on another one
// instead of being reassigned.
func TestTaskIsAbortedInsteadOfReassigned(t *testing.T) {
	for n := 1; n <= 2; n++ {
		t.Run(fmt.Sprintf("connections=%d", n), func(t *testing.T) {
			r, s := levelTwoRig(t, n, nil)
			tsih := s.Info().TSIH
			_, release := r.holdCommands(1)
			defer release()
			var seen []pdu.TaskFunction
			var mu sync.Mutex
			r.srv.Handle(pdu.OpTaskManagementRequest, func(c *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				mu.Lock()
				defer mu.Unlock()
				if seen = append(seen, p.(*pdu.TaskManagementRequest).Function); len(seen) == 1 {
					return iscsitest.CloseConn()
				}
				return iscsitest.Pass()
			})
			task := writeTask(0, pattern(1, 4096))
			task.Timeout = 20 * time.Millisecond
			is(t, s.Do(t.Context(), task), initiator.ErrTimeout)
			do(t, s, readTask(0, 4096))
			unchanged(t, s, tsih)
			mu.Lock()
			defer mu.Unlock()
			if len(seen) != 2 || seen[0] != pdu.TaskAbortTask || seen[1] != pdu.TaskAbortTask {
				t.Errorf("functions %v", seen)
			}
		})
	}
}

// A connection that is not reinstated is no obstacle to a new session: the target
// refuses, or is away for longer than it keeps the tasks.
func TestReinstatementFallsBack(t *testing.T) {
	for name, fault := range map[string]func(*rig){
		"refused":       func(r *rig) { r.srv.RejectLogins(pdu.LoginInitiatorError, pdu.InitiatorErrorNoSession, 1) },
		"no such key":   func(r *rig) { r.srv.RejectLogins(pdu.LoginInitiatorError, pdu.InitiatorErrorCannotInclude, 2) },
		"away too long": func(r *rig) { r.srv.RejectLogins(pdu.LoginTargetError, pdu.TargetErrorServiceUnavailable, 40) },
	} {
		t.Run(name, func(t *testing.T) {
			events := make(eventLog, 1000)
			r, s := levelTwoRig(t, 1, func(c *initiator.Config) {
				c.OnEvent = events.add
				c.Params.DefaultTime2Retain = time.Second
			})
			tsih := s.Info().TSIH
			held, release := r.holdCommands(2)
			defer release()
			again, once := newCollector(1), newCollector(1)
			task := writeTask(4096, pattern(2, 4096))
			task.Replay = false
			submit(s, again, writeTask(0, pattern(1, 4096)))
			submit(s, once, task)
			until(t, "two commands", func() bool { return held() == 2 })
			fault(r)
			r.srv.DropConnections()
			events.await(t, initiator.EventRecovered)
			is(t, once.wait(t).Err, initiator.ErrInterrupted)
			if err := good(again.wait(t)); err != nil {
				t.Error(err)
			}
			if i := s.Info(); i.TSIH == tsih || i.Recoveries != 1 || i.ConnectionRecoveries != 0 {
				t.Errorf("TSIH %d, was %d; %d recoveries, %d of connections", i.TSIH, tsih, i.Recoveries, i.ConnectionRecoveries)
			}
		})
	}
}

// All connections are lost at once: one is reinstated, on which the target is told
// about the others, and all tasks go on.
func TestLossOfAllConnectionsOnLevelTwo(t *testing.T) {
	events := make(eventLog, 1000)
	r, s := levelTwoRig(t, 3, func(c *initiator.Config) { c.OnEvent = events.add })
	tsih := s.Info().TSIH
	stop := startTasks(t, s, 8, false)
	for range 20 {
		r.srv.DropConnections()
		until(t, "three connections", func() bool { return s.Info().Connections == 3 && len(r.members(t)) == 3 })
	}
	stop()
	unchanged(t, s, tsih)
}

// Closing the session while a lost connection waits for its recovery ends all tasks.
func TestCloseWhileSuspended(t *testing.T) {
	for _, logout := range []bool{false, true} {
		r, s := levelTwoRig(t, 1, nil)
		held, release := r.holdCommands(1)
		defer release()
		done := newCollector(2)
		submit(s, done, writeTask(0, pattern(1, 4096)))
		until(t, "a command", func() bool { return held() == 1 })
		r.srv.RejectLogins(pdu.LoginTargetError, pdu.TargetErrorServiceUnavailable, -1)
		r.srv.DropConnections()
		until(t, "loss", func() bool { return s.Info().State == initiator.StateReconnecting })
		submit(s, done, writeTask(4096, pattern(2, 4096)))
		if logout {
			s.Logout(t.Context()) //nolint:errcheck // nothing to tell anybody
		} else {
			s.Close()
		}
		for range 2 {
			is(t, done.wait(t).Err, initiator.ErrClosed)
		}
	}
}
