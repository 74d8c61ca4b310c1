package nodedb_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

func TestMissingDatabaseIsEmpty(t *testing.T) {
	db := newDB(t)
	disc := nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "10.0.0.1", Port: 3260}
	view(t, db, func(tx *nodedb.Tx) error {
		if n := len(tx.NodeRefs(nodedb.Match{})) + len(tx.Nodes(nodedb.Match{})) + len(tx.Discoveries()) + len(tx.Linked(disc)) + len(tx.UserIfaces()); n != 0 {
			t.Errorf("%d records", n)
		}
		if _, err := tx.Node(key("iqn.x", "10.0.0.1")); errcode.Of(err) != errcode.NoObjsFound || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want code 21 and fs.ErrNotExist", err)
		}
		if got := tx.Ifaces(); len(got) != 2 || got[0].Name() != "default" || got[1].Name() != "iser" || got[1].Transport() != "iser" {
			t.Errorf("interfaces %v", got)
		}
		return nil
	})
	if _, err := os.Stat(filepath.Dir(db.Path())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading made the directory: %v", err)
	}
}

func TestUpdateMakesFileAndDirectoryPrivate(t *testing.T) {
	db := newDB(t)
	put(t, db, newNode(t, key("iqn.x", "10.0.0.1"), 1))
	for p, want := range map[string]fs.FileMode{db.Path(): 0o600, filepath.Dir(db.Path()): 0o700 | fs.ModeDir} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", p, info.Mode(), err, want)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(db.Path())); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestEmptyFileIsAnEmptyDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	db := openDB(path)
	if got := refs(t, db, nodedb.Match{}); got != nil {
		t.Errorf("records %q", got)
	}
	put(t, db, newNode(t, key("iqn.x", "10.0.0.1"), 1))
	if got := refs(t, db, nodedb.Match{}); len(got) != 1 {
		t.Errorf("records %q", got)
	}
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	db := newDB(t)
	n := newNode(t, nodedb.NodeKey{Target: "iqn.x", Address: "fe80::1%eth0", Port: 3261, Iface: "i0"}, -1)
	if err := errors.Join(n.Set(nodedb.FieldPassword, " s=x "), n.Set(nodedb.FieldAttach, "socket"), n.Set(nodedb.FieldReplacementTimeout, "-1")); err != nil {
		t.Fatal(err)
	}
	m := n.Map()
	m["node.future"] = "kept"
	n, err := nodedb.NodeFromMap(m)
	if err != nil {
		t.Fatal(err)
	}
	d := newDiscovery(t, nodedb.DiscoveryKey{Type: nodedb.ISNS, Address: "isns", Port: 3205})
	i := newIface(t, "i0")
	if err := errors.Join(d.Set(nodedb.FieldISNSPollInterval, "5"), i.Set("iface.mtu", "9000")); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *nodedb.Tx) error {
		return errors.Join(tx.PutNode(n), tx.PutDiscovery(d), tx.PutIface(i))
	})
	view(t, db, func(tx *nodedb.Tx) error {
		gotN, err1 := tx.Node(n.Key())
		gotD, err2 := tx.Discovery(d.Key())
		gotI, err3 := tx.Iface("i0")
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		if !gotN.Equal(n) || !gotD.Equal(d) || gotI.Text("iface.mtu") != "9000" {
			t.Errorf("got %v, %v, mtu %s", gotN.Map(), gotD.Map(), gotI.Text("iface.mtu"))
		}
		return nil
	})
}

func TestOneRecordAPortalWhateverItsTag(t *testing.T) {
	db := newDB(t)
	k := key("iqn.x", "10.0.0.1")
	put(t, db, newNode(t, k, -1), newNode(t, k, 1), newNode(t, k, 7))
	if got := refs(t, db, nodedb.Match{}); !slices.Equal(got, []string{"iqn.x 10.0.0.1,3260,7 default"}) {
		t.Errorf("records %q", got)
	}
}

func TestPutNodeRefusesBadKeys(t *testing.T) {
	db := newDB(t)
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	n.SetDiscovery(nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "../x", Port: 1})
	err := db.Update(context.Background(), func(tx *nodedb.Tx) error { return tx.PutNode(n) })
	var ne *nodedb.NameError
	if !errors.As(err, &ne) {
		t.Errorf("error %v, want a *NameError", err)
	}
}

func TestListOrderIsOpenISCSIs(t *testing.T) {
	db := newDB(t)
	at := func(target, addr string, port int, iface string, tpgt int) *nodedb.Node {
		return newNode(t, nodedb.NodeKey{Target: target, Address: addr, Port: port, Iface: iface}, tpgt)
	}
	put(t, db,
		at("iqn.b", "10.0.0.1", 3260, "default", 1),
		at("iqn.a:x", "10.0.0.1", 3260, "default", 1),
		at("iqn.a", "::1", 3260, "default", 1),
		at("iqn.a", "10.0.0.10", 3260, "default", 1),
		at("iqn.a", "10.0.0.1", 3260, "i1", 2),
		at("iqn.a", "10.0.0.1", 3260, "i2", 1),
		at("iqn.a", "10.0.0.1", 3260, "i3", 10),
		at("iqn.a", "10.0.0.1", 3260, "i4", -1),
		at("iqn.a", "10.0.0.1", 326, "default", 1),
		at("iqn.a-x", "10.0.0.1", 3260, "default", 1),
	)
	want := []string{
		"iqn.a 10.0.0.1,326,1 default",
		"iqn.a 10.0.0.1,3260,-1 i4",
		"iqn.a 10.0.0.1,3260,1 i2",
		"iqn.a 10.0.0.1,3260,10 i3",
		"iqn.a 10.0.0.1,3260,2 i1",
		"iqn.a 10.0.0.10,3260,1 default",
		"iqn.a ::1,3260,1 default",
		"iqn.a-x 10.0.0.1,3260,1 default",
		"iqn.a:x 10.0.0.1,3260,1 default",
		"iqn.b 10.0.0.1,3260,1 default",
	}
	if got := refs(t, db, nodedb.Match{}); !slices.Equal(got, want) {
		t.Errorf("order\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDiscoveriesAreListedNewestFirst(t *testing.T) {
	db := newDB(t)
	disc := func(addr string, port int) nodedb.DiscoveryKey {
		return nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: addr, Port: port}
	}
	order := []nodedb.DiscoveryKey{disc("127.0.0.1", 3260), disc("127.0.0.1", 3999), disc("::1", 3260), disc("nosuchhost.invalid", 3260), disc("127.0.0.1", 3260)}
	for _, k := range order {
		update(t, db, func(tx *nodedb.Tx) error { return tx.PutDiscovery(newDiscovery(t, k)) })
	}
	view(t, db, func(tx *nodedb.Tx) error {
		if got, want := tx.Discoveries(), []nodedb.DiscoveryKey{order[3], order[2], order[1], order[0]}; !slices.Equal(got, want) {
			t.Errorf("order %v, want %v", got, want)
		}
		return nil
	})
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	db := newDB(t)
	put(t, db, newNode(t, key("iqn.x", "10.0.0.1"), 1))
	mine := errors.New("mine")
	err := db.Update(context.Background(), func(tx *nodedb.Tx) error {
		if err := tx.DeleteNode(key("iqn.x", "10.0.0.1")); err != nil {
			t.Error(err)
		}
		return mine
	})
	if err != mine {
		t.Errorf("error %v, want the function's own", err)
	}
	if got := refs(t, db, nodedb.Match{}); len(got) != 1 {
		t.Errorf("records %q", got)
	}
}

func TestPanicInATransactionIsTheCallersOwn(t *testing.T) {
	db := newDB(t)
	put(t, db, newNode(t, key("iqn.x", "10.0.0.1"), 1))
	func() {
		defer func() {
			if p := recover(); p != "bug" {
				t.Errorf("recovered %v", p)
			}
		}()
		_ = db.Update(context.Background(), func(*nodedb.Tx) error { panic("bug") })
	}()
	// The lock is gone with it.
	put(t, db, newNode(t, key("iqn.y", "10.0.0.1"), 1))
}

func TestUpdateWithoutChangesDoesNotWrite(t *testing.T) {
	db := newDB(t)
	put(t, db, newNode(t, key("iqn.x", "10.0.0.1"), 1))
	before, err := os.ReadFile(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *nodedb.Tx) error { _, err := tx.Node(key("iqn.x", "10.0.0.1")); return err })
	after, err := os.ReadFile(db.Path())
	if err != nil || string(after) != string(before) {
		t.Errorf("the file has changed (%v)", err)
	}
}

// holdLock keeps a transaction open until the returned function is called.
func holdLock(t *testing.T, db *nodedb.DB, write bool) (release func()) {
	t.Helper()
	held, done, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	fn := func(*nodedb.Tx) error {
		close(held)
		<-done
		return nil
	}
	go func() {
		if write {
			ended <- db.Update(context.Background(), fn)
		} else {
			ended <- db.View(context.Background(), fn)
		}
	}()
	<-held
	return func() {
		close(done)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestLockTimeout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.db")
	put(t, openDB(path), newNode(t, key("iqn.x", "10.0.0.1"), 1))
	defer holdLock(t, openDB(path), true)()
	db := nodedb.New(path, nodedb.Options{Timeout: 20 * time.Millisecond})
	for name, op := range map[string]func(context.Context, func(*nodedb.Tx) error) error{"View": db.View, "Update": db.Update} {
		err := op(context.Background(), func(*nodedb.Tx) error { return nil })
		if !errors.Is(err, nodedb.ErrLocked) || errcode.Of(err) != errcode.IDBM {
			t.Errorf("%s: error %v, want ErrLocked with code 6", name, err)
		}
	}
}

func TestLockWaitEndsWithTheContext(t *testing.T) {
	db := newDB(t)
	put(t, db, newNode(t, key("iqn.x", "10.0.0.1"), 1))
	defer holdLock(t, db, true)()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := db.View(ctx, func(*nodedb.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestReadersDoNotWaitForEachOther(t *testing.T) {
	db := newDB(t)
	put(t, db, newNode(t, key("iqn.x", "10.0.0.1"), 1))
	defer holdLock(t, db, false)()
	refs(t, db, nodedb.Match{})
}

func TestUnusableFiles(t *testing.T) {
	good := func(t *testing.T, path string) {
		db := openDB(path)
		nodes := make([]*nodedb.Node, 200)
		for i := range nodes {
			nodes[i] = newNode(t, key("iqn.x", "10.0.0."+string(rune('a'+i%26))+strings.Repeat("y", i/26)), 1)
		}
		put(t, db, nodes...)
	}
	edit := func(t *testing.T, path string, fn func(b []byte) []byte) {
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, fn(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	boltEdit := func(t *testing.T, path string, fn func(tx *bolt.Tx) error) {
		b, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Update(fn), b.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, path string)
		want  error
	}{
		{"text", func(t *testing.T, p string) {
			edit(t, p, func([]byte) []byte { return []byte(strings.Repeat("hello\n", 10000)) })
		}, nodedb.ErrCorrupt},
		{"short", func(t *testing.T, p string) { edit(t, p, func(b []byte) []byte { return b[:100] }) }, nil},
		{"cut to its first pages", func(t *testing.T, p string) { edit(t, p, func(b []byte) []byte { return b[:8192] }) }, nodedb.ErrCorrupt},
		{"zeros after the first pages", func(t *testing.T, p string) {
			edit(t, p, func(b []byte) []byte { clear(b[8192:]); return b })
		}, nodedb.ErrCorrupt},
		{"noise after the first pages", func(t *testing.T, p string) {
			edit(t, p, func(b []byte) []byte {
				for i := range b[8192:] {
					b[8192+i] = byte(i * 7)
				}
				return b
			})
		}, nodedb.ErrCorrupt},
		{"newer version", func(t *testing.T, p string) {
			boltEdit(t, p, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("2")) })
		}, nodedb.ErrNewerSchema},
		{"no version", func(t *testing.T, p string) {
			boltEdit(t, p, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("schema")) })
		}, nodedb.ErrCorrupt},
		{"no nodes", func(t *testing.T, p string) {
			boltEdit(t, p, func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("nodes")) })
		}, nodedb.ErrCorrupt},
		{"of something else", func(t *testing.T, p string) {
			boltEdit(t, p, func(tx *bolt.Tx) error {
				_, err := tx.CreateBucket([]byte("other"))
				return errors.Join(err, tx.DeleteBucket([]byte("meta")))
			})
		}, nodedb.ErrCorrupt},
		{"a directory", func(t *testing.T, p string) {
			if err := errors.Join(os.Remove(p), os.Mkdir(p, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "nodes.db")
			good(t, path)
			tc.spoil(t, path)
			db := openDB(path)
			for name, op := range map[string]func(context.Context, func(*nodedb.Tx) error) error{"View": db.View, "Update": db.Update} {
				err := op(context.Background(), func(tx *nodedb.Tx) error { tx.Tree(); return nil })
				var de *nodedb.DBError
				if !errors.As(err, &de) || errcode.Of(err) != errcode.IDBM || tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("%s: error %v, want a *DBError with %v", name, err, tc.want)
				}
			}
		})
	}
}

func TestADamagedRecordLeavesTheOthersReadable(t *testing.T) {
	db := newDB(t)
	bad, good := key("iqn.bad", "10.0.0.1"), key("iqn.good", "10.0.0.1")
	put(t, db, newNode(t, bad, 1), newNode(t, good, 1))
	b, err := bolt.Open(db.Path(), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bolt.Tx) error {
		nodes := tx.Bucket([]byte("nodes"))
		return errors.Join(
			nodes.Put([]byte("iqn.bad\x0010.0.0.1,3260\x00default"), []byte("\x01\x00\x00\x00\x00\x00\x00\x00\x01garbage")),
			nodes.Put([]byte("iqn.worse"), []byte("x")),
		)
	})
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	view(t, db, func(tx *nodedb.Tx) error {
		if got := tx.Nodes(nodedb.Match{}); len(got) != 1 || got[0].Key() != good {
			t.Errorf("nodes %v", got)
		}
		if _, err := tx.Node(bad); !errors.Is(err, nodedb.ErrCorrupt) {
			t.Errorf("error %v, want ErrCorrupt", err)
		}
		return nil
	})
	// It can be replaced and deleted.
	put(t, db, newNode(t, bad, 2))
	update(t, db, func(tx *nodedb.Tx) error { return tx.DeleteNode(bad) })
	if got := refs(t, db, nodedb.Match{}); len(got) != 1 {
		t.Errorf("records %q", got)
	}
}
