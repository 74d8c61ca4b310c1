package initiator_test

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// The target writes its replies before it reads on, and a pipe holds nothing: with
// long transfers both ways each end blocks on sending all the time. Nobody waits
// for the other for ever.
func TestBothEndsBlockOnSending(t *testing.T) {
	r := unstartedRig(t, nil)
	cfg := r.pipeConfig(t)
	cfg.Params.MaxOutstandingR2T = 8
	s := r.dial(t, cfg)
	const n, size = 32, 1 << 20
	c := newCollector(2 * n)
	want := pattern(1, size)
	do(t, s, writeTask(0, want))
	for range 2 {
		for i := range n {
			submit(s, c, writeTask(int64(1+i%8)*size, want))
			submit(s, c, readTask(0, size))
		}
		for range 2 * n {
			task := c.wait(t)
			if err := good(task); err != nil {
				t.Fatal(err)
			}
			if task.DataIn != nil && !bytes.Equal(task.DataIn, want) {
				t.Fatal("data changed")
			}
		}
	}
	if n := s.Info().Recoveries; n != 0 {
		t.Errorf("%d recoveries", n)
	}
}

// Kick returns although the target does not read, and what it left is sent when
// the target does.
func TestKickDoesNotBlock(t *testing.T) {
	r := newRig(t, nil)
	cfg := r.config(t)
	cfg.Params.FirstBurstLength = 1 << 20
	cfg.Timeouts.NoopInterval = -1 // the connection stays, however long it takes
	s := r.dial(t, cfg)
	resume := r.srv.Pause()
	defer resume()
	const n = 64
	c := newCollector(n)
	kicked := make(chan struct{})
	go func() {
		defer close(kicked)
		for i := range n {
			submit(s, c, writeTask(int64(i%32)<<20, make([]byte, 1<<20)))
		}
	}()
	select {
	case <-kicked:
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for the target")
	}
	resume()
	for range n {
		if err := good(c.wait(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// A target may answer before it has all the data. The task is not given back,
// and its buffer not reused by its owner, before the data are out of our hands.
func TestEarlyResponseWaitsForData(t *testing.T) {
	r := unstartedRig(t, nil)
	r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		cmd := p.(*pdu.SCSICommand)
		if !cmd.Write {
			return iscsitest.Pass()
		}
		return iscsitest.Reply(&pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag, Status: uint8(scsi.StatusBusy)})
	})
	// Data for a task that is over are rejected; data that changed on the way,
	// for another reason.
	var digests atomic.Int64
	r.srv.Handle(pdu.OpReject, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		if p.(*pdu.Reject).Reason == pdu.RejectDataDigest {
			digests.Add(1)
		}
		return iscsitest.Pass()
	})
	crc := []initiator.Digest{initiator.DigestCRC32C}
	cfg := r.pipeConfig(t)
	cfg.Params.FirstBurstLength = 1 << 20
	cfg.Params.HeaderDigest, cfg.Params.DataDigest = crc, crc
	s, err := initiator.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 50 {
		o := &scribbler{done: make(chan struct{})}
		task := writeTask(0, make([]byte, 1<<20))
		task.Owner = o
		s.Submit(task)
		s.Kick()
		<-o.done
		if task.Err != nil || task.Status != scsi.StatusBusy {
			t.Fatalf("status %v, %v", task.Status, task.Err)
		}
	}
	do(t, s, readTask(0, 512))
	if n := digests.Load(); n != 0 {
		t.Errorf("%d data digest errors: the buffer was reused while it was being sent", n)
	}
	if n := s.Info().Recoveries; n != 0 {
		t.Errorf("%d recoveries", n)
	}
}

// A scribbler overwrites the data of finished tasks.
type scribbler struct{ done chan struct{} }

func (o *scribbler) TaskDone(t *initiator.Task) {
	for i := range t.DataOut {
		t.DataOut[i] ^= 0xff
	}
	close(o.done)
}
func (o *scribbler) Flush() {}
