package nodedb

import (
	"strings"
	"testing"
	"testing/fstest"
)

// FuzzDecodeRecord: stored records, whatever is in them, decode without panic
// to something that encodes and decodes to the same again.
func FuzzDecodeRecord(f *testing.F) {
	n, err := NewNode(nil, NodeKey{Target: "iqn.x", Address: "10.0.0.1", Port: 3260, Iface: DefaultIface}, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeRecord(&n.record, 1))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x01node.startup=sometimes\nx=y\n"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x01garbage"))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, table := range []*table{nodeTable, ifaceTable, sendTargetsTable, isnsTable} {
			r := newRecord(table)
			number, err := decodeRecord(&r, b)
			if err != nil {
				continue
			}
			if len(r.extra) > maxExtra {
				t.Fatalf("%d unknown fields", len(r.extra))
			}
			again := newRecord(table)
			number2, err := decodeRecord(&again, encodeRecord(&r, number))
			if err != nil || number2 != number {
				t.Fatalf("second decoding: %d, %v; the first gave %d", number2, err, number)
			}
			for i := range r.vals {
				if r.vals[i] != again.vals[i] {
					t.Fatalf("%s is %q and then %q", table.fields[i].Name, r.vals[i], again.vals[i])
				}
				if strings.ContainsAny(r.vals[i], "\n\x00") {
					t.Fatalf("%s is %q", table.fields[i].Name, r.vals[i])
				}
			}
		}
	})
}

// FuzzKeys: what decodes as a key is the key that it came from, and is safe to
// make a path of; and keys sort as open-iscsi's directories do.
func FuzzKeys(f *testing.F) {
	f.Add("iqn.a\x0010.0.0.1,3260\x00default", "iqn.a\x00::1,326\x00i0")
	f.Add("iqn.a-b\x00a,1\x00d", "iqn.a\x00a,1\x00d")
	f.Fuzz(func(t *testing.T, x, y string) {
		a, ok := decodeNodeKey([]byte(x))
		if !ok {
			return
		}
		if string(a.encode()) != x {
			t.Fatalf("key %q came back as %q", x, a.encode())
		}
		if p := nodeTreePath(NodeRef{a, 1}); !fsValid(p) {
			t.Fatalf("path %q", p)
		}
		b, ok := decodeNodeKey([]byte(y))
		if !ok || a.Target == b.Target && a.Address == b.Address && a.Port == b.Port {
			return // the order within a portal is up to sortRefs
		}
		for _, tag := range []int{-1, 1} {
			if got := compareRefs(NodeRef{a, 1}, NodeRef{b, tag}); (got < 0) != (x < y) {
				t.Fatalf("%q and %q sort differently in the database and in the tree", x, y)
			}
		}
	})
}

// fsValid reports whether p is a path of four names, none of them special.
func fsValid(p string) bool {
	parts := strings.Split(p, "/")
	for _, s := range parts {
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "\x00\n") {
			return false
		}
	}
	return len(parts) == 4
}

// FuzzParseRecord: record files of any content give records that can be
// stored, or none.
func FuzzParseRecord(f *testing.F) {
	n, err := NewNode(nil, NodeKey{Target: "iqn.x", Address: "10.0.0.1", Port: 3260, Iface: DefaultIface}, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("iqn.x", "10.0.0.1,3260,1", string(fileText(&n.record, true)))
	f.Add("..", "10.0.0.1,3260", "node.name = ../../x\n# goiscsi: node.session.attach = x\nnode.session.auth.password = ********")
	f.Add("a", "::1,3260,-1", "a=b\n = \n<empty> = <empty>")
	f.Fuzz(func(t *testing.T, target, portal, text string) {
		if strings.Contains(target+portal, "/") || target == "" || portal == "" {
			return
		}
		tree, _ := ReadTreeFS(fstest.MapFS{
			"nodes/" + target + "/" + portal + "/default": {Data: []byte(text)},
			"nodes/" + target + "/old," + portal:          {Data: []byte(text)},
			"send_targets/" + portal + "/st_config":       {Data: []byte(text)},
			"isns/" + portal + "/isns_config":             {Data: []byte(text)},
			"ifaces/" + target:                            {Data: []byte(text)},
		})
		for _, n := range tree.Nodes {
			if err := n.check(); err != nil {
				t.Fatalf("node: %v", err)
			}
		}
		for _, d := range tree.Discoveries {
			if err := d.Key().Validate(); err != nil {
				t.Fatalf("discovery: %v", err)
			}
		}
		for _, r := range tree.records() {
			again, errs := parseRecord(string(fileText(r, false)))
			if errs != nil {
				t.Fatalf("its own file: %v", errs)
			}
			for k, v := range again {
				if got, ok := r.Map()[k]; !ok || got != v && strings.TrimSpace(got) != v {
					t.Fatalf("%s = %q is written as %q", k, got, v)
				}
			}
		}
	})
}
