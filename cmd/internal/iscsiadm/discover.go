package iscsiadm

import (
	"errors"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// discover asks the place that d names for its targets through every
// interface that is wanted, brings the node records in step, prints what was
// found and logs in to it if that is wanted, too.
func (c *command) discover(d *nodedb.Discovery) error {
	ifaces, err := c.discoveryIfaces()
	if err != nil {
		return err
	}
	me, err := nodedb.EnsureInitiatorName(c.ctx, c.Paths.InitiatorName)
	if err != nil {
		c.report(err)
		c.errorf("Cannot perform discovery. Initiatorname required.")
		return c.discoveryFailed(d.Key().Type, errcode.Of(err))
	}
	var found []nodedb.Found
	var failed []string
	code := errcode.Success
	for _, i := range ifaces {
		portals, icode := c.ask(d, i, me)
		if err := c.interrupted(); err != nil {
			return err
		}
		if icode != errcode.Success {
			// One interface of several may have no way to the portal.
			if len(ifaces) == 1 || !unreachable(icode) {
				return c.discoveryFailed(d.Key().Type, icode)
			}
			code, failed = icode, append(failed, i.Name())
			continue
		}
		for _, p := range portals {
			found = append(found, nodedb.Found{
				Target: p.Target, Address: p.Portal.Host, Port: portOf(p.Portal), TPGT: p.Portal.TPGT, Iface: i,
			})
		}
	}
	if len(failed) == len(ifaces) {
		return c.discoveryFailed(d.Key().Type, code)
	}
	return c.applyFound(d.Key(), found, failed)
}

// unreachable reports whether a code says that there is no way to a portal.
func unreachable(code errcode.Code) bool {
	return code == errcode.Trans || code == errcode.TransTimeout || code == errcode.PDUTimeout
}

func portOf(p initiator.Portal) int {
	if p.Port == 0 {
		return initiator.DefaultPort
	}
	return int(p.Port)
}

// ask asks through one interface.
func (c *command) ask(d *nodedb.Discovery, i *nodedb.Iface, me nodedb.Initiator) ([]initiator.DiscoveredPortal, errcode.Code) {
	if name := i.InitiatorName(); name != "" {
		me.Name = name
	}
	if d.Key().Type == nodedb.ISNS {
		return c.askISNS(d.Key(), me)
	}
	return c.sendTargets(d, i, me)
}

// discoveryFailed prints the last line of a discovery that failed.
func (c *command) discoveryFailed(typ nodedb.DiscoveryType, code errcode.Code) error {
	name := "SendTargets"
	if typ == nodedb.ISNS {
		name = "iSNS"
	}
	return c.fail(code, "Could not perform %s discovery: %s", name, code)
}

// discoveryIfaces returns the interfaces to discover through: those of -I,
// else all that the user has defined, else the default one.
func (c *command) discoveryIfaces() ([]*nodedb.Iface, error) {
	var out []*nodedb.Iface
	var missing []string
	err := c.view(func(tx *nodedb.Tx) error {
		out, missing = nil, nil
		for _, name := range c.req.ifaces {
			i, err := tx.Iface(name)
			if err != nil {
				missing = append(missing, name)
				continue
			}
			out = append(out, i)
		}
		if len(c.req.ifaces) > 0 {
			return nil
		}
		for _, i := range tx.UserIfaces() {
			if i.Transport() == "tcp" {
				out = append(out, i)
			}
		}
		if len(out) == 0 {
			i, err := tx.Iface(nodedb.DefaultIface)
			if err != nil {
				return err
			}
			out = append(out, i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, name := range missing {
		c.errorf("Could not read iface info for %s. Make sure an iface config with the file name and iface.iscsi_ifacename %[1]s is in the database.", oneLine(name))
	}
	if len(out) == 0 {
		return nil, exit(errcode.NoObjsFound)
	}
	return out, nil
}

// applyFound changes the node records as -o says, prints what was found, and
// logs in to it with -l.
func (c *command) applyFound(key nodedb.DiscoveryKey, found []nodedb.Found, failedIfaces []string) error {
	var res *nodedb.ApplyResult
	conf, err := c.defaults()
	if err != nil {
		return err
	}
	if c.req.op&opNonpersistent == 0 {
		used, err := c.inUse()
		if err != nil {
			return err
		}
		o := nodedb.ApplyOptions{Ops: nodeOps(c.req.op), Config: conf, InUse: used, KeepIfaces: failedIfaces}
		err = c.update(func(tx *nodedb.Tx) (err error) {
			res, err = tx.ApplyDiscovery(key, found, o)
			return err
		})
		if err != nil {
			return err
		}
	}
	refs := validRefs(found)
	if len(refs) == 0 {
		return c.fail(errcode.NoObjsFound, "No portals found")
	}
	switch {
	case c.req.json:
		err = c.printJSON(jsonRefs(refs))
	case c.req.level > 0:
		c.printRefTree(refs)
	default:
		c.printRefs(refs)
	}
	if err != nil {
		return err
	}
	if res != nil {
		for _, e := range res.Skipped {
			c.errorf("ignoring what was found: %s", oneLine(e.Error()))
		}
		for _, e := range res.InUse {
			c.errorf("%v", e)
		}
		for _, r := range res.Reset {
			c.debugf(1, "settings of %s are now those of iscsid.conf", nodeText(r.Key))
		}
	}
	if !c.req.login {
		return nil
	}
	nodes, err := c.foundNodes(conf, key, found)
	if err != nil {
		return err
	}
	code, err := c.loginCode(nodes, loginOptions{})
	if err != nil {
		return err
	}
	return exit(code)
}

// nodeOps returns what -o does to node records.
func nodeOps(op ops) nodedb.DiscoveryOps {
	var o nodedb.DiscoveryOps
	if op&opNew != 0 {
		o |= nodedb.OpNew
	}
	if op&opUpdate != 0 {
		o |= nodedb.OpUpdate
	}
	if op&opDelete != 0 {
		o |= nodedb.OpDelete
	}
	return o
}

// validRefs returns what was found in a form to print, without what has no
// valid name: names come from the wire.
func validRefs(found []nodedb.Found) []nodedb.NodeRef {
	refs := make([]nodedb.NodeRef, 0, len(found))
	for i := range found {
		if k := foundKey(&found[i]); k.Validate() == nil {
			refs = append(refs, nodedb.NodeRef{NodeKey: k, TPGT: found[i].TPGT})
		}
	}
	return refs
}

func foundKey(f *nodedb.Found) nodedb.NodeKey {
	return nodedb.NodeKey{Target: f.Target, Address: f.Address, Port: f.Port, Iface: f.Iface.Name()}
}

// foundNodes returns the records of what was found, or, where nothing has
// been stored, records as they would be.
func (c *command) foundNodes(conf *nodedb.Config, key nodedb.DiscoveryKey, found []nodedb.Found) ([]*nodedb.Node, error) {
	var nodes []*nodedb.Node
	err := c.view(func(tx *nodedb.Tx) error {
		nodes = nil
		seen := make(map[nodedb.NodeKey]bool, len(found))
		for i := range found {
			f := &found[i]
			k := foundKey(f)
			if seen[k] || k.Validate() != nil {
				continue
			}
			seen[k] = true
			if n, err := tx.Node(k); err == nil {
				nodes = append(nodes, n)
				continue
			}
			n, err := nodedb.NewNode(conf, k, f.TPGT)
			if err != nil {
				return err
			}
			n.SetIface(f.Iface)
			n.SetDiscovery(key)
			nodes = append(nodes, n)
		}
		return nil
	})
	return nodes, err
}

// askISNS asks an iSNS server.
func (c *command) askISNS(key nodedb.DiscoveryKey, me nodedb.Initiator) ([]initiator.DiscoveredPortal, errcode.Code) {
	if c.DiscoverISNS == nil {
		return nil, errcode.ISNSUnavailable
	}
	portals, err := c.DiscoverISNS(c.ctx, ISNSConfig{
		InitiatorName: me.Name,
		Server:        initiator.Portal{Host: key.Address, Port: uint16(key.Port)},
	})
	if err == nil {
		return portals, errcode.Success
	}
	if c.interrupted() == nil {
		c.errorf("iSNS discovery failed: %s", oneLine(err.Error()))
	}
	var coded errcode.Coder
	if errors.As(err, &coded) && coded.ISCSICode() == errcode.ISNSUnavailable {
		return nil, errcode.ISNSUnavailable
	}
	return nil, errcode.ISNSQuery
}
