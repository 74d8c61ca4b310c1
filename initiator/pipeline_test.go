package initiator_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// Every combination of what decides about how data travel carries data of sizes
// around all limits both ways unharmed, and breaks no rule.
func TestDataInAllNegotiations(t *testing.T) {
	sizes := []int{512, 1024, 4096, 8192, 8704, 16384, 65536, 66048, 131072, 200704}
	crc := []initiator.Digest{initiator.DigestCRC32C}
	for _, immediate := range []bool{true, false} {
		for _, initialR2T := range []bool{true, false} {
			for _, burst := range [][2]int{{512, 512}, {4096, 65536}, {65536, 65536}, {262144, 1048576}} {
				for _, segment := range []uint32{512, 8192, 262144} {
					for _, digest := range []bool{false, true} {
						name := fmt.Sprintf("immediate=%v,r2t=%v,first=%d,max=%d,segment=%d,digest=%v", immediate, initialR2T, burst[0], burst[1], segment, digest)
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							r := newRig(t, func(c *iscsitest.Config) {
								c.Params.MaxRecvDataSegmentLength = segment
								c.Params.SeparateStatus = digest
							})
							cfg := r.config(t)
							cfg.Params.NoImmediateData = !immediate
							cfg.Params.InitialR2T = initialR2T
							cfg.Params.FirstBurstLength, cfg.Params.MaxBurstLength = burst[0], burst[1]
							cfg.Params.MaxRecvDataSegmentLength = int(segment)
							cfg.Params.MaxOutstandingR2T = 4
							if digest {
								cfg.Params.HeaderDigest, cfg.Params.DataDigest = crc, crc
							}
							s := r.dial(t, cfg)
							if n := s.Info().Negotiated; n.NoImmediateData == immediate || n.InitialR2T != initialR2T {
								t.Fatalf("negotiated %+v", n)
							}
							for i, size := range sizes {
								data := pattern(uint64(i), size)
								off := int64(i) << 20
								do(t, s, writeTask(off, data))
								back := readTask(off, size)
								do(t, s, back)
								if !bytes.Equal(back.DataIn, data) {
									t.Fatalf("%d bytes came back changed", size)
								}
							}
						})
					}
				}
			}
		}
	}
}

// Many tasks at once, more than the session keeps in flight, come back each once
// with its own data.
func TestManyTasksInFlight(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.CommandWindow = 24 })
	cfg := r.config(t)
	cfg.CmdsMax = 16
	s := r.dial(t, cfg)
	const n, size = 200, 8192
	c := newCollector(n)
	for round := range 3 {
		want := make(map[*initiator.Task][]byte)
		for i := range n {
			data := pattern(uint64(round*n+i), size)
			w := writeTask(int64(i)*size, data)
			w.Owner = c
			want[w] = data
			s.Submit(w)
		}
		s.Kick()
		for range n {
			if task := c.wait(t); good(task) != nil || want[task] == nil {
				t.Fatalf("write: %v", good(task))
			}
		}
		for i := range n {
			rd := readTask(int64(i)*size, size)
			rd.Owner, rd.Private = c, pattern(uint64(round*n+i), size)
			s.Submit(rd)
		}
		s.Kick()
		for range n {
			task := c.wait(t)
			if err := good(task); err != nil {
				t.Fatalf("read: %v", err)
			}
			if !bytes.Equal(task.DataIn, task.Private.([]byte)) {
				t.Fatal("another task's data")
			}
		}
	}
	if i := s.Info(); i.InFlight != 0 || i.Queued != 0 {
		t.Errorf("%d in flight, %d queued at the end", i.InFlight, i.Queued)
	}
	s.Close() // waits for the last Flush
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flushes == 0 || c.pending != 0 {
		t.Errorf("%d flushes, %d tasks after the last", c.flushes, c.pending)
	}
}

func TestSlowCommandDelaysNoOther(t *testing.T) {
	r := newRig(t, nil)
	hold := make(chan struct{})
	slow := true
	r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if slow {
			slow = false
			return iscsitest.Delay(hold)
		}
		return iscsitest.Pass()
	})
	s := r.dial(t, r.config(t))
	c := newCollector(1)
	first := readTask(0, 4096)
	first.Owner = c
	s.Submit(first)
	s.Kick()
	for range 100 {
		do(t, s, readTask(4096, 4096))
	}
	select {
	case <-c.done:
		t.Fatal("the slow command is not slow")
	default:
	}
	close(hold)
	if err := good(c.wait(t)); err != nil {
		t.Error(err)
	}
}

func TestClosedWindowQueues(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.CommandWindow = 4 })
	hold := make(chan struct{})
	r.srv.Handle(pdu.OpSCSICommand, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.Delay(hold) })
	s := r.dial(t, r.config(t))
	const n = 20
	c := newCollector(n)
	for i := range n {
		task := readTask(int64(i)*4096, 4096)
		task.Owner = c
		s.Submit(task)
	}
	s.Kick()
	if err := s.Ping(context.Background()); err != nil { // immediate: the closed window does not stop it
		t.Fatal(err)
	}
	if got := s.Stats().SCSICmdPDUs; got != 4 {
		t.Errorf("%d commands sent in a window of 4", got)
	}
	if i := s.Info(); i.InFlight != 4 || i.Queued != n-4 {
		t.Errorf("%d in flight, %d queued", i.InFlight, i.Queued)
	}
	close(hold)
	for range n {
		if err := good(c.wait(t)); err != nil {
			t.Error(err)
		}
	}
}

// A window that is closed altogether opens by a NOP-In.
func TestWindowOpenedByNOPIn(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	r.srv.SetCommandWindow(0)
	if err := s.Ping(context.Background()); err != nil {
		t.Fatal(err)
	}
	const n = 300 // more than the window that was announced before
	c := newCollector(n)
	for range n {
		task := readTask(0, 512)
		task.Owner = c
		s.Submit(task)
	}
	s.Kick()
	if err := s.Ping(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.srv.SetCommandWindow(64)
	for range n {
		if err := good(c.wait(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSequenceNumbersWrap(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.InitialStatSN = 0xfffffff0 })
	cfg := r.config(t)
	cfg.InitialCmdSN = 0xfffffff8
	s := r.dial(t, cfg)
	for i := range 40 {
		data := pattern(uint64(i), 16384)
		do(t, s, writeTask(0, data))
		back := readTask(0, 16384)
		do(t, s, back)
		if !bytes.Equal(back.DataIn, data) {
			t.Fatal("data changed")
		}
		if i%8 == 0 {
			if err := s.Ping(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := s.Info().Recoveries; n != 0 {
		t.Errorf("%d recoveries", n)
	}
}

func TestUnderflow(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	task := &initiator.Task{LUN: lun1, DataIn: make([]byte, 255)}
	task.CDB[0], task.CDB[4] = 0x12, 255 // INQUIRY
	if err := s.Do(context.Background(), task); err != nil {
		t.Fatal(err)
	}
	if task.Status != scsi.StatusGood || task.Transferred < 36 || task.Transferred+int(task.Residual) != 255 {
		t.Errorf("status %v, %d bytes, residual %d", task.Status, task.Transferred, task.Residual)
	}
}

func TestOverflow(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	task := readTask(0, 4096)
	task.DataIn = task.DataIn[:1024] // the CDB asks for more
	if err := s.Do(context.Background(), task); err != nil {
		t.Fatal(err)
	}
	if task.Residual >= 0 || task.Transferred != 1024 {
		t.Errorf("status %v, %d bytes, residual %d", task.Status, task.Transferred, task.Residual)
	}
}

func TestCheckConditionHasSense(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	task := readTask(1<<40, 4096) // beyond the end
	if err := s.Do(context.Background(), task); err != nil {
		t.Fatal(err)
	}
	if task.Status != scsi.StatusCheckCondition || len(task.Sense) < 8 {
		t.Fatalf("status %v, sense % x", task.Status, task.Sense)
	}
	sense, err := scsi.ParseSense(task.Sense)
	if err != nil || sense.Key != 5 {
		t.Errorf("sense %v, %v", sense, err)
	}
	do(t, s, readTask(0, 4096))
}

func TestTaskWithoutDataAndUnknownLUN(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	tur := &initiator.Task{LUN: lun1}
	do(t, s, tur)
	other := &initiator.Task{LUN: pdu.LUNFromNumber(300)}
	if err := s.Do(context.Background(), other); err != nil {
		t.Fatal(err)
	}
	if other.Status != scsi.StatusCheckCondition {
		t.Errorf("status %v of a unit that is not there", other.Status)
	}
}

func TestTargetFailureIsAnError(t *testing.T) {
	r := newRig(t, nil)
	r.srv.Handle(pdu.OpSCSIResponse, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		p.(*pdu.SCSIResponse).Response = pdu.ResponseTargetFailure
		return iscsitest.Pass()
	})
	s := r.dial(t, r.config(t))
	err := s.Do(context.Background(), &initiator.Task{LUN: lun1})
	if _, ok := err.(*initiator.ResponseError); !ok {
		t.Errorf("error %v, want a *ResponseError", err)
	}
}

func TestTargetPingIsAnswered(t *testing.T) {
	r := newRig(t, nil)
	answered := make(chan struct{}, 1)
	r.srv.Handle(pdu.OpNOPOut, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if n := p.(*pdu.NOPOut); n.InitiatorTaskTag == pdu.ReservedTag && n.LUN == pdu.LUNFromNumber(5) {
			answered <- struct{}{}
		}
		return iscsitest.Pass()
	})
	r.dial(t, r.config(t))
	r.srv.Ping(5)
	<-answered
}

func TestStatsCountPDUs(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.Params.InitialR2T = true; c.Params.NoImmediateData = true })
	s := r.dial(t, r.config(t))
	do(t, s, writeTask(0, make([]byte, 8192)))
	do(t, s, readTask(0, 8192))
	if err := s.Ping(context.Background()); err != nil {
		t.Fatal(err)
	}
	// What the receiver counts is added up when it has dealt with all that came.
	await(t, "the ping's answer in the counters", func() bool { return s.Stats().NopRxPDUs > 0 })
	st := s.Stats()
	for _, c := range st.SNMP() {
		want := map[string]uint64{
			"noptx_pdus": 1, "scsicmd_pdus": 2, "login_pdus": 1, "dataout_pdus": 1,
			"noprx_pdus": 1, "datain_pdus": 1, "r2t_pdus": 1, "scsirsp_pdus": 1,
		}[c.Name]
		if c.Name == "txdata_octets" || c.Name == "rxdata_octets" {
			if c.Value < 8192+48 {
				t.Errorf("%s is %d", c.Name, c.Value)
			}
		} else if c.Value != want {
			t.Errorf("%s is %d, want %d", c.Name, c.Value, want)
		}
	}
}
