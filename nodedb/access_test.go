package nodedb_test

import (
	"errors"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

func TestAccessors(t *testing.T) {
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	if err := n.Set(nodedb.FieldReplacementTimeout, "-1"); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Get(nodedb.FieldLoginTimeout); got != "15" || err != nil {
		t.Errorf("Get = %q, %v", got, err)
	}
	var unknown *nodedb.UnknownFieldError
	if _, err := n.Get("node.bogus"); !errors.As(err, &unknown) {
		t.Errorf("Get of an unknown field: %v", err)
	}
	if got := n.Seconds(nodedb.FieldReplacementTimeout); got != -time.Second {
		t.Errorf("Seconds = %v", got)
	}
	if !n.Bool(nodedb.FieldImmediateData) || n.Bool(nodedb.FieldInitialR2T) || n.Bool("node.bogus") {
		t.Error("Bool is wrong")
	}
	if n.Int(nodedb.FieldName) != 0 || n.Text("node.bogus") != "" {
		t.Error("a field of another kind has a value")
	}
}

// Either of the two startup fields counts, so a node that somebody set to
// automatic is still one of --logoutall=manual.
func TestMatchesStartup(t *testing.T) {
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	if err := n.Set(nodedb.FieldStartup, "automatic"); err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]bool{"automatic": true, "manual": true, "all": true, "onboot": false, "": false} {
		if n.MatchesStartup(word) != want {
			t.Errorf("MatchesStartup(%q) = %v", word, !want)
		}
	}
}

func TestTagsOutOfRangeAreUnknown(t *testing.T) {
	for tag, want := range map[int]int{-5: -1, -1: -1, 0: 0, 65535: 65535, 65536: -1} {
		if got := newNode(t, key("iqn.x", "10.0.0.1"), tag).TPGT(); got != want {
			t.Errorf("tag %d became %d, want %d", tag, got, want)
		}
	}
}

func TestIfaceAndDiscoveryFromMap(t *testing.T) {
	i, err := nodedb.IfaceFromMap(map[string]string{nodedb.FieldIfaceName: "i0", nodedb.FieldIfaceNet: "eth0", nodedb.FieldIfaceAddress: "10.0.0.2", nodedb.FieldIfaceInitiator: "iqn.me"})
	if err != nil {
		t.Fatal(err)
	}
	if i.Summary() != "[hw=,ip=10.0.0.2,net_if=eth0,iscsi_if=i0]" || i.InitiatorName() != "iqn.me" || i.Transport() != "tcp" {
		t.Errorf("%s, initiator %q, transport %q", i.Summary(), i.InitiatorName(), i.Transport())
	}
	d, err := nodedb.DiscoveryFromMap(map[string]string{nodedb.FieldDiscType: "isns", nodedb.FieldDiscAddress: "::1", nodedb.FieldDiscPort: "3205"})
	if err != nil || d.Key() != (nodedb.DiscoveryKey{Type: nodedb.ISNS, Address: "::1", Port: 3205}) {
		t.Errorf("%v, %v", d, err)
	}
	for name, err := range map[string]error{
		"interface without a name":  second(nodedb.IfaceFromMap(nil)),
		"discovery without address": second(nodedb.DiscoveryFromMap(nil)),
		"discovery without records": second(nodedb.DiscoveryFromMap(map[string]string{nodedb.FieldDiscType: "fw"})),
		"key without records":       nodedb.DiscoveryKey{Type: nodedb.Static, Address: "a", Port: 1}.Validate(),
	} {
		if errcode.Of(err) != errcode.Inval || err == nil {
			t.Errorf("%s: %v, want code 7", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestViewCannotWrite(t *testing.T) {
	existing := newDB(t)
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	put(t, existing, n)
	for name, db := range map[string]*nodedb.DB{"missing": newDB(t), "existing": existing} {
		view(t, db, func(tx *nodedb.Tx) error {
			for op, err := range map[string]error{
				"PutNode":      tx.PutNode(n),
				"PutDiscovery": tx.PutDiscovery(newDiscovery(t, discA)),
				"PutIface":     tx.PutIface(newIface(t, "i0")),
			} {
				if !errors.Is(err, nodedb.ErrReadOnly) {
					t.Errorf("%s, %s database: %v", op, name, err)
				}
			}
			if err := tx.DeleteNode(n.Key()); err == nil {
				t.Errorf("DeleteNode, %s database: no error", name)
			}
			return nil
		})
	}
}
