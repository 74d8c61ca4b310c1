package iscsiadm

import (
	"errors"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// ifaceMode is -m iface.
func (c *command) ifaceMode() error {
	r := &c.req
	switch r.submode {
	case "":
	case "ping":
		return c.ping()
	default:
		return c.fail(errcode.Inval, "Invalid submode %s", oneLine(r.submode))
	}
	if len(r.ifaces) > 1 {
		if err := c.moreThanOneIface("iface"); err != nil {
			return err
		}
	}
	name := ""
	if len(r.ifaces) > 0 {
		name = r.ifaces[0]
	}
	if r.op != 0 && r.op != opShow {
		if err := c.noJSON(); err != nil {
			return err
		}
	}
	switch r.op {
	case 0, opShow:
		return c.showIfaces(name)
	case opNew:
		return c.newIface(name)
	case opUpdate:
		return c.updateIface(name)
	case opDelete:
		return c.deleteIface(name)
	case opApply:
		return c.applyIface(name)
	case opApplyAll:
		if r.host == "" {
			return c.fail(errcode.Inval, "Applyall requires a valid host number or MAC passed in with the --host argument.")
		}
		return c.fail(errcode.OpNotSupp, "operation is for adapters that do iSCSI in hardware")
	}
	return c.fail(errcode.Inval, "operation is not supported.")
}

// ping is submode ping, with which an adapter that does iSCSI in hardware is
// told to ping.
func (c *command) ping() error {
	switch {
	case len(c.req.ifaces) == 0:
		return c.fail(errcode.Inval, "Ping requires iface.")
	case c.req.pingTo == "":
		return c.fail(errcode.Inval, "Ping requires destination ipaddress.")
	}
	if _, err := c.iface(c.req.ifaces[0]); err != nil {
		return err
	}
	c.printf("Ping 1 failed: %s\n", errcode.OpNotSupp)
	c.hintf("submode ping is for adapters that do iSCSI in hardware; use ping(8)")
	return exit(errcode.OpNotSupp)
}

// applyIface would configure an adapter. Interfaces of the system are not
// ours to configure, so nothing is left to do.
func (c *command) applyIface(name string) error {
	if name == "" {
		return c.fail(errcode.Inval, "Apply requires iface.")
	}
	err := c.view(func(tx *nodedb.Tx) error {
		_, err := tx.Iface(name)
		return err
	})
	var nf *nodedb.NotFoundError
	if errors.As(err, &nf) {
		return c.fail(errcode.IDBM, "Could not read iface %s (%d).", oneLine(name), errcode.IDBM)
	} else if err != nil {
		return err
	}
	c.errorf("Nothing to configure.")
	c.printf("%s applied.\n", name)
	return nil
}

// showIfaces prints one interface, the list of all, or the tree of what is
// bound to them.
func (c *command) showIfaces(name string) error {
	switch {
	case c.req.level > 1:
		return c.fail(errcode.Inval, "Invalid info level %d. Try 0 - 1.", c.req.level)
	case c.req.level == 1:
		return c.ifaceTree(name)
	case name != "":
		return c.showIface(name)
	}
	var ifaces []*nodedb.Iface
	err := c.view(func(tx *nodedb.Tx) error {
		ifaces = tx.Ifaces()
		return nil
	})
	if err != nil {
		return err
	}
	if c.req.json {
		return c.printJSON(jsonRecords(ifaces, c.req.show))
	}
	for _, i := range ifaces {
		c.printf("%s %s,%s,%s,%s,%s\n", i.Name(), i.Transport(), orEmpty(i.HWAddress()), orEmpty(i.IPAddress()),
			orEmpty(i.NetIface()), orEmpty(i.InitiatorName()))
	}
	return nil
}

func (c *command) showIface(name string) error {
	var i *nodedb.Iface
	err := c.view(func(tx *nodedb.Tx) (err error) {
		i, err = tx.Iface(name)
		return err
	})
	var nf *nodedb.NotFoundError
	switch {
	case errors.As(err, &nf):
		return c.fail(errcode.IDBM, "Could not read iface info for %s.", oneLine(name))
	case err != nil:
		return err
	case c.req.json:
		return c.printJSON(jsonRecords([]*nodedb.Iface{i}, c.req.show))
	}
	return i.Print(c.out, nodedb.PrintOptions{ShowSecrets: c.req.show})
}

// ifaceTree prints the records that are bound to each interface. Without any
// record there is nothing to print.
func (c *command) ifaceTree(name string) error {
	type node struct {
		name string
		refs []nodedb.NodeRef
	}
	var tree []node
	err := c.view(func(tx *nodedb.Tx) error {
		tree = nil
		byIface := make(map[string][]nodedb.NodeRef)
		for _, r := range tx.NodeRefs(nodedb.Match{}) {
			byIface[r.Iface] = append(byIface[r.Iface], r)
		}
		if len(byIface) == 0 {
			return nil
		}
		if name != "" {
			if _, err := tx.Iface(name); err != nil {
				return err
			}
		}
		for _, i := range tx.Ifaces() {
			if name == "" || name == i.Name() {
				tree = append(tree, node{i.Name(), byIface[i.Name()]})
			}
		}
		return nil
	})
	var nf *nodedb.NotFoundError
	if errors.As(err, &nf) {
		return c.fail(errcode.IDBM, "Could not read iface info for %s.", oneLine(name))
	} else if err != nil {
		return err
	}
	if c.req.json {
		type entry struct {
			Iface string    `json:"iface"`
			Nodes []jsonRef `json:"nodes"`
		}
		out := make([]entry, len(tree))
		for i, n := range tree {
			out[i] = entry{n.name, jsonRefs(n.refs)}
		}
		return c.printJSON(out)
	}
	for _, n := range tree {
		c.printf("Iface: %s\n", n.name)
		last := ""
		for _, r := range n.refs {
			if r.Target != last {
				c.printf("\tTarget: %s\n", r.Target)
				last = r.Target
			}
			c.printf("\t\tPortal: %s\n", treePortal(r.Address, r.Port, r.TPGT))
		}
	}
	return nil
}

// newIface makes an interface, or sets one that exists back to the defaults.
func (c *command) newIface(name string) error {
	if name == "" {
		return c.fail(errcode.SysfsLookup, "Could not add interface. No interface passed in.")
	}
	if running, err := c.running(nodedb.Match{Iface: name}); err != nil {
		return err
	} else if running {
		return c.fail(errcode.SessExists, "Could not create new interface %s.", oneLine(name))
	}
	params, err := c.params()
	if err != nil {
		return err
	}
	i, err := nodedb.NewIface(name)
	if err != nil {
		return err
	}
	warnings, err := i.Apply(params)
	if err == nil {
		err = c.update(func(tx *nodedb.Tx) error { return tx.PutIface(i) })
	}
	if err != nil {
		c.report(err)
		return c.fail(errcode.Of(err), "Could not create new interface %s.", oneLine(name))
	}
	for _, w := range warnings {
		c.errorf("%s", oneLine(w))
	}
	c.printf("%s updated.\nNew interface %s added\n", name, name)
	return nil
}

// updateIface sets fields of an interface and of the records bound to it. Like
// open-iscsi it ends with 0 when the interface could not be changed: scripts
// count on it.
func (c *command) updateIface(name string) error {
	if name == "" || len(c.req.params) == 0 {
		return c.fail(errcode.Inval, "Update requires name, value, and iface.")
	}
	params, err := c.params()
	if err != nil {
		return err
	}
	used, err := c.inUse()
	if err != nil {
		return err
	}
	var warnings []string
	busy := false
	err = c.update(func(tx *nodedb.Tx) error {
		i, err := tx.Iface(name)
		if err != nil {
			return err
		}
		if warnings, err = i.Apply(params); err != nil {
			return err
		}
		if err := tx.PutIface(i); err != nil {
			return err
		}
		refs, err := tx.RebindNodes(i)
		busy = false
		for _, r := range refs {
			busy = busy || used(r.NodeKey)
		}
		return err
	})
	var nf *nodedb.NotFoundError
	var db *nodedb.DBError
	switch {
	case err == nil:
	case errors.As(err, &db), c.interrupted() != nil:
		return err
	default:
		if errors.As(err, &nf) {
			return c.fail(errcode.Inval, "Could not read iface info for %s.", oneLine(name))
		}
		c.report(err)
		c.errorf("Could not update iface %s: %s", oneLine(name), errcode.Inval)
		return nil
	}
	for _, w := range warnings {
		c.errorf("%s", oneLine(w))
	}
	if busy {
		c.errorf("Updating iface while iscsi sessions are using it. You must logout the running sessions then log back in for the new settings to take affect.")
	}
	c.printf("%s updated.\n", name)
	return nil
}

// deleteIface removes an interface and the records bound to it.
func (c *command) deleteIface(name string) error {
	if name == "" {
		return c.fail(errcode.Inval, "Could not delete interface. No interface passed in.")
	}
	used, err := c.inUse()
	if err != nil {
		return err
	}
	err = c.update(func(tx *nodedb.Tx) error {
		_, err := tx.DeleteIface(name, used)
		return err
	})
	if err == nil {
		c.printf("%s unbound and deleted.\n", name)
		return nil
	}
	var nf *nodedb.NotFoundError
	var db *nodedb.DBError
	code := errcode.Of(err)
	switch {
	case errors.As(err, &db), c.interrupted() != nil:
		return err
	case errors.As(err, &nf):
		c.errorf("Could not read iface info for %s.", oneLine(name))
		code = errcode.Inval
	default:
		for _, e := range allErrors(err) {
			c.report(e)
		}
	}
	return c.fail(code, "Could not delete iface %s: %s", oneLine(name), code)
}

// allErrors returns the errors that err joins, or err itself.
func allErrors(err error) []error {
	if m, ok := err.(interface{ WrappedErrors() []error }); ok {
		return m.WrappedErrors()
	}
	return []error{err}
}
