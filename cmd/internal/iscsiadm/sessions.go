package iscsiadm

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// selectSessions returns those of l that m means: by the portal of their
// record, which a redirect does not change.
func (c *command) selectSessions(l []control.Session, m nodedb.Match) ([]control.Session, error) {
	keys := make([]nodedb.NodeKey, len(l))
	for i := range l {
		keys[i] = keyOf(&l[i])
	}
	m, err := m.Resolve(c.ctx, c.Resolver, keys)
	if err != nil {
		return nil, err
	}
	var out []control.Session
	for i := range l {
		if m.Matches(keys[i]) {
			out = append(out, l[i])
		}
	}
	return out, nil
}

// running reports whether there is a session that m means, or a login to one.
func (c *command) running(m nodedb.Match) (bool, error) {
	l, err := c.sessions(control.SessionQuery{Pending: true})
	if err != nil {
		return false, err
	}
	l, err = c.selectSessions(l, m)
	return len(l) > 0, err
}

// maxAtOnce bounds the requests that wait at the daemon at the same time. It
// is high, because a portal that does not answer must not hold up others.
const maxAtOnce = 512

// each calls fn for 0 to n-1, all at once, and waits for all of them.
func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxAtOnce)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			fn(i)
		})
	}
	wg.Wait()
}

// start is each without the wait: it calls fn in n goroutines and returns a
// channel for every one of them, which gets its result. Whoever calls it
// receives from all of them.
func start[T any](n int, fn func(i int) T) []chan T {
	results := make([]chan T, n)
	slots := make(chan struct{}, maxAtOnce)
	for i := range n {
		results[i] = make(chan T, 1)
		go func() { // ends when the daemon has answered or c.ctx has ended
			slots <- struct{}{}
			results[i] <- fn(i)
			<-slots
		}()
	}
	return results
}

// safeLogoutEnv, set to Yes, asks for what iscsid.safe_logout asks for, for this
// command: the units of the system leave alone what is in use.
const safeLogoutEnv = "ISCSI_SAFE_LOGOUT"

// logoutSessions ends the sessions and prints what becomes of each. The code
// is that of the last failure, as in open-iscsi.
func (c *command) logoutSessions(l []control.Session) error {
	if len(l) == 0 {
		return c.fail(errcode.NoObjsFound, "No matching sessions found")
	}
	for i := range l {
		c.printf("Logging out of session %s\n", sessionText(&l[i]))
	}
	_ = c.out.Flush()
	safe := c.Getenv(safeLogoutEnv) == "Yes"
	p := c.newProgress("Logging out", len(l))
	defer p.close()
	results := start(len(l), func(i int) error {
		defer p.step()
		return c.daemon().Logout(c.ctx, l[i].SID, safe)
	})
	code := errcode.Success
	for i, r := range results {
		err := await(p, r)
		if err == nil {
			c.printf("Logout of %s successful.\n", sessionText(&l[i]))
			_ = c.out.Flush()
			continue
		}
		if c.ctx.Err() != nil {
			continue // the command ends, which is said once
		}
		code = errcode.Of(err)
		c.errorf("Could not logout of %s.", sessionText(&l[i]))
		c.initiatorError(err)
	}
	if err := c.interrupted(); err != nil {
		return err
	}
	if code != errcode.Success {
		return c.fail(code, "Could not logout of all requested sessions")
	}
	return nil
}

// initiatorError prints the code and text of what the daemon answered, and
// then, if it said more, that.
func (c *command) initiatorError(err error) {
	code := errcode.Of(err)
	c.errorf("initiator reported error (%d - %s)", int(code), code)
	var e *control.Error
	switch {
	case errors.As(err, &e):
		if e.Detail != "" && e.Detail != e.Message {
			c.hintf("%s", oneLine(e.Detail))
		}
		if e.Hint != "" {
			c.hintf("%s", oneLine(e.Hint))
		}
	default:
		c.hintf("%s", oneLine(err.Error()))
	}
}

// interrupted returns the error of a command that ^C ended, nil for others.
func (c *command) interrupted() error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	return nil
}

// rescanSessions looks for changed logical units on all sessions at once.
func (c *command) rescanSessions(l []control.Session) error {
	if len(l) == 0 {
		return c.fail(errcode.NoObjsFound, "No session found.")
	}
	for i := range l {
		c.printf("Rescanning session %s\n", sessionText(&l[i]))
	}
	_ = c.out.Flush()
	p := c.newProgress("Rescanning", len(l))
	results := start(len(l), func(i int) error {
		defer p.step()
		_, err := c.daemon().Rescan(c.ctx, l[i].SID)
		return err
	})
	errs := make([]error, len(l))
	for i, r := range results {
		errs[i] = await(p, r)
	}
	p.close()
	return c.sessionErrors(l, errs)
}

// statsOf prints the counters of sessions.
func (c *command) statsOf(l []control.Session) error {
	if len(l) == 0 {
		return c.fail(errcode.NoObjsFound, "No session found.")
	}
	stats := make([]*control.Stats, len(l))
	errs := make([]error, len(l))
	each(len(l), func(i int) { stats[i], errs[i] = c.daemon().Stats(c.ctx, l[i].SID) })
	if c.req.json {
		if err := c.printJSON(jsonStatsOf(l, stats)); err != nil {
			return err
		}
	} else {
		for i := range l {
			if stats[i] != nil {
				c.printStats(&l[i], stats[i])
			}
		}
	}
	return c.sessionErrors(l, errs)
}

// sessionErrors reports what failed for each session, then for all.
func (c *command) sessionErrors(l []control.Session, errs []error) error {
	if err := c.interrupted(); err != nil {
		return err
	}
	code := errcode.Success
	for i, err := range errs {
		// A session that ended in the meantime is no failure.
		if err == nil || errcode.Of(err) == errcode.SessNotFound {
			continue
		}
		if code == errcode.Success {
			code = errcode.Of(err)
		}
		c.errorf("session %s: %s", sessionText(&l[i]), oneLine(err.Error()))
	}
	if code != errcode.Success {
		return c.fail(code, "Could not execute operation on all sessions: %s", code)
	}
	return nil
}

// jsonStats are the counters of a session in JSON output.
type jsonStats struct {
	SID    int            `json:"sid"`
	Target string         `json:"target"`
	Portal control.Portal `json:"portal"`
	Stats  *control.Stats `json:"stats"`
}

func jsonStatsOf(l []control.Session, stats []*control.Stats) []jsonStats {
	out := make([]jsonStats, 0, len(l))
	for i := range l {
		if stats[i] != nil {
			out = append(out, jsonStats{l[i].SID, l[i].Target, l[i].Persistent, stats[i]})
		}
	}
	return slices.Clip(out)
}
