package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

const blockSize = 512

var lun1 = pdu.LUNFromNumber(1)

// readTask returns a READ(16) of n bytes from the beginning.
func readTask(n int) *initiator.Task {
	t := &initiator.Task{LUN: lun1, DataIn: make([]byte, n)}
	scsi.Read16(&t.CDB, 0, uint32(n/blockSize), 0)
	return t
}

// writeTask returns a WRITE(16) of data to the beginning.
func writeTask(data []byte) *initiator.Task {
	t := &initiator.Task{LUN: lun1, DataOut: data}
	scsi.Write16(&t.CDB, 0, uint32(len(data)/blockSize), 0)
	return t
}

// replayed lets a task be sent again after a recovery.
func replayed(t *initiator.Task) *initiator.Task {
	t.Replay = true
	return t
}

// noData returns a TEST UNIT READY.
func noData() *initiator.Task { return &initiator.Task{LUN: lun1} }

// pattern fills n bytes with what a seed determines.
func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b) //nolint:errcheck // never fails
	return b
}

// good returns why a finished task is not a complete success.
func good(t *initiator.Task) error {
	switch {
	case t.Err != nil:
		return t.Err
	case t.Status != scsi.StatusGood:
		return fmt.Errorf("status %v, sense % x", t.Status, t.Sense)
	case t.Transferred != max(len(t.DataIn), len(t.DataOut)) || t.Residual != 0:
		return fmt.Errorf("%d bytes transferred, residual %d", t.Transferred, t.Residual)
	}
	return nil
}

// A running task is one that the initiator carries out while the test plays the
// target. It is the task's Completer.
type running struct {
	*initiator.Task
	t    testing.TB
	done chan struct{} // closed by TaskDone
}

// TaskDone implements initiator.Completer.
func (r *running) TaskDone(*initiator.Task) { close(r.done) }

// Flush implements initiator.Completer.
func (r *running) Flush() {}

// start hands a task to the session. It is sent, or queued, when start returns.
func start(t testing.TB, s *initiator.Session, task *initiator.Task) *running {
	r := &running{Task: task, t: t, done: make(chan struct{})}
	task.Owner = r
	s.Submit(task)
	s.Kick()
	t.Cleanup(func() { s.Close(); <-r.done })
	return r
}

// finished waits for the end of the task.
func (r *running) finished() *initiator.Task {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatal("the task does not finish")
	}
	return r.Task
}

// succeeds waits for the task's complete success.
func (r *running) succeeds() {
	r.t.Helper()
	if err := good(r.finished()); err != nil {
		r.t.Error(err)
	}
}

// fails waits for the task's failure with these errors.
func (r *running) fails(as ...error) {
	r.t.Helper()
	task := r.finished()
	if task.Err == nil {
		r.t.Errorf("the task ends well, status %v", task.Status)
	}
	is(r.t, task.Err, as...)
}

// is checks that err is all of these errors.
func is(t testing.TB, err error, as ...error) {
	t.Helper()
	for _, want := range as {
		if !errors.Is(err, want) {
			t.Errorf("error %v is not %v", err, want)
		}
	}
}

// command returns the next PDU, a SCSI Command.
func (c *conn) command() *pdu.SCSICommand {
	c.t.Helper()
	return expect[*pdu.SCSICommand](c)
}

// dataOut returns the next PDU, a Data-Out.
func (c *conn) dataOut() *pdu.DataOut {
	c.t.Helper()
	return expect[*pdu.DataOut](c)
}

// respond ends a command with GOOD.
func (c *conn) respond(cmd *pdu.SCSICommand) {
	c.t.Helper()
	c.send(&pdu.SCSIResponse{InitiatorTaskTag: cmd.InitiatorTaskTag})
}

// dataIn returns a Data-In without status.
func dataIn(cmd *pdu.SCSICommand, sn uint32, offset int, data []byte) *pdu.DataIn {
	return &pdu.DataIn{
		InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag,
		DataSN: sn, BufferOffset: uint32(offset), Data: data,
	}
}

// lastDataIn returns a Data-In with the status GOOD.
func lastDataIn(cmd *pdu.SCSICommand, sn uint32, offset int, data []byte) *pdu.DataIn {
	d := dataIn(cmd, sn, offset, data)
	d.Final, d.HasStatus = true, true
	return d
}

// r2t returns an R2T.
func r2t(cmd *pdu.SCSICommand, sn, ttt uint32, offset, length int) *pdu.R2T {
	return &pdu.R2T{
		LUN: cmd.LUN, InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: ttt, R2TSN: sn,
		BufferOffset: uint32(offset), DesiredDataTransferLength: uint32(length),
	}
}

// burst reads the Data-Out PDUs of one sequence from an offset on, checks every
// field of them, and returns their data. ttt is pdu.ReservedTag for unsolicited
// data.
func (c *conn) burst(cmd *pdu.SCSICommand, ttt uint32, offset, length int) (data []byte) {
	c.t.Helper()
	for sn := uint32(0); len(data) < length; sn++ {
		d := c.dataOut()
		data = append(data, d.Data...)
		at := offset + len(data) - len(d.Data)
		if d.InitiatorTaskTag != cmd.InitiatorTaskTag || d.TargetTransferTag != ttt {
			c.t.Errorf("data with tags %#x and %#x, want %#x and %#x", d.InitiatorTaskTag, d.TargetTransferTag, cmd.InitiatorTaskTag, ttt)
		}
		if d.LUN != cmd.LUN {
			c.t.Errorf("data for LUN %v, want %v", d.LUN, cmd.LUN)
		}
		if d.DataSN != sn || int(d.BufferOffset) != at || len(d.Data) == 0 {
			c.t.Errorf("%d bytes with DataSN %d at %d, want DataSN %d at %d", len(d.Data), d.DataSN, d.BufferOffset, sn, at)
		}
		if last := len(data) >= length; d.Final != last {
			c.t.Errorf("F bit %v, want %v, after %d of %d bytes", d.Final, last, len(data), length)
		}
	}
	if len(data) != length {
		c.t.Errorf("%d bytes in a sequence of %d", len(data), length)
	}
	return data
}

// quiet checks that the initiator has nothing to say: the next that comes is the
// ping that it is asked for here.
func (c *conn) quiet(s *initiator.Session) {
	c.t.Helper()
	ponged := ping(s)
	c.pong(expect[*pdu.NOPOut](c))
	if err := <-ponged; err != nil {
		c.t.Errorf("ping: %v", err)
	}
}

// ping has the session ping the station.
func ping(s *initiator.Session) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Ping(context.Background()) }()
	return done
}

// pong answers a ping.
func (c *conn) pong(p *pdu.NOPOut) {
	c.t.Helper()
	c.send(&pdu.NOPIn{InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, LUN: p.LUN, Data: p.Data})
}

// alive checks that the session works on this connection.
func (c *conn) alive(s *initiator.Session) {
	c.t.Helper()
	r := start(c.t, s, noData())
	c.respond(c.command())
	r.succeeds()
}
