package initiator

import "time"

// delay makes a piece wait until due.
func (q *ioQueue) delay(io *ioTask, due time.Time) {
	io.state, io.due = ioWaiting, due
	q.waiting.pushBack(io)
	q.setTimer(due)
}

// setTimer makes the timer run at t at the latest. A run that becomes due
// counts in running from here on, until it has ended or is taken back.
func (q *ioQueue) setTimer(t time.Time) {
	if q.v.closed || !q.timerAt.IsZero() && !t.Before(q.timerAt) {
		return
	}
	q.timerAt = t
	if !q.timer.Reset(time.Until(t)) {
		q.v.running.Add(1)
	}
}

// stopTimer takes back a run that is not due yet.
func (q *ioQueue) stopTimer() {
	q.timerAt = time.Time{}
	if q.timer.Stop() {
		q.v.running.Done()
	}
}

// onTimer sends the pieces whose time has come.
func (q *ioQueue) onTimer() {
	v := q.v
	defer v.running.Done()
	v.mu.Lock()
	q.timerAt = time.Time{}
	now := time.Now()
	due := q.waiting.extract(func(io *ioTask) bool { return !io.due.After(now) })
	for io := due.popFront(); io != nil; io = due.popFront() {
		q.makeReady(io)
	}
	for io := q.waiting.head; io != nil; io = io.next {
		q.setTimer(io.due)
	}
	q.dispatch()
	v.unlockAndComplete()
	v.flush()
}
