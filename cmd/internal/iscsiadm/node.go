package iscsiadm

import (
	"errors"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/portal"
	"github.com/goiscsi/goiscsi/nodedb"
)

// nodeMode is -m node. What is tried first wins, in the order of open-iscsi.
func (c *command) nodeMode() error {
	r := &c.req
	switch {
	case r.loginAll != "" && r.outAll != "":
		return c.fail(errcode.Inval, "Invalid parameters. Both loginall and logoutall passed in")
	case r.loginAll != "":
		return c.loginAll(r.loginAll)
	case r.outAll != "":
		return c.logoutAll(r.outAll)
	}
	if len(r.ifaces) > 1 {
		if err := c.moreThanOneIface("NODE"); err != nil {
			return err
		}
	}
	m := c.match()
	if m.Iface != "" {
		if _, err := c.iface(m.Iface); err != nil {
			return err
		}
	}
	switch {
	case r.op&opNew != 0 && !r.login && !r.logout:
		if !r.is(opNew) {
			return c.fail(errcode.Inval, "operation is not supported.")
		}
		return c.newNodes(m)
	case r.rescan, r.stats:
		l, err := c.matchingSessions(m, control.SessionQuery{})
		if err != nil {
			return err
		}
		if r.rescan {
			return c.rescanSessions(l)
		}
		return c.statsOf(l)
	case r.login && r.logout:
		return c.fail(errcode.Inval, "Invalid parameters. Both login and logout passed in")
	case (r.login || r.logout) && r.op != 0:
		return c.fail(errcode.Inval, "Invalid parameters. Login/logout and op passed in")
	case m.All() && !r.login && !r.logout && r.op == 0:
		return c.listNodes()
	case r.login:
		if err := c.noJSON(); err != nil {
			return err
		}
		return c.loginMatching(m)
	case r.logout:
		l, err := c.matchingSessions(m, control.SessionQuery{Pending: true})
		if err != nil {
			return err
		}
		return c.logoutSessions(l)
	}
	switch r.op {
	case 0, opShow:
		return c.showNodes(m)
	case opUpdate:
		return c.updateNodes(m)
	case opDelete:
		return c.deleteNodes(m)
	}
	return c.fail(errcode.Inval, "operation is not supported.")
}

// match returns what -T, -p and -I select. A portal without a port means the
// default one; its tag does not count.
func (c *command) match() nodedb.Match {
	m := nodedb.Match{Target: c.req.target}
	if c.req.portal != nil {
		p := c.req.onePortal(portal.DefaultPort)
		m.Address, m.Port = p.Host, p.Port
	}
	if len(c.req.ifaces) > 0 {
		m.Iface = c.req.ifaces[0]
	}
	return m
}

// moreThanOneIface says which of several interfaces counts.
func (c *command) moreThanOneIface(mode string) error {
	i, err := c.iface(c.req.ifaces[0])
	if err != nil {
		return err
	}
	if mode == "iface" {
		c.errorf("iface mode only accepts one interface. Using the first one %s.", i.Name())
		return nil
	}
	// Open-iscsi has not read the record yet when it prints these.
	c.errorf("%s mode only accepts one interface. Using the first one driver  hwaddress  ipaddress .", mode)
	return nil
}

// iface returns the interface of that name.
func (c *command) iface(name string) (*nodedb.Iface, error) {
	var i *nodedb.Iface
	err := c.view(func(tx *nodedb.Tx) (err error) {
		i, err = tx.Iface(name)
		return err
	})
	var nf *nodedb.NotFoundError
	if errors.As(err, &nf) {
		return nil, c.fail(errcode.NoMem, "Could not read iface info for %s.", oneLine(name))
	}
	return i, err
}

// resolved returns m so that it also matches other names of its host.
func (c *command) resolved(m nodedb.Match) (nodedb.Match, error) {
	db, err := c.database()
	if err != nil {
		return m, err
	}
	return db.Resolve(c.ctx, m, c.Resolver)
}

// nodes returns the records that m means.
func (c *command) nodes(m nodedb.Match) ([]*nodedb.Node, error) {
	m, err := c.resolved(m)
	if err != nil {
		return nil, err
	}
	var nodes []*nodedb.Node
	err = c.view(func(tx *nodedb.Tx) error {
		nodes = tx.Nodes(m)
		return nil
	})
	return nodes, err
}

// matchingSessions returns the sessions that m means, as they are listed.
func (c *command) matchingSessions(m nodedb.Match, q control.SessionQuery) ([]control.Session, error) {
	if err := c.noJSONBut(c.req.stats); err != nil {
		return nil, err
	}
	l, err := c.sessions(q)
	if err != nil {
		return nil, err
	}
	sortAsListed(l)
	return c.selectSessions(l, m)
}

// noJSONBut is noJSON unless what is printed can be had as JSON.
func (c *command) noJSONBut(ok bool) error {
	if ok {
		return nil
	}
	return c.noJSON()
}

// listNodes prints all records, without reading more of them than their keys.
func (c *command) listNodes() error {
	if c.req.level > 1 {
		return c.fail(errcode.Inval, "Invalid info level %d. Try 0 or 1.", c.req.level)
	}
	var refs []nodedb.NodeRef
	err := c.view(func(tx *nodedb.Tx) error {
		refs = tx.NodeRefs(nodedb.Match{})
		return nil
	})
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		return c.fail(errcode.NoObjsFound, "No records found")
	}
	switch {
	case c.req.json:
		return c.printJSON(jsonRefs(refs))
	case c.req.level == 1:
		c.printRefTree(refs)
	default:
		c.printRefs(refs)
	}
	return nil
}

// showNodes prints records in full.
func (c *command) showNodes(m nodedb.Match) error {
	nodes, err := c.nodes(m)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return c.fail(errcode.NoObjsFound, "No records found")
	}
	if c.req.json {
		return c.printJSON(jsonRecords(nodes, c.req.show))
	}
	for _, n := range nodes {
		if err := n.Print(c.out, nodedb.PrintOptions{ShowSecrets: c.req.show}); err != nil {
			return err
		}
	}
	return nil
}

// loginMatching logs in to the records that m means.
func (c *command) loginMatching(m nodedb.Match) error {
	nodes, err := c.nodes(m)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return c.fail(errcode.NoObjsFound, "No records found")
	}
	return c.login(nodes, loginOptions{noWait: c.req.noWait})
}
