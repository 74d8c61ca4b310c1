package iscsiadm

import (
	"errors"
	"strings"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/portal"
	"github.com/goiscsi/goiscsi/nodedb"
)

// updateNodes sets fields in all records that m means, in one transaction:
// either all of them are changed or none.
func (c *command) updateNodes(m nodedb.Match) error {
	if err := c.noJSON(); err != nil {
		return err
	}
	if len(c.req.params) == 0 {
		return c.fail(errcode.Inval, "update requires name and value")
	}
	params, err := c.params()
	if err != nil {
		return err
	}
	transport := false
	for _, p := range params {
		transport = transport || p.Name == nodedb.FieldIfaceTransport || p.Name == "node.transport_name"
		if strings.HasPrefix(p.Name, "iface.") && p.Name != nodedb.FieldIfaceTransport {
			return c.fail(errcode.Inval, "Cannot modify %s. Use iface mode to update this value.", oneLine(p.Name))
		}
	}
	if transport {
		if running, err := c.running(m); err != nil {
			return err
		} else if running {
			return c.fail(errcode.SessExists, "Cannot modify node/iface transport name while a session is using it. Log out the session then update record.")
		}
	}
	if m, err = c.resolved(m); err != nil {
		return err
	}
	// What is to be printed is kept until the transaction is over: nothing
	// may hold up others while we have the database for ourselves.
	var lines []string
	found, failed := false, errcode.Success
	err = c.update(func(tx *nodedb.Tx) error {
		lines, found, failed = nil, false, errcode.Success
		for _, n := range tx.Nodes(m) {
			found = true
			warnings, err := n.Apply(params)
			lines = append(lines, warnings...)
			if err != nil {
				lines = append(lines, nodedb.Lines(err)...)
				failed = errcode.Of(err)
				continue
			}
			if err := tx.PutNode(n); err != nil {
				return err
			}
		}
		if failed != errcode.Success || !found {
			return errNothingChanged
		}
		return nil
	})
	return c.changed(found, failed, lines, err)
}

// errNothingChanged takes back a transaction in which a record failed.
var errNothingChanged = errors.New("nothing changed")

// changed reports the result of an operation on several records.
func (c *command) changed(found bool, failed errcode.Code, lines []string, err error) error {
	if err != nil && !errors.Is(err, errNothingChanged) {
		return err
	}
	for _, l := range lines {
		c.errorf("%s", oneLine(l))
	}
	switch {
	case !found:
		return c.fail(errcode.NoObjsFound, "No records found")
	case failed != errcode.Success:
		return c.fail(failed, "Could not execute operation on all records: %s", failed)
	}
	return nil
}

// deleteNodes removes the records that m means, except those that a session
// is using.
func (c *command) deleteNodes(m nodedb.Match) error {
	if err := c.noJSON(); err != nil {
		return err
	}
	used, err := c.inUse()
	if err != nil {
		return err
	}
	if m, err = c.resolved(m); err != nil {
		return err
	}
	var lines []string
	found, failed := false, errcode.Success
	err = c.update(func(tx *nodedb.Tx) error {
		lines, found, failed = nil, false, errcode.Success
		for _, ref := range tx.NodeRefs(m) {
			found = true
			if used(ref.NodeKey) {
				lines = append(lines, (&nodedb.InUseError{Key: ref.NodeKey}).Error())
				failed = errcode.SessExists
				continue
			}
			if err := tx.DeleteNode(ref.NodeKey); err != nil {
				return err
			}
		}
		if !found {
			return errNothingChanged
		}
		return nil
	})
	return c.changed(found, failed, lines, err)
}

// newNodes makes records: one for -T and -p, or, without both, one for each
// record there is that m means apart from the interface, bound to that
// interface.
func (c *command) newNodes(m nodedb.Match) error {
	if err := c.noJSON(); err != nil {
		return err
	}
	conf, err := c.defaults()
	if err != nil {
		return err
	}
	name := m.Iface
	if name == "" {
		name = nodedb.DefaultIface
	}
	iface, err := c.iface(name)
	if err != nil {
		return err
	}
	if m.Target != "" && m.Address != "" {
		return c.newNode(conf, m, iface)
	}
	m.Iface = ""
	if m, err = c.resolved(m); err != nil {
		return err
	}
	var added []*nodedb.Node
	err = c.update(func(tx *nodedb.Tx) error {
		added = nil
		for _, n := range portals(tx.Nodes(m)) {
			fresh, err := nodedb.NewNode(conf, nodedb.NodeKey{Target: n.Target(), Address: n.Address(), Port: n.Port(), Iface: name}, n.TPGT())
			if err != nil {
				return err
			}
			fresh.SetIface(iface)
			fresh.SetDiscovery(n.Discovery())
			if err := tx.PutNode(fresh); err != nil {
				return err
			}
			added = append(added, fresh)
		}
		if len(added) == 0 {
			return errNothingChanged
		}
		return nil
	})
	if errors.Is(err, errNothingChanged) {
		return c.fail(errcode.NoObjsFound, "No records found")
	}
	if err != nil {
		return err
	}
	for _, n := range added {
		c.printAdded(n)
	}
	return nil
}

// portals returns one of the records of each portal.
func portals(nodes []*nodedb.Node) []*nodedb.Node {
	var out []*nodedb.Node
	seen := make(map[nodedb.NodeKey]bool, len(nodes))
	for _, n := range nodes {
		k := n.Key()
		k.Iface = ""
		if !seen[k] {
			seen[k] = true
			out = append(out, n)
		}
	}
	return out
}

// newNode makes the static record for -T and -p. If the portal is known, its
// tag is kept unless another one is given.
func (c *command) newNode(conf *nodedb.Config, m nodedb.Match, iface *nodedb.Iface) error {
	p := c.req.onePortal(portal.DefaultPort)
	key := nodedb.NodeKey{Target: m.Target, Address: m.Address, Port: m.Port, Iface: iface.Name()}
	n, err := nodedb.NewNode(conf, key, p.TPGT)
	if err != nil {
		return err
	}
	n.SetIface(iface)
	err = c.update(func(tx *nodedb.Tx) error {
		n.SetTPGT(p.TPGT)
		for _, ref := range tx.NodeRefs(nodedb.Match{Target: key.Target, Address: key.Address, Port: key.Port}) {
			if n.TPGT() < 0 {
				n.SetTPGT(ref.TPGT)
			}
		}
		return tx.PutNode(n)
	})
	if err != nil {
		return err
	}
	c.printAdded(n)
	return nil
}
