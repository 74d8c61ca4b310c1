package nodedb_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/goiscsi/goiscsi/nodedb"
)

const benchRecords = 10_000

// benchDB is a database with 10,000 records, on the file system of TMPDIR:
// put that on a disk to see what syncing costs.
func benchDB(b *testing.B, mirror bool) *nodedb.DB {
	b.Helper()
	dir := b.TempDir()
	o := nodedb.Options{}
	path := filepath.Join(dir, "nodes.db")
	err := nodedb.New(path, o).Update(context.Background(), func(tx *nodedb.Tx) error {
		for i := range benchRecords {
			n, err := nodedb.NewNode(nil, benchKey(i), 1)
			if err != nil {
				return err
			}
			n.SetDiscovery(discA)
			if err := tx.PutNode(n); err != nil {
				return err
			}
		}
		return nil
	})
	if mirror {
		o.Mirror = filepath.Join(dir, "etc")
	}
	db := nodedb.New(path, o)
	if err = errors.Join(err, db.Update(context.Background(), func(*nodedb.Tx) error { return nil })); err != nil {
		b.Fatal(err)
	}
	return db
}

func benchKey(i int) nodedb.NodeKey {
	return nodedb.NodeKey{Target: fmt.Sprintf("iqn.2016-01.com.example:storage.disk%d", i/2), Address: fmt.Sprintf("10.0.%d.1", i%2), Port: 3260, Iface: "default"}
}

func run(b *testing.B, op func(context.Context, func(*nodedb.Tx) error) error, fn func(*nodedb.Tx) error) {
	b.ReportAllocs()
	for b.Loop() {
		if err := op(context.Background(), fn); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList(b *testing.B) {
	db := benchDB(b, false)
	for _, m := range []struct {
		name string
		m    nodedb.Match
		want int
	}{
		{"all", nodedb.Match{}, benchRecords},
		{"target", nodedb.Match{Target: benchKey(5000).Target}, 2},
		{"portal", nodedb.Match{Address: "10.0.1.1", Port: 3260}, benchRecords / 2},
	} {
		b.Run(fmt.Sprintf("records=%d/match=%s", benchRecords, m.name), func(b *testing.B) {
			run(b, db.View, func(tx *nodedb.Tx) error {
				if got := len(tx.NodeRefs(m.m)); got != m.want {
					return fmt.Errorf("%d records", got)
				}
				return nil
			})
		})
	}
}

func BenchmarkReadAll(b *testing.B) {
	db := benchDB(b, false)
	b.Run("records="+strconv.Itoa(benchRecords), func(b *testing.B) {
		run(b, db.View, func(tx *nodedb.Tx) error { tx.Nodes(nodedb.Match{}); return nil })
	})
}

func BenchmarkShow(b *testing.B) {
	db := benchDB(b, false)
	b.Run("records="+strconv.Itoa(benchRecords), func(b *testing.B) {
		run(b, db.View, func(tx *nodedb.Tx) error { _, err := tx.Node(benchKey(5000)); return err })
	})
}

func BenchmarkUpdate(b *testing.B) {
	for _, mirror := range []bool{false, true} {
		db := benchDB(b, mirror)
		b.Run(fmt.Sprintf("records=%d/mirror=%v", benchRecords, mirror), func(b *testing.B) {
			i := 0
			run(b, db.Update, func(tx *nodedb.Tx) error {
				i++
				n, err := tx.Node(benchKey(i % benchRecords))
				if err != nil {
					return err
				}
				if err := n.Set(nodedb.FieldReplacementTimeout, strconv.Itoa(i)); err != nil {
					return err
				}
				return tx.PutNode(n)
			})
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	n, err := nodedb.NewNode(nil, benchKey(1), 1)
	if err != nil {
		b.Fatal(err)
	}
	m := n.Map()
	b.Run("from=map", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := nodedb.NodeFromMap(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("to=map", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n.Map()
		}
	})
}
