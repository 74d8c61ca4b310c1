package initiator_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// A deafConn does not notice that its peer has gone, as if the packets that say so
// were lost on the way.
type deafConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func dialDeaf(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &deafConn{Conn: c, closed: make(chan struct{})}, nil
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		<-c.closed
		err = net.ErrClosed
	}
	return n, err
}

func (c *deafConn) Write(p []byte) (int, error) {
	if n, err := c.Conn.Write(p); err == nil {
		return n, nil
	}
	return len(p), nil
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// What the target says of a connection on another one is believed at once: nobody
// waits for a ping to be without an answer.
func TestAnnouncedDropIsALoss(t *testing.T) {
	for level := range 3 {
		for which := range 3 {
			t.Run(fmt.Sprintf("level=%d/%d", level, which), func(t *testing.T) {
				r := newRig(t, func(c *iscsitest.Config) {
					c.Params.MaxConnections, c.Params.ErrorRecoveryLevel, c.AnnounceDrops = 8, 2, true
				})
				events := make(eventLog, 64)
				cfg := r.config(t)
				cfg.OnEvent, cfg.Dial = events.add, dialDeaf
				cfg.Params.MaxConnections, cfg.Params.ErrorRecoveryLevel = 3, level
				cfg.Timeouts.NoopInterval = -1
				s := r.dial(t, cfg)
				tsih := s.Info().TSIH
				held, release := r.holdCommands(3)
				defer release()
				done := newCollector(3)
				for i := range 3 {
					submit(s, done, writeTask(int64(i)*4096, pattern(uint64(i), 4096)))
				}
				until(t, "three commands", func() bool { return held() == 3 })
				dropped := r.members(t)[which]
				dropped.Close()
				if e := events.await(t, initiator.EventAsync); e.Async.Event != pdu.AsyncConnectionDrop || e.Async.Parameter1 != dropped.CID() {
					t.Errorf("%+v", e.Async)
				}
				if e := events.await(t, initiator.EventConnectionLost); e.Connections != 2 {
					t.Errorf("%+v", e)
				}
				events.await(t, initiator.EventConnectionAdded)
				release()
				for range 3 {
					if err := good(done.wait(t)); err != nil {
						t.Error(err)
					}
				}
				sameSession(t, s, tsih)
				if i := s.Info(); i.Connections != 3 || i.ConnectionRecoveries != 1 {
					t.Errorf("%d connections, %d recoveries of connections", i.Connections, i.ConnectionRecoveries)
				}
			})
		}
	}
}

// Announced losses under load, of which nothing else tells, again and again.
func TestAnnouncedDropsLoseNothing(t *testing.T) {
	for level := range 3 {
		t.Run(fmt.Sprintf("level=%d", level), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *iscsitest.Config) {
				c.Params.MaxConnections, c.Params.ErrorRecoveryLevel, c.AnnounceDrops = 8, 2, true
				c.Params.MaxRecvDataSegmentLength = 8192
			})
			events := make(eventLog, 1000)
			cfg := r.config(t)
			cfg.OnEvent, cfg.Dial = events.add, dialDeaf
			cfg.Params.MaxConnections, cfg.Params.ErrorRecoveryLevel = 3, level
			cfg.Params.FirstBurstLength, cfg.Params.MaxOutstandingR2T = 8192, 2
			cfg.Timeouts.NoopInterval = -1
			s := r.dial(t, cfg)
			tsih := s.Info().TSIH
			stop := startTasks(t, s, 8, level < 2) // on level 2 they go on
			const n = 20
			for i := range n {
				conns := r.members(t)
				conns[i%2*(len(conns)-1)].Close()
				events.await(t, initiator.EventConnectionAdded)
			}
			if ops := stop(); ops == 0 {
				t.Error("no load")
			}
			sameSession(t, s, tsih)
			if i := s.Info(); i.Connections != 3 || i.ConnectionRecoveries != n {
				t.Errorf("%d connections, %d recoveries of connections", i.Connections, i.ConnectionRecoveries)
			}
		})
	}
}

// The end of a connection that there is not, or not any more, is no news.
func TestAnnouncedDropOfNoConnection(t *testing.T) {
	events := make(eventLog, 256)
	r, s := groupRig(t, 3, func(c *initiator.Config) { c.OnEvent = events.add })
	tsih := s.Info().TSIH
	gone := r.members(t)[1]
	gone.Close()
	events.await(t, initiator.EventConnectionAdded)
	for _, on := range r.members(t) {
		for _, cid := range []uint16{gone.CID(), 1000, 0x8000, 0xffff} {
			for _, wait := range []uint16{0, 0xffff} {
				tell(t, on, pdu.AsyncConnectionDrop, cid, wait, wait)
				if e := events.await(t, initiator.EventAsync); e.Async.Parameter1 != cid {
					t.Errorf("%+v", e.Async)
				}
			}
		}
	}
	shuffle(t, s, 3, 8192)
	sameSession(t, s, tsih)
	if i := s.Info(); i.Connections != 3 || i.ConnectionRecoveries != 1 {
		t.Errorf("%d connections, %d recoveries of connections", i.Connections, i.ConnectionRecoveries)
	}
}

// respiteRig logs in with several connections through pipes, with a wait of 2 s.
func respiteRig(t *testing.T, n int) (*rig, *initiator.Session, func() int) {
	t.Helper()
	r := unstartedRig(t, func(c *iscsitest.Config) { c.Params.MaxConnections = 8 })
	cfg := r.pipeConfig(t)
	cfg.Params.MaxConnections = n
	s := r.dial(t, cfg)
	logouts := r.logouts()
	return r, s, func() int { synctest.Wait(); return len(logouts()) }
}

// The times of an announcement count for a connection that was lost before it came,
// and those of the first one only.
func TestAnnouncedDropOfALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s, logouts := respiteRig(t, 2)
		conns := r.members(t)
		cid := conns[1].CID()
		conns[1].Close()
		synctest.Wait()
		time.Sleep(time.Second)
		tell(t, conns[0], pdu.AsyncConnectionDrop, cid, 6, 0)
		tell(t, conns[0], pdu.AsyncConnectionDrop, cid, 9, 0)
		synctest.Wait()
		do(t, s, readTask(0, 512))
		time.Sleep(4999 * time.Millisecond)
		if logouts() != 0 {
			t.Error("logout before the wait is over")
		}
		time.Sleep(time.Millisecond)
		n, i := logouts(), s.Info()
		if n != 1 || i.Connections != 2 {
			t.Errorf("%d logouts, %d connections after the wait", n, i.Connections)
		}
	})
}

// A long wait for one connection holds up the tasks of no other.
func TestAnnouncedWaitConcernsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s, logouts := respiteRig(t, 3)
		tsih := s.Info().TSIH
		held, release := r.holdCommands(3)
		done := newCollector(3)
		for i := range 3 {
			submit(s, done, writeTask(int64(i)*4096, pattern(uint64(i), 4096)))
		}
		if synctest.Wait(); held() != 3 {
			t.Fatalf("%d commands held", held())
		}
		conns := r.members(t)
		tell(t, conns[0], pdu.AsyncConnectionDrop, conns[1].CID(), 3600, 0)
		synctest.Wait()
		conns[2].Close()
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if n := logouts(); n != 1 {
			t.Errorf("%d logouts after the wait for the second", n)
		}
		if err := good(done.wait(t)); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour - 2*time.Second)
		if n := logouts(); n != 2 {
			t.Errorf("%d logouts after an hour", n)
		}
		release()
		for range 2 {
			if err := good(done.wait(t)); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		sameSession(t, s, tsih)
		if i := s.Info(); i.Connections != 3 {
			t.Errorf("%d connections", i.Connections)
		}
	})
}

// A command that the target seems to wait for is not sent again, nor thought not to
// have been sent, when its connection is lost (error recovery level 1).
func TestLostCommandOfALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := unstartedRig(t, func(c *iscsitest.Config) {
			c.Params.MaxConnections, c.Params.ErrorRecoveryLevel, c.Params.DefaultTime2Wait = 2, 1, 60
		})
		cfg := r.pipeConfig(t)
		cfg.Params.MaxConnections, cfg.Params.ErrorRecoveryLevel = 2, 1
		s := r.dial(t, cfg)
		on := make(chan *iscsitest.Conn, 1)
		var first atomic.Bool
		r.srv.Handle(pdu.OpSCSICommand, func(c *iscsitest.Conn, _ pdu.PDU) iscsitest.Action {
			if first.CompareAndSwap(false, true) {
				on <- c
				return iscsitest.Drop() // or so it seems
			}
			return iscsitest.Pass()
		})
		task := writeTask(0, pattern(1, 4096))
		task.Replay = false
		done := newCollector(1)
		submit(s, done, task)
		(<-on).Close()
		time.Sleep(59 * time.Second)
		is(t, done.wait(t).Err, initiator.ErrInterrupted)
	})
}
