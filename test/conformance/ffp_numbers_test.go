package conformance

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// Commands are numbered one by one from the login's CmdSN on.
func TestFFP_1_1_CommandNumbering(t *testing.T) {
	s, c := operational(t, func(cfg *initiator.Config) { cfg.InitialCmdSN = 1000 })
	if c.first.CmdSN != 1000 {
		t.Errorf("login with CmdSN %d", c.first.CmdSN)
	}
	for want := range uint32(5) {
		r := start(t, s, noData())
		cmd := c.command()
		if cmd.CmdSN != 1000+want || cmd.Immediate {
			t.Errorf("CmdSN %d, immediate %v, want %d", cmd.CmdSN, cmd.Immediate, 1000+want)
		}
		c.respond(cmd)
		r.succeeds()
	}
}

// An immediate request carries the CmdSN of the next command and does not use it
// up.
func TestFFP_2_1_ImmediateDelivery(t *testing.T) {
	s, c := operational(t, nil)
	c.alive(s)
	for range 3 {
		ponged := ping(s)
		nop := expect[*pdu.NOPOut](c)
		if !nop.Immediate || nop.CmdSN != c.first.CmdSN+1 {
			t.Errorf("immediate %v, CmdSN %d, want %d", nop.Immediate, nop.CmdSN, c.first.CmdSN+1)
		}
		c.pong(nop)
		if err := <-ponged; err != nil {
			t.Error(err)
		}
	}
	c.alive(s)
}

func TestFFP_2_2_ImmediateTaskManagement(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, noData())
	cmd := c.command()
	done := manage(s, pdu.TaskClearACA, lun1)
	req := expect[*pdu.TaskManagementRequest](c)
	if !req.Immediate || req.CmdSN != cmd.CmdSN+1 {
		t.Errorf("immediate %v, CmdSN %d, want %d", req.Immediate, req.CmdSN, cmd.CmdSN+1)
	}
	c.send(&pdu.TaskManagementResponse{InitiatorTaskTag: req.InitiatorTaskTag})
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.respond(cmd)
	r.succeeds()
}

// nopIn tells the initiator about the command window and wants no answer.
func (c *conn) nopIn() {
	c.t.Helper()
	c.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag})
}

// Through a closed window nothing passes but immediate requests.
func TestFFP_3_1_ClosedCommandWindow(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	c.window = 0
	c.logIn()
	s := d.session()
	r := start(t, s, noData())
	c.quiet(s) // a ping gets through
	c.quiet(s)
	if i := s.Info(); i.Queued != 1 || i.InFlight != 0 {
		t.Errorf("%d queued, %d in flight", i.Queued, i.InFlight)
	}
	c.window = 1
	c.nopIn()
	c.respond(c.command())
	r.succeeds()
}

// A window as large as it can be is used up to the limit of our own.
func TestFFP_3_2_LargeWindow(t *testing.T) {
	st := newStation(t)
	cfg := st.config()
	cfg.CmdsMax = 40
	d := st.dial(cfg)
	c := st.accept()
	c.window = 1<<31 - 1
	c.logIn()
	s := d.session()
	var tasks []*running
	for range 50 {
		tasks = append(tasks, start(t, s, noData()))
	}
	var cmds []*pdu.SCSICommand
	for range 40 {
		cmds = append(cmds, c.command())
	}
	c.quiet(s)
	for _, cmd := range cmds {
		c.respond(cmd)
	}
	for range 10 {
		c.respond(c.command())
	}
	for _, r := range tasks {
		r.succeeds()
	}
}

func TestFFP_3_3_WindowOfOne(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	c.window = 1
	c.logIn()
	s := d.session()
	var tasks []*running
	for range 4 {
		tasks = append(tasks, start(t, s, noData()))
	}
	for range tasks {
		cmd := c.command()
		c.window = 0 // the command occupies it until it is answered
		c.quiet(s)
		c.window = 1
		c.respond(cmd)
	}
	for _, r := range tasks {
		r.succeeds()
	}
}

// A window that the target says to shrink does not: MaxCmdSN only goes up (RFC 7143
// section 4.2.2.1).
func TestFFP_3_4_WindowDoesNotShrink(t *testing.T) {
	s, c := operational(t, nil)
	c.sendAsIs(&pdu.NOPIn{
		InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag,
		StatSN: c.statSN, ExpCmdSN: c.expCmdSN, MaxCmdSN: c.expCmdSN - 1,
	})
	c.alive(s)
}

// Retry is for recovery within a connection, which error recovery level 0 does not
// have: a command that is not answered is aborted, and never sent twice.
func TestFFP_4_2_NoRetryOnLevelZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(nil)
		task := noData()
		task.Timeout = 5 * time.Second
		r := start(t, s, task)
		cmd := c.command()
		req := expect[*pdu.TaskManagementRequest](c)
		if req.Function != pdu.TaskAbortTask || req.ReferencedTaskTag != cmd.InitiatorTaskTag || req.RefCmdSN != cmd.CmdSN {
			t.Errorf("%+v", req)
		}
		c.send(&pdu.TaskManagementResponse{InitiatorTaskTag: req.InitiatorTaskTag})
		r.fails(initiator.ErrTimeout)
		c.quiet(s)
	})
}

// Each request acknowledges the statuses that came before it.
func TestFFP_5_1_ExpStatSN(t *testing.T) {
	s, c := operational(t, nil)
	for range 4 {
		r := start(t, s, readTask(512))
		cmd := c.command()
		if cmd.ExpStatSN != c.statSN {
			t.Errorf("ExpStatSN %d, want %d", cmd.ExpStatSN, c.statSN)
		}
		c.send(lastDataIn(cmd, 0, 0, make([]byte, 512))) // a status in a Data-In counts
		r.succeeds()
		c.alive(s)
	}
}

// A StatSN that is not the next one means that a status was lost: on error recovery
// level 0 the session recovers.
func TestFFP_5_2_StatSNGap(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, replayed(noData()))
	c.statSN++
	c.respond(c.command())
	c.ended()
	c2 := c.st.accept()
	c2.logIn()
	c2.respond(c2.command())
	r.succeeds()
}

// Data-In PDUs carry DataSN 0, 1, 2, …; a gap means that data were lost.
func TestFFP_6_1_DataSN(t *testing.T) {
	s, c := operational(t, nil)
	data := pattern(6, 2048)
	r := start(t, s, replayed(readTask(2048)))
	cmd := c.command()
	for i := range 3 {
		c.send(dataIn(cmd, uint32(i), i*512, data[i*512:][:512]))
	}
	c.send(lastDataIn(cmd, 3, 1536, data[1536:]))
	r.succeeds()
	if string(r.DataIn) != string(data) {
		t.Error("data changed")
	}
	r = start(t, s, replayed(readTask(2048)))
	cmd = c.command()
	c.send(dataIn(cmd, 0, 0, data[:512]), dataIn(cmd, 2, 512, data[512:1024]))
	c.ended()
	c2 := c.st.accept()
	c2.logIn()
	c2.send(lastDataIn(c2.command(), 0, 0, data))
	r.succeeds()
}

// All numbers wrap at 2^32, and the comparisons are those of RFC 1982.
func TestFFP_27_1_CmdSNWraps(t *testing.T) {
	s, c := operational(t, func(cfg *initiator.Config) { cfg.InitialCmdSN = 0xfffffffd })
	for range 6 {
		c.alive(s)
		c.quiet(s)
	}
	if c.expCmdSN != 3 {
		t.Errorf("next CmdSN %d, want 3", c.expCmdSN)
	}
}

func TestFFP_27_2_StatSNWraps(t *testing.T) {
	st := newStation(t)
	d := st.dial(st.config())
	c := st.accept()
	c.statSN, c.expStatSN = 0xfffffffd, 0xfffffffd
	c.logIn()
	s := d.session()
	for range 6 {
		c.alive(s)
	}
	c.quiet(s)
	if got := c.header.ExpStatSN(); got != c.statSN-1 {
		t.Errorf("ExpStatSN %d in the last ping, want %d", got, c.statSN-1)
	}
}

// A window that reaches over the wrap is neither closed nor endless.
func TestFFP_27_3_WindowAcrossTheWrap(t *testing.T) {
	st := newStation(t)
	cfg := st.config()
	cfg.InitialCmdSN = 0xfffffffe
	d := st.dial(cfg)
	c := st.accept()
	c.window = 4 // fffffffe, ffffffff, 0, 1
	c.logIn()
	s := d.session()
	var tasks []*running
	for range 6 {
		tasks = append(tasks, start(t, s, noData()))
	}
	var cmds []*pdu.SCSICommand
	for range 4 {
		cmds = append(cmds, c.command())
	}
	if last := cmds[3].CmdSN; last != 1 {
		t.Errorf("the fourth CmdSN is %#x, want 1", last)
	}
	c.window = 0
	c.quiet(s)
	c.window = 2
	for _, cmd := range cmds {
		c.respond(cmd)
	}
	c.respond(c.command())
	c.respond(c.command())
	for _, r := range tasks {
		r.succeeds()
	}
}
