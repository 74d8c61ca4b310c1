package nodedb

import (
	"errors"
	"io/fs"
	"slices"
)

// DiscoveryOps say what a discovery does to node records; "-o" in iscsiadm.
type DiscoveryOps uint8

// The operations. They combine; none at all means all of them.
const (
	// OpNew adds records of nodes that have none.
	OpNew DiscoveryOps = 1 << iota
	// OpUpdate sets records that exist back to the settings of iscsid.conf.
	OpUpdate
	// OpDelete removes records that came from the same discovery and were not
	// found again.
	OpDelete
)

// A Found is a portal of a target that a discovery found, to be used through an
// interface.
type Found struct {
	Target  string // name of the target
	Address string // without brackets
	Port    int    // TCP port
	TPGT    int    // less than 0 when not known
	// Iface is the interface to bind the record to; nil is the default one.
	Iface *Iface
}

// iface returns the interface to bind to.
func (f *Found) iface() *Iface {
	if f.Iface == nil {
		return builtinIface(DefaultIface)
	}
	return f.Iface
}

func (f *Found) key() NodeKey {
	return NodeKey{Target: f.Target, Address: f.Address, Port: f.Port, Iface: f.iface().Name()}
}

// ApplyOptions go with ApplyDiscovery. The zero value is good.
type ApplyOptions struct {
	// Ops are the operations; 0 is all.
	Ops DiscoveryOps
	// Config gives new records their settings; nil is the shipped one. Its
	// KeepNodeSettings makes OpUpdate touch only what the discovery found
	// out: tag, origin and interface.
	Config *Config
	// InUse reports whether a session uses a record, which keeps it from
	// being deleted. It is called within the transaction and must not wait:
	// ask for the sessions before. Nil means that there are none.
	InUse func(NodeKey) bool
	// KeepIfaces names interfaces through which the discovery did not work:
	// that records bound to them were not found says nothing.
	KeepIfaces []string
}

// A Reset tells of a record whose settings OpUpdate set back.
type Reset struct {
	Key NodeKey
	// Fields are the settings that it had and has no more; secrets are
	// masked.
	Fields []Param
}

// An ApplyResult tells what ApplyDiscovery did.
type ApplyResult struct {
	Added, Updated, Kept, Removed []NodeRef
	// InUse are records that would have been removed but for their sessions.
	InUse []*InUseError
	// Skipped are portals that were found but must not be stored; *NameError.
	Skipped []error
	// Reset tells which of the updated records had other settings.
	Reset []Reset
}

// ApplyDiscovery brings the node records in step with what the discovery key
// found, which is all that it found: an empty list and OpDelete remove all
// records that came from it. Bad names are skipped one by one. A portal that is
// found twice counts once, as it was found first. Errors are the database's.
func (tx *Tx) ApplyDiscovery(key DiscoveryKey, found []Found, o ApplyOptions) (*ApplyResult, error) {
	if o.Ops == 0 {
		o.Ops = OpNew | OpUpdate | OpDelete
	}
	o.Config = o.Config.orShipped() // once, not for every record
	res := &ApplyResult{}
	seen := make(map[NodeKey]bool, len(found))
	valid := make([]Found, 0, len(found))
	for _, f := range found {
		k := f.key()
		if err := k.Validate(); err != nil {
			res.Skipped = append(res.Skipped, err)
			continue
		}
		if !seen[k] {
			seen[k] = true
			valid = append(valid, f)
		}
	}
	if o.Ops&OpDelete != 0 {
		if err := tx.deleteStale(key, seen, &o, res); err != nil {
			return nil, err
		}
	}
	for i := range valid {
		if err := tx.applyFound(key, &valid[i], &o, res); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// deleteStale removes the records that came from key and were not found.
func (tx *Tx) deleteStale(key DiscoveryKey, seen map[NodeKey]bool, o *ApplyOptions, res *ApplyResult) error {
	for _, ref := range tx.Linked(key) {
		switch {
		case seen[ref.NodeKey], slices.Contains(o.KeepIfaces, ref.Iface):
			continue
		case o.InUse != nil && o.InUse(ref.NodeKey):
			res.InUse = append(res.InUse, &InUseError{Key: ref.NodeKey})
			continue
		}
		if err := tx.DeleteNode(ref.NodeKey); err != nil {
			return err
		}
		res.Removed = append(res.Removed, ref)
	}
	return nil
}

// applyFound adds or updates the record of one portal.
func (tx *Tx) applyFound(key DiscoveryKey, f *Found, o *ApplyOptions, res *ApplyResult) error {
	n, err := NewNode(o.Config, f.key(), f.TPGT)
	if err != nil {
		return err
	}
	n.SetIface(f.iface())
	n.SetDiscovery(key)

	old, err := tx.Node(n.Key())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if o.Ops&OpNew == 0 {
			return nil
		}
		res.Added = append(res.Added, n.Ref())
		return tx.PutNode(n)
	case o.Ops&OpUpdate == 0:
		res.Kept = append(res.Kept, n.Ref())
		return nil
	case err != nil: // damaged: the new record heals it
	case o.Config.KeepNodeSettings():
		kept := old.Clone()
		kept.SetTPGT(f.TPGT)
		kept.SetIface(f.iface())
		kept.SetDiscovery(key)
		n = kept
	default:
		if lost := lostSettings(old, n); len(lost) > 0 {
			res.Reset = append(res.Reset, Reset{Key: n.Key(), Fields: lost})
		}
	}
	res.Updated = append(res.Updated, n.Ref())
	if err == nil && old.Equal(n) {
		return nil
	}
	return tx.PutNode(n)
}

// lostSettings returns the settings of old that differ in n.
func lostSettings(old, n *Node) []Param {
	var lost []Param
	for i := range nodeTable.fields {
		f := &nodeTable.fields[i]
		if f.ReadOnly || ifaceTable.lookup(f.Name) != nil || old.vals[i] == n.vals[i] {
			continue
		}
		lost = append(lost, Param{f.Name, f.Display(old.vals[i], false)})
	}
	return lost
}
