package iscsiadm

import (
	"errors"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/portal"
	"github.com/goiscsi/goiscsi/nodedb"
)

// discoveryMode is -m discovery: with a type it discovers with the settings
// of iscsid.conf, without one it works on the records of earlier discoveries.
func (c *command) discoveryMode() error {
	r := &c.req
	switch {
	case r.typ == nodedb.Firmware:
		return c.discoverFirmware()
	case r.typ == typeSLP:
		return c.noSLP()
	case r.typ == nodedb.ISNS && r.portal == nil:
		return c.fail(errcode.Inval, "Please specify portal as <ipaddr>:[<ipport>]")
	case r.typ != "":
		if r.portal == nil {
			return c.noPortal()
		}
		return c.discoverAfresh(r.typ)
	case r.portal == nil:
		if r.op != 0 && !r.is(opShow) {
			return c.fail(errcode.Inval, "Invalid operation.")
		}
		return c.listDiscoveries()
	}
	return c.knownDiscovery()
}

// noPortal reports a discovery without -p.
func (c *command) noPortal() error {
	return c.fail(errcode.Inval, "Please specify portal as <ipaddr>[:<ipport>]")
}

func (c *command) noSLP() error {
	return c.fail(errcode.Inval, "SLP discovery is not fully implemented yet.")
}

// discoveryKey returns the key for -p with the default port of the type.
func (c *command) discoveryKey(typ nodedb.DiscoveryType) nodedb.DiscoveryKey {
	port := portal.DefaultPort
	if typ == nodedb.ISNS {
		port = portal.DefaultISNSPort
	}
	p := c.req.onePortal(port)
	return nodedb.DiscoveryKey{Type: typ, Address: p.Host, Port: p.Port}
}

// discoverAfresh discovers with a record made from iscsid.conf. For
// SendTargets the record replaces the one that is stored, and stays when the
// discovery fails.
func (c *command) discoverAfresh(typ nodedb.DiscoveryType) error {
	if err := c.discoveryOps(); err != nil {
		return err
	}
	conf, err := c.defaults()
	if err != nil {
		return err
	}
	d, err := nodedb.NewDiscovery(conf, c.discoveryKey(typ))
	if err != nil {
		return err
	}
	if typ == nodedb.SendTargets && c.req.op&opNonpersistent == 0 {
		if err := c.update(func(tx *nodedb.Tx) error { return tx.PutDiscovery(d) }); err != nil {
			return err
		}
	}
	return c.discover(d)
}

// discoveryOps refuses operations that mean nothing for a discovery.
func (c *command) discoveryOps() error {
	if c.req.op&^(opNew|opDelete|opUpdate|opNonpersistent|opShow) != 0 {
		return c.fail(errcode.Inval, "Invalid operation.")
	}
	return nil
}

// knownDiscovery is -m discovery with a portal but no type.
func (c *command) knownDiscovery() error {
	r := &c.req
	key := c.discoveryKey(nodedb.SendTargets)
	d, err := c.discoveryRecord(key)
	if err != nil {
		return err
	}
	if d == nil {
		return c.fail(errcode.Inval, "Discovery record [%s,%d] not found!", key.Address, key.Port)
	}
	switch {
	case r.discover, r.login:
		if err := c.discoveryOps(); err != nil {
			return err
		}
		return c.discover(d)
	case r.op == 0, r.is(opShow):
		return c.showDiscovery(d)
	case r.is(opDelete):
		return c.deleteDiscovery(key)
	}
	if r.is(opNew) || r.is(opUpdate) {
		return c.fail(errcode.Inval, "Operations new and update for discovery mode is not supported. Use discoverydb mode.")
	}
	return c.fail(errcode.Inval, "Invalid operation.")
}

// discoveryRecord returns a stored record, nil if there is none.
func (c *command) discoveryRecord(key nodedb.DiscoveryKey) (*nodedb.Discovery, error) {
	var d *nodedb.Discovery
	err := c.view(func(tx *nodedb.Tx) (err error) {
		d, err = tx.Discovery(key)
		return err
	})
	var nf *nodedb.NotFoundError
	if errors.As(err, &nf) {
		return nil, nil
	}
	return d, err
}

// showDiscovery prints a record in full.
func (c *command) showDiscovery(d *nodedb.Discovery) error {
	if c.req.json {
		return c.printJSON(jsonRecords([]*nodedb.Discovery{d}, c.req.show))
	}
	return d.Print(c.out, nodedb.PrintOptions{ShowSecrets: c.req.show})
}

// deleteDiscovery removes a record and the node records that came from it,
// used or not, as open-iscsi does.
func (c *command) deleteDiscovery(key nodedb.DiscoveryKey) error {
	if err := c.noJSON(); err != nil {
		return err
	}
	return c.update(func(tx *nodedb.Tx) error {
		_, err := tx.DeleteDiscovery(key)
		return err
	})
}
