package initiator

import (
	"context"
	"math"

	"github.com/goiscsi/goiscsi/pdu"
)

// Submit hands over a task. It is sent by the next Kick, or earlier together with
// others, when the session is connected, the target's command window is open, and
// fewer than CmdsMax commands are in flight; until then it waits its turn behind
// those submitted before. The result comes to t.Owner.
//
// Submit never waits for the network or the target. t.Owner must not be nil and
// must be comparable, a pointer for example.
func (s *Session) Submit(t *Task) {
	asOf := t.asOf
	t.reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(t); err != nil {
		s.reject(t, err)
		return
	}
	if s.guards.barred > 0 && s.guards.park(t) {
		return
	}
	if t.Timeout > 0 {
		if asOf == 0 {
			asOf = s.now()
		}
		t.deadline = asOf + t.Timeout
		s.wakeBy(t.deadline)
	}
	if g := s.group; g != nil && s.queue.n == 0 && s.ready() {
		s.issue(g.pick(), t)
		return
	}
	s.queue.pushBack(t)
}

// Kick sends what was submitted. It never waits for the network: what the socket
// does not take at once is sent by a goroutine of the session.
func (s *Session) Kick() {
	if g := s.live.Load(); g != nil {
		g.flush()
	}
}

// admit returns why a task cannot be accepted.
func (s *Session) admit(t *Task) error {
	switch s.state {
	case StateLoggedIn, StateReconnecting:
	default:
		return s.refusal()
	}
	switch {
	case uint64(t.reads()) > math.MaxUint32, uint64(len(t.DataOut)) > math.MaxUint32:
		return &ConfigError{Field: "Task", Reason: "more than 4 GiB of data"}
	case len(t.ExtendedCDB) > maxExtendedCDB:
		return &ConfigError{Field: "Task", Reason: "CDB too long"}
	}
	return nil
}

// maxExtendedCDB is the longest ExtendedCDB: SPC-5 ends CDBs at 260 bytes.
const maxExtendedCDB = 260 - 16

// ready reports whether a command can be sent now. The caller holds mu; there is
// a connection.
func (s *Session) ready() bool {
	return !s.hold && s.win.open() && !s.slots.full()
}

// dispatch sends tasks from the queue as far as possible, if g is the present
// group. The caller holds mu and has g flushed later.
func (s *Session) dispatch(g *group) {
	if s.group != g {
		return
	}
	for s.guards.probes.n > 0 && s.ready() {
		s.issue(g.pick(), s.guards.probes.popFront())
	}
	for s.queue.n > 0 && s.ready() {
		s.issue(g.pick(), s.queue.popFront())
	}
}

// issue gives a task a slot and a CmdSN and has its command sent. The caller
// holds mu.
func (s *Session) issue(c *conn, t *Task) {
	sl := s.slots.alloc(t)
	sl.conn, sl.cmdSN = c, s.win.take()
	c.busy++
	s.transmit(c, sl)
}

// transmit appends the command of a slot to the send queue, with immediate and
// unsolicited data as negotiated. The caller holds mu.
func (s *Session) transmit(c *conn, sl *slot) {
	p, t := &c.params, sl.task

	in, out := t.reads(), len(t.DataOut)
	expected := out
	if out == 0 {
		expected = in
	}
	// FirstBurstLength bounds what is sent unasked, immediate data included.
	burst := min(out, p.FirstBurstLength)
	immediate := 0
	if !p.NoImmediateData {
		immediate = min(burst, p.MaxXmitDataSegmentLength)
	}
	unasked := immediate
	if !p.InitialR2T {
		unasked = burst
	}
	attr := t.Attr
	if attr == pdu.AttrUntagged {
		attr = pdu.AttrSimple
	}

	q := &c.q
	q.mu.Lock()
	q.cmd = pdu.SCSICommand{
		Final:                      unasked == immediate,
		Read:                       in > 0,
		Write:                      out > 0,
		Attr:                       attr,
		LUN:                        t.LUN,
		InitiatorTaskTag:           sl.itt,
		ExpectedDataTransferLength: uint32(expected),
		CmdSN:                      sl.cmdSN,
		ExpStatSN:                  c.expStatSN.Load(),
		CDB:                        t.CDB,
		ExtendedCDB:                t.ExtendedCDB,
		Bidi:                       in > 0 && out > 0,
		Data:                       t.DataOut[:immediate],
	}
	if q.cmd.Bidi {
		q.cmd.BidiReadLength = uint32(in)
	}
	// Append cannot fail: admit has checked what the wire cannot carry.
	sl.cmdBatch, _ = q.append(&q.cmd)
	for sn, from := uint32(0), immediate; from < unasked; sn++ {
		n := min(unasked-from, p.MaxXmitDataSegmentLength)
		q.out = pdu.DataOut{
			Final:             from+n == unasked,
			LUN:               t.LUN,
			InitiatorTaskTag:  sl.itt,
			TargetTransferTag: pdu.ReservedTag,
			ExpStatSN:         c.expStatSN.Load(),
			DataSN:            sn,
			BufferOffset:      uint32(from),
			Data:              t.DataOut[from : from+n],
		}
		q.append(&q.out) //nolint:errcheck // as above
		s.stats.DataOutPDUs++
		from += n
	}
	sl.dataBatch = sl.cmdBatch
	q.mu.Unlock()
	sl.sent = unasked
	s.stats.SCSICmdPDUs++
}

// complete takes a finished task out of its slot and returns it, or nil if its
// data are still being sent: then it is given back by finishWritten. The caller
// holds mu and is the receiver of c.
func (s *Session) complete(c *conn, sl *slot) *Task {
	if len(sl.task.DataOut) > 0 && !c.q.await(sl) {
		sl.state = slotDraining
		return nil
	}
	return s.free(c, sl)
}

// free takes the task out of its slot. The caller holds mu.
func (s *Session) free(c *conn, sl *slot) *Task {
	if c.cur == sl {
		c.cur = nil
	}
	t := s.slots.release(sl)
	s.checkDrained()
	return t
}

// checkDrained tells whoever waits for it that no task is left. The caller holds
// mu.
func (s *Session) checkDrained() {
	if s.drained != nil && s.slots.inUse() == 0 && (s.hold || s.queue.n+s.guards.parked == 0) {
		close(s.drained)
		s.drained = nil
	}
}

// finishWritten gives back tasks whose data are written at last. Called by the
// sender of the connection.
func (s *Session) finishWritten(slots []*slot) {
	var tasks taskList
	s.mu.Lock()
	for _, sl := range slots {
		tasks.pushBack(s.slots.release(sl))
	}
	s.checkDrained()
	if g := s.group; g != nil {
		s.dispatch(g)
	}
	s.mu.Unlock()
	giveBack(tasks)
	s.Kick()
}

// reject fails a task that is in no slot. The failer gives it back, as that must
// not happen within Submit. The caller holds mu.
func (s *Session) reject(t *Task, err error) {
	if t.Err = err; !t.begun {
		t.Err = notSent(err)
	}
	s.failed.pushBack(t)
	if s.failer == nil {
		s.failer = make(chan struct{})
		go s.giveBackFailed(s.failer) // ends when there is no more to give back
	}
}

// giveBackFailed is the failer. It is a goroutine of its own since tasks may be
// submitted to a session whose other goroutines have ended.
func (s *Session) giveBackFailed(done chan struct{}) {
	defer close(done)
	for {
		s.mu.Lock()
		tasks := s.failed.take()
		if tasks.n == 0 {
			s.failer = nil
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		giveBack(tasks)
	}
}

// giveBack gives finished tasks to their owners. The caller holds no lock.
func giveBack(tasks taskList) {
	var last Completer
	for t := tasks.popFront(); t != nil; t = tasks.popFront() {
		if last != nil && last != t.Owner {
			last.Flush()
		}
		last = t.Owner
		last.TaskDone(t)
	}
	if last != nil {
		last.Flush()
	}
}

// Do carries out a task and waits for it. It returns t.Err: nil means that there
// is a status, not that it is GOOD. t.Owner is not used. When the context ends, the
// task is aborted, and Do returns, once the task's buffers are out of use, an error
// that wraps the context's cause; with a target that does not answer that takes
// until the timeouts for task management are over.
func (s *Session) Do(ctx context.Context, t *Task) error {
	w := &waiter{done: make(chan struct{}, 1)}
	owner := t.Owner
	t.Owner = w
	s.Submit(t)
	s.Kick()
	select {
	case <-w.done:
	case <-ctx.Done():
		s.abandon(t, context.Cause(ctx))
		<-w.done
	}
	t.Owner = owner
	return t.Err
}

// A waiter is the Completer of Do.
type waiter struct{ done chan struct{} }

func (w *waiter) TaskDone(*Task) { w.done <- struct{}{} }
func (w *waiter) Flush()         {}

// abandon makes a submitted task fail with cause: at once if it was not sent,
// otherwise after it has been aborted.
func (s *Session) abandon(t *Task, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dequeue(t) {
		s.reject(t, cause)
		s.checkDrained()
		return
	}
	s.slots.each(func(sl *slot) {
		if sl.task == t && sl.state == slotSent && t.cause == nil {
			t.cause = cause
			s.startErrorHandler()
		}
	})
}
