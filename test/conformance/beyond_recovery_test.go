package conformance

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// withDigests has both digests agreed on.
func withDigests(cfg *initiator.Config) {
	cfg.Params.HeaderDigest, cfg.Params.DataDigest = both[:1], both[:1]
}

// wire returns the bytes of a PDU as the connection would send it, numbered.
func (c *conn) wire(p pdu.PDU) []byte {
	c.t.Helper()
	c.number(p)
	var b writeBuffer
	w := pdu.NewWriter(&b)
	w.SetDigests(c.agreed["HeaderDigest"] == "CRC32C", c.agreed["DataDigest"] == "CRC32C")
	if err := w.Append(p); err != nil {
		c.t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		c.t.Fatal(err)
	}
	return b
}

type writeBuffer []byte

func (b *writeBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// recovers checks that a task which was disturbed on one connection is carried out
// on the next one, and returns that.
func recovers(c *conn, r *running) *conn {
	c.t.Helper()
	c2 := c.st.accept()
	c2.logIn()
	cmd := c2.command()
	switch {
	case cmd.Read:
		data := pattern(99, int(cmd.ExpectedDataTransferLength))
		c2.send(lastDataIn(cmd, 0, 0, data))
		r.succeeds()
		same(c.t.(*testing.T), r.DataIn, data)
	default:
		got := append([]byte(nil), cmd.Data...)
		if rest := int(cmd.ExpectedDataTransferLength) - len(got); rest > 0 {
			c2.send(r2t(cmd, 0, 1, len(got), rest))
			got = append(got, c2.burst(cmd, 1, len(got), rest)...)
		}
		c2.respond(cmd)
		r.succeeds()
		same(c.t.(*testing.T), got, r.DataOut)
	}
	return c2
}

// After a header digest error nobody knows where the next PDU begins: the
// connection ends, and nothing of the PDU is used.
func TestBeyond_1_1_HeaderDigestError(t *testing.T) {
	for name, mod := range map[string]func(b []byte){
		"digest": func(b []byte) { b[pdu.BHSLen] ^= 1 },
		"header": func(b []byte) { b[3] ^= 2 },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := operational(t, withDigests)
			r := start(t, s, replayed(readTask(512)))
			b := c.wire(lastDataIn(c.command(), 0, 0, make([]byte, 512)))
			mod(b)
			c.sendRaw(b)
			c.ended()
			recovers(c, r)
			if n := s.Stats().DigestErrors; n != 1 {
				t.Errorf("%d digest errors counted", n)
			}
		})
	}
}

// A data digest error ends it, too, on error recovery level 0, wherever it is.
func TestBeyond_1_2_DataDigestError(t *testing.T) {
	for name, answer := range map[string]func(cmd *pdu.SCSICommand) pdu.PDU{
		"Data-In": func(cmd *pdu.SCSICommand) pdu.PDU { return lastDataIn(cmd, 0, 0, make([]byte, 512)) },
		"SCSI response": func(cmd *pdu.SCSICommand) pdu.PDU {
			return &pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, Status: 2, Data: pdu.AppendSense(nil, sense)}
		},
		"NOP-In": func(*pdu.SCSICommand) pdu.PDU {
			return &pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 1, Data: sense}
		},
		"async message": func(*pdu.SCSICommand) pdu.PDU { return &pdu.AsyncMessage{Data: pdu.AppendSense(nil, sense)} },
		"reject": func(*pdu.SCSICommand) pdu.PDU {
			return &pdu.Reject{Reason: pdu.RejectTaskInProgress, Data: make([]byte, 48)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := operational(t, withDigests)
			r := start(t, s, replayed(readTask(512)))
			b := c.wire(answer(c.command()))
			b[pdu.BHSLen+4+1] ^= 1 // the second byte of the data
			c.sendRaw(b)
			c.ended()
			recovers(c, r)
		})
	}
}

// PDUs that get lost on the way leave gaps, in StatSN or DataSN, or a task without
// its data; what was lost is noticed, and nothing is taken for whole that is not.
func TestBeyond_2_1_DroppedPDU(t *testing.T) {
	t.Run("Data-In", func(t *testing.T) {
		s, c := operational(t, nil)
		r := start(t, s, replayed(readTask(1024)))
		cmd := c.command()
		c.send(lastDataIn(cmd, 1, 512, make([]byte, 512))) // DataSN 0 is lost
		c.ended()
		recovers(c, r)
	})
	t.Run("last Data-In", func(t *testing.T) {
		s, c := operational(t, nil)
		r := start(t, s, readTask(1024))
		cmd := c.command()
		c.send(dataIn(cmd, 0, 0, make([]byte, 512)), &pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, ExpDataSN: 2})
		if task := r.finished(); task.Err == nil && task.Transferred == 1024 {
			t.Error("lost data are taken for read")
		}
	})
	t.Run("response", func(t *testing.T) {
		s, c := operational(t, nil)
		r := start(t, s, replayed(noData()))
		lost := &pdu.SCSIResponse{InitiatorTaskTag: c.command().InitiatorTaskTag}
		c.number(lost)
		c.send(&pdu.AsyncMessage{Event: 250})
		c.ended()
		recovers(c, r)
	})
}

// An R2T that got lost, or a command, is found out by the task's timeout.
func TestBeyond_2_2_DroppedR2T(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(nil, "InitialR2T=Yes", "ImmediateData=No")
		task := writeTask(make([]byte, 512))
		task.Timeout = 30 * time.Second
		begin := time.Now()
		r := start(t, s, task)
		cmd := c.command()
		c.wait = time.Hour
		req := expect[*pdu.TaskManagementRequest](c)
		if took := time.Since(begin); took != 30*time.Second || req.ReferencedTaskTag != cmd.InitiatorTaskTag {
			t.Errorf("%+v after %v", req, took)
		}
		c.managed(req, pdu.TaskFunctionComplete)
		r.fails(initiator.ErrTimeout)
	})
}

// A connection that ends, within a PDU or between two, costs nothing but time.
func TestBeyond_3_1_DroppedConnection(t *testing.T) {
	for name, drop := range map[string]func(c *conn, cmd *pdu.SCSICommand){
		"between PDUs":  func(*conn, *pdu.SCSICommand) {},
		"within header": func(c *conn, cmd *pdu.SCSICommand) { c.sendRaw(c.wire(lastDataIn(cmd, 0, 0, make([]byte, 512)))[:20]) },
		"within data":   func(c *conn, cmd *pdu.SCSICommand) { c.sendRaw(c.wire(lastDataIn(cmd, 0, 0, make([]byte, 512)))[:200]) },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := operational(t, nil)
			r := start(t, s, replayed(readTask(512)))
			drop(c, c.command())
			c.nc.Close()
			recovers(c, r).alive(s)
		})
	}
}

func TestBeyond_3_2_ResetConnection(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	r := start(t, s, replayed(writeTask(pattern(3, 4096))))
	cmd := c.command()
	c.send(r2t(cmd, 0, 1, 0, 2048))
	c.burst(cmd, 1, 0, 2048)
	if err := c.nc.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.nc.Close()
	recovers(c, r).alive(s)
}

// A target that is gone for a while, and refuses or drops connections meanwhile, is
// found again soon after it is back; tasks wait for it.
func TestBeyond_3_3_TargetRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		var mu sync.Mutex
		down := false
		var back time.Time
		s, c := st.logIn(func(cfg *initiator.Config) {
			connect := cfg.Dial
			cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				if down {
					return nil, net.ErrClosed
				}
				return connect(ctx, network, address)
			}
		})
		r := start(t, s, replayed(readTask(512)))
		c.command()
		mu.Lock()
		down = true
		mu.Unlock()
		c.nc.Close()
		time.Sleep(25 * time.Second) // in the bubble: the target boots
		mu.Lock()
		down, back = false, time.Now()
		mu.Unlock()
		c = st.accept()
		if late := time.Since(back); late > 3*time.Second {
			t.Errorf("found %v after it was back", late)
		}
		c.refuse(c.loginRequest(), pdu.LoginTargetError, pdu.TargetErrorServiceUnavailable) // up, not ready yet
		c.ended()
		recovers(c, r)
	})
}

// A half-open connection, on which nothing ever comes, is found out by pings.
func TestBeyond_4_1_HalfOpenConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(func(cfg *initiator.Config) {
			cfg.Timeouts.NoopInterval, cfg.Timeouts.NoopTimeout = 5*time.Second, 5*time.Second
		})
		r := start(t, s, replayed(readTask(512)))
		begin := time.Now()
		c2 := st.accept() // c is never read
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("given up after %v", took)
		}
		c2.logIn()
		cmd := c2.command()
		c2.send(lastDataIn(cmd, 0, 0, make([]byte, 512)))
		r.succeeds()
		c.nc.Close()
	})
}

// A target that takes its time is not given up as long as it answers pings.
func TestBeyond_4_2_SlowTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(func(cfg *initiator.Config) {
			cfg.Timeouts.NoopInterval, cfg.Timeouts.NoopTimeout = 5*time.Second, 5*time.Second
		})
		r := start(t, s, readTask(512))
		cmd := c.command()
		for range 3 {
			nop := expect[*pdu.NOPOut](c)
			time.Sleep(4 * time.Second) // in the bubble
			c.pong(nop)
		}
		c.send(lastDataIn(cmd, 0, 0, make([]byte, 512)))
		r.succeeds()
		if n := s.Info().Recoveries; n != 0 {
			t.Errorf("%d recoveries", n)
		}
	})
}

// What never comes back within the recovery timeout fails, and what comes later
// works.
func TestBeyond_4_3_RecoveryTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(func(cfg *initiator.Config) {
			cfg.Timeouts.Replacement, cfg.Timeouts.Login = 10*time.Second, 60*time.Second
		})
		r := start(t, s, replayed(noData()))
		c.command()
		begin := time.Now()
		c.nc.Close()
		c = st.accept() // and does not answer
		r.fails(initiator.ErrRecoveryTimeout)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("failed after %v, want 10s", took)
		}
		c.logIn()
		synctest.Wait()
		c.alive(s)
	})
}

// What one target does to its session does not touch another one.
func TestBeyond_6_1_OtherSessionsGoOn(t *testing.T) {
	other, good := operational(t, nil)
	for name, bad := range map[string]func(c *conn, cmd *pdu.SCSICommand){
		"garbage":   func(c *conn, _ *pdu.SCSICommand) { c.sendRaw(pattern(1, 4096)) },
		"oversized": func(c *conn, cmd *pdu.SCSICommand) { c.send(lastDataIn(cmd, 0, 0, make([]byte, 1<<20))) },
		"unknown": func(c *conn, cmd *pdu.SCSICommand) {
			c.send(&pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag + 0x5000})
		},
		"close": func(c *conn, _ *pdu.SCSICommand) { c.nc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := operational(t, nil)
			c.t = t
			r := start(t, s, replayed(readTask(512)))
			bad(c, c.command())
			good.alive(other)
			c2 := c.st.accept()
			c2.logIn()
			c2.send(lastDataIn(c2.command(), 0, 0, make([]byte, 512)))
			r.succeeds()
			good.alive(other)
		})
	}
	if n := other.Info().Recoveries; n != 0 {
		t.Errorf("%d recoveries of the other session", n)
	}
}
