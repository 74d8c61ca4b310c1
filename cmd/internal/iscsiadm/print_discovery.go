package iscsiadm

import (
	"slices"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// listDiscoveries prints the discovery records, or with -P 1 and more the tree of what
// was found through them. When there is nothing, the list says nothing, not
// even on standard error.
func (c *command) listDiscoveries() error {
	if c.req.level > 0 {
		return c.discoveryTree()
	}
	var keys []nodedb.DiscoveryKey
	err := c.view(func(tx *nodedb.Tx) error {
		keys = tx.Discoveries()
		return nil
	})
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return exit(errcode.NoObjsFound)
	}
	// Those of SendTargets come first, as in the tree.
	others := slices.DeleteFunc(slices.Clone(keys), func(k nodedb.DiscoveryKey) bool { return k.Type == nodedb.SendTargets })
	keys = append(slices.DeleteFunc(keys, func(k nodedb.DiscoveryKey) bool { return k.Type != nodedb.SendTargets }), others...)
	if c.req.json {
		return c.printJSON(jsonDiscoveries(keys))
	}
	for _, k := range keys {
		c.printf("%s\n", k)
	}
	return nil
}

// discoveryBranch is what was found through one discovery record, or without
// any.
type discoveryBranch struct {
	key  nodedb.DiscoveryKey
	refs []nodedb.NodeRef
}

// discoveryTree prints four sections, of which empty ones say so.
func (c *command) discoveryTree() error {
	sections := []struct {
		title string
		typ   nodedb.DiscoveryType
		tree  []discoveryBranch
	}{
		{title: "SENDTARGETS", typ: nodedb.SendTargets},
		{title: "iSNS", typ: nodedb.ISNS},
		{title: "STATIC", typ: nodedb.Static},
		{title: "FIRMWARE", typ: nodedb.Firmware},
	}
	found := false
	err := c.view(func(tx *nodedb.Tx) error {
		found = false
		keys := tx.Discoveries()
		for i := range sections {
			s := &sections[i]
			s.tree = nil
			for _, k := range keys {
				if k.Type == s.typ {
					s.tree = append(s.tree, discoveryBranch{k, tx.Linked(k)})
				}
			}
			if s.typ == nodedb.Static || s.typ == nodedb.Firmware {
				k := nodedb.DiscoveryKey{Type: s.typ}
				if refs := tx.Linked(k); len(refs) > 0 {
					s.tree = []discoveryBranch{{k, refs}}
				}
			}
			found = found || len(s.tree) > 0
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.req.json {
		var all []discoveryBranch
		for _, s := range sections {
			all = append(all, s.tree...)
		}
		if err := c.printJSON(jsonBranches(all)); err != nil {
			return err
		}
	} else {
		for _, s := range sections {
			c.printf("%s:\n", s.title)
			if len(s.tree) == 0 {
				c.printf("No targets found.\n")
			}
			for _, b := range s.tree {
				if b.key.Address != "" {
					c.printf("DiscoveryAddress: %s,%d\n", b.key.Address, b.key.Port)
				}
				c.printFoundTree(b.refs)
			}
		}
	}
	if !found {
		return exit(errcode.NoObjsFound)
	}
	return nil
}

// jsonDiscovery is a discovery record in a JSON list.
type jsonDiscovery struct {
	Type    string    `json:"type"`
	Address string    `json:"address,omitempty"`
	Port    int       `json:"port,omitempty"`
	Nodes   []jsonRef `json:"nodes,omitempty"`
}

func jsonDiscoveries(keys []nodedb.DiscoveryKey) []jsonDiscovery {
	out := make([]jsonDiscovery, len(keys))
	for i, k := range keys {
		out[i] = jsonDiscovery{Type: string(k.Type), Address: k.Address, Port: k.Port}
	}
	return out
}

func jsonBranches(branches []discoveryBranch) []jsonDiscovery {
	out := make([]jsonDiscovery, len(branches))
	for i, b := range branches {
		out[i] = jsonDiscovery{Type: string(b.key.Type), Address: b.key.Address, Port: b.key.Port, Nodes: jsonRefs(b.refs)}
	}
	return out
}
