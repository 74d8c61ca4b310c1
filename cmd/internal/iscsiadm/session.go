package iscsiadm

import (
	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// sessionMode is -m session.
func (c *command) sessionMode() error {
	if err := c.checkLook(); err != nil {
		return err
	}
	if c.req.sid > 0 {
		return c.oneSession()
	}
	switch {
	case c.req.op&opNew != 0:
		return c.fail(errcode.Inval, "session mode: Operation 'new' only allowed with specific session IDs")
	case c.req.rescan, c.req.stats:
		l, err := c.sessions(control.SessionQuery{})
		if err != nil {
			return err
		}
		sortAsListed(l)
		if c.req.rescan {
			return c.rescanSessions(l)
		}
		if c.req.watch && len(l) > 0 {
			return c.watch(func() ([]control.Session, error) { return c.sessions(control.SessionQuery{}) })
		}
		return c.statsOf(l)
	case c.req.logout && c.req.op != 0:
		return c.fail(errcode.Inval, "Invalid parameters. Login/logout and op passed in")
	case c.req.logout:
		return c.logoutAllSessions()
	}
	// Other operations without a session are ignored, as in open-iscsi:
	// "-m session -o show" is in use.
	return c.listSessions()
}

// listSessions prints all sessions at the level of -P.
func (c *command) listSessions() error {
	l, err := c.sessions(control.SessionQuery{Secrets: c.req.show})
	switch {
	case err != nil:
		return err
	case len(l) == 0:
		return c.fail(errcode.NoObjsFound, "No active sessions.")
	case c.req.level > 3:
		return c.fail(errcode.Inval, "Invalid info level %d. Try 0 - 3.", c.req.level)
	}
	return c.showSessions(l)
}

// showSessions prints sessions at the level of -P.
func (c *command) showSessions(l []control.Session) error {
	if c.req.json {
		return c.printJSON(l)
	}
	sortAsListed(l)
	if c.req.level <= 0 {
		c.printSessions(l)
		return nil
	}
	if c.req.level == 3 {
		c.printVersions()
	}
	c.printSessionTree(l, sessionLevel(c.req.level, c.req.show))
	return nil
}

// logoutAllSessions also cancels logins that are going on.
func (c *command) logoutAllSessions() error {
	l, err := c.sessions(control.SessionQuery{Pending: true})
	if err != nil {
		return err
	}
	sortAsListed(l)
	return c.logoutSessions(l)
}

// oneSession is session mode with -r. As in node mode what only looks wins
// over what logs out, and a logout with an operation is refused.
func (c *command) oneSession() error {
	s, err := c.session(c.req.sid, control.SessionQuery{Secrets: c.req.show})
	if err != nil {
		return err
	}
	one := []control.Session{*s}
	switch {
	case c.req.trace != "":
		return c.traceSession(s)
	case c.req.rescan:
		return c.rescanSessions(one)
	case c.req.watch:
		return c.watch(func() ([]control.Session, error) {
			s, err := c.daemon().Session(c.ctx, c.req.sid, control.SessionQuery{})
			if err != nil {
				return nil, err
			}
			return []control.Session{*s}, nil
		})
	case c.req.stats:
		return c.statsOf(one)
	case c.req.logout && c.req.is(opNew):
		return c.fail(errcode.Inval, "Invalid parameters. Both login and logout passed in")
	case c.req.logout && c.req.op != 0:
		return c.fail(errcode.Inval, "Invalid parameters. Login/logout and op passed in")
	case c.req.logout:
		return c.logoutSessions(one)
	case c.req.op == 0 && c.req.level > 3:
		return c.fail(errcode.Inval, "Invalid info level %d. Try 0 - 3.", c.req.level)
	case c.req.op == 0 && (c.req.level > 0 || c.req.json):
		return c.showSessions(one)
	}
	m := nodedb.MatchKey(keyOf(s))
	switch c.req.op {
	case opNew:
		return c.anotherSession(m)
	case 0, opShow:
		return c.showNodes(m)
	case opUpdate:
		return c.updateNodes(m)
	case opDelete:
		return c.deleteNodes(m)
	}
	return c.fail(errcode.Inval, "operation is not supported.")
}

// anotherSession logs in once more with the record of a session.
func (c *command) anotherSession(m nodedb.Match) error {
	nodes, err := c.nodes(m)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return c.fail(errcode.NoObjsFound, "No records found")
	}
	return c.login(nodes, loginOptions{another: true, noWait: c.req.noWait})
}
