package nodedb_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/nodedb"
)

// TestMain lets the test program play one of the processes that share a
// database: with NODEDB_CHILD set it does what that says instead of testing.
func TestMain(m *testing.M) {
	if child := os.Getenv("NODEDB_CHILD"); child != "" {
		if err := runChild(child, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func newDB(t testing.TB) *nodedb.DB {
	t.Helper()
	return openDB(filepath.Join(t.TempDir(), "iscsi", "nodes.db"))
}

func openDB(path string) *nodedb.DB {
	return nodedb.New(path, nodedb.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

func key(target, addr string) nodedb.NodeKey {
	return nodedb.NodeKey{Target: target, Address: addr, Port: 3260, Iface: nodedb.DefaultIface}
}

func newNode(t testing.TB, k nodedb.NodeKey, tpgt int) *nodedb.Node {
	t.Helper()
	n, err := nodedb.NewNode(nil, k, tpgt)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newIface(t testing.TB, name string) *nodedb.Iface {
	t.Helper()
	i, err := nodedb.NewIface(name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newDiscovery(t testing.TB, k nodedb.DiscoveryKey) *nodedb.Discovery {
	t.Helper()
	d, err := nodedb.NewDiscovery(nil, k)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func update(t testing.TB, db *nodedb.DB, fn func(tx *nodedb.Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, db *nodedb.DB, fn func(tx *nodedb.Tx) error) {
	t.Helper()
	if err := db.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// put stores nodes in one transaction.
func put(t testing.TB, db *nodedb.DB, nodes ...*nodedb.Node) {
	t.Helper()
	update(t, db, func(tx *nodedb.Tx) error {
		for _, n := range nodes {
			if err := tx.PutNode(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// refs returns the keys that match, as "target address,port,tag iface".
func refs(t testing.TB, db *nodedb.DB, m nodedb.Match) []string {
	t.Helper()
	var out []string
	view(t, db, func(tx *nodedb.Tx) error {
		for _, r := range tx.NodeRefs(m) {
			out = append(out, fmt.Sprintf("%s %s,%d,%d %s", r.Target, r.Address, r.Port, r.TPGT, r.Iface))
		}
		return nil
	})
	return out
}
