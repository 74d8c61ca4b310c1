package iscsiadm_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/version"
)

// ibft makes a firmware table as the kernel shows it.
func (l *lab) ibft() {
	l.t.Helper()
	for name, value := range map[string]string{
		"firmware/ibft/initiator/initiator-name": "iqn.boot.me",
		"firmware/ibft/initiator/flags":          "3",
		"firmware/ibft/ethernet0/mac":            "52:54:00:00:00:01",
		"firmware/ibft/ethernet0/flags":          "3",
		"firmware/ibft/ethernet0/ip-addr":        "10.0.0.7",
		"firmware/ibft/ethernet0/subnet-mask":    "255.255.255.0",
		"firmware/ibft/ethernet0/gateway":        "0.0.0.0",
		"firmware/ibft/ethernet0/vlan":           "0",
		"firmware/ibft/target0/flags":            "3",
		"firmware/ibft/target0/nic-assoc":        "0",
		"firmware/ibft/target0/ip-addr":          "127.0.0.1",
		"firmware/ibft/target0/port":             "3260",
		"firmware/ibft/target0/target-name":      tg1,
		"firmware/ibft/target0/lun":              "00010000",
		"firmware/ibft/target0/chap-name":        "bootuser",
		"firmware/ibft/target0/chap-secret":      "bootsecret",
		"firmware/ibft/target1/flags":            "0", // not valid
		"firmware/ibft/target1/target-name":      "iqn.unused",
		"firmware/ibft/acpi_header/signature":    "iBFT",
		"class/net/eth7/address":                 "52:54:00:00:00:01",
		"class/net/lo/address":                   "00:00:00:00:00:00",
	} {
		write(l.t, filepath.Join(l.env.Paths.Sys, name), value+"\n")
	}
}

func TestFirmwareRecord(t *testing.T) {
	l := newLab(t)
	l.ibft()
	const head, tail = "# BEGIN RECORD ", "# END RECORD\n"
	body := "\niface.initiatorname = iqn.boot.me\niface.hwaddress = 52:54:00:00:00:01\niface.bootproto = STATIC\niface.ipaddress = 10.0.0.7\n" +
		"iface.subnet_mask = 255.255.255.0\niface.net_ifacename = eth7\nnode.name = " + tg1 + "\nnode.conn[0].address = 127.0.0.1\nnode.conn[0].port = 3260\n" +
		"node.boot_lun = 00010000\nnode.session.auth.username = bootuser\nnode.session.auth.password = ********\n"
	l.expect(result{head + version.Version + body + tail, "", 0}, "-m", "fw")
}

func TestFirmwareLogin(t *testing.T) {
	l := newLab(t)
	l.ibft()
	var record map[string]string
	l.daemon.Connect = func(_ context.Context, _ *control.Session, r map[string]string) error {
		record = r
		return nil
	}
	l.expect(result{loggingIn(tg1) + loggedIn(tg1), "", 0}, "-m", "fw", "-l", "-n", "node.session.timeo.replacement_timeout", "-v", "30")
	for name, want := range map[string]string{
		"node.startup":                           "onboot",
		"node.session.auth.username":             "bootuser",
		"node.session.auth.password":             "bootsecret",
		"node.conn[0].timeo.noop_out_interval":   "0",
		"node.conn[0].timeo.noop_out_timeout":    "0",
		"node.session.initial_login_retry_max":   "30",
		"node.session.timeo.replacement_timeout": "30",
		"node.discovery_type":                    "fw",
		"iface.iscsi_ifacename":                  "default",
	} {
		if record[name] != want {
			t.Errorf("%s = %q, want %q", name, record[name], want)
		}
	}
	l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "node")
	// The system's disk stays when all others are logged out of.
	l.mustRun("-m", "discovery", "-t", "fw")
	l.expect(result{"", "iscsiadm: No matching sessions found\n", 21}, "-m", "node", "-U", "all")
}

func TestFirmwareDiscovery(t *testing.T) {
	l := newLab(t)
	l.ibft()
	line := "127.0.0.1:3260,4294967295 " + tg1 + "\n"
	l.expect(result{line, "", 0}, "-m", "discovery", "-t", "fw", "-o", "nonpersistent")
	l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "node")
	l.expect(result{line, "", 0}, "-m", "discoverydb", "-t", "fw", "-D")
	l.expect(result{line, "", 0}, "-m", "node")
	if out := l.mustRun("-m", "discovery", "-P", "1"); !strings.Contains(out, "STATIC:\nNo targets found.\nFIRMWARE:\nTarget: "+tg1+"\n") {
		t.Errorf("tree:\n%s", out)
	}
}

func TestFirmwareWithABadName(t *testing.T) {
	l := newLab(t)
	l.ibft()
	write(t, filepath.Join(l.env.Paths.Sys, "firmware/ibft/target2/flags"), "3\n")
	write(t, filepath.Join(l.env.Paths.Sys, "firmware/ibft/target2/target-name"), "iqn.bad/name\n")
	write(t, filepath.Join(l.env.Paths.Sys, "firmware/ibft/target2/ip-addr"), "127.0.0.1\n")
	r := l.run("-m", "fw")
	if r.code != 0 || strings.Count(r.out, "node.name") != 1 || !strings.HasSuffix(r.err, "target2: invalid target name \"iqn.bad/name\": slash\n") {
		t.Errorf("%+v", r)
	}
}
