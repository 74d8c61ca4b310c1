//go:build guest

package network

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/lab"
)

const (
	target = "iqn.2026-11.com.example:net"
	// far is where the target is, reached through either interface.
	far = "10.9.2.2"
)

// network is a machine with two interfaces, lan0 with two addresses and lan1,
// both with a way to the target, which is in another network namespace. lan0
// is the way that the kernel takes by itself.
func network(t *testing.T) *lab.Host {
	t.Helper()
	h := lab.NewMachine(t)
	t.Cleanup(func() {
		h.Shell("ip link del lan0 2>/dev/null || :; ip link del lan1 2>/dev/null || :; ip netns del far")
	})
	for _, line := range []string{
		"modprobe veth; modprobe ipv6 || :; ip netns add far",
		"ip link add lan0 type veth peer name far0; ip link set far0 netns far",
		"ip link add lan1 type veth peer name far1; ip link set far1 netns far",
		"ip address add 10.9.0.1/24 dev lan0; ip address add 10.9.0.7/24 dev lan0; ip link set lan0 up",
		"ip address add 10.9.1.1/24 dev lan1; ip link set lan1 up",
		"ip netns exec far sh -ec 'ip link set lo up; ip address add " + far + "/32 dev lo; ip address add 10.9.0.2/24 dev far0; " +
			"ip address add 10.9.1.2/24 dev far1; ip link set far0 up; ip link set far1 up'",
		"ip -6 address add fe80::a/64 dev lan0 nodad; ip netns exec far ip -6 address add fe80::b/64 dev far0 nodad",
		"ip route add " + far + " via 10.9.0.2 dev lan0; ip route add " + far + " via 10.9.1.2 dev lan1 metric 200",
	} {
		h.Shell(line)
	}
	return h
}

// serve starts our target on a portal in the namespace.
func serve(t *testing.T, h *lab.Host, portal string) {
	t.Helper()
	own := h.Command("iscsi-target", "-p", portal, "-T", target, "-mem", "16M")
	cmd := exec.Command("ip", append([]string{"netns", "exec", "far"}, own.Args...)...)
	cmd.Env = own.Env
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line := make([]byte, 200) // it prints where it listens when it does
	if n, err := stdout.Read(line); err != nil || !strings.HasPrefix(string(line[:n]), "listening on ") {
		t.Fatalf("iscsi-target: %q, %v, %s", line[:n], err, stderr.String())
	}
}

// local returns our end of the only session.
func local(t *testing.T, h *lab.Host) string {
	t.Helper()
	var list []struct {
		Local string `json:"local_address"`
	}
	out := h.Must("-m", "session", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	return list[0].Local
}

// TestInterfaceBinding logs in through the interface that the kernel would
// take, through another, by its name and by its MAC address, and from another
// address.
func TestInterfaceBinding(t *testing.T) {
	h := network(t)
	serve(t, h, far+":3260")
	h.StartDaemon()
	mac := h.Shell("cat /sys/class/net/lan1/address")
	for _, tc := range []struct{ name, field, value, want string }{
		{"nothing", "", "", "10.9.0.1"},
		{"network interface", "iface.net_ifacename", "lan1", "10.9.1.1"},
		{"hardware address", "iface.hwaddress", mac, "10.9.1.1"},
		{"address", "iface.ipaddress", "10.9.0.7", "10.9.0.7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := "default"
			if tc.field != "" {
				name = "bound"
				h.Must("-m", "iface", "-I", name, "-o", "new")
				h.Must("-m", "iface", "-I", name, "-o", "update", "-n", tc.field, "-v", tc.value)
			}
			if got := h.Must("-m", "discovery", "-t", "st", "-p", far, "-I", name); got != far+":3260,1 "+target+"\n" {
				t.Errorf("discovery printed %q", got)
			}
			h.Must("-m", "node", "-I", name, "-l")
			if got := local(t, h); got != tc.want {
				t.Errorf("the session's end is %s, want %s", got, tc.want)
			}
			if out := h.Must("-m", "session", "-P", "1"); !strings.Contains(out, "\t\tIface Name: "+name+"\n") ||
				!strings.Contains(out, "\t\tIface IPaddress: "+tc.want+"\n") {
				t.Errorf("-P 1 prints\n%s", out)
			}
			h.Must("-m", "node", "-I", name, "-u")
			h.Must("-m", "node", "-o", "delete")
			if tc.field != "" {
				h.Must("-m", "iface", "-I", name, "-o", "delete")
			}
		})
	}
}

// TestBoundDiscoveryDoesNotStray asks for the target through an interface whose
// other end is down, while another one has a way there.
func TestBoundDiscoveryDoesNotStray(t *testing.T) {
	h := network(t)
	serve(t, h, far+":3260")
	h.Shell("ip netns exec far ip link set far1 down")
	h.WriteConfig("discovery.sendtargets.reopen_max = 1", "discovery.sendtargets.timeo.login_timeout = 3")
	h.Must("-m", "iface", "-I", "bound", "-o", "new")
	h.Must("-m", "iface", "-I", "bound", "-o", "update", "-n", "iface.net_ifacename", "-v", "lan1")
	if r := h.Iscsiadm("-m", "discovery", "-t", "st", "-p", far, "-I", "bound"); r.Code == 0 {
		t.Errorf("found something through an interface without a way there\n%s", r)
	}
	h.Must("-m", "discovery", "-t", "st", "-p", far, "-I", "default")
}

// TestLinkLocal discovers and logs in at an address that means nothing without
// its zone, which the target does not know.
func TestLinkLocal(t *testing.T) {
	h := network(t)
	serve(t, h, "[fe80::b%far0]:3260")
	h.StartDaemon()
	const at = "fe80::b%lan0"
	if got := h.Must("-m", "discovery", "-t", "st", "-p", "["+at+"]:3260"); got != "["+at+"]:3260,1 "+target+"\n" {
		t.Fatalf("discovery printed %q", got)
	}
	h.Must("-m", "node", "-T", target, "-p", "["+at+"]", "-l")
	if got := h.Must("-m", "session"); !strings.Contains(got, "["+at+"]:3260,1 "+target+" (non-flash)\n") {
		t.Errorf("-m session printed %q", got)
	}
	link := "/dev/disk/by-path/ip-" + at + ":3260-iscsi-" + target + "-lun-1"
	if got, err := filepath.EvalSymlinks(link); err != nil || got != h.Disk(target, "1") {
		t.Errorf("%s leads to %q, %v", link, got, err)
	}
	start := time.Now()
	h.Must("-m", "node", "-T", target, "-p", "["+at+"]", "-u")
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("the logout took %v", d)
	}
}
