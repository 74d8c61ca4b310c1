package nodedb_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"

	"github.com/goiscsi/goiscsi/nodedb"
)

// file returns a record file with the given lines.
func file(lines ...string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte("# BEGIN RECORD 2.1.8\n" + strings.Join(lines, "\n") + "\n# END RECORD\n"), Mode: 0o600}
}

// warnings returns the texts in a ReadTree error.
func warnings(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var me *multierror.Error
	if !errors.As(err, &me) {
		t.Fatalf("error %T, want a *multierror.Error", err)
	}
	var out []string
	for _, e := range me.Errors {
		var fe *nodedb.FileError
		if !errors.As(e, &fe) {
			t.Errorf("%v is no *FileError", e)
		}
		out = append(out, e.Error())
	}
	return out
}

func TestReadTree(t *testing.T) {
	fsys := fstest.MapFS{
		"iscsid.conf": &fstest.MapFile{Data: []byte("node.startup = automatic\n")},
		"nodes/iqn.a/10.0.0.1,3260,1/default": file(
			"node.name = iqn.a", "node.tpgt = 1", "node.startup = automatic", "iface.iscsi_ifacename = default", "iface.transport_name = tcp",
			"node.discovery_address = 10.0.0.1", "node.discovery_port = 3260", "node.discovery_type = send_targets",
			"node.session.auth.password = a = b", "node.session.auth.password_length = 5", "node.conn[0].address = 10.0.0.1", "node.conn[0].port = 3260"),
		"nodes/iqn.a/10.0.0.1,3260,1/i0": file("node.name = iqn.a", "node.tpgt = 1", "iface.iscsi_ifacename = i0", "iface.net_ifacename = eth0",
			"node.conn[0].address = 10.0.0.1", "node.conn[0].port = 3260"),
		"nodes/iqn.old/fe80::1%eth0,3261":                               file("node.startup = manual"),
		"nodes/iqn.nolink/10.0.0.2,3260,7/default":                      file("node.session.reopen_max = 3"),
		"nodes/iqn.own/10.0.0.1,3260,1/default":                         file("# goiscsi: node.session.attach = socket", "node.session.unknown_thing = x"),
		"send_targets/10.0.0.1,3260/st_config":                          file("discovery.type = sendtargets", "discovery.sendtargets.address = 10.0.0.1", "discovery.sendtargets.port = 3260", "discovery.sendtargets.auth.username = disc"),
		"send_targets/10.0.0.1,3260/iqn.nolink,10.0.0.2,3260,7,default": file(),
		"isns/10.0.0.5,3205/isns_config":                                file("discovery.isns.discoveryd_poll_inval = 60"),
		"ifaces/i0":                                                     file("iface.net_ifacename = eth0", "iface.transport_name = tcp"),
		"ifaces/iface.example":                                          file("iface.iscsi_ifacename = x"),
		"static/iqn.old,fe80::1%eth0,3261,-1,default":                   file(),
		"nodes/iqn.old/.hidden":                                         file("x"),
	}
	tree, err := nodedb.ReadTreeFS(fsys)
	if got := warnings(t, err); got != nil {
		t.Errorf("warnings: %q", got)
	}
	var got []string
	for _, n := range tree.Nodes {
		got = append(got, fmt.Sprintf("%v tag %d %s/%s, %s %s, %s %s", n, n.TPGT(), n.Startup(), n.Text(nodedb.FieldPassword), n.Discovery(), n.Iface().NetIface(), n.Attach(), n.Text(nodedb.FieldReopenMax)))
	}
	for _, d := range tree.Discoveries {
		got = append(got, fmt.Sprintf("%v %s %s", d, d.Text(nodedb.FieldDiscUsername), d.Text(nodedb.FieldISNSPollInterval)))
	}
	for _, i := range tree.Ifaces {
		got = append(got, i.Name()+" "+i.NetIface())
	}
	want := []string{
		"[iface: default, target: iqn.a, portal: 10.0.0.1,3260] tag 1 automatic/a = b, 10.0.0.1:3260 via sendtargets , auto 0",
		"[iface: i0, target: iqn.a, portal: 10.0.0.1,3260] tag 1 manual/, :0 via static eth0, auto 0",
		"[iface: default, target: iqn.nolink, portal: 10.0.0.2,3260] tag 7 manual/, 10.0.0.1:3260 via sendtargets , auto 3",
		"[iface: default, target: iqn.old, portal: fe80::1%eth0,3261] tag -1 manual/, :0 via static , auto 0",
		"[iface: default, target: iqn.own, portal: 10.0.0.1,3260] tag 1 manual/, :0 via static , socket 0",
		"10.0.0.1:3260 via sendtargets disc ",
		"10.0.0.5:3205 via isns  60",
		"i0 eth0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadTreeTellsWhatItLeavesOut(t *testing.T) {
	const node = "nodes/iqn.a/10.0.0.1,3260,1/default"
	for _, tc := range []struct {
		name  string
		path  string
		file  *fstest.MapFile
		want  string // part of the warning
		nodes int
	}{
		{"bad word", node, file("node.startup = sometimes"), "unknown value format 'sometimes'", 1},
		{"no separator", node, file("node.startup"), `line 2 is not "key = value"`, 1},
		{"masked password", node, file("node.session.auth.password = ********"), "is masked", 1},
		{"unknown algorithm", node, file("node.session.auth.chap_algs = MD5,X"), "Ignoring unknown value 'X'", 1},
		{"other target than its directory", node, file("node.name = iqn.b"), `node.name is "iqn.b", not "iqn.a"`, 1},
		{"other address than its directory", node, file("node.conn[0].address = 10.0.0.9"), `is "10.0.0.9", not "10.0.0.1"`, 1},
		{"target that leaves the tree", node, file("node.name = ../../etc/passwd"), "invalid target name", 0},
		{"address that leaves the tree", node, file("node.conn[0].address = ../x"), "invalid address", 0},
		{"target with a blank", "nodes/iqn a/10.0.0.1,3260,1/default", file(), "invalid target name", 0},
		{"no portal", "nodes/iqn.a/x", file(), "invalid address", 0},
		{"port", "nodes/iqn.a/10.0.0.1,0,1/default", file(), "invalid port", 0},
		{"too large", node, &fstest.MapFile{Data: make([]byte, 1<<20)}, "larger than", 0},
		{"not a regular file", node, &fstest.MapFile{Mode: os.ModeNamedPipe | 0o600}, "not a regular file", 0},
		{"too many keys", node, file(slices.Collect(func(yield func(string) bool) {
			for i := range 1000 {
				if !yield(fmt.Sprintf("k%d = v", i)) {
					return
				}
			}
		})...), "too many keys", 1},
		{"stray discovery file", "send_targets/x", file(), "not the directory of a discovery record", 0},
		{"discovery address", "send_targets/10.0.0.1,3260/st_config", file("discovery.sendtargets.address = a/b"), "invalid address", 0},
		{"built-in interface", "ifaces/default", file("iface.net_ifacename = lo"), "special interface", 0},
		{"interface name", "ifaces/x", file("iface.iscsi_ifacename = ../x"), "invalid interface name", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tree, err := nodedb.ReadTreeFS(fstest.MapFS{tc.path: tc.file})
			got := strings.Join(warnings(t, err), "\n")
			if !strings.Contains(got, tc.want) || !strings.Contains(got, tc.path) && !strings.Contains(got, filepath.Dir(tc.path)) {
				t.Errorf("warnings %q, want %q", got, tc.want)
			}
			if len(tree.Nodes) != tc.nodes || len(tree.Discoveries)+len(tree.Ifaces) != 0 {
				t.Errorf("%d nodes, want %d; %d discoveries, %d interfaces", len(tree.Nodes), tc.nodes, len(tree.Discoveries), len(tree.Ifaces))
			}
		})
	}
}

func TestReadTreeTakesOneRecordAPortal(t *testing.T) {
	tree, err := nodedb.ReadTreeFS(fstest.MapFS{
		"nodes/iqn.a/10.0.0.1,3260":           file("node.startup = manual"),
		"nodes/iqn.a/10.0.0.1,3260,1/default": file("node.startup = automatic"),
	})
	if len(tree.Nodes) != 1 || tree.Nodes[0].TPGT() != 1 || tree.Nodes[0].Startup() != "automatic" || len(warnings(t, err)) != 1 {
		t.Errorf("nodes %v, %v", tree.Nodes, err)
	}
}

func TestReadTreeOfNothing(t *testing.T) {
	tree, err := nodedb.ReadTree(filepath.Join(t.TempDir(), "none"))
	if err != nil || len(tree.Nodes) != 0 {
		t.Errorf("%v, %v", tree, err)
	}
}

func TestReadTreeFollowsLinksOfDirectories(t *testing.T) {
	dir := t.TempDir()
	real, etc := filepath.Join(dir, "var"), filepath.Join(dir, "etc")
	tree := &nodedb.Tree{Nodes: []*nodedb.Node{newNode(t, key("iqn.a", "10.0.0.1"), 1)}}
	err := errors.Join(tree.Write(real), os.Mkdir(etc, 0o700), os.Symlink(filepath.Join(real, "nodes"), filepath.Join(etc, "nodes")))
	if err != nil {
		t.Fatal(err)
	}
	got, err := nodedb.ReadTree(etc)
	if err != nil || len(got.Nodes) != 1 {
		t.Errorf("%v, %v", got.Nodes, err)
	}
	// And so does writing.
	tree.Nodes = append(tree.Nodes, newNode(t, key("iqn.b", "10.0.0.1"), -1))
	if err := tree.Write(etc); err != nil {
		t.Fatal(err)
	}
	if got, err := nodedb.ReadTree(real); err != nil || len(got.Nodes) != 2 {
		t.Errorf("%v, %v", got.Nodes, err)
	}
}

// sampleTree has a record of every sort.
func sampleTree(t testing.TB) *nodedb.Tree {
	t.Helper()
	i := newIface(t, "i0")
	a := newNode(t, key("iqn.a", "10.0.0.1"), 1)
	b := newNode(t, key("iqn.b,with,commas", "fe80::1%eth0"), -1)
	c := newNode(t, nodedb.NodeKey{Target: "iqn.b,with,commas", Address: "san.example.com", Port: 860, Iface: "i0"}, -1)
	a.SetDiscovery(discA)
	b.SetDiscovery(nodedb.DiscoveryKey{Type: nodedb.ISNS, Address: "::1", Port: 3205})
	d, e := newDiscovery(t, discA), newDiscovery(t, b.Discovery())
	err := errors.Join(
		i.Set(nodedb.FieldIfaceNet, "eth0"), i.Set(nodedb.FieldIfaceAddress, "fe80::2"), i.Set("iface.hop_limit", "9"),
		a.Set(nodedb.FieldPassword, "pass = word#"), a.Set(nodedb.FieldAttach, "none"), a.Set(nodedb.FieldReopenLogFreq, "10"),
		a.Set(nodedb.FieldCHAPAlgs, "SHA256,MD5"), d.Set(nodedb.FieldDiscPassword, "x"), e.Set(nodedb.FieldISNSPollInterval, "-5"),
	)
	if err != nil {
		t.Fatal(err)
	}
	c.SetIface(i)
	return &nodedb.Tree{Nodes: []*nodedb.Node{a, b, c}, Discoveries: []*nodedb.Discovery{d, e}, Ifaces: []*nodedb.Iface{i}}
}

func TestTreesRoundTripThroughFilesAndDatabase(t *testing.T) {
	want := sampleTree(t)
	root := t.TempDir()
	if err := want.Write(root); err != nil {
		t.Fatal(err)
	}
	wantPaths := []string{
		"ifaces/i0",
		"isns/::1,3205/iqn.b,with,commas,fe80::1%eth0,3260,-1,default -> ../../nodes/iqn.b,with,commas/fe80::1%eth0,3260",
		"isns/::1,3205/isns_config",
		"nodes/iqn.a/10.0.0.1,3260,1/default",
		"nodes/iqn.b,with,commas/fe80::1%eth0,3260",
		"nodes/iqn.b,with,commas/san.example.com,860,1/i0",
		"send_targets/10.0.0.1,3260/iqn.a,10.0.0.1,3260,1,default -> ../../nodes/iqn.a/10.0.0.1,3260,1",
		"send_targets/10.0.0.1,3260/st_config",
		"static/iqn.b,with,commas,san.example.com,860,1,i0 -> ../nodes/iqn.b,with,commas/san.example.com,860,1",
	}
	if diff := cmp.Diff(wantPaths, paths(t, root)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	read, err := nodedb.ReadTree(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(treeMaps(want), treeMaps(read)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	db := newDB(t)
	var stored *nodedb.Tree
	update(t, db, func(tx *nodedb.Tx) error { _, err := tx.Import(read, false); return err })
	view(t, db, func(tx *nodedb.Tx) error { stored = tx.Tree(); return nil })
	if diff := cmp.Diff(treeMaps(want), treeMaps(stored)); diff != "" {
		t.Errorf("database (-want +got):\n%s", diff)
	}
}

func TestFilesHoldNoKeyThatOpenISCSILacks(t *testing.T) {
	root := t.TempDir()
	if err := sampleTree(t).Write(root); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "nodes/iqn.a/10.0.0.1,3260,1/default"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.HasPrefix(line, "node.session.attach"):
			t.Errorf("open-iscsi does not read %q", line)
		case strings.Contains(line, "<empty>"), strings.HasSuffix(strings.TrimSpace(line), "="):
			t.Errorf("empty value: %q", line)
		}
	}
	if !strings.Contains(string(b), "\n# goiscsi: node.session.attach = none\n") || !strings.Contains(string(b), "node.session.auth.password = pass = word#\n") {
		t.Errorf("file:\n%s", b)
	}
}

func TestImportKeepsOrReplaces(t *testing.T) {
	tree := sampleTree(t)
	for _, overwrite := range []bool{false, true} {
		db := newDB(t)
		old := newNode(t, key("iqn.a", "10.0.0.1"), 9)
		put(t, db, old)
		var res nodedb.ImportResult
		update(t, db, func(tx *nodedb.Tx) (err error) { res, err = tx.Import(tree, overwrite); return err })
		want := nodedb.ImportResult{Nodes: 2, Discoveries: 2, Ifaces: 1, Kept: 1}
		tag := 9
		if overwrite {
			want, tag = nodedb.ImportResult{Nodes: 3, Discoveries: 2, Ifaces: 1}, 1
		}
		if res != want {
			t.Errorf("overwrite %v: %+v, want %+v", overwrite, res, want)
		}
		view(t, db, func(tx *nodedb.Tx) error {
			n, err := tx.Node(old.Key())
			if err == nil && n.TPGT() != tag {
				t.Errorf("overwrite %v: tag %d, want %d", overwrite, n.TPGT(), tag)
			}
			return err
		})
	}
}

func TestWrittenLinksReplaceLinksButNothingElse(t *testing.T) {
	tree := sampleTree(t)
	root := t.TempDir()
	link := filepath.Join(root, "send_targets/10.0.0.1,3260/iqn.a,10.0.0.1,3260,1,default")
	if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink("/old", link)); err != nil {
		t.Fatal(err)
	}
	if err := tree.Write(root); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || !strings.HasPrefix(target, "../../nodes/") {
		t.Errorf("link leads to %q, %v", target, err)
	}
	if err := errors.Join(os.Remove(link), os.WriteFile(link, []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := tree.Write(root); err == nil {
		t.Error("a file was replaced by a link")
	}
	if b, _ := os.ReadFile(link); string(b) != "mine" {
		t.Errorf("file is now %q", b)
	}
}
