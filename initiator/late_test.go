package initiator_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// Reads whose memory is taken when their data come.

func TestBufferIsCalledWhenDataCome(t *testing.T) {
	r := newRig(t, nil)
	cfg := r.config(t)
	cfg.Params.MaxRecvDataSegmentLength = 8192
	s := r.dial(t, cfg)
	const size = 64 << 10
	data := pattern(3, size)
	do(t, s, writeTask(0, data))

	calls := 0
	late := func(off int64) *initiator.Task {
		task := readTask(off, size)
		task.DataIn, task.DataInLength = nil, size
		task.Buffer = func(*initiator.Task) []byte {
			calls++
			return make([]byte, size)
		}
		return task
	}
	task := late(0)
	do(t, s, task)
	if calls != 1 || !bytes.Equal(task.DataIn, data) {
		t.Errorf("%d calls for eight Data-In, %d bytes", calls, len(task.DataIn))
	}
	task = late(1 << 40) // beyond the end
	if err := s.Do(context.Background(), task); err != nil {
		t.Fatal(err)
	}
	if task.Status != scsi.StatusCheckCondition || calls != 1 || task.DataIn != nil || task.Residual != size {
		t.Errorf("a read that fails: status %v, %d calls, residual %d", task.Status, calls-1, task.Residual)
	}
}

func TestBufferOutlivesTheConnection(t *testing.T) {
	r := newRig(t, nil)
	cfg := r.config(t)
	cfg.Params.MaxRecvDataSegmentLength = 8192
	s := r.dial(t, cfg)
	const size = 64 << 10
	data := pattern(4, size)
	do(t, s, writeTask(0, data))
	for i := range 20 {
		sn := uint32(i % 8)
		cut := false
		r.srv.Handle(pdu.OpDataIn, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
			if cut || p.(*pdu.DataIn).DataSN != sn {
				return iscsitest.Pass()
			}
			cut = true
			return iscsitest.Truncate()
		})
		calls := 0
		task := readTask(0, size)
		task.DataIn, task.DataInLength = nil, size
		task.Buffer = func(*initiator.Task) []byte {
			calls++
			return make([]byte, size)
		}
		do(t, s, task)
		if calls != 1 || !bytes.Equal(task.DataIn, data) {
			t.Fatalf("connection cut in Data-In %d: %d calls", sn, calls)
		}
	}
}

func TestRequestBufferIsSharedByThePieces(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.Targets[0].LUNs[1].MaxTransfer = 64 })
	v := r.volume(t, r.config(t), initiator.VolumeOptions{})
	const size = 1 << 20
	data := pattern(5, size)
	if _, err := v.WriteAt(t.Context(), data, 0); err != nil {
		t.Fatal(err)
	}
	done := make(requestDone, 1)
	calls := 0
	req := &initiator.Request{Op: initiator.OpRead, Length: size, Owner: done}
	req.Buffer = func(*initiator.Request) []byte {
		calls++
		return make([]byte, size)
	}
	v.Submit(req)
	v.Kick()
	<-done
	if req.Err != nil || calls != 1 || !bytes.Equal(req.Data, data) {
		t.Errorf("%v, %d calls, %d bytes", req.Err, calls, len(req.Data))
	}

	// Nothing is asked for where nothing is read.
	req.Data, req.Offset = nil, v.Size()
	v.Submit(req)
	v.Kick()
	<-done
	if req.Err == nil || calls != 1 || req.Data != nil {
		t.Errorf("a read behind the end: %v, %d calls", req.Err, calls-1)
	}
}

// requestDone gets a request when it is finished.
type requestDone chan *initiator.Request

func (d requestDone) RequestDone(r *initiator.Request) { d <- r }
func (requestDone) Flush()                             {}
