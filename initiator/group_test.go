package initiator_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// groupRig starts a target that takes several connections and logs in with n.
func groupRig(t testing.TB, n int, mod func(*initiator.Config)) (*rig, *initiator.Session) {
	t.Helper()
	r := newRig(t, func(c *iscsitest.Config) { c.Params.MaxConnections = 8 })
	cfg := r.config(t)
	cfg.Params.MaxConnections = n
	if mod != nil {
		mod(&cfg)
	}
	s := r.dial(t, cfg)
	if i := s.Info(); i.Connections != n || i.Negotiated.MaxConnections != n {
		t.Fatalf("%d connections, %d agreed on", i.Connections, i.Negotiated.MaxConnections)
	}
	return r, s
}

// count counts commands by connection.
func (r *rig) count() func() []uint64 {
	var mu sync.Mutex
	seen := map[uint64]uint64{}
	r.srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action {
		mu.Lock()
		defer mu.Unlock()
		seen[c.ID()]++
		return iscsitest.Pass()
	})
	return func() []uint64 {
		mu.Lock()
		defer mu.Unlock()
		var n []uint64
		for _, v := range seen {
			n = append(n, v)
		}
		return n
	}
}

// shuffle writes and reads back with several workers for some rounds each.
func shuffle(t testing.TB, s *initiator.Session, rounds, size int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range rounds {
				off := int64(w * size)
				data := pattern(uint64(w*1000+i), size)
				back := readTask(off, size)
				for _, task := range []*initiator.Task{writeTask(off, data), back} {
					if err := doErr(s, task); err != nil {
						t.Errorf("worker %d: %v", w, err)
						return
					}
				}
				if !bytes.Equal(back.DataIn, data) {
					t.Errorf("worker %d reads other data than it wrote", w)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Commands are spread evenly over the connections, with data in every way.
func TestSpreadsCommands(t *testing.T) {
	for _, initialR2T := range []bool{false, true} {
		t.Run(fmt.Sprintf("InitialR2T=%v", initialR2T), func(t *testing.T) {
			r, s := groupRig(t, 4, func(c *initiator.Config) {
				c.Params.InitialR2T = initialR2T
				c.Params.FirstBurstLength, c.Params.MaxXmitDataSegmentLength = 16384, 8192
				c.Params.DataDigest = []initiator.Digest{initiator.DigestCRC32C}
			})
			count := r.count()
			shuffle(t, s, 25, 48<<10)
			per := count()
			if len(per) != 4 {
				t.Fatalf("commands on %d connections", len(per))
			}
			for _, n := range per {
				if n != 100 {
					t.Errorf("%v commands by connection", per)
					break
				}
			}
			if i := r.srv.Sessions(); len(i) != 1 || len(i[0].CIDs) != 4 {
				t.Errorf("sessions %+v", i)
			}
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// The target has the last word on how many connections there are.
func TestFewerConnections(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.Params.MaxConnections = 2 })
	cfg := r.config(t)
	cfg.Params.MaxConnections = 4
	s := r.dial(t, cfg)
	if i := s.Info(); i.Connections != 2 {
		t.Errorf("%d connections", i.Connections)
	}
	do(t, s, readTask(0, 512))

	// One that agrees and then refuses to take part.
	r = newRig(t, func(c *iscsitest.Config) { c.Params.MaxConnections = 4 })
	r.srv.Handle(pdu.OpLoginRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if q := p.(*pdu.LoginRequest); q.CID > 1 {
			return iscsitest.Reply(&pdu.LoginResponse{
				CurrentStage: q.CurrentStage, ISID: q.ISID, TSIH: q.TSIH, InitiatorTaskTag: q.InitiatorTaskTag,
				StatusClass: pdu.LoginInitiatorError, StatusDetail: pdu.InitiatorErrorTooManyConnections,
			})
		}
		return iscsitest.Pass()
	})
	cfg.Portal = r.config(t).Portal
	s = r.dial(t, cfg)
	if i := s.Info(); i.Connections != 2 {
		t.Errorf("%d connections", i.Connections)
	}
	do(t, s, readTask(0, 512))
}

// A reset of the unit ends the tasks on all connections, each on its own.
func TestResetEndsTasksOnAllConnections(t *testing.T) {
	r, s := groupRig(t, 3, nil)
	hold := make(chan struct{})
	defer close(hold)
	var held atomic.Int32
	old := r.srv.Handle(pdu.OpSCSICommand, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		held.Add(1)
		return iscsitest.Delay(hold)
	})
	done := newCollector(6)
	for i := range 6 {
		task := readTask(int64(i)*512, 512)
		task.Owner = done
		s.Submit(task)
	}
	s.Kick()
	for deadline := time.Now().Add(20 * time.Second); held.Load() < 6; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the commands do not come")
		}
	}
	r.srv.Handle(pdu.OpSCSICommand, old)
	if err := s.TaskManagement(t.Context(), pdu.TaskLogicalUnitReset, lun1); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		is(t, done.wait(t).Err, initiator.ErrAborted)
	}
	if err := s.Do(t.Context(), readTask(0, 512)); err != nil { // a unit attention
		t.Error(err)
	}
	do(t, s, readTask(0, 512))
}

// A task that takes too long is aborted on the connection of its command.
func TestAbortsOnTheTasksConnection(t *testing.T) {
	r, s := groupRig(t, 3, nil)
	hold := make(chan struct{})
	defer close(hold)
	var on atomic.Uint64
	r.srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action {
		on.Store(c.ID())
		return iscsitest.Delay(hold)
	})
	r.srv.Handle(pdu.OpTaskManagementRequest, func(c *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if c.ID() != on.Load() || p.(*pdu.TaskManagementRequest).Function != pdu.TaskAbortTask {
			t.Errorf("%v on connection %d for a command on %d", p.(*pdu.TaskManagementRequest).Function, c.ID(), on.Load())
		}
		return iscsitest.Pass()
	})
	for range 4 {
		task := readTask(0, 512)
		task.Timeout = 10 * time.Millisecond
		is(t, s.Do(t.Context(), task), initiator.ErrTimeout)
	}
}

// Every connection is pinged by itself, and logout is one for all of them.
func TestSeveralConnectionsPingAndLogout(t *testing.T) {
	r, s := groupRig(t, 3, func(c *initiator.Config) { c.Timeouts.NoopInterval = 10 * time.Millisecond })
	var mu sync.Mutex
	pinged := map[uint64]bool{}
	all := make(chan struct{})
	r.srv.Handle(pdu.OpNOPOut, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action {
		mu.Lock()
		defer mu.Unlock()
		if pinged[c.ID()] = true; len(pinged) == 3 {
			select {
			case <-all:
			default:
				close(all)
			}
		}
		return iscsitest.Pass()
	})
	select {
	case <-all:
	case <-time.After(20 * time.Second):
		t.Fatal("not every connection is pinged")
	}
	if err := s.Logout(context.Background()); err != nil {
		t.Error(err)
	}
	if n := r.srv.Received(pdu.OpLogoutRequest); n != 1 {
		t.Errorf("%d logout requests", n)
	}
}

// A volume works over several connections, losses included.
func TestVolumeOverSeveralConnections(t *testing.T) {
	r, s := groupRig(t, 3, nil)
	v, err := s.OpenVolume(t.Context(), lun1)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			back := make([]byte, 32<<10)
			for i := range 20 {
				data := pattern(uint64(w*100+i), len(back))
				off := int64(w) << 20
				if _, err := v.WriteAt(t.Context(), data, off); err != nil {
					t.Error(err)
					return
				}
				if _, err := v.ReadAt(t.Context(), back, off); err != nil || !bytes.Equal(back, data) {
					t.Errorf("other data at %d: %v", off, err)
					return
				}
				if w == 0 && i%7 == 3 {
					conns := r.srv.Conns()
					conns[i%len(conns)].Close()
				}
			}
		})
	}
	wg.Wait()
}
