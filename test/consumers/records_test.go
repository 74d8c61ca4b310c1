//go:build integration

package consumers

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
)

const (
	target = "iqn.2026-11.com.example:consumers"
	other  = "iqn.2026-11.com.example:other"
)

// want checks a command's exit status, and its standard error where text is
// not empty.
func want(t *testing.T, h *lab.Host, code int, args ...string) lab.Result {
	t.Helper()
	r := h.Iscsiadm(args...)
	if r.Code != code {
		t.Errorf("exit status %d, want %d:\n%s", r.Code, code, r)
	}
	return r
}

// contains checks that a text has each of the lines.
func contains(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+text, "\n"+l+"\n") {
			t.Errorf("no line %q in\n%s", l, text)
		}
	}
}

// TestMustHave01 is all that is done to node records, in the spellings that
// the programs use.
func TestMustHave01(t *testing.T) {
	h := lab.NewPrefix(t)
	for _, args := range []string{
		"-m node -o new -T " + target + " -p 10.0.0.1:3260",                       // juju
		"-m node -T " + target + " -p 10.0.0.1:3260 -o new",                       // CloudStack: twice is no error
		"-m node -T " + target + " -p 10.0.0.2:3260 --interface default --op new", // os-brick, Huawei
		"--op=new --portal=10.0.0.1 --mode=node --targetname=" + other,
		// csi-lib-iscsi and dracut: several names in one call.
		"-m node -T " + target + " -p 10.0.0.1:3260 -o update -n node.startup -v automatic -n node.session.auth.username -v user",
		// Ansible, trident, curtin; vdsm has the operation last.
		"--mode node --targetname " + target + " --op=update --name node.session.timeo.replacement_timeout --value 7",
		"-m node -T " + other + " -p 10.0.0.1:3260,1 -n node.startup -v onboot --op=update",
	} {
		want(t, h, 0, strings.Fields(args)...)
	}
	contains(t, h.Must("-m", "node", "-T", target, "-p", "10.0.0.1", "-o", "show"),
		"node.startup = automatic", "node.session.auth.username = user", "node.session.timeo.replacement_timeout = 7")
	contains(t, h.Must("-m", "node", "-T", target, "-p", "10.0.0.2"), "node.startup = manual", "node.session.timeo.replacement_timeout = 7")
	contains(t, h.Must("-m", "node", "-T", other), "node.startup = onboot")

	// Any of -T, -p and -I selects.
	for selector, n := range map[string]int{"-T " + target: 2, "-p 10.0.0.1": 2, "-I default": 3, "-T " + target + " -p 10.0.0.2:3260": 1} {
		out := h.Must(append([]string{"-m", "node", "-o", "show"}, strings.Fields(selector)...)...)
		if got := strings.Count(out, "# BEGIN RECORD "); got != n {
			t.Errorf("%s selects %d records, want %d", selector, got, n)
		}
	}
	want(t, h, 0, "-m", "node", "-o", "delete", "-T", other)
	want(t, h, 0, "-m", "node", "-T", target, "-p", "10.0.0.2:3260", "--interface", "default", "--op", "delete")
	if out := h.Must("-m", "node"); !regexp.MustCompile(`^10\.0\.0\.1:3260,\d+ ` + regexp.QuoteMeta(target) + "\n$").MatchString(out) {
		t.Errorf("records left:\n%s", out)
	}
}

// TestMustHave11 reads interfaces as vdsm, dell/goiscsi, kubernetes and
// csi-lib-iscsi do.
func TestMustHave11(t *testing.T) {
	h := lab.NewPrefix(t)
	list := h.Must("-m", "iface")
	contains(t, list, "default tcp,<empty>,<empty>,<empty>,<empty>")
	for line := range strings.Lines(list) {
		if f := regexp.MustCompile(`[\s,]`).Split(strings.TrimRight(line, "\n"), -1); len(f) != 6 {
			t.Errorf("vdsm wants 6 fields: %q", line)
		}
	}
	show := h.Must("-m", "iface", "-I", "default", "-o", "show")
	if !regexp.MustCompile(`iface\.transport_name = tcp\n`).MatchString(show) {
		t.Errorf("no transport in\n%s", show)
	}
	for line := range strings.Lines(show) {
		if strings.HasPrefix(line, "iface.") && !strings.Contains(line, "<empty>") && len(strings.Fields(line)) != 3 {
			t.Errorf("kubernetes wants three fields: %q", line)
		}
	}
	want(t, h, 6, "-m", "iface", "-I", "nothere", "-o", "show")
}

// TestMustHave12 is the life of an interface, with kubernetes' names, which
// have colons.
func TestMustHave12(t *testing.T) {
	h := lab.NewPrefix(t)
	const iface = "192.0.2.1:3260:vol"
	want(t, h, 0, "-m", "iface", "-I", iface, "-o", "new")
	want(t, h, 0, "-m", "iface", "-I", iface, "-o", "new") // again is fine
	want(t, h, 0, "-m", "iface", "-I", iface, "-o", "update", "-n", "iface.initiatorname", "-v", "iqn.2026-11.com.example:pod")
	want(t, h, 0, "-m", "iface", "-I", iface, "-n", "iface.net_ifacename", "-v", "eth9", "--op=update") // vdsm
	contains(t, h.Must("-m", "iface"), iface+" tcp,<empty>,<empty>,eth9,iqn.2026-11.com.example:pod")
	want(t, h, 0, "-m", "iface", "-I", iface, "-o", "delete")
	// csi-lib-iscsi asks for this after each failed connect.
	want(t, h, 7, "-m", "iface", "-I", "default", "-o", "delete")
	contains(t, h.Must("-m", "iface"), "default tcp,<empty>,<empty>,<empty>,<empty>")
}

// TestMustHave17 asks as those who only want to know whether scanning by hand
// is supported.
func TestMustHave17(t *testing.T) {
	h := lab.NewPrefix(t)
	want(t, h, 0, "-m", "node", "-T", target, "-p", "10.0.0.1", "-o", "new")
	for value, code := range map[string]int{"manual": 0, "auto": 0, "bogus": 7} {
		r := want(t, h, code, "-m", "node", "-T", target, "-p", "10.0.0.1", "-o", "update", "-n", "node.session.scan", "-v", value)
		if code == 0 && r.Stderr != "" {
			t.Errorf("os-brick takes any word on stderr for no: %s", r)
		}
	}
	want(t, h, 7, "-m", "node", "-T", target, "-p", "10.0.0.1", "-o", "update", "-n", "node.session.scanning", "-v", "manual")
}

// TestMustHave19 finds records by each form of a portal.
func TestMustHave19(t *testing.T) {
	h := lab.NewPrefix(t)
	for _, p := range []string{"10.0.0.1", "[2001:db8::1]:3260", "san.example.com:3260"} {
		want(t, h, 0, "-m", "node", "-o", "new", "-T", target, "-p", p)
	}
	for portal, n := range map[string]int{
		"10.0.0.1": 1, "10.0.0.1:3260": 1, "10.0.0.1:3260,1": 1, "10.0.0.1:3260,2": 1, "10.0.0.1,1": 1, "10.0.0.1:3261": 0,
		"[2001:db8::1]:3260": 1, "[2001:db8::1]:3260,1": 1, "2001:db8::1": 1, "[2001:db8::1]:3261": 0,
		"san.example.com:3260": 1, "san.example.com": 1,
	} {
		r := h.Iscsiadm("-m", "node", "-T", target, "-p", portal)
		if got := strings.Count(r.Stdout, "# BEGIN RECORD "); got != n || (n == 0) != (r.Code == 21) {
			t.Errorf("-p %s finds %d records with exit status %d, want %d", portal, got, r.Code, n)
		}
	}
	contains(t, h.Must("-m", "node", "-T", target, "-p", "10.0.0.1"), "node.conn[0].port = 3260")
}

// TestMustHave22 looks for what os-brick greps for in the program. The paths
// are the package's: TestPackage in test/boot.
func TestMustHave22(t *testing.T) {
	h := lab.NewPrefix(t)
	b, err := os.ReadFile(h.Command("iscsiadm").Path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "node.session.scan") {
		t.Error("the program does not contain node.session.scan")
	}
}

// TestMustHave24 reads records as files, which an administrator asks for with
// nodedb.mirror.
func TestMustHave24(t *testing.T) {
	h := lab.NewPrefix(t)
	dir := filepath.Join(h.Dir, "etc", "iscsi")
	h.WriteConfig("nodedb.mirror = " + dir)
	want(t, h, 0, "-m", "node", "-o", "new", "-T", target, "-p", "10.0.0.1:3260,1")
	want(t, h, 0, "-m", "iface", "-o", "new", "-I", "iface_lan")
	want(t, h, 0, "-m", "iface", "-o", "update", "-I", "iface_lan", "-n", "iface.net_ifacename", "-v", "lan")
	node, err := os.ReadFile(filepath.Join(dir, "nodes", target, "10.0.0.1,3260,1", "default")) // curtin
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(node), "node.name = "+target, "node.conn[0].address = 10.0.0.1")
	iface, err := os.ReadFile(filepath.Join(dir, "ifaces", "iface_lan")) // HPE
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^iface.net_ifacename\s*=\s*(?P<network>.*)`).FindSubmatch(iface); m == nil || string(m[1]) != "lan" {
		t.Errorf("HPE finds no network in\n%s", iface)
	}
	want(t, h, 0, "-m", "node", "-o", "delete", "-T", target)
	if entries, _ := os.ReadDir(filepath.Join(dir, "nodes")); len(entries) != 0 {
		t.Errorf("the directory is not empty: %v", entries) // the condition of open-iscsi.service
	}
}

// TestMustHave26 is libvirt's way to write --targetname.
func TestMustHave26(t *testing.T) {
	h := lab.NewPrefix(t)
	want(t, h, 0, "--mode", "node", "--portal", "10.0.0.1:3260,1", "--targetname", target, "--op", "new")
	want(t, h, 0, "--mode", "node", "--portal", "10.0.0.1:3260,1", "--target", target, "--op", "update", "--name", "node.session.auth.authmethod", "--value", "CHAP")
	contains(t, h.Must("-m", "node", "-T", target), "node.session.auth.authmethod = CHAP")
}

// TestMustHave27 is what an initramfs asks: is there firmware, and a name?
func TestMustHave27(t *testing.T) {
	h := lab.NewPrefix(t)
	for _, args := range []string{"-m fw", "-m fw -l -W", "-m fw -l"} { // dracut takes 7 for: no -W
		want(t, h, 21, strings.Fields(args)...)
	}
	name := regexp.MustCompile(`^iqn\.2016-04\.com\.open-iscsi:[0-9a-f]{12}\n$`)
	if r := h.Run("iscsi-iname"); r.Code != 0 || !name.MatchString(r.Stdout) {
		t.Errorf("%s", r)
	}
	if r := h.Run("iscsi-iname", "-p", "iqn.2026-11.com.example"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "iqn.2026-11.com.example:") {
		t.Errorf("%s", r)
	}
}
