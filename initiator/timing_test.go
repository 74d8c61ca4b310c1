package initiator_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// bubble runs a test with a clock of its own and a target reached through pipes.
func bubble(t *testing.T, mod func(*iscsitest.Config), f func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		f(t, unstartedRig(t, mod))
	})
}

// drop has the target take no notice of the next n PDUs of an opcode.
func drop(srv *iscsitest.Server, op pdu.Opcode, n int64) {
	var left atomic.Int64
	left.Store(n)
	srv.Handle(op, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		if left.Add(-1) >= 0 {
			return iscsitest.Drop()
		}
		return iscsitest.Pass()
	})
}

// stall has the target never execute commands.
func stall(srv *iscsitest.Server) {
	srv.Handle(pdu.OpSCSICommand, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.Delay(make(chan struct{})) })
}

func TestIdleSessionIsPinged(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		s := r.dial(t, r.pipeConfig(t))
		time.Sleep(61 * time.Second)
		if n := r.srv.Received(pdu.OpNOPOut); n != 12 {
			t.Errorf("%d pings in a minute, want 12", n)
		}
		if i := s.Info(); i.Recoveries != 0 || i.State != initiator.StateLoggedIn {
			t.Errorf("%+v", i)
		}
	})
}

func TestBusySessionIsNotPinged(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		s := r.dial(t, r.pipeConfig(t))
		for range 30 {
			time.Sleep(2 * time.Second)
			do(t, s, readTask(0, 512))
		}
		if n := r.srv.Received(pdu.OpNOPOut); n != 0 {
			t.Errorf("%d pings", n)
		}
	})
}

func TestPingsSwitchedOff(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		cfg := r.pipeConfig(t)
		cfg.Timeouts.NoopInterval = -1
		r.dial(t, cfg)
		time.Sleep(10 * time.Minute)
		if n := r.srv.Received(pdu.OpNOPOut); n != 0 {
			t.Errorf("%d pings", n)
		}
	})
}

// A target that falls silent is found out after interval and timeout; when it
// answers again the session comes back and the tasks go on.
func TestBlackHole(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		events := make(eventLog, 1000)
		cfg := r.pipeConfig(t)
		cfg.OnEvent = events.add
		cfg.Timeouts.Login = 2 * time.Second
		s := r.dial(t, cfg)
		start := time.Now()
		resume := r.srv.Pause()
		c := newCollector(1)
		task := submit(s, c, readTask(0, 512))
		e := events.await(t, initiator.EventDisconnected)
		is(t, e.Err, initiator.ErrTimeout, initiator.ErrTransport)
		if took := e.Time.Sub(start); took != 10*time.Second {
			t.Errorf("found out after %v, want 10s", took)
		}
		if n := s.Stats().TimeoutErrors; n != 1 {
			t.Errorf("timeout_err is %d", n)
		}
		time.Sleep(15 * time.Second)
		resume()
		events.await(t, initiator.EventRecovered)
		if err := good(c.wait(t)); err != nil {
			t.Error(task.Err)
		}
	})
}

func TestRecoveryWaits(t *testing.T) {
	for _, tc := range []struct {
		name     string
		time2    time.Duration
		hit      func(r *rig)
		min, max time.Duration
	}{
		{"DefaultTime2Wait", 0, func(r *rig) { r.srv.DropConnections() }, 2 * time.Second, 2 * time.Second},
		{"no DefaultTime2Wait", initiator.Immediately, func(r *rig) { r.srv.DropConnections() }, 0, 0},
		{"drop with a time", 0, func(r *rig) {
			r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncSessionDrop, Parameter2: 7})
		}, 7 * time.Second, 7 * time.Second},
		{"drop without a time", 0, func(r *rig) { r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop}) }, 0, 0},
		{"logout answered with a time", 0, func(r *rig) {
			r.srv.Handle(pdu.OpLogoutResponse, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				p.(*pdu.LogoutResponse).Time2Wait = 5
				return iscsitest.Pass()
			})
			r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 3})
		}, 5 * time.Second, 5 * time.Second},
		{"logout not answered", 0, func(r *rig) {
			r.srv.Handle(pdu.OpLogoutRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.CloseConn() })
			r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 3})
		}, 2 * time.Second, 2 * time.Second},
		{"drop of another connection", 0, func(r *rig) {
			r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop, Parameter1: 4})
			r.srv.DropConnections()
		}, 2 * time.Second, 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				events := make(eventLog, 100)
				cfg := r.pipeConfig(t)
				cfg.OnEvent = events.add
				cfg.Params.DefaultTime2Wait = tc.time2
				r.dial(t, cfg)
				synctest.Wait()
				tc.hit(r)
				e := events.await(t, initiator.EventRecovered)
				if e.Outage < tc.min || e.Outage > tc.max || e.Attempts != 1 {
					t.Errorf("back after %v and %d attempts, want %v to %v", e.Outage, e.Attempts, tc.min, tc.max)
				}
			})
		})
	}
}

// A target that is away is asked for often at first and less often later, so that
// its return is noticed soon in proportion.
func TestRecoveryBacksOff(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		var away atomic.Bool
		var attempts atomic.Int64
		events := make(eventLog, 100000)
		cfg := r.pipeConfig(t)
		cfg.OnEvent = events.add
		cfg.Timeouts.Replacement = -1
		cfg.Params.DefaultTime2Wait = initiator.Immediately
		cfg.Dial = func(ctx context.Context, n, a string) (net.Conn, error) {
			if away.Load() {
				attempts.Add(1)
				return nil, errors.New("no route to host")
			}
			return r.dialPipe(ctx, n, a)
		}
		s := r.dial(t, cfg)
		for _, outage := range []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second, 10 * time.Minute, 10 * time.Hour} {
			attempts.Store(0)
			away.Store(true)
			r.srv.DropConnections()
			c := newCollector(1)
			submit(s, c, readTask(0, 512))
			time.Sleep(outage)
			away.Store(false)
			e := events.await(t, initiator.EventRecovered)
			if late := e.Outage - outage; late > max(outage/20, 26*time.Millisecond) || late > 3*time.Second {
				t.Errorf("outage of %v: noticed %v late", outage, late)
			}
			if n := attempts.Load(); n > 5+int64(outage/time.Second)+200 {
				t.Errorf("outage of %v: %d attempts", outage, n)
			}
			if err := good(c.wait(t)); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRecoveryTimeoutIsExact(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		cfg := r.pipeConfig(t)
		s := r.dial(t, cfg)
		r.srv.RejectLogins(3, 1, -1)
		r.srv.DropConnections()
		start := time.Now()
		c := newCollector(1)
		submit(s, c, readTask(0, 512))
		task := <-c.done
		if took := time.Since(start); took != 120*time.Second {
			t.Errorf("failed after %v, want 120s", took)
		}
		is(t, task.Err, initiator.ErrRecoveryTimeout)
	})
}

func TestTimedOutTaskIsAborted(t *testing.T) {
	for _, tc := range []struct {
		name    string
		ignored int64 // task management requests
		took    time.Duration
		fns     []pdu.TaskFunction
		lost    bool // the connection
	}{
		{"abort", 0, 30 * time.Second, []pdu.TaskFunction{pdu.TaskAbortTask}, false},
		{"unit reset", 1, 45 * time.Second, []pdu.TaskFunction{pdu.TaskAbortTask, pdu.TaskLogicalUnitReset}, false},
		{"target reset", 2, 75 * time.Second, []pdu.TaskFunction{pdu.TaskAbortTask, pdu.TaskLogicalUnitReset, pdu.TaskTargetWarmReset}, false},
		{"session drop", 3, 105 * time.Second, []pdu.TaskFunction{pdu.TaskAbortTask, pdu.TaskLogicalUnitReset, pdu.TaskTargetWarmReset}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				stall(r.srv)
				var fns []pdu.TaskFunction
				ignore := tc.ignored
				r.srv.Handle(pdu.OpTaskManagementRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
					fns = append(fns, p.(*pdu.TaskManagementRequest).Function)
					if ignore--; ignore >= 0 {
						return iscsitest.Drop()
					}
					return iscsitest.Pass()
				})
				s := r.dial(t, r.pipeConfig(t))
				start := time.Now()
				task := readTask(0, 512)
				task.Timeout = 30 * time.Second
				err := s.Do(context.Background(), task)
				is(t, err, initiator.ErrTimeout)
				if took := time.Since(start); took != tc.took {
					t.Errorf("failed after %v, want %v", took, tc.took)
				}
				synctest.Wait()
				if len(fns) != len(tc.fns) {
					t.Fatalf("functions %v, want %v", fns, tc.fns)
				}
				for i := range fns {
					if fns[i] != tc.fns[i] {
						t.Errorf("functions %v, want %v", fns, tc.fns)
					}
				}
				if lost := s.Info().LastError != nil; lost != tc.lost {
					t.Errorf("connection lost: %v, want %v", lost, tc.lost)
				}
				r.srv.Handle(pdu.OpSCSICommand, nil)
				if err := s.Do(t.Context(), readTask(0, 512)); err != nil { // hears of the reset
					t.Error(err)
				}
				do(t, s, readTask(0, 512))
				if n := s.Stats().EHAborts; n != 1 {
					t.Errorf("eh_abort_cnt is %d", n)
				}
			})
		})
	}
}

// A reset that one task needs ends the others too; they are sent again if they
// may be.
func TestResetReplaysOthers(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		stall(r.srv)
		drop(r.srv, pdu.OpTaskManagementRequest, 1) // the abort
		s := r.dial(t, r.pipeConfig(t))
		c := newCollector(3)
		slow := readTask(0, 512)
		slow.Timeout = 10 * time.Second
		submit(s, c, slow)
		again := submit(s, c, readTask(512, 512))
		never := readTask(1024, 512)
		never.Replay = false
		submit(s, c, never)
		time.Sleep(11 * time.Second)
		r.srv.Handle(pdu.OpSCSICommand, nil)
		for range 3 {
			c.wait(t)
		}
		is(t, slow.Err, initiator.ErrTimeout)
		is(t, never.Err, initiator.ErrAborted)
		if again.Err != nil || again.Status != scsi.StatusCheckCondition { // sent again, it hears of the reset
			t.Errorf("status %v, error %v", again.Status, again.Err)
		}
	})
}

func TestUserResetAbortsTasks(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		stall(r.srv)
		s := r.dial(t, r.pipeConfig(t))
		c := newCollector(2)
		task := submit(s, c, readTask(0, 512))
		synctest.Wait()
		other := pdu.LUNFromNumber(2)
		if err := s.TaskManagement(t.Context(), pdu.TaskLogicalUnitReset, other); err == nil {
			t.Error("reset of a unit that is not there")
		} else if te := (*initiator.TMFError)(nil); !errors.As(err, &te) || te.Response != pdu.TaskLUNDoesNotExist {
			t.Errorf("error %v", err)
		}
		if err := s.TaskManagement(t.Context(), pdu.TaskLogicalUnitReset, lun1); err != nil {
			t.Fatal(err)
		}
		c.wait(t)
		is(t, task.Err, initiator.ErrAborted)
	})
}

func TestContextAbortsTask(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		stall(r.srv)
		s := r.dial(t, r.pipeConfig(t))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		err := s.Do(ctx, readTask(0, 512))
		is(t, err, context.DeadlineExceeded)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
		if n := r.srv.Received(pdu.OpTaskManagementRequest); n != 1 {
			t.Errorf("%d task management requests", n)
		}
	})
}

func TestContextEndsQueuedTask(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		s := r.dial(t, r.pipeConfig(t))
		r.srv.RejectLogins(3, 1, -1)
		r.srv.DropConnections()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		err := s.Do(ctx, readTask(0, 512))
		is(t, err, context.DeadlineExceeded)
		if took := time.Since(start); took != time.Second || !initiator.SafeToRetry(err) {
			t.Errorf("took %v, %v", took, err)
		}
	})
}

// A task that waits for the window has a limit, too.
func TestQueuedTaskTimesOut(t *testing.T) {
	bubble(t, func(c *iscsitest.Config) { c.CommandWindow = 1 }, func(t *testing.T, r *rig) {
		stall(r.srv)
		s := r.dial(t, r.pipeConfig(t))
		c := newCollector(2)
		submit(s, c, readTask(0, 512))
		queued := readTask(0, 512)
		queued.Timeout = 3 * time.Second
		start := time.Now()
		submit(s, c, queued)
		if got := c.wait(t); got != queued || time.Since(start) != 3*time.Second {
			t.Errorf("after %v", time.Since(start))
		}
		is(t, queued.Err, initiator.ErrTimeout)
		if !initiator.SafeToRetry(queued.Err) {
			t.Error("a task that was never sent is not safe to retry")
		}
	})
}

// Without a connection the clock of a task stands still.
func TestTaskClockStandsStillInRecovery(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		s := r.dial(t, r.pipeConfig(t))
		r.srv.RejectLogins(3, 1, -1)
		r.srv.DropConnections()
		c := newCollector(1)
		task := readTask(0, 512)
		task.Timeout = 5 * time.Second
		submit(s, c, task)
		time.Sleep(60 * time.Second)
		r.srv.RejectLogins(0, 0, 0)
		if err := good(c.wait(t)); err != nil {
			t.Error(err)
		}
	})
}

// The late answer to an aborted task harms nobody.
func TestLateAnswerIsIgnored(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		var itt uint32
		r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
			itt = p.(*pdu.SCSICommand).InitiatorTaskTag
			return iscsitest.Delay(make(chan struct{}))
		})
		s := r.dial(t, r.pipeConfig(t))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		is(t, s.Do(ctx, readTask(0, 512)), context.DeadlineExceeded)
		conn := r.srv.Conns()[0]
		for _, p := range []pdu.PDU{
			&pdu.DataIn{InitiatorTaskTag: itt, TargetTransferTag: pdu.ReservedTag, Data: make([]byte, 512), Final: true},
			&pdu.R2T{InitiatorTaskTag: itt, TargetTransferTag: 1, DesiredDataTransferLength: 512},
			&pdu.SCSIResponse{InitiatorTaskTag: itt},
		} {
			if err := conn.Send(p, false); err != nil {
				t.Fatal(err)
			}
		}
		r.srv.Handle(pdu.OpSCSICommand, nil)
		do(t, s, readTask(0, 512))
		if n := s.Info().Recoveries; n != 0 {
			t.Errorf("%d recoveries", n)
		}
	})
}

func TestFirstLoginRetries(t *testing.T) {
	for _, tc := range []struct {
		window   time.Duration
		attempts int64
		took     time.Duration
	}{
		{0, 1, 0},
		{4 * time.Second, 1, 0},
		{5 * time.Second, 2, 5 * time.Second},
		{120 * time.Second, 40, 119 * time.Second}, // 0, 5, 8, 11, …
	} {
		t.Run(tc.window.String(), func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				var attempts int64
				cfg := r.pipeConfig(t)
				cfg.LoginRetryWindow = tc.window
				cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
					attempts++
					return nil, &net.OpError{Op: "dial", Err: io.ErrClosedPipe}
				}
				start := time.Now()
				_, err := initiator.Dial(context.Background(), cfg)
				is(t, err, initiator.ErrTransport)
				if took := time.Since(start); took != tc.took || attempts != tc.attempts {
					t.Errorf("%d attempts in %v, want %d in %v", attempts, took, tc.attempts, tc.took)
				}
			})
		})
	}
}

func TestFirstLoginSucceedsLater(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		r.srv.RejectLogins(3, 1, 3)
		cfg := r.pipeConfig(t)
		cfg.LoginRetryWindow = time.Minute
		start := time.Now()
		do(t, r.dial(t, cfg), readTask(0, 512))
		if took := time.Since(start); took != 11*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestFirstLoginDoesNotRetryWhatIsFinal(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		r.srv.RejectLogins(2, 1, -1)
		cfg := r.pipeConfig(t)
		cfg.LoginRetryWindow = time.Hour
		_, err := initiator.Dial(context.Background(), cfg)
		is(t, err, initiator.ErrAuth)
		if n := r.srv.Accepted(); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

// Half of the time that the target grants is for tasks to finish.
func TestLogoutRequestWithStuckTask(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		events := make(eventLog, 100)
		cfg := r.pipeConfig(t)
		cfg.OnEvent = events.add
		s := r.dial(t, cfg)
		stall(r.srv)
		c := newCollector(1)
		submit(s, c, readTask(0, 512))
		synctest.Wait()
		start := time.Now()
		r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 10})
		e := events.await(t, initiator.EventDisconnected)
		if took := e.Time.Sub(start); took != 5*time.Second {
			t.Errorf("logged out after %v", took)
		}
		r.srv.Handle(pdu.OpSCSICommand, nil)
		if err := good(c.wait(t)); err != nil {
			t.Error(err)
		}
		if n := r.srv.Received(pdu.OpLogoutRequest); n != 1 {
			t.Errorf("%d logouts", n)
		}
	})
}

// Bytes that promise more than comes leave the receiver in the middle of what
// seems to be a PDU; the answers to pings that go the same way do not count as
// signs of life.
func TestLostFramingIsFound(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		events := make(eventLog, 100)
		cfg := r.pipeConfig(t)
		cfg.OnEvent = events.add
		s := r.dial(t, cfg)
		// A Data-In of 64 KiB, of which nothing follows.
		once(r.srv, pdu.OpSCSICommand, iscsitest.ReplyRaw(append([]byte{0x25, 0x80, 0, 0, 0, 1, 0, 0}, make([]byte, 40)...)))
		c := newCollector(1)
		start := time.Now()
		submit(s, c, readTask(0, 512))
		e := events.await(t, initiator.EventDisconnected)
		if took := e.Time.Sub(start); took > 10*time.Second {
			t.Errorf("found after %v", took)
		}
		if err := good(c.wait(t)); err != nil {
			t.Error(err)
		}
	})
}

// A target that accepts every login and drops the connection at once is asked
// ever more seldom; one that drops a connection that has lived is asked at once.
func TestFlappingConnection(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		var flapping atomic.Bool
		var logins atomic.Int64
		cfg := r.pipeConfig(t)
		cfg.Params.DefaultTime2Wait = initiator.Immediately
		var s *initiator.Session
		cfg.OnEvent = func(e initiator.Event) {
			if e.Type == initiator.EventRecovered {
				logins.Add(1)
				if flapping.Load() {
					r.srv.DropConnections()
				}
			}
		}
		s = r.dial(t, cfg)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			before := logins.Load()
			r.srv.DropConnections()
			synctest.Wait()
			if n := logins.Load() - before; n != 1 {
				t.Fatalf("%d logins at once after a connection that had lived", n)
			}
		}
		logins.Store(0)
		flapping.Store(true)
		r.srv.DropConnections()
		time.Sleep(time.Minute)
		if n := logins.Load(); n < 15 || n > 40 {
			t.Errorf("%d logins in a minute", n)
		}
		flapping.Store(false)
		time.Sleep(4 * time.Second) // the longest pause
		synctest.Wait()
		if st := s.Info().State; st != initiator.StateLoggedIn {
			t.Errorf("the session is %v", st)
		}
		do(t, s, readTask(0, 512))
	})
}

// Behind the Logout comes nothing more, on no connection, whoever asks for it: no
// ping, no answer to one, no command and no task management.
func TestNothingFollowsTheLogout(t *testing.T) {
	bubble(t, func(c *iscsitest.Config) { c.Params.MaxConnections = 2 }, func(t *testing.T, r *rig) {
		cfg := r.pipeConfig(t)
		cfg.Params.MaxConnections, cfg.CmdsMax = 2, 1
		cfg.Timeouts.NoopInterval, cfg.Timeouts.Logout = time.Second, 10*time.Second
		s := r.dial(t, cfg)
		stall(r.srv)
		r.srv.Handle(pdu.OpTaskManagementRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.Drop() })
		out := make(chan struct{})
		r.srv.Handle(pdu.OpLogoutRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
			close(out)
			return iscsitest.DelayFor(9 * time.Second)
		})
		c := newCollector(2)
		for range 2 { // one is sent, one waits
			task := readTask(0, 512)
			task.Timeout = 5 * time.Second
			submit(s, c, task)
		}
		left := make(chan error, 1)
		go func() { left <- s.Logout(t.Context()) }()
		<-out
		synctest.Wait()
		received := func() (n uint64) {
			for _, op := range []pdu.Opcode{pdu.OpNOPOut, pdu.OpSCSICommand, pdu.OpTaskManagementRequest} {
				n += r.srv.Received(op)
			}
			return n
		}
		before := received()
		for _, conn := range r.srv.Conns() {
			if err := conn.Send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 7}, false); err != nil {
				t.Error(err)
			}
		}
		is(t, s.Ping(t.Context()), initiator.ErrClosed)
		if err := <-left; err != nil {
			t.Error(err)
		}
		if n := received() - before; n != 0 {
			t.Errorf("%d requests after the logout", n)
		}
		for range 2 {
			if err := c.wait(t).Err; err == nil {
				t.Error("a task succeeded")
			}
		}
	})
}
