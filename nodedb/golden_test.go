package nodedb_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/nodedb"
)

// The files in testdata/*.record are what open-iscsi 2.1.8 printed.

func golden(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestShippedConfigGivesTheRecordsOfOpenISCSI(t *testing.T) {
	disc := nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "127.0.0.1", Port: 3260}
	n, err := nodedb.NewNode(nil, nodedb.NodeKey{Target: "iqn.2016-01-com.example.tg1", Address: "127.0.0.1", Port: 3260, Iface: "default"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	n.SetDiscovery(disc)
	d, err := nodedb.NewDiscovery(nil, disc)
	if err != nil {
		t.Fatal(err)
	}
	i, err := nodedb.NewIface("testif")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Set("iface.net_ifacename", "lo"); err != nil {
		t.Fatal(err)
	}

	var b strings.Builder
	opts := nodedb.PrintOptions{Version: "2.1.8"}
	for _, tc := range []struct {
		file string
		err  error
		text string
	}{
		{"node.record", n.Print(&b, opts), take(&b)},
		{"sendtargets.record", d.Print(&b, opts), take(&b)},
		{"iface.record", i.Print(&b, opts), take(&b)},
	} {
		if tc.err != nil {
			t.Fatal(tc.err)
		}
		if diff := cmp.Diff(golden(t, tc.file), tc.text); diff != "" {
			t.Errorf("%s (-open-iscsi +ours):\n%s", tc.file, diff)
		}
	}
}

func take(b *strings.Builder) string {
	s := b.String()
	b.Reset()
	return s
}
