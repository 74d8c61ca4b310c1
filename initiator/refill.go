package initiator

import (
	"context"
	"time"
)

// A refill makes connections in the place of lost ones while the session goes on
// with the others: one attempt after another, with the pauses of reconnect. It is
// the supervisor's; each attempt has a goroutine, for whose end stop waits.
type refill struct {
	s *Session
	g *group

	due    <-chan time.Time   // when the next attempt is due; nil: none is
	joined chan joined        // capacity 1: how the attempt under way ended; nil: none is
	cancel context.CancelFunc // of the attempt under way

	since          time.Duration // when connections began to be missing
	attempts       int           // since then
	connectTimeout time.Duration
}

// refusedLimit is for how long a target that refuses a connection for good is asked
// again: it may not be through yet with the one that it has just closed, which it
// counts ("too many connections", LIO).
const refusedLimit = 30 * time.Second

// A joined is the outcome of an attempt.
type joined struct {
	c   *conn
	err error
}

// plan sees to it that there is an attempt if a connection is missing.
func (r *refill) plan() {
	r.due = nil
	if len(r.g.conns()) >= r.g.want {
		r.attempts = 0
		return
	}
	if r.attempts == 0 {
		r.since, r.connectTimeout = r.s.now(), firstConnectTimeout
	}
	r.due = time.After(max(r.g.pause, r.g.notBefore-r.s.now()))
}

// begin starts an attempt.
func (r *refill) begin() {
	s, g := r.s, r.g
	s.mu.Lock()
	res := s.result
	res.cmdSN = s.win.next
	s.mu.Unlock()
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(s.ctx)
	r.due, r.joined = nil, make(chan joined, 1)
	cid, timeout, done := g.nextCID(), min(r.connectTimeout, s.cfg.Timeouts.Login), r.joined
	go func() { // ends with the attempt
		c, err := s.joinOne(ctx, g, &res, cid, timeout)
		done <- joined{c, err}
	}()
}

// take deals with the outcome of an attempt.
func (r *refill) take(j joined) {
	r.cancel()
	r.joined = nil
	s, g := r.s, r.g
	if j.err == nil {
		s.adopt(g, j.c)
		r.plan()
		return
	}
	r.attempts++
	if r.attempts&(r.attempts-1) == 0 {
		// The log hears of attempts 1, 2, 4, 8, …
		s.log.Warn("login of a further connection failed", "portal", g.portal.Address(), "connections", len(g.conns()), "of", g.want, "err", j.err, "attempts", r.attempts)
	}
	missing := s.now() - r.since
	if !retryable(j.err) && missing > refusedLimit {
		g.want = len(g.conns()) // the session has those that it has
		r.plan()
		return
	}
	r.connectTimeout = min(2*r.connectTimeout, s.cfg.Timeouts.Login)
	r.due = time.After(min(max(missing/outageShare, minRetryDelay), maxRetryDelay))
}

// stop ends the attempt under way. If it has succeeded, the connection is one of
// the session's.
func (r *refill) stop() {
	r.due = nil
	if r.joined == nil {
		return
	}
	r.cancel()
	j := <-r.joined
	if r.joined = nil; j.err == nil {
		r.s.adopt(r.g, j.c)
	}
}

// adopt makes a further connection one of the live ones.
func (s *Session) adopt(g *group, c *conn) {
	s.mu.Lock()
	c.born = s.now()
	g.add(c)
	n := len(g.conns())
	c.window(c.expCmdSN, c.maxCmdSN)
	s.dispatch(g)
	s.mu.Unlock()
	c.start()
	g.flush()
	s.wakeWatcher()
	s.log.Info("session has a connection again in the place of a lost one", "portal", c.portal.Address(), "cid", c.cid, "connections", n, "of", g.want)
	s.emit(Event{Type: EventConnectionAdded, Portal: c.portal, Connections: n})
}
