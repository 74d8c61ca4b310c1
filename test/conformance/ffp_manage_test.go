package conformance

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// manage has the session carry out a task management function.
func manage(s *initiator.Session, fn pdu.TaskFunction, lun pdu.LUN) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.TaskManagement(context.Background(), fn, lun) }()
	return done
}

// managed answers a task management request.
func (c *conn) managed(req *pdu.TaskManagementRequest, response pdu.TaskResponse) {
	c.t.Helper()
	c.send(&pdu.TaskManagementResponse{InitiatorTaskTag: req.InitiatorTaskTag, Response: response})
}

// The LUN is there where a function concerns one, and reserved where not; the
// referenced tag and RefCmdSN are reserved for all but ABORT TASK.
func TestFFP_20_1_TaskManagementFields(t *testing.T) {
	s, c := operational(t, nil)
	for fn, want := range map[pdu.TaskFunction]pdu.LUN{
		pdu.TaskAbortTaskSet: lun1, pdu.TaskClearACA: lun1, pdu.TaskClearTaskSet: lun1, pdu.TaskLogicalUnitReset: lun1,
		pdu.TaskTargetWarmReset: 0, pdu.TaskTargetColdReset: 0,
	} {
		done := manage(s, fn, lun1)
		req := expect[*pdu.TaskManagementRequest](c)
		if req.Function != fn || req.LUN != want || req.ReferencedTaskTag != pdu.ReservedTag || req.RefCmdSN != 0 || req.ExpDataSN != 0 || !req.Immediate {
			t.Errorf("%v: %+v", fn, req)
		}
		c.managed(req, pdu.TaskFunctionComplete)
		if err := <-done; err != nil {
			t.Errorf("%v: %v", fn, err)
		}
	}
}

// Every response but "function complete" is an error that tells which it was.
func TestFFP_20_2_TaskManagementResponses(t *testing.T) {
	s, c := operational(t, nil)
	for _, response := range []pdu.TaskResponse{
		pdu.TaskDoesNotExist, pdu.TaskLUNDoesNotExist, pdu.TaskStillAllegiant, pdu.TaskReassignNotSupported,
		pdu.TaskFunctionNotSupported, pdu.TaskAuthorizationFailed, pdu.TaskFunctionRejected, 99,
	} {
		done := manage(s, pdu.TaskLogicalUnitReset, lun1)
		c.managed(expect[*pdu.TaskManagementRequest](c), response)
		var failed *initiator.TMFError
		if err := <-done; !errors.As(err, &failed) || failed.Response != response {
			t.Errorf("error %v for response %v", err, response)
		}
	}
	c.alive(s)
}

// ABORT TASK names the task by its tag, its CmdSN and its LUN.
func TestFFP_20_3_AbortTask(t *testing.T) {
	s, c := operational(t, nil)
	c.alive(s)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Do(ctx, readTask(512)) }()
	cmd := c.command()
	cancel()
	req := expect[*pdu.TaskManagementRequest](c)
	if req.Function != pdu.TaskAbortTask || req.ReferencedTaskTag != cmd.InitiatorTaskTag || req.RefCmdSN != cmd.CmdSN || req.LUN != lun1 {
		t.Errorf("%+v for the task %+v", req, cmd)
	}
	if req.InitiatorTaskTag == cmd.InitiatorTaskTag {
		t.Error("the request has the tag of the task")
	}
	c.managed(req, pdu.TaskFunctionComplete)
	is(t, <-done, context.Canceled)
	c.alive(s)
}

// What the target still sends for an aborted task is ignored.
func TestFFP_20_4_LateAnswers(t *testing.T) {
	s, c := operational(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	task := readTask(512)
	done := make(chan error, 1)
	go func() { done <- s.Do(ctx, task) }()
	cmd := c.command()
	cancel()
	c.managed(expect[*pdu.TaskManagementRequest](c), pdu.TaskFunctionComplete)
	<-done
	for i := range task.DataIn {
		task.DataIn[i] = 0xaa
	}
	late := make([]byte, 512)
	c.send(dataIn(cmd, 0, 0, late), r2t(cmd, 0, 3, 0, 512), lastDataIn(cmd, 1, 0, late))
	c.respond(cmd)
	c.quiet(s) // no Data-Out in particular
	for _, b := range task.DataIn {
		if b != 0xaa {
			t.Fatal("the buffer was written after the task had been given back")
		}
	}
	if n := s.Info().Recoveries; n != 0 {
		t.Errorf("%d recoveries", n)
	}
}

// An answer that overtakes the abort ends the task well, and the abort finds no
// task.
func TestFFP_20_5_AnswerBeforeTheAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(nil)
		task := noData()
		task.Timeout = time.Second
		r := start(t, s, task)
		cmd := c.command()
		req := expect[*pdu.TaskManagementRequest](c)
		c.respond(cmd)
		c.managed(req, pdu.TaskDoesNotExist)
		r.finished()
		c.quiet(s)
		if n := s.Info().Recoveries; n != 0 {
			t.Errorf("%d recoveries", n)
		}
	})
}

// A task that cannot be aborted is ended by ever stronger means, each for as long
// as configured.
func TestFFP_20_6_Escalation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(func(cfg *initiator.Config) {
			cfg.Timeouts.Abort, cfg.Timeouts.LUReset, cfg.Timeouts.TargetReset = 3*time.Second, 5*time.Second, 7*time.Second
		})
		task := noData()
		task.Timeout = time.Second
		begin := time.Now()
		r := start(t, s, task)
		c.command()
		for _, want := range []struct {
			fn pdu.TaskFunction
			at time.Duration
		}{
			{pdu.TaskAbortTask, 1 * time.Second},
			{pdu.TaskLogicalUnitReset, 4 * time.Second},
			{pdu.TaskTargetWarmReset, 9 * time.Second},
		} {
			req := expect[*pdu.TaskManagementRequest](c)
			if at := time.Since(begin); req.Function != want.fn || at != want.at {
				t.Errorf("%v after %v, want %v after %v", req.Function, at, want.fn, want.at)
			}
		}
		c.ended()
		if at := time.Since(begin); at != 16*time.Second {
			t.Errorf("connection dropped after %v, want 16s", at)
		}
		r.fails(initiator.ErrTimeout)
		c = st.accept()
		c.logIn()
		c.alive(s)
	})
}

// A function that the target refuses escalates at once.
func TestFFP_20_7_EscalationOnRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(nil)
		task := noData()
		task.Timeout = time.Second
		r := start(t, s, task)
		c.command()
		begin := time.Now()
		c.managed(expect[*pdu.TaskManagementRequest](c), pdu.TaskFunctionNotSupported)
		req := expect[*pdu.TaskManagementRequest](c)
		if req.Function != pdu.TaskLogicalUnitReset || req.LUN != lun1 {
			t.Errorf("%+v", req)
		}
		c.managed(req, pdu.TaskFunctionComplete)
		r.fails(initiator.ErrTimeout)
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		c.quiet(s)
	})
}

// While ABORT TASK SET is under way the target may still ask for data, and must get
// it (RFC 7143 section 11.5.1).
func TestFFP_20_8_R2TDuringAbortTaskSet(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	r := start(t, s, writeTask(pattern(1, 512)))
	cmd := c.command()
	done := manage(s, pdu.TaskAbortTaskSet, lun1)
	req := expect[*pdu.TaskManagementRequest](c)
	c.send(r2t(cmd, 0, 1, 0, 512))
	c.burst(cmd, 1, 0, 512)
	c.managed(req, pdu.TaskFunctionComplete)
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.fails(initiator.ErrAborted)
}

// The functions end the tasks that they concern, and no others.
func TestFFP_20_9_TasksThatFunctionsEnd(t *testing.T) {
	for fn, all := range map[pdu.TaskFunction]bool{
		pdu.TaskAbortTaskSet: false, pdu.TaskClearTaskSet: false, pdu.TaskLogicalUnitReset: false,
		pdu.TaskTargetWarmReset: true, pdu.TaskTargetColdReset: true,
	} {
		t.Run(fn.String(), func(t *testing.T) {
			s, c := operational(t, nil)
			here := start(t, s, noData())
			c.command()
			other := noData()
			other.LUN = pdu.LUNFromNumber(2)
			there := start(t, s, other)
			cmd := c.command()
			done := manage(s, fn, lun1)
			c.managed(expect[*pdu.TaskManagementRequest](c), pdu.TaskFunctionComplete)
			if err := <-done; err != nil {
				t.Error(err)
			}
			here.fails(initiator.ErrAborted)
			if all {
				there.fails(initiator.ErrAborted)
				return
			}
			c.respond(cmd)
			there.succeeds()
		})
	}
}

// QUERY TASK and its like need a protocol level that is not negotiated (RFC 7144).
func TestFFP_20_10_FunctionsThatWereNotNegotiated(t *testing.T) {
	s, c := operational(t, nil)
	for _, fn := range []pdu.TaskFunction{pdu.TaskQueryTask, pdu.TaskQueryTaskSet, pdu.TaskQueryAsyncEvent} {
		if err := <-manage(s, fn, lun1); err == nil {
			t.Errorf("%v was carried out", fn)
		}
	}
	c.quiet(s)
}

// leave logs out in the background.
func leave(s *initiator.Session) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Logout(context.Background()) }()
	return done
}

// A logout closes the session; nothing follows it.
func TestFFP_21_1_Logout(t *testing.T) {
	s, c := operational(t, nil)
	c.alive(s)
	done := leave(s)
	req := c.logout()
	if req.Reason != pdu.LogoutSession || !req.Immediate || req.CID != 0 || req.InitiatorTaskTag == pdu.ReservedTag {
		t.Errorf("%+v", req)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Do(context.Background(), noData()); !errors.Is(err, initiator.ErrClosed) {
		t.Errorf("error %v after the logout", err)
	}
	c.st.unwanted()
}

// The session is closed whatever the target answers.
func TestFFP_21_2_LogoutResponses(t *testing.T) {
	for _, response := range []uint8{0, 1, 2, 3, 200} {
		s, c := operational(t, nil)
		done := leave(s)
		req := expect[*pdu.LogoutRequest](c)
		c.send(&pdu.LogoutResponse{InitiatorTaskTag: req.InitiatorTaskTag, Response: response, Time2Wait: 5, Time2Retain: 5})
		if err := <-done; err != nil {
			t.Errorf("response %d: %v", response, err)
		}
		c.ended()
		c.st.unwanted()
	}
}

// A logout that is not answered ends after the timeout.
func TestFFP_21_3_LogoutWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newPipeStation(t)
		s, c := st.logIn(func(cfg *initiator.Config) { cfg.Timeouts.Logout = 4 * time.Second })
		begin := time.Now()
		done := leave(s)
		expect[*pdu.LogoutRequest](c)
		c.ended()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("took %v, want 4s", took)
		}
	})
}

// Commands that were submitted before are finished first.
func TestFFP_21_4_LogoutWaitsForTasks(t *testing.T) {
	s, c := operational(t, nil)
	r := start(t, s, noData())
	cmd := c.command()
	done := leave(s)
	for s.Info().State != initiator.StateLoggingOut {
		c.quietly(s)
	}
	c.respond(cmd)
	r.succeeds()
	c.logout()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// quietly lets the session's goroutines run: it waits for a round trip that the
// session refuses or makes.
func (c *conn) quietly(s *initiator.Session) {
	c.t.Helper()
	ponged := ping(s)
	c.pong(expect[*pdu.NOPOut](c))
	<-ponged
}

// A task whose time is over gets no more data: open-iscsi's FastAbort. An R2T for it
// remains without an answer.
func TestFFP_20_12_R2TDuringAbortTask(t *testing.T) {
	s, c := operational(t, nil, "InitialR2T=Yes", "ImmediateData=No")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Do(ctx, writeTask(pattern(1, 512))) }()
	cmd := c.command()
	cancel()
	req := expect[*pdu.TaskManagementRequest](c)
	c.send(r2t(cmd, 0, 1, 0, 512))
	c.quiet(s)
	c.managed(req, pdu.TaskFunctionComplete)
	is(t, <-done, context.Canceled)
	c.alive(s)
}
