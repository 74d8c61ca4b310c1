package iscsiadm

import (
	"errors"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// discoveryDBMode is -m discoverydb: everything goes by the stored record.
func (c *command) discoveryDBMode() error {
	r := &c.req
	switch {
	case r.typ == typeSLP:
		return c.noSLP()
	case r.typ == "" && r.portal == nil && (r.op == 0 || r.is(opShow)):
		return c.listDiscoveries()
	case r.typ == "" && r.portal == nil:
		return c.fail(errcode.Inval, "Invalid operation. Operation not supported.")
	case r.typ == "" && r.op == 0:
		return c.fail(errcode.Inval, "Invalid command. Portal not needed or Possibly missing discovery --type.")
	case r.typ == "":
		return c.fail(errcode.Inval, "Invalid command. Possibly missing discovery --type.")
	case r.typ == nodedb.Firmware && !r.discover:
		return c.fail(errcode.Inval, "Invalid command. Possibly missing --discover argument.")
	case r.typ == nodedb.Firmware:
		return c.discoverFirmware()
	case r.portal == nil:
		return c.noPortal()
	case r.discover:
		return c.discoverByRecord()
	case r.login:
		return c.fail(errcode.Inval, "Invalid command. Possibly missing --discover argument.")
	}
	return c.discoveryRecordOp(c.discoveryKey(r.typ))
}

// discoveryRecordOp is an operation on one record.
func (c *command) discoveryRecordOp(key nodedb.DiscoveryKey) error {
	if c.req.op&opNew != 0 { // whatever stands beside it, as in open-iscsi
		return c.newDiscovery(key)
	}
	switch c.req.op {
	case 0, opShow:
		d, err := c.discoveryRecord(key)
		switch {
		case err != nil:
			return err
		case d == nil:
			return c.discoveryNotFound(key)
		}
		return c.showDiscovery(d)
	case opUpdate:
		return c.updateDiscovery(key)
	case opDelete:
		err := c.deleteDiscovery(key)
		var nf *nodedb.NotFoundError
		if errors.As(err, &nf) {
			return c.discoveryNotFound(key)
		}
		return err
	}
	return c.fail(errcode.Inval, "Operation is not supported.")
}

func (c *command) discoveryNotFound(key nodedb.DiscoveryKey) error {
	return c.fail(errcode.IDBM, "Discovery record [%s,%d] not found.", key.Address, key.Port)
}

func (c *command) newDiscovery(key nodedb.DiscoveryKey) error {
	if err := c.noJSON(); err != nil {
		return err
	}
	conf, err := c.defaults()
	if err != nil {
		return err
	}
	d, err := nodedb.NewDiscovery(conf, key)
	if err != nil {
		return err
	}
	if err := c.update(func(tx *nodedb.Tx) error { return tx.PutDiscovery(d) }); err != nil {
		return err
	}
	c.printf("New discovery record for [%s,%d] added.\n", key.Address, key.Port)
	return nil
}

func (c *command) updateDiscovery(key nodedb.DiscoveryKey) error {
	if err := c.noJSON(); err != nil {
		return err
	}
	if len(c.req.params) == 0 {
		err := c.view(func(tx *nodedb.Tx) error {
			_, err := tx.Discovery(key)
			return err
		})
		if nf := new(nodedb.NotFoundError); errors.As(err, &nf) {
			return c.discoveryNotFound(key)
		} else if err != nil {
			return err
		}
		return c.fail(errcode.Inval, "Update requires name and value.")
	}
	params, err := c.params()
	if err != nil {
		return err
	}
	var warnings []string
	err = c.update(func(tx *nodedb.Tx) error {
		d, err := tx.Discovery(key)
		if err != nil {
			return err
		}
		if warnings, err = d.Apply(params); err != nil {
			return err
		}
		return tx.PutDiscovery(d)
	})
	var nf *nodedb.NotFoundError
	var bad *nodedb.ValueError
	switch {
	case errors.As(err, &nf):
		return c.discoveryNotFound(key)
	case errors.As(err, &bad): // of whose lines open-iscsi has the first only here
		return c.fail(errcode.Inval, "%s", oneLine(bad.Error()))
	case err != nil:
		return err
	}
	for _, w := range warnings {
		c.errorf("%s", oneLine(w))
	}
	return nil
}

// discoverByRecord discovers with the stored record. If there is none it is
// made from iscsid.conf, and stored unless nothing is to be.
func (c *command) discoverByRecord() error {
	if err := c.discoveryOps(); err != nil {
		return err
	}
	key := c.discoveryKey(c.req.typ)
	d, err := c.discoveryRecord(key)
	if err != nil {
		return err
	}
	if d == nil {
		conf, err := c.defaults()
		if err != nil {
			return err
		}
		if d, err = nodedb.NewDiscovery(conf, key); err != nil {
			return err
		}
		if c.req.op&opNonpersistent == 0 {
			if err := c.update(func(tx *nodedb.Tx) error { return tx.PutDiscovery(d) }); err != nil {
				return err
			}
		}
	}
	return c.discover(d)
}
