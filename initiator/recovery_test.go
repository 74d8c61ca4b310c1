package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// Faults of all kinds, over and over while data is written and verified, cost no
// error and no byte, and every recovery is quick.
func TestFaultsLoseNothing(t *testing.T) {
	crc := []initiator.Digest{initiator.DigestCRC32C}
	for name, fault := range map[string]func(r *rig){
		"closed": func(r *rig) { r.srv.DropConnections() },
		"reset":  func(r *rig) { r.srv.ResetConnections() },
		"header digest": func(r *rig) {
			once(r.srv, pdu.OpSCSIResponse, iscsitest.BadHeaderDigest())
		},
		"data digest": func(r *rig) {
			once(r.srv, pdu.OpDataIn, iscsitest.BadDataDigest())
		},
		"data digest of a command": rejectDamaged,
		"response lost":            func(r *rig) { once(r.srv, pdu.OpSCSIResponse, iscsitest.Drop()) },
		"data lost":                func(r *rig) { once(r.srv, pdu.OpDataIn, iscsitest.Drop()) },
		"cut within a PDU":         func(r *rig) { once(r.srv, pdu.OpDataIn, iscsitest.Truncate()) },
		"closed at a command":      func(r *rig) { once(r.srv, pdu.OpSCSICommand, iscsitest.CloseConn()) },
		"reset within Data-Out":    func(r *rig) { once(r.srv, pdu.OpDataOut, iscsitest.ResetConn()) },
		"closed in the login":      func(r *rig) { once(r.srv, pdu.OpLoginResponse, iscsitest.CloseConn()); r.srv.DropConnections() },
		"connection drop async":    func(r *rig) { r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop}) },
		"session drop async":       func(r *rig) { r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncSessionDrop}) },
		"logout request async":     func(r *rig) { r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 2}) },
		"negotiation async":        func(r *rig) { r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncNegotiationRequest, Parameter3: 2}) },
		"refused for some times":   func(r *rig) { r.srv.RejectLogins(3, 1, 2); r.srv.DropConnections() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *iscsitest.Config) { c.Params.MaxRecvDataSegmentLength = 8192 })
			events := make(eventLog, 1000)
			cfg := r.config(t)
			cfg.OnEvent = events.add
			cfg.Params.HeaderDigest, cfg.Params.DataDigest = crc, crc
			cfg.Params.FirstBurstLength = 8192
			cfg.Params.MaxOutstandingR2T = 2
			s := r.dial(t, cfg)
			stop := startLoad(t, s, 8)
			const n = 10
			var slowest time.Duration
			for range n {
				fault(r)
				e := events.await(t, initiator.EventRecovered)
				// Generous, for machines that are busy with other things.
				if e.Outage > 20*time.Second {
					t.Errorf("outage of %v after %d attempts", e.Outage, e.Attempts)
				}
				slowest = max(slowest, e.Outage)
			}
			t.Logf("slowest recovery: %v", slowest)
			if ops := stop(); ops == 0 {
				t.Error("no load")
			}
			if got := s.Info().Recoveries; got < n {
				t.Errorf("%d recoveries of %d", got, n)
			}
		})
	}
}

// once has the next PDU of an opcode meet an action.
func once(srv *iscsitest.Server, op pdu.Opcode, a iscsitest.Action) {
	var used atomic.Bool
	srv.Handle(op, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		if used.CompareAndSwap(false, true) {
			return a
		}
		return iscsitest.Pass()
	})
}

// rejectDamaged has the next command with immediate data meet what a target does
// that received its data damaged: it discards the PDU and says so.
func rejectDamaged(r *rig) {
	var used atomic.Bool
	r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if len(p.Payload()) == 0 || !used.CompareAndSwap(false, true) {
			return iscsitest.Pass()
		}
		h, err := p.AppendHeader(nil)
		if err != nil {
			return iscsitest.CloseConn()
		}
		return iscsitest.Reply(&pdu.Reject{Reason: pdu.RejectDataDigest, Data: h[:pdu.BHSLen]})
	})
}

// startLoad has workers write and verify, each in an area of its own, until the
// returned function is called, which returns how often they did.
func startLoad(t *testing.T, s *initiator.Session, workers int) (stop func() int64) {
	return startTasks(t, s, workers, true)
}

// startTasks is startLoad with tasks that may, or may not, be carried out twice.
func startTasks(t *testing.T, s *initiator.Session, workers int, replay bool) (stop func() int64) {
	var wg sync.WaitGroup
	var ops atomic.Int64
	quit := make(chan struct{})
	for w := range workers {
		wg.Go(func() {
			area := int64(w) * 4 << 20
			for i := 0; ; i++ {
				select {
				case <-quit:
					return
				default:
				}
				size := []int{512, 8192, 65536, 300 * 512}[i%4]
				data := pattern(uint64(w*100000+i), size)
				write, back := writeTask(area, data), readTask(area, size)
				write.Replay, back.Replay = replay, replay
				if err := doErr(s, write); err != nil {
					t.Errorf("worker %d: write: %v", w, err)
					return
				}
				if err := doErr(s, back); err != nil {
					t.Errorf("worker %d: read: %v", w, err)
					return
				}
				if !bytes.Equal(back.DataIn, data) {
					t.Errorf("worker %d: data changed", w)
					return
				}
				ops.Add(1)
			}
		})
	}
	return func() int64 {
		close(quit)
		wg.Wait()
		return ops.Load()
	}
}

// held makes a rig whose target holds up all commands until release is called.
func held(t *testing.T, mod func(*iscsitest.Config)) (r *rig, release func()) {
	r = newRig(t, mod)
	hold := make(chan struct{})
	r.srv.Handle(pdu.OpSCSICommand, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		r.heldUp.Add(1)
		return iscsitest.Delay(hold)
	})
	return r, sync.OnceFunc(func() {
		r.srv.Handle(pdu.OpSCSICommand, nil)
		close(hold)
	})
}

// submit submits a task to be collected by c and sends it.
func submit(s *initiator.Session, c *collector, task *initiator.Task) *initiator.Task {
	task.Owner = c
	s.Submit(task)
	s.Kick()
	return task
}

// arrived waits until held holds up n commands. The server counts a command as
// received before it looks for a handler, which may be another one by then.
func arrived(t testing.TB, r *rig, n int64) {
	t.Helper()
	until(t, fmt.Sprintf("%d commands", n), func() bool { return r.heldUp.Load() >= n })
}

// What may be carried out twice is sent again, in the order of the first time;
// what may not fails with an error that says so; what was never sent is sent.
func TestLossSortsTasks(t *testing.T) {
	r, release := held(t, func(c *iscsitest.Config) { c.CommandWindow = 8 })
	defer release()
	s := r.dial(t, r.config(t))
	c := newCollector(16)
	var tasks []*initiator.Task
	for i := range 12 { // 8 are sent, 4 wait behind the window
		task := readTask(int64(i)*512, 512)
		task.Replay = i%2 == 0
		tasks = append(tasks, submit(s, c, task))
	}
	arrived(t, r, 8)

	var order []uint64
	var mu sync.Mutex
	r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		mu.Lock()
		defer mu.Unlock()
		cdb := p.(*pdu.SCSICommand).CDB
		order = append(order, uint64(cdb[9]))
		return iscsitest.Pass()
	})
	r.srv.DropConnections()
	for range tasks {
		c.wait(t)
	}
	for i, task := range tasks {
		switch {
		case task.Replay || i >= 8:
			if err := good(task); err != nil {
				t.Errorf("task %d: %v", i, err)
			}
		default:
			is(t, task.Err, initiator.ErrInterrupted, initiator.ErrTransport)
			if initiator.SafeToRetry(task.Err) {
				t.Errorf("task %d may have been carried out, but is safe to retry", i)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := "[0 2 4 6 8 9 10 11]"; fmt.Sprint(order) != want {
		t.Errorf("blocks were read in the order %v, want %v", order, want)
	}
}

func TestRecoveryKeepsISIDAndReinstates(t *testing.T) {
	r := newRig(t, nil)
	events := make(eventLog, 100)
	cfg := r.config(t)
	cfg.OnEvent = events.add
	var logins []pdu.LoginRequest
	var mu sync.Mutex
	r.srv.Handle(pdu.OpLoginRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		mu.Lock()
		defer mu.Unlock()
		logins = append(logins, *p.(*pdu.LoginRequest))
		return iscsitest.Pass()
	})
	s := r.dial(t, cfg)
	r.srv.DropConnections()
	events.await(t, initiator.EventRecovered)
	mu.Lock()
	defer mu.Unlock()
	if len(logins) != 2 || logins[0].ISID != logins[1].ISID || logins[1].TSIH != 0 {
		t.Fatalf("logins %+v", logins)
	}
	if info := s.Info(); info.ISID != logins[0].ISID || info.State != initiator.StateLoggedIn || info.Recoveries != 1 || info.LastError == nil ||
		info.LastRecovery.IsZero() || info.Outage <= 0 || info.Attempts != 0 {
		t.Errorf("info %+v", info)
	}
}

// While the target is away tasks wait; after the recovery timeout they fail, new
// ones at once; when it is back, the session heals.
func TestRecoveryTimeoutAndHealing(t *testing.T) {
	r := newRig(t, nil)
	events := make(eventLog, 1000)
	cfg := r.config(t)
	cfg.OnEvent = events.add
	cfg.Timeouts.Replacement = 100 * time.Millisecond
	s := r.dial(t, cfg)
	addr := r.srv.Portal()
	r.srv.StopListening()
	r.srv.DropConnections()
	events.await(t, initiator.EventDisconnected)
	start := time.Now()
	err := s.Do(context.Background(), readTask(0, 512))
	is(t, err, initiator.ErrRecoveryTimeout)
	if took := time.Since(start); took > time.Minute { // the default is two
		t.Errorf("failed after %v", took)
	}
	if !initiator.SafeToRetry(err) {
		t.Error("a task that was never sent is not safe to retry")
	}
	events.await(t, initiator.EventRecoveryTimeout)
	if st := s.Info().State; st != initiator.StateFailed {
		t.Errorf("state %v", st)
	}
	is(t, s.Do(context.Background(), readTask(0, 512)), initiator.ErrRecoveryTimeout)
	if _, err := r.srv.Listen(addr); err != nil {
		t.Fatal(err)
	}
	events.await(t, initiator.EventRecovered)
	do(t, s, readTask(0, 512))
}

func TestRecoveryTimeoutOfZeroFailsAtOnce(t *testing.T) {
	r, release := held(t, nil)
	defer release()
	cfg := r.config(t)
	cfg.Timeouts.Replacement = initiator.Immediately
	events := make(eventLog, 100)
	cfg.OnEvent = events.add
	s := r.dial(t, cfg)
	c := newCollector(1)
	task := submit(s, c, readTask(0, 512))
	arrived(t, r, 1)
	r.srv.StopListening()
	r.srv.DropConnections()
	c.wait(t)
	is(t, task.Err, initiator.ErrRecoveryTimeout)
	if initiator.SafeToRetry(task.Err) {
		t.Error("a task that was sent is safe to retry")
	}
}

func TestReopenMaxEndsTheSession(t *testing.T) {
	r := newRig(t, nil)
	cfg := r.config(t)
	cfg.ReopenMax = 3
	events := make(eventLog, 100)
	cfg.OnEvent = events.add
	s := r.dial(t, cfg)
	r.srv.StopListening()
	r.srv.DropConnections()
	err := s.Do(context.Background(), readTask(0, 512))
	is(t, err, initiator.ErrClosed)
	<-s.Done()
	is(t, s.Err(), initiator.ErrTransport)
	if e := events.await(t, initiator.EventClosed); e.Err == nil {
		t.Error("the event does not say why")
	}
}

func TestTemporaryRedirectionGoesBackHome(t *testing.T) {
	r := newRig(t, nil)
	other := unstartedRig(t, nil)
	if err := other.srv.Start(); err != nil {
		t.Fatal(err)
	}
	for _, permanent := range []bool{false, true} {
		t.Run(fmt.Sprintf("permanent=%v", permanent), func(t *testing.T) {
			events := make(eventLog, 100)
			cfg := r.config(t)
			cfg.OnEvent = events.add
			r.srv.RedirectTo(testTarget, other.srv.Portal()+",1", permanent, 1)
			s := r.dial(t, cfg)
			if got := s.Info(); got.Portal.Address() != other.srv.Portal() || got.Persistent != cfg.Portal {
				t.Errorf("at %v, persistent %v", got.Portal, got.Persistent)
			}
			other.srv.DropConnections()
			e := events.await(t, initiator.EventRecovered)
			want := r.srv.Portal()
			if permanent {
				want = other.srv.Portal()
			}
			if e.Portal.Address() != want {
				t.Errorf("recovered at %v, want %s", e.Portal, want)
			}
			do(t, s, readTask(0, 512))
		})
	}
}

func TestRedirectionWithoutEnd(t *testing.T) {
	r := newRig(t, nil)
	r.srv.RedirectTo(testTarget, r.srv.Portal(), false, -1)
	_, err := initiator.Dial(context.Background(), r.config(t))
	is(t, err, initiator.ErrRedirect)
	if n := r.srv.Accepted(); n > 20 {
		t.Errorf("%d connections", n)
	}
}

// The session obeys a target that asks for a logout: what is in flight ends
// first, then comes the Logout, and new tasks wait for the next login.
func TestLogoutRequestIsOrderly(t *testing.T) {
	r, release := held(t, nil)
	defer release()
	events := make(eventLog, 100)
	cfg := r.config(t)
	cfg.OnEvent = events.add
	s := r.dial(t, cfg)
	c := newCollector(2)
	first := readTask(0, 512)
	first.Replay = false
	submit(s, c, first)
	arrived(t, r, 1)
	r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: 20})
	for s.Info().ConnState != initiator.ConnLogoutRequested {
		time.Sleep(time.Millisecond) //nolint:forbidigo // polls the state
	}
	second := submit(s, c, readTask(0, 512))
	if n := r.srv.Received(pdu.OpLogoutRequest); n != 0 {
		t.Error("logout before the task in flight has ended")
	}
	release()
	for range 2 {
		c.wait(t)
	}
	for _, task := range []*initiator.Task{first, second} {
		if err := good(task); err != nil {
			t.Error(err)
		}
	}
	events.await(t, initiator.EventRecovered)
	if n := r.srv.Received(pdu.OpLogoutRequest); n != 1 {
		t.Errorf("%d logouts", n)
	}
	if n := s.Info().Recoveries; n != 1 {
		t.Errorf("%d recoveries", n)
	}
}

func TestAsyncSCSIEventIsPassedOn(t *testing.T) {
	r := newRig(t, nil)
	events := make(eventLog, 100)
	cfg := r.config(t)
	cfg.OnEvent = events.add
	r.dial(t, cfg)
	sense := []byte{0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3f, 0x0e, 0, 0, 0, 0}
	r.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncSCSIEvent, LUN: lun1, Data: pdu.AppendSense(nil, sense)})
	e := events.await(t, initiator.EventAsync)
	if e.Async.LUN != lun1 || !bytes.Equal(e.Async.Sense, sense) {
		t.Errorf("event %+v", e.Async)
	}
}

// Rejected commands were not carried out, and their tasks say so.
func TestRejectedCommand(t *testing.T) {
	r := newRig(t, nil)
	once(r.srv, pdu.OpSCSICommand, iscsitest.Pass())
	var used atomic.Bool
	r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if !used.CompareAndSwap(false, true) {
			return iscsitest.Pass()
		}
		h, err := p.AppendHeader(nil)
		if err != nil {
			t.Error(err)
		}
		return iscsitest.Reply(&pdu.Reject{Reason: pdu.RejectOutOfResources, Data: h[:48]})
	})
	s := r.dial(t, r.config(t))
	err := s.Do(context.Background(), readTask(0, 512))
	var rej *initiator.RejectError
	if !errors.As(err, &rej) || rej.Reason != pdu.RejectOutOfResources || !initiator.SafeToRetry(err) {
		t.Errorf("error %v", err)
	}
	do(t, s, readTask(0, 512))
}
