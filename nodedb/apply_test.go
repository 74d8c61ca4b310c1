package nodedb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

var (
	discA = nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "10.0.0.1", Port: 3260}
	discB = nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "10.0.0.1", Port: 3261}
	discI = nodedb.DiscoveryKey{Type: nodedb.ISNS, Address: "10.0.0.1", Port: 3260}
)

func found(targets ...string) []nodedb.Found {
	var fs []nodedb.Found
	for _, t := range targets {
		fs = append(fs, nodedb.Found{Target: t, Address: "10.0.0.1", Port: 3260, TPGT: 1})
	}
	return fs
}

func apply(t *testing.T, db *nodedb.DB, k nodedb.DiscoveryKey, fs []nodedb.Found, o nodedb.ApplyOptions) *nodedb.ApplyResult {
	t.Helper()
	var res *nodedb.ApplyResult
	update(t, db, func(tx *nodedb.Tx) (err error) { res, err = tx.ApplyDiscovery(k, fs, o); return err })
	return res
}

func targets(rs []nodedb.NodeRef) string {
	var names []string
	for _, r := range rs {
		names = append(names, r.Target)
	}
	return strings.Join(names, " ")
}

func TestDiscoveryOps(t *testing.T) {
	for _, tc := range []struct {
		name                          string
		ops                           nodedb.DiscoveryOps
		want                          string // targets afterwards
		timeout                       int    // of the record that was there
		added, updated, kept, removed string
	}{
		{"default", 0, "iqn.new iqn.old", 120, "iqn.new", "iqn.old", "", "iqn.gone"},
		{"new", nodedb.OpNew, "iqn.gone iqn.new iqn.old", 77, "iqn.new", "", "iqn.old", ""},
		{"update", nodedb.OpUpdate, "iqn.gone iqn.old", 120, "", "iqn.old", "", ""},
		{"delete", nodedb.OpDelete, "iqn.old", 77, "", "", "iqn.old", "iqn.gone"},
		{"new and delete", nodedb.OpNew | nodedb.OpDelete, "iqn.new iqn.old", 77, "iqn.new", "", "iqn.old", "iqn.gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db := newDB(t)
			apply(t, db, discA, found("iqn.old", "iqn.gone"), nodedb.ApplyOptions{})
			k := key("iqn.old", "10.0.0.1")
			update(t, db, func(tx *nodedb.Tx) error {
				n, err := tx.Node(k)
				if err != nil {
					return err
				}
				return errors.Join(n.Set(nodedb.FieldReplacementTimeout, "77"), tx.PutNode(n))
			})
			res := apply(t, db, discA, found("iqn.old", "iqn.new"), nodedb.ApplyOptions{Ops: tc.ops})
			var names []string
			view(t, db, func(tx *nodedb.Tx) error {
				for _, n := range tx.Nodes(nodedb.Match{}) {
					names = append(names, n.Target())
					if n.Key() == k && n.Int(nodedb.FieldReplacementTimeout) != tc.timeout {
						t.Errorf("replacement_timeout is %d, want %d", n.Int(nodedb.FieldReplacementTimeout), tc.timeout)
					}
				}
				return nil
			})
			got := []string{strings.Join(names, " "), targets(res.Added), targets(res.Updated), targets(res.Kept), targets(res.Removed)}
			if want := []string{tc.want, tc.added, tc.updated, tc.kept, tc.removed}; !slices.Equal(got, want) {
				t.Errorf("records, added, updated, kept, removed: %q, want %q", got, want)
			}
		})
	}
}

func TestDiscoveryRemovesOnlyWhatItFoundItself(t *testing.T) {
	db := newDB(t)
	apply(t, db, discA, found("iqn.a"), nodedb.ApplyOptions{})
	apply(t, db, discB, found("iqn.b"), nodedb.ApplyOptions{})
	apply(t, db, discI, found("iqn.i"), nodedb.ApplyOptions{})
	put(t, db, newNode(t, key("iqn.static", "10.0.0.1"), 1))
	apply(t, db, discA, nil, nodedb.ApplyOptions{})
	if got, want := refs(t, db, nodedb.Match{}), []string{"iqn.b 10.0.0.1,3260,1 default", "iqn.i 10.0.0.1,3260,1 default", "iqn.static 10.0.0.1,3260,1 default"}; !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
}

func TestDiscoveryTakesRecordsOver(t *testing.T) {
	db := newDB(t)
	apply(t, db, discA, found("iqn.x"), nodedb.ApplyOptions{})
	apply(t, db, discB, found("iqn.x"), nodedb.ApplyOptions{})
	view(t, db, func(tx *nodedb.Tx) error {
		if a, b := targets(tx.Linked(discA)), targets(tx.Linked(discB)); a != "" || b != "iqn.x" {
			t.Errorf("linked to the first %q, to the second %q", a, b)
		}
		return nil
	})
	if res := apply(t, db, discA, nil, nodedb.ApplyOptions{}); len(res.Removed) != 0 {
		t.Errorf("the first removed %v", res.Removed)
	}
}

// As in the transcript: discovery through another interface removes the
// records of the default one, but not those with sessions.
func TestDiscoveryDoesNotRemoveWhatIsInUse(t *testing.T) {
	db := newDB(t)
	apply(t, db, discA, found("iqn.a", "iqn.busy"), nodedb.ApplyOptions{})
	busy := key("iqn.busy", "10.0.0.1")
	via := newIface(t, "testif")
	fs := found("iqn.a", "iqn.busy")
	for i := range fs {
		fs[i].Iface = via
	}
	res := apply(t, db, discA, fs, nodedb.ApplyOptions{InUse: func(k nodedb.NodeKey) bool { return k == busy }})
	want := []string{"iqn.a 10.0.0.1,3260,1 testif", "iqn.busy 10.0.0.1,3260,1 default", "iqn.busy 10.0.0.1,3260,1 testif"}
	if got := refs(t, db, nodedb.Match{}); !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
	if len(res.InUse) != 1 || errcode.Of(res.InUse[0]) != errcode.SessExists || res.InUse[0].Error() !=
		"This command will remove the record [iface: default, target: iqn.busy, portal: 10.0.0.1,3260], but a session is using it. Logout session then rerun command to remove record." {
		t.Errorf("in use: %v", res.InUse)
	}
}

func TestDiscoveryKeepsRecordsOfInterfacesThatFailed(t *testing.T) {
	db := newDB(t)
	fs := found("iqn.a", "iqn.a")
	fs[1].Iface = newIface(t, "broken")
	apply(t, db, discA, fs, nodedb.ApplyOptions{})
	res := apply(t, db, discA, fs[:1], nodedb.ApplyOptions{KeepIfaces: []string{"broken"}})
	if len(res.Removed) != 0 || len(refs(t, db, nodedb.Match{})) != 2 {
		t.Errorf("removed %v", res.Removed)
	}
}

func TestDiscoverySkipsBadNamesOneByOne(t *testing.T) {
	db := newDB(t)
	fs := found("iqn.good", "iqn.x/../../../etc/cron.d/x", "iqn.x\nnode.startup = automatic", "iqn.also", "iqn.good")
	fs = append(fs, nodedb.Found{Target: "iqn.addr", Address: "../../x", Port: 3260}, nodedb.Found{Target: "iqn.port", Address: "10.0.0.1", Port: 99999},
		nodedb.Found{Target: "iqn.zone", Address: "fe80::1%eth0", Port: 3260, TPGT: 1})
	res := apply(t, db, discA, fs, nodedb.ApplyOptions{})
	if targets(res.Added) != "iqn.good iqn.also iqn.zone" || len(res.Skipped) != 4 {
		t.Errorf("added %v, skipped %v", res.Added, res.Skipped)
	}
	for _, err := range res.Skipped {
		var ne *nodedb.NameError
		if !errors.As(err, &ne) || strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%v: want a *NameError of one line", err)
		}
	}
}

func TestDiscoveryTellsWhatItResets(t *testing.T) {
	db := newDB(t)
	apply(t, db, discA, found("iqn.a", "iqn.b"), nodedb.ApplyOptions{})
	k := key("iqn.a", "10.0.0.1")
	update(t, db, func(tx *nodedb.Tx) error {
		n, err := tx.Node(k)
		if err != nil {
			return err
		}
		return errors.Join(n.Set(nodedb.FieldStartup, "automatic"), n.Set(nodedb.FieldPassword, "geheim"), tx.PutNode(n))
	})
	res := apply(t, db, discA, found("iqn.a", "iqn.b"), nodedb.ApplyOptions{})
	want := []nodedb.Reset{{Key: k, Fields: []nodedb.Param{{Name: nodedb.FieldStartup, Value: "automatic"}, {Name: nodedb.FieldPassword, Value: "********"}}}}
	if diff := cmp.Diff(want, res.Reset); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKeepNodeSettings(t *testing.T) {
	conf, err := nodedb.ParseConfig(strings.NewReader("discovery.keep_node_settings = Yes\n"))
	if err != nil {
		t.Fatal(err)
	}
	db := newDB(t)
	n := newNode(t, key("iqn.a", "10.0.0.1"), -1)
	if err := n.Set(nodedb.FieldStartup, "automatic"); err != nil {
		t.Fatal(err)
	}
	put(t, db, n)
	res := apply(t, db, discA, found("iqn.a"), nodedb.ApplyOptions{Config: conf})
	view(t, db, func(tx *nodedb.Tx) error {
		got, err := tx.Node(n.Key())
		if err != nil {
			return err
		}
		if got.Startup() != "automatic" || got.TPGT() != 1 || got.Discovery() != discA || len(res.Reset) != 0 {
			t.Errorf("startup %s, tag %d, from %v, reset %v", got.Startup(), got.TPGT(), got.Discovery(), res.Reset)
		}
		return nil
	})
}

func TestLinkedNodesAreListedNewestFirst(t *testing.T) {
	db := newDB(t)
	for range 2 { // the second changes nothing
		apply(t, db, discA, found("iqn.tg1", "iqn.chap", "iqn.mutual"), nodedb.ApplyOptions{})
	}
	view(t, db, func(tx *nodedb.Tx) error {
		if got := targets(tx.Linked(discA)); got != "iqn.mutual iqn.chap iqn.tg1" {
			t.Errorf("order %s", got)
		}
		return nil
	})
}

func TestStaticNodesAreLinkedByTypeAlone(t *testing.T) {
	db := newDB(t)
	put(t, db, newNode(t, key("iqn.a", "10.0.0.1"), 1), newNode(t, key("iqn.b", "10.0.0.2"), 1))
	view(t, db, func(tx *nodedb.Tx) error {
		if got := targets(tx.Linked(nodedb.DiscoveryKey{Type: nodedb.Static})); got != "iqn.b iqn.a" {
			t.Errorf("linked %q", got)
		}
		return nil
	})
}

func TestDeleteDiscoveryRemovesItsNodes(t *testing.T) {
	db := newDB(t)
	update(t, db, func(tx *nodedb.Tx) error { return tx.PutDiscovery(newDiscovery(t, discA)) })
	apply(t, db, discA, found("iqn.a", "iqn.b"), nodedb.ApplyOptions{})
	apply(t, db, discB, found("iqn.c"), nodedb.ApplyOptions{})
	update(t, db, func(tx *nodedb.Tx) error {
		removed, err := tx.DeleteDiscovery(discA)
		if len(removed) != 2 {
			t.Errorf("removed %v", removed)
		}
		return err
	})
	if got := refs(t, db, nodedb.Match{}); len(got) != 1 {
		t.Errorf("records %q", got)
	}
	err := db.Update(context.Background(), func(tx *nodedb.Tx) error { _, err := tx.DeleteDiscovery(discA); return err })
	var nf *nodedb.NotFoundError
	if !errors.As(err, &nf) {
		t.Errorf("error %v, want a *NotFoundError", err)
	}
}

func TestDeleteIface(t *testing.T) {
	db := newDB(t)
	bound := []*nodedb.Node{}
	for i := range 3 {
		bound = append(bound, newNode(t, nodedb.NodeKey{Target: fmt.Sprint("iqn.", i), Address: "10.0.0.1", Port: 3260, Iface: "i0"}, 1))
	}
	put(t, db, append(bound, newNode(t, key("iqn.other", "10.0.0.1"), 1))...)
	update(t, db, func(tx *nodedb.Tx) error { return tx.PutIface(newIface(t, "i0")) })
	del := func(name string, inUse func(nodedb.NodeKey) bool) error {
		return db.Update(context.Background(), func(tx *nodedb.Tx) error { _, err := tx.DeleteIface(name, inUse); return err })
	}

	err := del("i0", func(k nodedb.NodeKey) bool { return k.Target != "iqn.1" })
	if lines := nodedb.Lines(err); errcode.Of(err) != errcode.SessExists || len(lines) != 2 || !strings.Contains(lines[1], "iqn.2") {
		t.Errorf("in use: code %d, lines %q", errcode.Of(err), lines)
	}
	if got := refs(t, db, nodedb.Match{}); len(got) != 4 {
		t.Errorf("records %q", got)
	}
	if err := del("default", nil); err == nil || err.Error() != "iface default is a special interface and cannot be deleted." {
		t.Errorf("default: %v", err)
	}
	var nf *nodedb.NotFoundError
	if err := del("nothere", nil); !errors.As(err, &nf) {
		t.Errorf("missing: %v", err)
	}
	if err := del("i0", nil); err != nil {
		t.Error(err)
	}
	if got := refs(t, db, nodedb.Match{}); !slices.Equal(got, []string{"iqn.other 10.0.0.1,3260,1 default"}) {
		t.Errorf("records %q", got)
	}
}

func TestRebindNodes(t *testing.T) {
	db := newDB(t)
	bound := nodedb.NodeKey{Target: "iqn.a", Address: "10.0.0.1", Port: 3260, Iface: "i0"}
	put(t, db, newNode(t, bound, 1), newNode(t, key("iqn.a", "10.0.0.1"), 1))
	i := newIface(t, "i0")
	if err := i.Set(nodedb.FieldIfaceNet, "eth1"); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *nodedb.Tx) error {
		rebound, err := tx.RebindNodes(i)
		if len(rebound) != 1 {
			t.Errorf("rebound %v", rebound)
		}
		return errors.Join(err, tx.PutIface(i))
	})
	view(t, db, func(tx *nodedb.Tx) error {
		n, err := tx.Node(bound)
		if err == nil && n.Iface().NetIface() != "eth1" {
			t.Errorf("net_ifacename is %q", n.Iface().NetIface())
		}
		return err
	})
}
