package iscsiadm_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
)

func TestIfaceBinding(t *testing.T) {
	l := newLab(t)
	iface := []string{"-m", "iface", "-I", "a"}
	l.expect(result{"a updated.\nNew interface a added\n", "", 0}, append(iface, "-o", "new", "-n", "iface.hwaddress", "-v", "00:11:22:33:44:55")...)
	r := l.run(append(iface, "-o", "update", "-n", "iface.net_ifacename", "-v", "eth0")...)
	if r.code != 0 || !strings.Contains(r.err, "Can not update interface binding from hwaddress to net_ifacename. You must delete the interface and create a new one\n") {
		t.Errorf("rebinding: %+v", r)
	}
	l.expect(result{"", "iscsiadm: Can not update iface.iscsi_ifacename. Delete it, and then create a new one.\niscsiadm: Could not update iface a: invalid parameter\n", 0},
		append(iface, "-o", "update", "-n", "iface.iscsi_ifacename", "-v", "b")...)
	l.expect(result{"a tcp,00:11:22:33:44:55,<empty>,<empty>,<empty>\ndefault tcp,<empty>,<empty>,<empty>,<empty>\niser iser,<empty>,<empty>,<empty>,<empty>\n", "", 0}, "-m", "iface")
}

func TestIfaceUpdateReachesItsRecords(t *testing.T) {
	l := newLab(t)
	l.mustRun("-m", "iface", "-I", "a", "-o", "new")
	l.mustRun("-m", "node", "-T", tg1, "-p", "127.0.0.1", "-I", "a", "-o", "new")
	l.mustRun("-m", "iface", "-I", "a", "-o", "update", "-n", "iface.initiatorname", "-v", "iqn.me", "-n", "iface.net_ifacename", "-v", "lo")
	if out := l.mustRun("-m", "node", "-T", tg1); !strings.Contains(out, "iface.initiatorname = iqn.me\n") || !strings.Contains(out, "iface.net_ifacename = lo\n") {
		t.Errorf("record:\n%s", out)
	}
	l.mustRun("-m", "node", "-l")
	r := l.run("-m", "iface", "-I", "a", "-o", "update", "-n", "iface.mtu", "-v", "9000")
	if r.code != 0 || r.out != "a updated.\n" || !strings.HasPrefix(r.err, "iscsiadm: Updating iface while iscsi sessions are using it.") {
		t.Errorf("update while in use: %+v", r)
	}
	if r := l.run("-m", "node", "-o", "update", "-n", "iface.transport_name", "-v", "iser"); r.code != 15 {
		t.Errorf("change of the transport while in use: %+v, want code 15", r)
	}
	l.mustRun("-m", "session", "-u")
	l.expect(result{"a unbound and deleted.\n", "", 0}, "-m", "iface", "-I", "a", "-o", "delete")
	l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "node")
}

func TestNodeOnAnotherInterface(t *testing.T) {
	l := newLab(t)
	l.mustRun("-m", "iface", "-I", "a", "-o", "new")
	l.mustRun("-m", "discovery", "-t", "st", "-p", "127.0.0.1", "-I", "default")
	want := "New iSCSI node [tcp:[hw=,ip=,net_if=,iscsi_if=a] 127.0.0.1,3260,1 " + tg1 + "] added\n"
	l.expect(result{want, "", 0}, "-m", "node", "-T", tg1, "-I", "a", "-o", "new")
	l.expect(result{want, "", 0}, "-m", "node", "-T", tg1, "-I", "a", "-o", "new") // not once more for itself
	if got := strings.Count(l.mustRun("-m", "node"), tg1); got != 2 {
		t.Errorf("%d records for %s, want 2", got, tg1)
	}
	r := l.run("-m", "node", "-T", tg1, "-I", "a", "-I", "default")
	if r.code != 0 || r.err != "iscsiadm: NODE mode only accepts one interface. Using the first one driver  hwaddress  ipaddress .\n" || !strings.Contains(r.out, "iface.iscsi_ifacename = a\n") {
		t.Errorf("two interfaces: %+v", r)
	}
}

// names is a resolver that knows some names.
type names map[string]string

func (n names) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		return []netip.Addr{netip.MustParseAddr(a)}, nil
	}
	return noDNS{}.LookupNetIP(ctx, network, host)
}

func TestHostNamesMatchAddresses(t *testing.T) {
	l := newLab(t)
	l.env.Resolver = names{"san": "127.0.0.1", "san.example.com": "127.0.0.1", "other": "127.0.0.9"}
	l.add(tg1, "127.0.0.1")
	l.add("iqn.named", "san.example.com")
	l.daemon.Connect = nil
	for _, p := range []string{"127.0.0.1", "san", "san.example.com", "[san]:3260,1"} {
		if got := strings.Count(l.mustRun("-m", "node", "-p", p), "BEGIN RECORD"); got != 2 {
			t.Errorf("-p %s matches %d records, want 2", p, got)
		}
	}
	for _, p := range []string{"other", "nothere", "127.0.0.9"} {
		l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "node", "-p", p)
	}
	l.mustRun("-m", "node", "-p", "san", "-l")
	if out := l.mustRun("-m", "node", "-p", "127.0.0.1", "-u"); strings.Count(out, "successful.") != 2 {
		t.Errorf("logout by address: %q", out)
	}
}

func TestHostModeByNumberAndMAC(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	l.mustRun("-m", "node", "-l")
	l.daemon.Update(1, func(s *control.Session) { s.Iface.HWAddress = "00:11:22:33:44:55" })
	tree := "Host Number: 0\n\tState: running\n\tTransport: tcp\n\tInitiatorname: <empty>\n\tIPaddress: 127.0.0.1\n\tHWaddress: <empty>\n\tNetdev: <empty>\n"
	l.expect(result{tree, "", 0}, "-m", "host", "-P", "1", "-H", "0")
	l.expect(result{tree, "", 0}, "-m", "host", "-P", "1", "-H", "00:11:22:33:44:55")
	l.expect(result{"", "iscsiadm: No iSCSI hosts.\n", 21}, "-m", "host", "-P", "1", "-H", "7")
	if r := l.run("-m", "host", "-P", "1", "-H", "x"); r.code != 7 {
		t.Errorf("-H x: %+v", r)
	}
	if out := l.mustRun("-m", "host", "-P", "2"); !strings.Contains(out, "\t*********\n\tSessions:\n\t*********\n\tTarget: "+tg1) || strings.Contains(out, "Negotiated") {
		t.Errorf("-P 2:\n%s", out)
	}
	if out := l.mustRun("-m", "host", "-P", "3"); !strings.Contains(out, "Negotiated") || strings.Contains(out, "Attached") {
		t.Errorf("-P 3:\n%s", out)
	}
}

// TestWhatASessionUsesStays tries to change what running sessions go by.
func TestWhatASessionUsesStays(t *testing.T) {
	l := newLab(t)
	l.mustRun("-m", "iface", "-I", "lan", "-o", "new")
	l.mustRun("-m", "iface", "-I", "lan", "-o", "update", "-n", "iface.net_ifacename", "-v", "lo")
	l.mustRun(discovery...)
	l.mustRun("-m", "node", "-T", tg1, "-p", "127.0.0.1", "-I", "lan", "-l")
	before := l.mustRun("-m", "iface", "-I", "lan")
	l.expect(result{"", "iscsiadm: Could not create new interface lan.\n", 15}, "-m", "iface", "-I", "lan", "-o", "new")
	if got := l.mustRun("-m", "iface", "-I", "lan"); got != before {
		t.Errorf("the interface is now %q", got)
	}
	l.expect(result{"", "iscsiadm: Cannot modify node/iface transport name while a session is using it. Log out the session then update record.\n", 15},
		"-m", "node", "-T", tg1, "-o", "update", "-n", "iface.transport_name", "-v", "iser")
	l.mustRun("-m", "node", "-T", chap, "-o", "update", "-n", "iface.transport_name", "-v", "iser")
}
