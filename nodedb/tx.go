package nodedb

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// schemaVersion is the version of the database's layout. A program refuses a
// database of a version that it does not know.
const schemaVersion = 1

// The buckets of the database:
//
//	meta         "schema" → version; "generation" → count of commits
//	nodes        node key → record
//	discoveries  discovery key → record
//	links        discovery key, node key → number; larger is newer
//	ifaces       name → record
//
// A link is an index: it says again what the node's discovery fields say.
var (
	bucketMeta        = []byte("meta")
	bucketNodes       = []byte("nodes")
	bucketDiscoveries = []byte("discoveries")
	bucketLinks       = []byte("links")
	bucketIfaces      = []byte("ifaces")

	keySchema     = []byte("schema")
	keyGeneration = []byte("generation")
)

// A Tx is a transaction, valid within the function that it was given to and
// to be used by one goroutine at a time.
type Tx struct {
	db *DB
	b  *bolt.Tx // nil when there is no database yet

	// changes are what the transaction did; see mirror.go.
	changes changes
}

func initSchema(b *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketNodes, bucketDiscoveries, bucketLinks, bucketIfaces} {
		if _, err := b.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return b.Bucket(bucketMeta).Put(keySchema, []byte(itoa(schemaVersion)))
}

// newTx checks that the database is one of ours.
func newTx(db *DB, b *bolt.Tx) (*Tx, error) {
	meta := b.Bucket(bucketMeta)
	if meta == nil {
		if k, _ := b.Cursor().First(); k != nil {
			return nil, fmt.Errorf("%w: a database of something else", ErrCorrupt)
		}
		if !b.Writable() {
			return &Tx{db: db}, nil
		}
		if err := initSchema(b); err != nil {
			return nil, err
		}
		return &Tx{db: db, b: b, changes: changes{any: true, track: db.o.Mirror != ""}}, nil
	}
	version, ok := atoi(string(bounded(meta.Get(keySchema))))
	switch {
	case !ok || version == 0:
		return nil, fmt.Errorf("%w: no version", ErrCorrupt)
	case version > schemaVersion:
		return nil, fmt.Errorf("%w (format %d, this one knows %d)", ErrNewerSchema, version, schemaVersion)
	}
	for _, name := range [][]byte{bucketNodes, bucketDiscoveries, bucketLinks, bucketIfaces} {
		if b.Bucket(name) == nil {
			return nil, fmt.Errorf("%w: no bucket %s", ErrCorrupt, name)
		}
	}
	return &Tx{db: db, b: b, changes: changes{track: db.o.Mirror != ""}}, nil
}

// errUnchanged ends a transaction that did nothing: there is no need to write
// and sync the file for it.
var errUnchanged = errors.New("nothing to commit")

// finish is what every transaction that writes does last.
func (tx *Tx) finish() error {
	meta := tx.b.Bucket(bucketMeta)
	tx.changes.generation = bytesSeq(meta.Get(keyGeneration))
	if !tx.changes.any {
		return errUnchanged
	}
	tx.changes.generation++
	return meta.Put(keyGeneration, seqBytes(tx.changes.generation))
}

// writable returns ErrReadOnly in a transaction of View.
func (tx *Tx) writable() error {
	if tx.b == nil || !tx.b.Writable() {
		return ErrReadOnly
	}
	return nil
}

// bucket returns a bucket, or nil when there is no database yet.
func (tx *Tx) bucket(name []byte) *bolt.Bucket {
	if tx.b == nil {
		return nil
	}
	return tx.b.Bucket(name)
}

// Limits on what is read from the file: more than this is damage. A link's key
// is the longest.
const (
	maxStoredKey   = 2048
	maxStoredValue = 128 << 10
)

// read returns a stored value, nil if there is none.
func (tx *Tx) read(bucket, key []byte) []byte {
	if b := tx.bucket(bucket); b != nil {
		return bounded(b.Get(key))
	}
	return nil
}

// bounded returns a value, or for one that is too long one that nobody takes
// for a record.
func bounded(v []byte) []byte {
	if len(v) > maxStoredValue {
		return []byte{}
	}
	return v
}

// scan iterates over a bucket's entries whose keys begin with prefix.
func (tx *Tx) scan(bucket, prefix []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		b := tx.bucket(bucket)
		if b == nil {
			return
		}
		c := b.Cursor()
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if len(k) > maxStoredKey {
				tx.damaged(string(bucket), k[:64], errRecordFormat)
				continue
			}
			if !yield(k, bounded(v)) {
				return
			}
		}
	}
}

// damaged logs a record that cannot be read. It is left out of lists rather
// than making all others unusable.
func (tx *Tx) damaged(what string, key []byte, err error) {
	tx.db.o.Logger.Warn("skipping damaged record", "db", tx.db.path, "record", what, "key", fmt.Sprintf("%q", key), "err", err)
}

// refs iterates over the keys that match all of m but the address, in the
// order of the database. Records are not decoded.
func (tx *Tx) refs(m Match) iter.Seq[NodeRef] {
	var prefix []byte
	if m.Target != "" {
		prefix = append([]byte(m.Target), 0)
	}
	return func(yield func(NodeRef) bool) {
		for k, v := range tx.scan(bucketNodes, prefix) {
			key, ok := decodeNodeKey(k)
			number, ok2 := recordNumber(v)
			if !ok || !ok2 {
				tx.damaged("node", k, errRecordFormat)
				continue
			}
			if m.matchesButAddress(key) && !yield(NodeRef{NodeKey: key, TPGT: int(number)}) {
				return
			}
		}
	}
}

// NodeRefs returns the keys and tags of the records that match, in the order in
// which open-iscsi lists them. It does not read the records themselves.
func (tx *Tx) NodeRefs(m Match) []NodeRef {
	var refs []NodeRef
	for ref := range tx.refs(m) {
		if m.Matches(ref.NodeKey) {
			refs = append(refs, ref)
		}
	}
	sortRefs(refs)
	return refs
}

// sortRefs puts keys that are sorted as the database sorts them into the order
// of open-iscsi's directories. They differ only where one portal has several
// tags, by interface.
func sortRefs(refs []NodeRef) {
	for start := 0; start < len(refs); {
		end := start + 1
		for end < len(refs) && refs[end].Target == refs[start].Target && refs[end].Address == refs[start].Address && refs[end].Port == refs[start].Port {
			end++
		}
		if end > start+1 {
			slices.SortFunc(refs[start:end], compareRefs)
		}
		start = end
	}
}

// Nodes returns the records that match, in the order of NodeRefs.
func (tx *Tx) Nodes(m Match) []*Node {
	var nodes []*Node
	for _, ref := range tx.NodeRefs(m) {
		n, err := tx.Node(ref.NodeKey)
		if err != nil {
			tx.damaged("node", ref.encode(), err)
			continue
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// Node returns one record; a *NotFoundError if there is none.
func (tx *Tx) Node(k NodeKey) (*Node, error) {
	v := tx.read(bucketNodes, k.encode())
	if v == nil {
		return nil, &NotFoundError{What: "node", Key: k.String()}
	}
	n := &Node{newRecord(nodeTable)}
	tpgt, err := decodeRecord(&n.record, v)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", k, errors.Join(ErrCorrupt, err))
	}
	n.put(FieldName, k.Target)
	n.put(FieldAddress, k.Address)
	n.put(FieldPort, itoa(k.Port))
	n.put(FieldIfaceName, k.Iface)
	n.SetTPGT(int(tpgt))
	return n, nil
}

// PutNode stores a record, in the place of the one with the same key if there
// is one. The error is a *NameError, ErrReadOnly or bbolt's.
func (tx *Tx) PutNode(n *Node) error {
	if err := errors.Join(tx.writable(), n.check()); err != nil {
		return err
	}
	k := n.Key()
	if old, err := tx.Node(k); err == nil {
		if old.Discovery() != n.Discovery() {
			if err := tx.unlink(old); err != nil {
				return err
			}
		}
		tx.changes.remove(&old.record)
	}
	tx.changes.put(&n.record)
	if err := tx.bucket(bucketNodes).Put(k.encode(), encodeRecord(&n.record, int64(n.TPGT()), FieldName, FieldTPGT, FieldAddress, FieldPort, FieldIfaceName)); err != nil {
		return err
	}
	return tx.link(n)
}

// DeleteNode removes a record; a *NotFoundError if there is none.
func (tx *Tx) DeleteNode(k NodeKey) error {
	if tx.read(bucketNodes, k.encode()) == nil {
		return &NotFoundError{What: "node", Key: k.String()}
	}
	if err := tx.writable(); err != nil {
		return err
	}
	n, err := tx.Node(k)
	if err == nil {
		if err := tx.unlink(n); err != nil {
			return err
		}
		tx.changes.remove(&n.record)
	}
	tx.changes.any = true
	return tx.bucket(bucketNodes).Delete(k.encode())
}

// linkKey is the key of the link from a node's discovery to the node.
func linkKey(n *Node) []byte { return append(n.Discovery().linkPrefix(), n.Key().encode()...) }

func (tx *Tx) link(n *Node) error {
	b := tx.bucket(bucketLinks)
	k := linkKey(n)
	if b.Get(k) != nil {
		return nil
	}
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	return b.Put(k, seqBytes(seq))
}

func (tx *Tx) unlink(n *Node) error { return tx.bucket(bucketLinks).Delete(linkKey(n)) }

// Linked returns the nodes that were found by a discovery, newest first. For
// types without records, Static and Firmware, address and port do not count.
func (tx *Tx) Linked(k DiscoveryKey) []NodeRef {
	prefix := k.linkPrefix()
	if discoveryTable(k.Type) == nil {
		prefix = append([]byte(k.Type), 0)
	}
	type entry struct {
		ref NodeRef
		seq uint64
	}
	var found []entry
	for lk, lv := range tx.scan(bucketLinks, prefix) {
		parts := bytes.SplitN(lk, []byte{0}, 3)
		if len(parts) != 3 {
			continue
		}
		key, ok := decodeNodeKey(parts[2])
		number, ok2 := recordNumber(tx.read(bucketNodes, parts[2]))
		if ok && ok2 {
			found = append(found, entry{NodeRef{key, int(number)}, bytesSeq(lv)})
		}
	}
	slices.SortStableFunc(found, func(a, b entry) int { return cmp.Compare(b.seq, a.seq) })
	refs := make([]NodeRef, len(found))
	for i, e := range found {
		refs[i] = e.ref
	}
	return refs
}
