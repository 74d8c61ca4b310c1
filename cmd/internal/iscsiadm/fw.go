package iscsiadm

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// fwMode is -m fw: the targets that the firmware booted from.
func (c *command) fwMode() error {
	entries, err := c.firmware()
	if err != nil {
		return err
	}
	if !c.req.login {
		if c.req.json {
			return c.printJSON(entries)
		}
		for i := range entries {
			c.printFirmware(&entries[i])
		}
		return nil
	}
	if err := c.noJSON(); err != nil {
		return err
	}
	params, err := c.params()
	if err != nil {
		return err
	}
	conf, err := c.defaults()
	if err != nil {
		return err
	}
	var nodes []*nodedb.Node
	for i := range entries {
		n, err := entries[i].node(conf)
		if err != nil {
			return err
		}
		warnings, err := n.Apply(params)
		if err != nil {
			return err
		}
		for _, w := range warnings {
			c.errorf("%s", oneLine(w))
		}
		nodes = append(nodes, n)
	}
	return c.login(nodes, loginOptions{noWait: c.req.noWait})
}

// firmware returns what the firmware tells about its targets.
func (c *command) firmware() ([]firmwareEntry, error) {
	entries, err := readIBFT(c.Paths.Sys)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		for _, line := range strings.Split(err.Error(), "\n") {
			c.errorf("%s", oneLine(line))
		}
	}
	if len(entries) == 0 {
		return nil, c.fail(errcode.NoObjsFound, "Could not get list of targets from firmware. (err %d)", int(errcode.NoObjsFound))
	}
	return entries, nil
}

// discoverFirmware is -t fw: the firmware's targets become node records.
func (c *command) discoverFirmware() error {
	if err := c.discoveryOps(); err != nil {
		return err
	}
	entries, err := c.firmware()
	if err != nil {
		return err
	}
	conf, err := c.defaults()
	if err != nil {
		return err
	}
	nodes := make([]*nodedb.Node, 0, len(entries))
	for i := range entries {
		n, err := entries[i].node(conf)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	if c.req.op&opNonpersistent == 0 {
		err := c.update(func(tx *nodedb.Tx) error { return storeFirmware(tx, nodes, nodeOps(c.req.op)) })
		if err != nil {
			return err
		}
	}
	refs := make([]nodedb.NodeRef, len(nodes))
	for i, n := range nodes {
		refs[i] = n.Ref()
	}
	switch {
	case c.req.json:
		err = c.printJSON(jsonRefs(refs))
	case c.req.level == 1:
		c.printRefTree(refs)
	default:
		c.printRefs(refs)
	}
	if err != nil || !c.req.login {
		return err
	}
	return c.login(nodes, loginOptions{noWait: c.req.noWait})
}

// storeFirmware adds or updates the records of the firmware's targets; unlike
// those of other discoveries they carry settings that the firmware gave.
func storeFirmware(tx *nodedb.Tx, nodes []*nodedb.Node, o nodedb.DiscoveryOps) error {
	if o == 0 {
		o = nodedb.OpNew | nodedb.OpUpdate | nodedb.OpDelete
	}
	wanted := make(map[nodedb.NodeKey]bool, len(nodes))
	for _, n := range nodes {
		wanted[n.Key()] = true
		_, err := tx.Node(n.Key())
		if exists := err == nil; exists && o&nodedb.OpUpdate == 0 || !exists && o&nodedb.OpNew == 0 {
			continue
		}
		if err := tx.PutNode(n); err != nil {
			return err
		}
	}
	if o&nodedb.OpDelete == 0 {
		return nil
	}
	for _, ref := range tx.Linked(nodedb.DiscoveryKey{Type: nodedb.Firmware}) {
		if wanted[ref.NodeKey] {
			continue
		}
		if err := tx.DeleteNode(ref.NodeKey); err != nil {
			return err
		}
	}
	return nil
}
