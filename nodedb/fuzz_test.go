package nodedb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/nodedb"
)

// FuzzParseConfig: no configuration panics, makes records that are not valid,
// or puts control characters into warnings.
func FuzzParseConfig(f *testing.F) {
	f.Add(string(nodedb.ShippedConfig()))
	f.Add("node.startup=automatic\nnode.startup\nnode.startup = \x1b[2J\n = \n=\niscsid.startup")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := nodedb.ParseConfig(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, w := range c.Warnings {
			if strings.ContainsAny(w, "\n\r\x1b") {
				t.Errorf("warning %q", w)
			}
		}
		n, err := nodedb.NewNode(c, nodedb.NodeKey{Target: "iqn.x", Address: "10.0.0.1", Port: 3260, Iface: "default"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nodedb.NodeFromMap(n.Map()); err != nil {
			t.Errorf("configuration makes a record that is refused: %v", err)
		}
		if n.Target() != "iqn.x" || n.Address() != "10.0.0.1" || n.IfaceName() != "default" {
			t.Errorf("configuration has changed the key to %v", n.Key())
		}
	})
}

// FuzzNodeFromMap: messages make records that survive a round trip, or errors.
func FuzzNodeFromMap(f *testing.F) {
	f.Add("node.startup", "automatic", "node.session.timeo.replacement_timeout", "abc")
	f.Add("node.name", "../x", "iface.iscsi_ifacename", "a,b")
	f.Add("x=y", "z", "node.session.auth.chap_algs", "MD5,MD5,X")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		m := map[string]string{"node.name": "iqn.x", "node.conn[0].address": "::1", "node.conn[0].port": "3260", "iface.iscsi_ifacename": "default"}
		m[k1], m[k2] = v1, v2
		n, err := nodedb.NodeFromMap(m)
		if err != nil {
			if strings.ContainsAny(strings.Join(nodedb.Lines(err), ""), "\n\r\x1b") {
				t.Errorf("error text %q", err)
			}
			return
		}
		if err := n.Key().Validate(); err != nil {
			t.Fatal(err)
		}
		again, err := nodedb.NodeFromMap(n.Map())
		if err != nil || !maps.Equal(again.Map(), n.Map()) {
			t.Errorf("round trip: %v\n%v\n%v", err, n.Map(), again)
		}
		var b strings.Builder
		if err := n.Print(&b, nodedb.PrintOptions{}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if !strings.HasPrefix(line, "# ") && !strings.Contains(line, " = ") {
				t.Errorf("line %q", line)
			}
		}
	})
}

// FuzzParseInitiatorName: names that come out are fit for use.
func FuzzParseInitiatorName(f *testing.F) {
	f.Add("InitiatorName=iqn.a:b\nInitiatorAlias=x\n")
	f.Add("#InitiatorName\nInitiatorName==\x00")
	f.Fuzz(func(t *testing.T, text string) {
		in, err := nodedb.ParseInitiatorName(strings.NewReader(text))
		if err != nil {
			return
		}
		if err := nodedb.ValidateTarget(in.Name); err != nil {
			t.Error(err)
		}
	})
}

// FuzzDamagedDatabase: a database file with wrong bytes in it is used as far
// as it goes or refused; it neither panics nor hangs. The input is a list of
// edits: page, place in the page (with the upper half of the values in its
// header), byte.
func FuzzDamagedDatabase(f *testing.F) {
	db := openDB(filepath.Join(f.TempDir(), "nodes.db"))
	nodes := make([]*nodedb.Node, 120)
	for i := range nodes {
		nodes[i] = newNode(f, key("iqn.x", fmt.Sprint("h", i)), 1)
	}
	put(f, db, nodes...)
	update(f, db, func(tx *nodedb.Tx) error { return tx.DeleteNode(nodes[7].Key()) })
	good, err := os.ReadFile(db.Path())
	if err != nil {
		f.Fatal(err)
	}
	page := os.Getpagesize()
	for i := byte(2); int(i) < len(good)/page; i += 4 { // the first two are copies of each other
		for _, at := range []byte{0x80, 0x88, 0x8a, 0x8c, 0x8f, 0x90, 0x94, 0x98, 0x9c, 0x20} { // id, flags, count, overflow, first elements
			f.Add([]byte{i, at, 0xff})
			f.Add([]byte{i, at, 0x03, i, at + 1, 0x7f})
		}
	}
	f.Fuzz(func(t *testing.T, edits []byte) {
		b := bytes.Clone(good)
		for ; len(edits) >= 3; edits = edits[3:] {
			at := int(edits[1]) * page / 256
			if edits[1] >= 0x80 {
				at = int(edits[1] - 0x80)
			}
			b[(int(edits[0])*page+at)%len(b)] = edits[2]
		}
		db := openDB(filepath.Join(t.TempDir(), "nodes.db"))
		if err := os.WriteFile(db.Path(), b, 0o600); err != nil {
			t.Fatal(err)
		}
		check := func(err error) {
			var de *nodedb.DBError
			if err != nil && !errors.As(err, &de) {
				t.Errorf("error %v, want a *DBError", err)
			}
		}
		before := allocated()
		check(db.View(context.Background(), func(tx *nodedb.Tx) error { tx.Tree(); return nil }))
		check(db.Update(context.Background(), func(tx *nodedb.Tx) error {
			for _, n := range nodes[:3] {
				if err := tx.PutNode(n); err != nil {
					return &nodedb.DBError{Err: err}
				}
			}
			return nil
		}))
		if n := allocated() - before; n > 64<<20 {
			t.Errorf("%d bytes allocated", n)
		}
		if info, err := os.Stat(db.Path()); err != nil || info.Size() > int64(8*len(good)) {
			t.Errorf("%d bytes became %d, %v", len(good), info.Size(), err)
		}
	})
}

// allocated returns how many bytes the process has allocated in its life.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
