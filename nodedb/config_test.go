package nodedb_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/nodedb"
)

func TestParseConfigWarnings(t *testing.T) {
	for _, tc := range []struct {
		line string
		want []string
	}{
		{"node.startup = automatic", nil},
		{"  node.startup = automatic  ", nil},
		{"node.startup\t=automatic", nil},
		{"# node.startup=automatic", nil},
		{"", nil},
		{"no.such.key = 1", nil},
		{"iface.mtu = x", nil},
		{"node.name = iqn.x", nil},
		{"node.startup=automatic", []string{"Config file line 2 does not have '=' separator"}},
		{"node.startup automatic", []string{"Config file line 2 does not have '=' separator"}},
		{"node.startup", []string{"Config file line 2 does not have value"}},
		{"node.startup =", []string{"Config file line 2 does not have value"}},
		{"node.startup=", []string{"Config file line 2 does not have value"}},
		{"node.startup = bogus", []string{"config file line 2 contains unknown value format 'bogus' for parameter name 'node.startup'"}},
		{"node.session.auth.password = " + strings.Repeat("x", 300), []string{"config file line 2 contains unknown value format '********' for parameter name 'node.session.auth.password'"}},
		{"node.session.auth.chap_algs = MD5,X", []string{"Ignoring unknown value 'X' for 'node.session.auth.chap_algs'"}},
		{"#" + strings.Repeat("x", 3000), []string{"Config file line 2 too long."}},
	} {
		t.Run(tc.line[:min(len(tc.line), 40)], func(t *testing.T) {
			c, err := nodedb.ParseConfig(strings.NewReader("\n" + tc.line + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, c.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConfigSetsWhatNewRecordsHave(t *testing.T) {
	c, err := nodedb.ParseConfig(strings.NewReader(`
node.startup = automatic
node.startup=onboot
node.session.auth.password = a = b # c
node.session.auth.chap_algs = SHA256
discovery.sendtargets.auth.username = disc
discovery.isns.use_discoveryd = Yes
discovery.type = isns
node.conn[0].address = 10.9.9.9
iscsid.startup=/bin/true -x
iscsid.safe_logout = Yes
nodedb.mirror = /etc/iscsi
discovery.keep_node_settings = Yes`))
	if err != nil {
		t.Fatal(err)
	}
	n, err := nodedb.NewNode(c, key("iqn.x", "10.0.0.1"), -1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := nodedb.NewDiscovery(c, nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "10.0.0.1", Port: 3260})
	if err != nil {
		t.Fatal(err)
	}
	isns, err := nodedb.NewDiscovery(c, nodedb.DiscoveryKey{Type: nodedb.ISNS, Address: "10.0.0.1", Port: 3205})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ what, got, want string }{
		{"startup", n.Startup(), "automatic"},
		{"password", n.Text(nodedb.FieldPassword), "a = b # c"},
		{"algorithms", n.Text(nodedb.FieldCHAPAlgs), "SHA256"},
		{"address", n.Address(), "10.0.0.1"},
		{"built-in default", n.Text(nodedb.FieldLoginTimeout), "30"},
		{"discovery user", d.Text(nodedb.FieldDiscUsername), "disc"},
		{"discovery algorithms", d.Text(nodedb.FieldCHAPAlgs), "SHA256"},
		{"discovery type", d.Text(nodedb.FieldDiscType), "sendtargets"},
		{"iSNS", isns.Text(nodedb.FieldISNSUseDiscoveryd), "Yes"},
		{"start command", c.Startup(), "/bin/true -x"},
		{"mirror", c.Mirror(), "/etc/iscsi"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s is %q, want %q", tc.what, tc.got, tc.want)
		}
	}
	if !c.SafeLogout() || !c.KeepNodeSettings() {
		t.Errorf("safe logout %v, keep settings %v; want true", c.SafeLogout(), c.KeepNodeSettings())
	}
}

func TestProgramKeysNeedExactlyYes(t *testing.T) {
	c, err := nodedb.ParseConfig(strings.NewReader("iscsid.safe_logout = yes\n# discovery.keep_node_settings = Yes\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.SafeLogout() || c.KeepNodeSettings() {
		t.Errorf("safe logout %v, keep settings %v; want false", c.SafeLogout(), c.KeepNodeSettings())
	}
}

func TestShippedConfigKnowsItsKeys(t *testing.T) {
	known := map[string]bool{
		nodedb.ConfStartup: true, nodedb.ConfSafeLogout: true, nodedb.ConfIPCAuthUID: true, nodedb.ConfControlGroup: true,
		nodedb.ConfMetricsAddress: true, nodedb.ConfMetricsRemote: true, nodedb.ConfMirror: true, nodedb.ConfKeepNodeSettings: true,
	}
	fields := allFields()
	for _, fs := range fields {
		for _, f := range fs {
			known[f.Name] = !f.ReadOnly
		}
	}
	// What is commented out must work when it is not.
	var all bytes.Buffer
	for line := range strings.Lines(string(nodedb.ShippedConfig())) {
		text := strings.TrimPrefix(line, "# ")
		name, _, ok := strings.Cut(text, " = ")
		if !ok || strings.ContainsAny(name, " \"") {
			continue
		}
		if !known[name] {
			t.Errorf("%s is not a key", name)
		}
		all.WriteString(text)
	}
	c, err := nodedb.ParseConfig(&all)
	if err != nil || len(c.Warnings) > 0 {
		t.Errorf("error %v, warnings %q", err, c.Warnings)
	}
}

func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path, loginTimeout string
	}{
		{"without a file the shipped values hold", filepath.Join(dir, "none"), "15"},
		{"an empty file leaves the built-in ones", empty, "30"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := nodedb.LoadConfig(tc.path)
			if err != nil {
				t.Fatal(err)
			}
			n, err := nodedb.NewNode(c, key("iqn.x", "10.0.0.1"), 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := n.Text(nodedb.FieldLoginTimeout); got != tc.loginTimeout {
				t.Errorf("login_timeout is %s, want %s", got, tc.loginTimeout)
			}
		})
	}
	if _, err := nodedb.LoadConfig(dir); err == nil {
		t.Error("a directory was read as a file")
	}
}

func TestParseConfigIsBounded(t *testing.T) {
	if _, err := nodedb.ParseConfig(strings.NewReader(strings.Repeat("# x\n", 1<<19))); err == nil {
		t.Error("two mebibytes were read")
	}
}
