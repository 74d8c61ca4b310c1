package initiator

import (
	"context"
	"errors"
	"slices"

	"github.com/goiscsi/goiscsi/pdu"
)

// A guard sees to it that after a new login nothing goes to a logical unit
// that has not been found to be the one it was. docs/session.md has its states.
type guard struct {
	lun pdu.LUN

	// verify asks the unit through the port, which leads past the guard, who
	// it is. It returns nil if it is the same; an error that is ErrIdentity if
	// it is another one, after which the guard is gone; any other error if
	// there is no telling. The context ends with the connection; what is
	// returned then is ignored. It is called on a goroutine of the session,
	// never twice at a time.
	verify func(ctx context.Context, port taskPort) error

	// Session.mu protects what follows.
	checking bool
	gone     bool     // given up while checking: to be removed with the verdict
	parked   taskList // tasks that wait for the verdict
}

// guards are the guards of a session and what belongs to them. Session.mu
// protects them.
type guards struct {
	all    []*guard
	barred int      // guards that are checking
	parked int      // tasks that are parked
	probes taskList // tasks of verifications that were not sent; they go before the queue
	stop   context.CancelFunc
}

// errUnidentified is what tasks fail with when there was no telling whether
// their logical unit is the one it was.
var errUnidentified = errors.New("the logical unit was not identified after a new login")

// present returns the connections of the present login, nil if there are none.
func (s *Session) present() *group { return s.live.Load() }

// post sets up a guard. It returns false if the login is not the one of since any
// more, so that the caller cannot know that what it was told then still holds.
func (s *Session) post(g *guard, since *group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guards.all = append(s.guards.all, g)
	return s.group != nil && s.group == since
}

// dismiss removes a guard. While it is checking, it stays until the verdict, for
// the sake of the tasks that it has parked.
func (s *Session) dismiss(g *guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.gone = true; !g.checking {
		s.guards.remove(g)
	}
}

func (gs *guards) remove(g *guard) {
	gs.all = slices.DeleteFunc(gs.all, func(h *guard) bool { return h == g })
}

// of returns the guard that has to let a task pass, nil if there is none.
func (gs *guards) of(t *Task) *guard {
	if t.guard != nil {
		if t.guard.checking {
			return t.guard
		}
		return nil
	}
	for _, g := range gs.all {
		if g.checking && g.lun == t.LUN {
			return g
		}
	}
	return nil
}

// park keeps a task back if its unit is being verified, and reports whether it
// is.
func (gs *guards) park(t *Task) bool {
	g := gs.of(t)
	if g == nil {
		return false
	}
	t.deadline = 0
	g.parked.pushBack(t)
	gs.parked++
	return true
}

// bar closes all guards and parks what is queued for their units. The caller
// holds mu and has a new connection.
func (s *Session) bar() []*guard {
	gs := &s.guards
	if len(gs.all) == 0 {
		return nil
	}
	for _, g := range gs.all {
		g.checking = true
	}
	gs.barred = len(gs.all)
	queue := s.queue.take()
	for t := queue.popFront(); t != nil; t = queue.popFront() {
		if !gs.park(t) {
			s.queue.pushBack(t)
		}
	}
	return slices.Clone(gs.all)
}

// unbar opens all guards because the connection is lost: what is parked goes
// back into the queue. It returns the probes that were not answered. The caller
// holds mu.
func (s *Session) unbar() taskList {
	gs := &s.guards
	if gs.stop == nil {
		return taskList{}
	}
	gs.stop()
	gs.stop = nil
	var parked taskList
	for _, g := range gs.all {
		g.checking = false
		g.parked.prepend(&parked)
		parked = g.parked.take()
	}
	gs.all = slices.DeleteFunc(gs.all, func(g *guard) bool { return g.gone })
	gs.barred, gs.parked = 0, 0
	s.queue.prepend(&parked)
	probes := s.queue.remove(func(t *Task) bool { return t.probe })
	gs.probes.prepend(&probes)
	return gs.probes.take()
}

// verifyAll starts the verifications after a login; they end with it. The
// supervisor's.
func (s *Session) verifyAll(login *group, all []*guard) {
	if len(all) == 0 {
		return
	}
	ctx, stop := context.WithCancel(s.ctx)
	s.mu.Lock()
	s.guards.stop = stop // by unbar, the supervisor's as well
	s.mu.Unlock()
	for _, g := range all {
		s.verifying.Go(func() {
			err := g.verify(ctx, probePort{s, login})
			if ctx.Err() == nil {
				s.verified(login, g, err)
			}
		})
	}
}

// verified takes the verdict about a unit.
func (s *Session) verified(login *group, g *guard, err error) {
	s.mu.Lock()
	if s.group != login && s.suspended != login || !g.checking {
		s.mu.Unlock()
		return
	}
	gs := &s.guards
	g.checking = false
	gs.barred--
	tasks := g.parked.take()
	gs.parked -= tasks.n
	if g.gone || errors.Is(err, ErrIdentity) {
		gs.remove(g)
	}
	if err == nil {
		now := s.now()
		for t := tasks.head; t != nil; t = t.next {
			if t.Timeout > 0 {
				t.deadline = now + t.Timeout
				s.wakeBy(t.deadline)
			}
		}
		s.queue.prepend(&tasks)
		s.dispatch(login)
		s.mu.Unlock()
		login.flush()
		return
	}
	s.log.Warn("logical unit is not what it was, or does not say", "lun", g.lun, "err", err, "tasks", tasks.n)
	if !errors.Is(err, ErrIdentity) {
		err = withKind(errUnidentified, err)
	}
	for t := tasks.popFront(); t != nil; t = tasks.popFront() {
		if t.begun {
			s.reject(t, withKind(ErrInterrupted, err))
		} else {
			s.reject(t, err)
		}
	}
	s.checkDrained()
	s.mu.Unlock()
}

// dequeue takes a task that was not sent out of wherever it waits, and reports
// whether it was there. The caller holds mu.
func (s *Session) dequeue(t *Task) bool {
	same := func(q *Task) bool { return q == t }
	n := s.queue.remove(same).n + s.returned.remove(same).n + s.guards.probes.remove(same).n
	if s.guards.parked > 0 {
		for _, g := range s.guards.all {
			parked := g.parked.remove(same).n
			s.guards.parked -= parked
			n += parked
		}
	}
	return n > 0
}

// A probePort leads past the guards, within one login: when its connections are
// lost, its tasks fail with ErrInterrupted.
type probePort struct {
	s     *Session
	login *group
}

// Submit implements taskPort.
func (p probePort) Submit(t *Task) {
	t.reset()
	t.probe, t.Replay = true, false
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group != p.login && s.suspended != p.login {
		s.reject(t, interrupted(s.refusal()))
		return
	}
	if t.Timeout > 0 {
		t.deadline = s.now() + t.Timeout
		s.wakeBy(t.deadline)
	}
	if s.group != nil && s.guards.probes.n == 0 && s.ready() {
		s.issue(p.login.pick(), t)
		return
	}
	s.guards.probes.pushBack(t)
}

// Kick implements taskPort.
func (p probePort) Kick() { p.login.flush() }

// Do implements taskPort. It waits for the task whatever becomes of the
// context, which ends with the connection, as does the task.
func (p probePort) Do(_ context.Context, t *Task) error {
	w := &waiter{done: make(chan struct{}, 1)}
	t.Owner = w
	p.Submit(t)
	p.Kick()
	<-w.done
	return t.Err
}

// A guardedPort is a session to the owner of a guard: whatever is sent by it is
// for the guard's unit.
type guardedPort struct {
	*Session
	g *guard
}

// Do implements taskPort. (The tasks of Submit have their guard for good.)
func (p guardedPort) Do(ctx context.Context, t *Task) error {
	t.guard = p.g
	defer func() { t.guard = nil }()
	return p.Session.Do(ctx, t)
}
