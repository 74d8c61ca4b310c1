package initiator

import (
	"fmt"
	"math"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// never is a time on the session's clock that does not come.
const never = time.Duration(math.MaxInt64)

// A keepalive is the state of the pings on a connection. Session.mu
// protects it.
type keepalive struct {
	pinged   bool
	at       time.Duration // when the ping was sent, or the socket last took something before it
	life     uint64        // conn.life then
	progress uint64        // sendQueue.progress then
	batch    uint64        // of the ping
}

// watch is the watcher: it does what is due by time, with one timer for the
// session.
func (s *Session) watch() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(s.tick())
		select {
		case <-timer.C:
		case <-s.watchWake:
		case <-s.ctx.Done():
			return
		}
	}
}

// wakeWatcher makes the watcher look again at what is due.
func (s *Session) wakeWatcher() {
	select {
	case s.watchWake <- struct{}{}:
	default:
	}
}

// wakeBy sees to it that the watcher wakes at a time. The caller holds mu.
func (s *Session) wakeBy(at time.Duration) {
	if at < s.nextWake {
		s.nextWake = at
		s.wakeWatcher()
	}
}

// tick does what is due and returns for how long nothing will be.
func (s *Session) tick() time.Duration {
	s.mu.Lock()
	now := s.now()
	next := now + time.Hour
	expired := false
	g := s.group
	if s.state == StateReconnecting {
		if expired = now >= s.failAt; expired {
			s.recoveryTimeout()
		} else {
			next = min(next, s.failAt)
		}
	}
	type death struct {
		c   *conn
		err error
	}
	var dead []death
	if g != nil {
		next = min(next, s.checkDeadlines(now))
		for _, c := range g.conns() {
			if c.parted.Load() {
				continue // it ends with the answer to its Logout
			}
			at, err := s.keepAlive(c, now)
			next = min(next, at)
			if err != nil {
				dead = append(dead, death{c, err})
			}
		}
		next = min(next, s.retryLost(g.lead(), now))
	}
	s.nextWake = next
	outage := now - s.lostAt
	s.mu.Unlock()
	if expired {
		s.log.Error("session recovery timed out: tasks fail until the target is back", "after", s.cfg.Timeouts.Replacement)
		s.emit(Event{Type: EventRecoveryTimeout, Outage: outage})
	}
	for _, d := range dead {
		d.c.fail(d.err)
	}
	if g != nil {
		g.flush()
	}
	return max(next-now, 0)
}

// checkDeadlines sees to tasks whose time is over and returns when the next one's
// will be. The caller holds mu.
func (s *Session) checkDeadlines(now time.Duration) time.Duration {
	next := never
	over := func(t *Task) bool {
		if t.deadline == 0 || t.cause != nil {
			return false
		}
		if t.deadline > now {
			next = min(next, t.deadline)
			return false
		}
		s.stats.TimeoutErrors++
		t.cause = withKind(ErrTimeout, fmt.Errorf("task not finished within %v", t.Timeout))
		return true
	}
	s.slots.each(func(sl *slot) {
		if sl.state == slotSent && over(sl.task) {
			s.startErrorHandler()
		}
	})
	for _, waiting := range []*taskList{&s.queue, &s.guards.probes} {
		if waiting.n == 0 {
			continue
		}
		late := waiting.remove(over)
		for t := late.popFront(); t != nil; t = late.popFront() {
			s.reject(t, t.cause)
		}
		s.checkDrained()
	}
	return next
}

// keepAlive pings a silent target and returns when to look again, or the error
// that fails the connection. The caller holds mu.
func (s *Session) keepAlive(c *conn, now time.Duration) (time.Duration, error) {
	interval, timeout := s.cfg.Timeouts.NoopInterval, s.cfg.Timeouts.NoopTimeout
	if interval < 0 || timeout < 0 {
		return never, nil
	}
	interval, timeout = max(interval, time.Millisecond), max(timeout, time.Millisecond)
	k := &c.keepalive
	life := c.life()
	if k.pinged && k.life != life {
		k.pinged = false
	}
	if !k.pinged {
		if c.group.isLeaving() {
			return never, nil // the logout has a timeout of its own
		}
		if due := time.Duration(c.last.Load()) + interval; due > now {
			return due, nil
		}
		x := s.open(c, pdu.OpNOPIn, nil) // what comes back is a sign of life, which is all that counts
		c.q.mu.Lock()
		batch, err := c.q.append(s.ping(c, x.tag, s.win.next))
		c.q.mu.Unlock()
		if err != nil {
			return never, err
		}
		*k = keepalive{pinged: true, at: now, life: life, progress: c.q.progress.Load(), batch: batch}
		if c.recovers() {
			// The answers to pings show what was lost, so that they go on
			// at their interval.
			return now + min(interval, timeout), nil
		}
		return now + timeout, nil
	}
	if p := c.q.progress.Load(); p != k.progress && c.q.done.Load() < k.batch {
		// The ping waits behind data that the target is still taking.
		k.progress, k.at = p, now
	}
	if now-k.at < timeout {
		return k.at + timeout, nil
	}
	s.stats.TimeoutErrors++
	return never, withKind(ErrTimeout, withKind(ErrTransport,
		fmt.Errorf("nothing received within %v after a ping", timeout)))
}
