package nodedb

import bolt "go.etcd.io/bbolt"

// changes are what a transaction does that the mirror has to follow.
type changes struct {
	generation uint64
}

func (c *changes) putNode(*Node)                {}
func (c *changes) removeNode(*Node)             {}
func (c *changes) putDiscovery(*Discovery)      {}
func (c *changes) removeDiscovery(DiscoveryKey) {}
func (c *changes) putIface(*Iface)              {}
func (c *changes) removeIface(string)           {}

func (tx *Tx) mirrorChanges(*bolt.DB) {}
