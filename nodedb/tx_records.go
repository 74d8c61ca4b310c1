package nodedb

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/go-multierror"
)

// Discoveries returns the keys of the discovery records, newest first. A record
// is as new as its first storing; storing it again does not move it.
func (tx *Tx) Discoveries() []DiscoveryKey {
	type entry struct {
		key DiscoveryKey
		seq int64
	}
	var found []entry
	for k, v := range tx.scan(bucketDiscoveries, nil) {
		key, ok := decodeDiscoveryKey(k)
		seq, ok2 := recordNumber(v)
		if !ok || !ok2 {
			tx.damaged("discovery", k, errRecordFormat)
			continue
		}
		found = append(found, entry{key, seq})
	}
	slices.SortStableFunc(found, func(a, b entry) int { return cmp.Compare(b.seq, a.seq) })
	keys := make([]DiscoveryKey, len(found))
	for i, e := range found {
		keys[i] = e.key
	}
	return keys
}

// Discovery returns one record; a *NotFoundError if there is none.
func (tx *Tx) Discovery(k DiscoveryKey) (*Discovery, error) {
	v := tx.read(bucketDiscoveries, k.encode())
	if v == nil {
		return nil, &NotFoundError{What: "discovery record", Key: k.String()}
	}
	d := &Discovery{newRecord(discoveryTable(k.Type))}
	if _, err := decodeRecord(&d.record, v); err != nil {
		return nil, fmt.Errorf("discovery record %s: %w", k, errors.Join(ErrCorrupt, err))
	}
	d.put(FieldDiscType, string(k.Type))
	d.put(FieldDiscAddress, k.Address)
	d.put(FieldDiscPort, itoa(k.Port))
	return d, nil
}

// PutDiscovery stores a record, in the place of the one with the same key if
// there is one. Nodes that were found through it stay. The error is a
// *NameError or bbolt's.
func (tx *Tx) PutDiscovery(d *Discovery) error {
	k := d.Key()
	if err := errors.Join(tx.writable(), k.Validate()); err != nil {
		return err
	}
	b := tx.bucket(bucketDiscoveries)
	seq, ok := recordNumber(b.Get(k.encode()))
	if !ok {
		next, err := b.NextSequence()
		if err != nil {
			return err
		}
		seq = int64(next)
	}
	tx.changes.put(&d.record)
	return b.Put(k.encode(), encodeRecord(&d.record, seq, FieldDiscType, FieldDiscAddress, FieldDiscPort))
}

// DeleteDiscovery removes a discovery record and all nodes that were found
// through it, and returns the nodes. Whether sessions use them does not
// matter, as in open-iscsi. A *NotFoundError if there is no record.
func (tx *Tx) DeleteDiscovery(k DiscoveryKey) (removed []NodeRef, err error) {
	if tx.read(bucketDiscoveries, k.encode()) == nil {
		return nil, &NotFoundError{What: "discovery record", Key: k.String()}
	}
	removed = tx.Linked(k)
	for _, ref := range removed {
		if err := tx.DeleteNode(ref.NodeKey); err != nil {
			return nil, err
		}
	}
	if d, err := tx.Discovery(k); err == nil {
		tx.changes.remove(&d.record)
	}
	tx.changes.any = true
	return removed, tx.bucket(bucketDiscoveries).Delete(k.encode())
}

// UserIfaces returns the interfaces that have records, by name.
func (tx *Tx) UserIfaces() []*Iface {
	var ifaces []*Iface
	for k := range tx.scan(bucketIfaces, nil) {
		i, err := tx.Iface(string(k))
		if err != nil {
			tx.damaged("interface", k, err)
			continue
		}
		ifaces = append(ifaces, i)
	}
	return ifaces
}

// Ifaces returns all interfaces: those that have records, by name, and then
// those that are built in.
func (tx *Tx) Ifaces() []*Iface {
	return append(tx.UserIfaces(), builtinIface(DefaultIface), builtinIface(IserIface))
}

// Iface returns one interface; a *NotFoundError if there is none.
func (tx *Tx) Iface(name string) (*Iface, error) {
	if IsBuiltinIface(name) {
		return builtinIface(name), nil
	}
	v := tx.read(bucketIfaces, []byte(name))
	if v == nil {
		return nil, &NotFoundError{What: "interface", Key: name}
	}
	i := &Iface{newRecord(ifaceTable)}
	if _, err := decodeRecord(&i.record, v); err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, errors.Join(ErrCorrupt, err))
	}
	i.put(FieldIfaceName, name)
	return i, ValidateIface(name)
}

// PutIface stores an interface, in the place of the one with the same name if
// there is one. Nodes that are bound to it keep what they remember of it; see
// RebindNodes. The error is a *BuiltinIfaceError, a *NameError or bbolt's.
func (tx *Tx) PutIface(i *Iface) error {
	name := i.Name()
	if IsBuiltinIface(name) {
		return &BuiltinIfaceError{Name: name, Op: "modified"}
	}
	if err := errors.Join(tx.writable(), ValidateIface(name)); err != nil {
		return err
	}
	tx.changes.put(&i.record)
	return tx.bucket(bucketIfaces).Put([]byte(name), encodeRecord(&i.record, 0, FieldIfaceName))
}

// RebindNodes copies an interface into all node records that are bound to it
// and returns their keys.
func (tx *Tx) RebindNodes(i *Iface) ([]NodeRef, error) {
	nodes := tx.Nodes(Match{Iface: i.Name()})
	refs := make([]NodeRef, 0, len(nodes))
	for _, n := range nodes {
		n.SetIface(i)
		if err := tx.PutNode(n); err != nil {
			return nil, err
		}
		refs = append(refs, n.Ref())
	}
	return refs, nil
}

// DeleteIface removes an interface and all node records that are bound to it,
// and returns those. Records for which inUse is true are in the way: the error
// then holds an *InUseError for each, and nothing has been removed. Other
// errors are *BuiltinIfaceError and *NotFoundError.
func (tx *Tx) DeleteIface(name string, inUse func(NodeKey) bool) (removed []NodeRef, err error) {
	if IsBuiltinIface(name) {
		return nil, &BuiltinIfaceError{Name: name, Op: "deleted"}
	}
	if tx.read(bucketIfaces, []byte(name)) == nil {
		return nil, &NotFoundError{What: "interface", Key: name}
	}
	removed = tx.NodeRefs(Match{Iface: name})
	var busy *multierror.Error
	for _, ref := range removed {
		if inUse != nil && inUse(ref.NodeKey) {
			busy = multierror.Append(busy, &InUseError{Key: ref.NodeKey})
		}
	}
	if busy != nil {
		return nil, busy
	}
	for _, ref := range removed {
		if err := tx.DeleteNode(ref.NodeKey); err != nil {
			return nil, err
		}
	}
	if i, err := tx.Iface(name); err == nil {
		tx.changes.remove(&i.record)
	}
	tx.changes.any = true
	return removed, tx.bucket(bucketIfaces).Delete([]byte(name))
}
