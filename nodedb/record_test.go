package nodedb_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

func allFields() map[string][]nodedb.Field {
	return map[string][]nodedb.Field{
		"node":        nodedb.NodeFields(),
		"iface":       nodedb.IfaceFields(),
		"sendtargets": nodedb.DiscoveryFields(nodedb.SendTargets),
		"isns":        nodedb.DiscoveryFields(nodedb.ISNS),
	}
}

func TestFieldsTakeTheirDefault(t *testing.T) {
	for table, fields := range allFields() {
		seen := make(map[string]bool)
		for _, f := range fields {
			if seen[f.Name] {
				t.Errorf("%s: field %s stands there twice", table, f.Name)
			}
			seen[f.Name] = true
			if got, warnings, err := f.Normalize(f.Default); got != f.Default || warnings != nil || err != nil {
				t.Errorf("%s: %s.Normalize(%q) = %q, %v, %v", table, f.Name, f.Default, got, warnings, err)
			}
		}
	}
}

// Stored records leave out what has its default, so a changed default would
// change records that people have.
func TestDefaultsArePartOfTheStorageFormat(t *testing.T) {
	var b strings.Builder
	for _, table := range []string{"node", "sendtargets", "isns"} {
		fmt.Fprintf(&b, "[%s]\n", table)
		for _, f := range allFields()[table] {
			fmt.Fprintf(&b, "%s = %s\n", f.Name, f.Default)
		}
	}
	if diff := cmp.Diff(golden(t, "defaults.txt"), b.String()); diff != "" {
		t.Errorf("add fields, but never change the default of one (-released +now):\n%s", diff)
	}
}

func TestNormalize(t *testing.T) {
	field := make(map[string]nodedb.Field)
	for _, fields := range allFields() {
		for _, f := range fields {
			field[f.Name] = f
		}
	}
	for _, tc := range []struct {
		name, in, want string
		warnings       []string
	}{
		{nodedb.FieldReplacementTimeout, "120", "120", nil},
		{nodedb.FieldReplacementTimeout, "abc", "0", nil},
		{nodedb.FieldReplacementTimeout, "", "0", nil},
		{nodedb.FieldReplacementTimeout, "12abc", "12", nil},
		{nodedb.FieldReplacementTimeout, " \t+7 ", "7", nil},
		{nodedb.FieldReplacementTimeout, "0x10", "0", nil},
		{nodedb.FieldReplacementTimeout, "-1", "-1", nil},
		{nodedb.FieldReplacementTimeout, "-", "0", nil},
		{nodedb.FieldReplacementTimeout, "4294967295", "-1", nil},
		{nodedb.FieldReplacementTimeout, "4294967296", "0", nil},
		{nodedb.FieldReplacementTimeout, "99999999999999999999", "-1", nil},
		{"iface.vlan_priority", "256", "0", nil},
		{"iface.vlan_priority", "-1", "255", nil},
		{"iface.vlan_id", "65536", "0", nil},
		{"iface.mtu", "9000", "9000", nil},
		{"iface.iface_num", "-1", "4294967295", nil},
		{nodedb.FieldStartup, "onboot", "onboot", nil},
		{nodedb.FieldHeaderDigest, "CRC32C,None", "CRC32C,None", nil},
		{nodedb.FieldUsername, " a b ", " a b ", nil},
		{nodedb.FieldUsername, "", "", nil},
		{nodedb.FieldCHAPAlgs, "SHA256,MD5", "SHA256,MD5", nil},
		{nodedb.FieldCHAPAlgs, "SHA3-256 SHA1, MD5,", "SHA3-256,SHA1,MD5", nil},
		{nodedb.FieldCHAPAlgs, "MD5,BOGUS,MD5", "MD5", []string{
			"Ignoring unknown value 'BOGUS' for 'node.session.auth.chap_algs'",
			"Ignoring repeated value 'MD5' for 'node.session.auth.chap_algs'",
		}},
	} {
		t.Run(tc.name+"="+tc.in, func(t *testing.T) {
			f := field[tc.name]
			got, warnings, err := f.Normalize(tc.in)
			if got != tc.want || err != nil || !slices.Equal(warnings, tc.warnings) {
				t.Errorf("Normalize(%q) = %q, %q, %v; want %q, %q", tc.in, got, warnings, err, tc.want, tc.warnings)
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	i := newIface(t, "eth")
	d := newDiscovery(t, nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "10.0.0.1", Port: 3260})
	netIface, hwIface := newIface(t, "net"), newIface(t, "hw")
	if err := errors.Join(netIface.Set(nodedb.FieldIfaceNet, "eth0"), hwIface.Set(nodedb.FieldIfaceHWAddress, "02:00:00:00:00:01")); err != nil {
		t.Fatal(err)
	}
	def, err := nodedb.NewIface(nodedb.DefaultIface)
	if err != nil {
		t.Fatal(err)
	}
	type setter interface {
		Set(name, value string) error
	}
	for _, tc := range []struct {
		rec         setter
		name, value string
		lines       []string
	}{
		{n, "node.no.such.field", "1", []string{"Cannot modify node.no.such.field. Invalid param name."}},
		{n, "discovery.sendtargets.auth.username", "x", []string{"Cannot modify discovery.sendtargets.auth.username. Invalid param name."}},
		{n, "a\nb", "x", []string{"Cannot modify a?b. Invalid param name."}},
		{n, "node.name", "x", []string{"Cannot modify node.name. It is used to look up the record and cannot be changed."}},
		{n, "node.tpgt", "2", []string{"Cannot modify node.tpgt. It is used to look up the record and cannot be changed."}},
		{n, "node.conn[0].address", "x", []string{"Cannot modify node.conn[0].address. It is used to look up the record and cannot be changed."}},
		{n, "node.discovery_type", "fw", []string{"Cannot modify node.discovery_type. It is used to look up the record and cannot be changed."}},
		{n, "iface.ipaddress", "1.2.3.4", []string{"Cannot modify iface.ipaddress. Use iface mode to update this value."}},
		{n, "node.startup", "bogus", []string{"unknown value format 'bogus' for parameter name 'node.startup'", "Unknown parameter node.startup."}},
		{n, "node.conn[0].iscsi.HeaderDigest", "Bogus", []string{"unknown value format 'Bogus' for parameter name 'node.conn[0].iscsi.HeaderDigest'", "Unknown parameter node.conn[0].iscsi.HeaderDigest."}},
		{n, "node.leading_login", "yes", []string{"unknown value format 'yes' for parameter name 'node.leading_login'", "Unknown parameter node.leading_login."}},
		{n, "node.session.auth.username", "a\nb", []string{"unknown value format 'a?b' for parameter name 'node.session.auth.username': control character", "Unknown parameter node.session.auth.username."}},
		{n, "node.session.auth.password", strings.Repeat("s", 256), []string{"unknown value format '********' for parameter name 'node.session.auth.password': longer than 255 bytes", "Unknown parameter node.session.auth.password."}},
		{d, "discovery.type", "isns", []string{"Cannot modify discovery.type. It is used to look up the record and cannot be changed."}},
		{d, "discovery.bogus", "1", []string{"Cannot modify discovery.bogus. Invalid param name."}},
		{i, "iface.bogus", "lo", []string{"Cannot modify iface.bogus. Invalid param name."}},
		{i, "iface.iscsi_ifacename", "x", []string{"Can not update iface.iscsi_ifacename. Delete it, and then create a new one."}},
		{netIface, "iface.hwaddress", "x", []string{"Can not update interface binding from net_ifacename to hwaddress. You must delete the interface and create a new one"}},
		{hwIface, "iface.net_ifacename", "x", []string{"Can not update interface binding from hwaddress to net_ifacename. You must delete the interface and create a new one"}},
		{def, "iface.net_ifacename", "lo", []string{"iface default is a special interface and cannot be modified."}},
	} {
		t.Run(tc.name+"="+tc.value[:min(len(tc.value), 8)], func(t *testing.T) {
			err := tc.rec.Set(tc.name, tc.value)
			if err == nil || errcode.Of(err) != errcode.Inval {
				t.Fatalf("error %v, want code 7", err)
			}
			if diff := cmp.Diff(tc.lines, nodedb.Lines(err)); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	before := n.Clone()
	_, err := n.Apply([]nodedb.Param{
		{Name: nodedb.FieldUsername, Value: "user"},
		{Name: nodedb.FieldStartup, Value: "automatic"},
		{Name: nodedb.FieldScan, Value: "bogus"},
	})
	if err == nil || !n.Equal(before) {
		t.Errorf("error %v, username %q; want an error and nothing changed", err, n.Text(nodedb.FieldUsername))
	}
}

func TestApplyTakesParamsInOrder(t *testing.T) {
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	warnings, err := n.Apply([]nodedb.Param{
		{Name: nodedb.FieldStartup, Value: "automatic"},
		{Name: nodedb.FieldStartup, Value: "onboot"},
		{Name: "node.transport_name", Value: "iser"},
		{Name: nodedb.FieldCHAPAlgs, Value: "SHA256,X"},
		{Name: nodedb.FieldPassword + "_length", Value: "8"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n.Startup() != "onboot" || n.Transport() != "iser" || n.Text(nodedb.FieldCHAPAlgs) != "SHA256" || len(warnings) != 1 {
		t.Errorf("startup %q, transport %q, algs %q, warnings %q", n.Startup(), n.Transport(), n.Text(nodedb.FieldCHAPAlgs), warnings)
	}
}

func TestPrintMasksSecrets(t *testing.T) {
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	if err := n.Set(nodedb.FieldPassword, "geheim"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		show           bool
		want, wantNone string
	}{
		{false, "node.session.auth.password = ********\n", "node.session.auth.password_in = <empty>\n"},
		{true, "node.session.auth.password = geheim\n", "node.session.auth.password_in = <empty>\n"},
	} {
		var b strings.Builder
		if err := n.Print(&b, nodedb.PrintOptions{ShowSecrets: tc.show}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), tc.want) || !strings.Contains(b.String(), tc.wantNone) {
			t.Errorf("ShowSecrets %v: %s", tc.show, b.String())
		}
	}
}

func TestFormattingNeverShowsSecrets(t *testing.T) {
	const secret = "geheim"
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	d := newDiscovery(t, nodedb.DiscoveryKey{Type: nodedb.SendTargets, Address: "10.0.0.1", Port: 3260})
	if err := errors.Join(n.Set(nodedb.FieldPassword, secret), d.Set(nodedb.FieldDiscPassword, secret)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "node", n, "discovery", d, "nodeValue", *n)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "node", n, "discovery", d, "nodeValue", *n)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		fmt.Fprintf(&b, verb+verb+verb+verb+verb, n, *n, d, *d, n.Iface())
	}
	if strings.Contains(b.String(), secret) {
		t.Errorf("the password is in: %s", b.String())
	}
}

func TestOwnFieldsArePrintedOnlyWhenSet(t *testing.T) {
	n := newNode(t, key("iqn.x", "10.0.0.1"), 1)
	var b strings.Builder
	if err := errors.Join(n.Set(nodedb.FieldAttach, "socket"), n.Set(nodedb.FieldTCPCongestion, "bbr"), n.Print(&b, nodedb.PrintOptions{})); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node.session.attach = socket\n", "node.conn[0].tcp.congestion_control = bbr\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("not printed: %s", want)
		}
	}
	if strings.Contains(b.String(), nodedb.FieldReopenLogFreq) {
		t.Errorf("%s is printed, though it has its default", nodedb.FieldReopenLogFreq)
	}
}

func TestIfacePrintsTheFieldsOfItsFamily(t *testing.T) {
	for addr, want := range map[string][2]bool{"": {true, false}, "10.0.0.1": {true, false}, "fe80::1": {false, true}} {
		i := newIface(t, "x")
		if err := i.Set(nodedb.FieldIfaceAddress, addr); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := i.Print(&b, nodedb.PrintOptions{}); err != nil {
			t.Fatal(err)
		}
		got := [2]bool{strings.Contains(b.String(), "iface.subnet_mask"), strings.Contains(b.String(), "iface.flow_label")}
		if got != want {
			t.Errorf("address %q: IPv4 fields %v, IPv6 fields %v", addr, got[0], got[1])
		}
	}
}

func TestMapsRoundTrip(t *testing.T) {
	n := newNode(t, nodedb.NodeKey{Target: "iqn.x", Address: "fe80::1%eth0", Port: 1234, Iface: "i"}, 7)
	if err := errors.Join(n.Set(nodedb.FieldPassword, " with = signs "), n.Set(nodedb.FieldAttach, "none")); err != nil {
		t.Fatal(err)
	}
	m := n.Map()
	m["node.from.the.future"] = "kept"
	got, err := nodedb.NodeFromMap(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got.Map()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.Key() != n.Key() || got.TPGT() != 7 {
		t.Errorf("key %v, tag %d", got.Key(), got.TPGT())
	}
}

func TestMapsAreChecked(t *testing.T) {
	good := newNode(t, key("iqn.x", "10.0.0.1"), 1).Map()
	for name, change := range map[string]func(map[string]string){
		"no target":         func(m map[string]string) { delete(m, nodedb.FieldName) },
		"path as target":    func(m map[string]string) { m[nodedb.FieldName] = "iqn/../../x" },
		"line as target":    func(m map[string]string) { m[nodedb.FieldName] = "iqn\nnode.startup = automatic" },
		"path as address":   func(m map[string]string) { m[nodedb.FieldAddress] = "../x" },
		"port 0":            func(m map[string]string) { m[nodedb.FieldPort] = "0" },
		"port too large":    func(m map[string]string) { m[nodedb.FieldPort] = "65536" },
		"bad word":          func(m map[string]string) { m[nodedb.FieldStartup] = "x" },
		"line as value":     func(m map[string]string) { m[nodedb.FieldUsername] = "a\nb" },
		"line as unknown":   func(m map[string]string) { m["node.future"] = "a\nb" },
		"path as iface":     func(m map[string]string) { m[nodedb.FieldIfaceName] = "a/b" },
		"path as discovery": func(m map[string]string) { m[nodedb.FieldDiscoveryAddress] = "a/b" },
		"too many unknown": func(m map[string]string) {
			for i := range 100 {
				m[fmt.Sprint("x", i)] = "y"
			}
		},
		"name of unknown bad": func(m map[string]string) { m["x\ny"] = "y" },
	} {
		t.Run(name, func(t *testing.T) {
			m := make(map[string]string)
			for k, v := range good {
				m[k] = v
			}
			change(m)
			if _, err := nodedb.NodeFromMap(m); err == nil || errcode.Of(err) != errcode.Inval {
				t.Errorf("error %v, want code 7", err)
			}
		})
	}
}

func TestValidateTarget(t *testing.T) {
	for name, ok := range map[string]bool{
		"iqn.2016-01-com.example.tg1":       true, // not well-formed, in use
		"iqn.2016-01.com.example:a,b":       true,
		"eui.02004567A425678D":              true,
		"IQN.UPPER":                         true,
		"iqn.münchen":                       true,
		"":                                  false,
		"..":                                false,
		"iqn.x/../../etc":                   false,
		"iqn.x y":                           false,
		"iqn.x\x00":                         false,
		"iqn.x\nnode.startup = automatic":   false,
		"iqn.x\x1b[2J":                      false,
		"iqn.\u202egro.example":             false, // right-to-left override
		"iqn.\xff":                          false,
		"iqn." + strings.Repeat("x", 223-4): true,
		"iqn." + strings.Repeat("x", 224-4): false,
	} {
		if err := nodedb.ValidateTarget(name); (err == nil) != ok {
			t.Errorf("ValidateTarget(%q) = %v", name, err)
		}
	}
}
