package iscsiadm

import (
	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// loginAll is --loginall: the records of a startup group. Those with
// node.leading_login come last, one interface at a time, and only until their
// target has a session.
func (c *command) loginAll(word string) error {
	all, err := c.nodes(nodedb.Match{})
	if err != nil {
		return err
	}
	var normal, leading []*nodedb.Node
	for _, n := range all {
		switch {
		case !n.MatchesStartup(word):
		case n.Bool(nodedb.FieldLeadingLogin):
			leading = append(leading, n)
		default:
			normal = append(normal, n)
		}
	}
	if len(normal)+len(leading) == 0 {
		return c.fail(errcode.NoObjsFound, "No records found")
	}
	code := errcode.Success
	if len(normal) > 0 {
		if code, err = c.loginCode(normal, loginOptions{noWait: c.req.noWait}); err != nil {
			return err
		}
		if code != errcode.Success {
			c.errorf("Could not log into all portals")
		}
	}
	if len(leading) > 0 {
		missing, err := c.leadingLogins(leading)
		if err != nil {
			return err
		}
		if missing {
			c.errorf("Could not login all leading-login portals")
			if code == errcode.Success {
				code = errcode.FatalLogin
			}
		}
	}
	return exit(code)
}

// leadingLogins goes through the interfaces, the user's own by name and then
// the built-in default one, and logs in to those records of each whose target
// has no session yet. It reports whether a target is left without.
func (c *command) leadingLogins(nodes []*nodedb.Node) (missing bool, err error) {
	var ifaces []string
	err = c.view(func(tx *nodedb.Tx) error {
		ifaces = ifaces[:0]
		for _, i := range tx.Ifaces() {
			ifaces = append(ifaces, i.Name())
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for _, iface := range ifaces {
		have, err := c.targetsInSession()
		if err != nil {
			return false, err
		}
		var todo []*nodedb.Node
		for _, n := range nodes {
			if n.IfaceName() == iface && !have[n.Target()] {
				todo = append(todo, n)
			}
		}
		if len(todo) == 0 {
			continue
		}
		// What failed here may succeed on the next interface; the count at
		// the end decides.
		if err := c.login(todo, loginOptions{iface: iface}); c.interrupted() != nil {
			return false, err
		}
	}
	have, err := c.targetsInSession()
	if err != nil {
		return false, err
	}
	for _, n := range nodes {
		missing = missing || !have[n.Target()]
	}
	return missing, nil
}

func (c *command) targetsInSession() (map[string]bool, error) {
	l, err := c.sessions(control.SessionQuery{})
	if err != nil {
		return nil, err
	}
	have := make(map[string]bool, len(l))
	for i := range l {
		have[l[i].Target] = true
	}
	return have, nil
}

// logoutAll is --logoutall: the sessions whose record belongs to a startup
// group. Sessions that were there before the system was up, and those without
// a record, are left alone.
func (c *command) logoutAll(word string) error {
	l, err := c.sessions(control.SessionQuery{Pending: true})
	if err != nil {
		return err
	}
	sortAsListed(l)
	var todo []control.Session
	err = c.view(func(tx *nodedb.Tx) error {
		todo = todo[:0]
		for i := range l {
			n, err := tx.Node(keyOf(&l[i]))
			if err != nil {
				continue // no record
			}
			if n.Startup() == "onboot" || n.Discovery().Type == nodedb.Firmware ||
				n.Transport() != l[i].Iface.Transport || !n.MatchesStartup(word) {
				continue
			}
			todo = append(todo, l[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.logoutSessions(todo)
}
