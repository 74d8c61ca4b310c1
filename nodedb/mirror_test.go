package nodedb_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/nodedb"
)

// paths lists the files and links of a tree, links with where they lead.
func paths(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(d.Name(), "."), d.IsDir():
		case d.Type()&fs.ModeSymlink != 0:
			if _, err := os.Stat(p); err != nil {
				t.Errorf("link leads nowhere: %v", err)
			}
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			out = append(out, rel+" -> "+target)
		default:
			out = append(out, rel)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

// checkMirror fails the test if the tree at root does not say what db does.
func checkMirror(t *testing.T, db *nodedb.DB, root string) {
	t.Helper()
	var want *nodedb.Tree
	view(t, db, func(tx *nodedb.Tx) error { want = tx.Tree(); return nil })
	got, err := nodedb.ReadTree(root)
	if err != nil {
		t.Errorf("mirror: %v", err)
	}
	if diff := cmp.Diff(treeMaps(want), treeMaps(got)); diff != "" {
		t.Errorf("mirror is not in step (-database +mirror):\n%s", diff)
	}
	fresh := t.TempDir()
	if err := want.Write(fresh); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(paths(t, fresh), paths(t, root)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// treeMaps returns the fields of a tree's records by their identity.
func treeMaps(tree *nodedb.Tree) map[string]map[string]string {
	m := make(map[string]map[string]string)
	for _, n := range tree.Nodes {
		m["node "+n.String()] = n.Map()
	}
	for _, d := range tree.Discoveries {
		m["discovery "+d.String()] = d.Map()
	}
	for _, i := range tree.Ifaces {
		m["iface "+i.Name()] = i.Map()
	}
	return m
}

func mirroredDB(t *testing.T) (db *nodedb.DB, root string) {
	t.Helper()
	dir := t.TempDir()
	root = filepath.Join(dir, "etc", "iscsi")
	return nodedb.New(filepath.Join(dir, "nodes.db"), nodedb.Options{Mirror: root}), root
}

func TestMirrorFollowsEveryChange(t *testing.T) {
	db, root := mirroredDB(t)
	disc := nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "10.0.0.1", Port: 3260}
	isns := nodedb.DiscoveryKey{Type: nodedb.ISNS, Address: "::1", Port: 3205}
	i0 := newIface(t, "i0")
	found := []nodedb.Found{{Target: "iqn.a", Address: "10.0.0.1", Port: 3260, TPGT: 1}, {Target: "iqn.b", Address: "::1", Port: 3260, TPGT: 1, Iface: i0}}
	static := newNode(t, key("iqn.static", "10.0.0.9"), -1)
	bound := newNode(t, nodedb.NodeKey{Target: "iqn.static", Address: "10.0.0.9", Port: 3260, Iface: "i0"}, -1)

	for _, step := range []struct {
		name string
		fn   func(tx *nodedb.Tx) error
	}{
		{"interface", func(tx *nodedb.Tx) error { return tx.PutIface(i0) }},
		{"discovery", func(tx *nodedb.Tx) error {
			_, err := tx.ApplyDiscovery(disc, found, nodedb.ApplyOptions{})
			return errors.Join(tx.PutDiscovery(newDiscovery(t, disc)), tx.PutDiscovery(newDiscovery(t, isns)), err)
		}},
		{"static nodes", func(tx *nodedb.Tx) error { return errors.Join(tx.PutNode(static), tx.PutNode(bound)) }},
		{"own and secret fields", func(tx *nodedb.Tx) error {
			n, err := tx.Node(key("iqn.a", "10.0.0.1"))
			if err != nil {
				return err
			}
			return errors.Join(n.Set(nodedb.FieldAttach, "socket"), n.Set(nodedb.FieldPassword, "geheim"), tx.PutNode(n))
		}},
		{"the tag becomes known", func(tx *nodedb.Tx) error { static.SetTPGT(3); return tx.PutNode(static) }},
		{"another tag", func(tx *nodedb.Tx) error { static.SetTPGT(4); return tx.PutNode(static) }},
		{"put and deleted at once", func(tx *nodedb.Tx) error {
			n := newNode(t, key("iqn.short", "10.0.0.1"), 1)
			return errors.Join(tx.PutNode(n), tx.DeleteNode(n.Key()))
		}},
		{"deleted and put at once", func(tx *nodedb.Tx) error {
			return errors.Join(tx.DeleteNode(static.Key()), tx.PutNode(static))
		}},
		{"found by another discovery", func(tx *nodedb.Tx) error {
			_, err := tx.ApplyDiscovery(isns, found[:1], nodedb.ApplyOptions{})
			return err
		}},
		{"interface deleted", func(tx *nodedb.Tx) error { _, err := tx.DeleteIface("i0", nil); return err }},
		{"discovery deleted", func(tx *nodedb.Tx) error { _, err := tx.DeleteDiscovery(isns); return err }},
		{"all deleted", func(tx *nodedb.Tx) error {
			_, err := tx.DeleteDiscovery(disc)
			return errors.Join(err, tx.DeleteNode(static.Key()))
		}},
	} {
		update(t, db, step.fn)
		t.Run(step.name, func(t *testing.T) { checkMirror(t, db, root) })
	}
	if got := paths(t, root); got != nil {
		t.Errorf("left behind: %q", got)
	}
}

func TestMirrorIsMadeWhenItIsTurnedOn(t *testing.T) {
	db, root := mirroredDB(t)
	plain := nodedb.New(db.Path(), nodedb.Options{})
	put(t, plain, newNode(t, key("iqn.a", "10.0.0.1"), 1), newNode(t, key("iqn.b", "10.0.0.1"), 1))
	update(t, db, func(*nodedb.Tx) error { return nil })
	checkMirror(t, db, root)

	// What is done while it is off is made up for when it is on again.
	update(t, plain, func(tx *nodedb.Tx) error { return tx.DeleteNode(key("iqn.a", "10.0.0.1")) })
	put(t, db, newNode(t, key("iqn.c", "10.0.0.1"), 1))
	checkMirror(t, db, root)
}

func TestMirrorLeavesTheFilesOfOthersAlone(t *testing.T) {
	db, root := mirroredDB(t)
	others := []string{
		"iscsid.conf", "nodes/iqn.other/10.0.0.1,3260,1/default", "nodes/iqn.a/10.0.0.1,3260,1/other", "ifaces/eth", "send_targets/10.0.0.1,3260/notes",
	}
	for _, name := range others {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte("# BEGIN RECORD 2.1.8\n# END RECORD\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(root, "send_targets/10.0.0.1,3260/iqn.other,10.0.0.1,3260,1,gone")
	if err := os.Symlink("/nowhere", link); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, key("iqn.a", "10.0.0.1"), 1)
	n.SetDiscovery(nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "10.0.0.1", Port: 3260})
	put(t, db, n)
	update(t, db, func(tx *nodedb.Tx) error { return tx.DeleteNode(n.Key()) })
	put(t, nodedb.New(db.Path(), nodedb.Options{}), n)
	update(t, db, func(tx *nodedb.Tx) error { return tx.DeleteNode(n.Key()) })
	if err := os.Remove(link); err != nil {
		t.Errorf("the link of another is gone: %v", err)
	}
	slices.Sort(others)
	if diff := cmp.Diff(others, paths(t, root)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestMirrorFilesCannotBeReadByOthers(t *testing.T) {
	db, root := mirroredDB(t)
	put(t, db, newNode(t, key("iqn.a", "10.0.0.1"), 1))
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", p, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTroubleWithTheMirrorIsLoggedAndMadeUpFor(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "etc")
	if err := os.WriteFile(root, nil, 0o600); err != nil { // a file in its place
		t.Fatal(err)
	}
	var log bytes.Buffer
	db := nodedb.New(filepath.Join(dir, "nodes.db"), nodedb.Options{Mirror: root, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	n := newNode(t, key("iqn.a", "10.0.0.1"), 1)
	if err := n.Set(nodedb.FieldPassword, "geheim"); err != nil {
		t.Fatal(err)
	}
	if err := db.Update(context.Background(), func(tx *nodedb.Tx) error { return tx.PutNode(n) }); err != nil {
		t.Fatalf("the update failed: %v", err)
	}
	if !strings.Contains(log.String(), "mirror") || strings.Contains(log.String(), "geheim") {
		t.Errorf("log: %s", log.String())
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(*nodedb.Tx) error { return nil })
	checkMirror(t, db, root)
}
