//go:build integration

package consumers

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/test/lab"
)

// A served is a target in the test's process, with one disk.
type served struct {
	*iscsitest.Server
	disk   *growing
	portal string // as -p wants it
}

// A growing store has all of its blocks from the start and says how many it
// shows.
type growing struct {
	*iscsitest.MemStore
	size atomic.Int64
}

// Size implements iscsitest.Store.
func (g *growing) Size() int64 { return g.size.Load() }

// withTarget returns a host in a prefix with its daemon, and a target that
// asks for the account, if there is one, in discovery and in logins.
func withTarget(t *testing.T, chap iscsitest.CHAP) (*lab.Host, *served) {
	t.Helper()
	s := &served{disk: &growing{MemStore: iscsitest.NewMemStore(64 << 20)}}
	s.disk.size.Store(8 << 20)
	srv, err := iscsitest.New(iscsitest.Config{
		DiscoveryCHAP: chap,
		Targets:       []iscsitest.Target{{Name: target, CHAP: chap, LUNs: map[uint64]*iscsitest.LUN{1: {Store: s.disk}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = srv
	addr, err := srv.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	s.portal = addr.String()
	h := lab.NewPrefix(t)
	h.StartDaemon()
	return h, s
}

// open asks for no account.
var open iscsitest.CHAP

func login(t *testing.T, h *lab.Host, p *served) {
	t.Helper()
	want(t, h, 0, "-m", "node", "-T", target, "-p", p.portal, "-o", "new")
	want(t, h, 0, "-m", "node", "-T", target, "-p", p.portal, "-l")
}

// TestMustHave02 reads a discovery with all parsers that are known.
func TestMustHave02(t *testing.T) {
	h, p := withTarget(t, open)
	line := p.portal + ",1 " + target + "\n"
	for _, args := range []string{
		"-m discovery -t sendtargets -p " + p.portal,                             // longhorn
		"-m discovery -t st --portal " + p.portal + " -I default",                // dell/goiscsi
		"--mode discovery --type sendtargets --portal " + p.portal,               // Ansible, PVE
		"-m discovery -t st -p " + p.portal + " -o new",                          // HPE
		"-m discoverydb -t sendtargets -p " + p.portal + " -D",                   // trident
		"-m discoverydb --type sendtargets --portal " + p.portal + " --discover", // synology
	} {
		r := want(t, h, 0, strings.Fields(args)...)
		if r.Stdout != line || r.Stderr != "" {
			t.Errorf("want the line %q and no more: %s", line, r)
		}
	}
	for _, re := range []string{
		`^([^,]+),(-?\d+)\s+(.+)$`,    // trident
		`^(\S+:\d+)\,\S+\s+(\S+)\s*$`, // PVE
		`^\s*(\S+)\s+(\S+)\s*$`,       // libvirt
		`^(?P<address>.*):(?P<port>\d*),(?P<tag>\d*) (?P<target>iqn.*:.*)$`, // HPE, for any vendor
	} {
		if !regexp.MustCompile(re).MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("%q does not match %s", line, re)
		}
	}
	if out := h.Must("-m", "node"); out != line {
		t.Errorf("records left behind: %q, want %q", out, line)
	}
	want(t, h, 0, "-m", "node", "-o", "delete", "-T", target)
	want(t, h, 0, "--mode", "discovery", "--type", "sendtargets", "--portal", p.portal+",1", "--op", "nonpersistent") // libvirt
	want(t, h, 21, "-m", "node")
}

// TestMustHave03 is "nothing there" in each mode.
func TestMustHave03(t *testing.T) {
	h := lab.NewPrefix(t)
	h.StartDaemon()
	for args, text := range map[string]string{
		"-m session":                     "iscsiadm: No active sessions.\n",
		"-m session -P 3":                "iscsiadm: No active sessions.\n",
		"-m session -R":                  "iscsiadm: No session found.\n",
		"-m node":                        "iscsiadm: No records found\n",
		"-m node -T " + target:           "iscsiadm: No records found\n",
		"-m node -T " + target + " -l":   "iscsiadm: No records found\n",
		"-m node -T " + target + " -u":   "iscsiadm: No matching sessions found\n",
		"-m node -T " + target + " -R":   "iscsiadm: No session found.\n",
		"-m node -o delete -T " + target: "iscsiadm: No records found\n",
		"-m node -L all":                 "iscsiadm: No records found\n",
		"-m node -U all":                 "iscsiadm: No matching sessions found\n",
	} {
		r := want(t, h, 21, strings.Fields(args)...)
		if r.Stdout != "" || lab.WithoutHints(r.Stderr) != text {
			t.Errorf("want nothing on stdout and %q on stderr:\n%s", text, r)
		}
	}
}

// TestMustHave04 reads the list of sessions with the parsers that are known.
func TestMustHave04(t *testing.T) {
	h, p := withTarget(t, open)
	login(t, h, p)
	out := h.Must("-m", "session")
	if again := h.Must("--mode=session", "--op=show"); again != out { // curtin
		t.Errorf("--op=show: %q, want %q", again, out)
	}
	line := strings.TrimSuffix(out, "\n")
	if strings.Contains(line, "\n") {
		t.Fatalf("more than one line:\n%s", out)
	}
	for who, re := range map[string]string{
		"Proxmox VE": `^tcp:\s+\[(\S+)\]\s+(\S+:\d+)\,\S+\s+(\S+)\s+\S+?\s*$`,
		"libvirt":    `^tcp:\s+\[(\S+)\]\s+\S+\s+(\S+).*$`,
		"sm":         `^[^\[]*\[(\d+)\] ` + regexp.QuoteMeta(p.portal) + `,\d+ ` + regexp.QuoteMeta(target),
		"Ansible":    regexp.QuoteMeta(p.portal) + `.*` + regexp.QuoteMeta(target),
		"Pacemaker":  `\] ` + regexp.QuoteMeta(p.portal) + `.*` + regexp.QuoteMeta(target) + `($|[[:space:]])`,
	} {
		if !regexp.MustCompile(re).MatchString(line) {
			t.Errorf("%s does not understand %q", who, line)
		}
	}
	if f := strings.Split(line, " "); len(f) != 5 || f[0] != "tcp:" || f[2] != p.portal+",1" || f[3] != target || f[4] != "(non-flash)" {
		t.Errorf("words %q", f)
	}
}

// TestMustHave07 is CHAP in both directions, for discovery and for a login, and
// the ways to clear it.
func TestMustHave07(t *testing.T) {
	h, p := withTarget(t, iscsitest.CHAP{Username: "user", Password: "password1234", MutualUsername: "target", MutualPassword: "secret123456"})
	portal := p.portal
	want(t, h, 0, "-m", "discoverydb", "-t", "sendtargets", "-p", portal, "-I", "default", "-o", "new")
	want(t, h, 0, "-m", "discoverydb", "-t", "sendtargets", "-p", portal, "-I", "default", "-o", "update",
		"-n", "discovery.sendtargets.auth.authmethod", "-v", "CHAP", "-n", "discovery.sendtargets.auth.username", "-v", "user",
		"-n", "discovery.sendtargets.auth.password", "-v", "password1234", "-n", "discovery.sendtargets.auth.username_in", "-v", "target",
		"-n", "discovery.sendtargets.auth.password_in", "-v", "secret123456")
	want(t, h, 0, "-m", "discoverydb", "-t", "sendtargets", "-p", portal, "-I", "default", "--discover")
	for name, value := range map[string]string{
		"authmethod": "CHAP", "username": "user", "password": "password1234", "username_in": "target", "password_in": "secret123456",
	} {
		want(t, h, 0, "-m", "node", "-T", target, "-p", portal, "-o", "update", "-n", "node.session.auth."+name, "-v", value)
	}
	want(t, h, 0, "-m", "node", "-T", target, "-p", portal, "--login")
	want(t, h, 0, "-m", "node", "-T", target, "-p", portal, "--logout")

	// HPE clears with an empty value; it is shown as nobody's.
	for _, name := range []string{"username_in", "password_in"} {
		want(t, h, 0, "--mode", "node", "--targetname", target, "--portal", portal, "--op", "update", "-n", "node.session.auth."+name, "-v", "")
	}
	contains(t, h.Must("-m", "node", "-T", target), "node.session.auth.username_in = <empty>", "node.session.auth.username = user", "node.session.auth.password = ********")
	want(t, h, 0, "-m", "node", "-T", target, "-p", portal, "--login") // one direction is enough
	want(t, h, 0, "-m", "node", "-T", target, "-p", portal, "--logout")
	want(t, h, 0, "-m", "node", "-T", target, "-o", "update", "-n", "node.session.auth.authmethod", "-v", "None",
		"-n", "node.session.auth.username", "-v", "", "-n", "node.session.auth.password", "-v", "")
	want(t, h, 24, "-m", "node", "-T", target, "-p", portal, "--login")
}

// TestMustHave08 reads the initiator's name as programs do, when the commands
// have made it up.
func TestMustHave08(t *testing.T) {
	h, p := withTarget(t, open)
	if err := os.Remove(h.Paths.InitiatorName); err != nil {
		t.Fatal(err)
	}
	want(t, h, 0, "-m", "discovery", "-t", "st", "-p", p.portal)
	b, err := os.ReadFile(h.Paths.InitiatorName)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "InitiatorName=iqn.") || strings.Count(string(b), "=") != 1 {
		t.Fatalf("want one line, and one = in all (vdsm cuts the whole file there):\n%s", b)
	}
	m := regexp.MustCompile(`(?m)^\s*InitiatorName\s*=\s*(?P<iqn>\S+)(|\s+.*)$`).FindSubmatch(b) // trident
	shell := h.Shell(". '" + h.Paths.InitiatorName + "'; echo $InitiatorName")                   // dracut
	if m == nil || string(m[1]) != shell {
		t.Errorf("trident reads %q, a shell %q", m, shell)
	}
}

// TestMustHave09 is the life of a discovery record.
func TestMustHave09(t *testing.T) {
	h, p := withTarget(t, open)
	record := []string{"-m", "discoverydb", "-t", "st", "-p", p.portal}
	op := func(code int, args ...string) lab.Result {
		t.Helper()
		return want(t, h, code, append(record[:len(record):len(record)], args...)...)
	}
	op(6, "-o", "update", "-n", "discovery.startup", "-v", "manual") // os-brick makes one then
	op(6, "-o", "delete")
	op(0, "-I", "default", "-o", "new")
	op(0, "-o", "update", "-n", "discovery.sendtargets.iscsi.MaxRecvDataSegmentLength", "-v", "65536")
	contains(t, op(0, "-o", "show").Stdout, "discovery.sendtargets.iscsi.MaxRecvDataSegmentLength = 65536")
	for _, discover := range []string{"-D", "--discover"} {
		if r := op(0, discover); r.Stdout != p.portal+",1 "+target+"\n" {
			t.Errorf("%s", r)
		}
	}
	// os-brick finds the target in the tree by this expression.
	tree := h.Must("-m", "discoverydb", "-o", "show", "-P", "1")
	if m := regexp.MustCompile(`(?sm)^SENDTARGETS:\n.*?^DiscoveryAddress: ` + strings.Replace(p.portal, ":", ",", 1) + `.*?\n(.*?)^(?:DiscoveryAddress|iSNS):.*`).FindStringSubmatch(tree); m == nil || !strings.Contains(m[1], "Target: "+target) {
		t.Errorf("os-brick finds no target in\n%s", tree)
	}
	// Infinidat has both operations in one command: new ones come, old ones go.
	op(0, "--discover", "--op", "new", "--op", "delete")
	op(0, "-o", "delete")
	op(6, "-o", "delete")
}

// TestMustHave10 logs in twice.
func TestMustHave10(t *testing.T) {
	h, p := withTarget(t, open)
	login(t, h, p)
	r := want(t, h, 15, "-m", "node", "-T", target, "-p", p.portal, "-l")
	if !strings.Contains(r.Stderr, "already present") { // HPE
		t.Errorf("%s", r)
	}
}

// TestMustHave13 goes through all that a program does with a disk, and wants no
// word on standard error.
func TestMustHave13(t *testing.T) {
	h, p := withTarget(t, open)
	node := "-m node -T " + target + " -p " + p.portal
	for _, args := range []string{
		"-m iface", "-m discoverydb -t st -p " + p.portal + " -o new", "-m discoverydb -t st -p " + p.portal + " -D",
		node + " -o new", node, node + " -o update -n node.session.scan -v manual", node + " --login", "-m session", "-m session -P 1",
		"-m session -P 3", "-m session -s", node + " -R", "-m session -R", "-m node", "-m node -P 1", node + " --logout", node + " -o delete",
		"-m discoverydb -t st -p " + p.portal + " -o delete",
	} {
		if r := want(t, h, 0, strings.Fields(args)...); r.Stderr != "" {
			t.Errorf("os-brick and YaST take this for a failure:\n%s", r)
		}
	}
}

// TestMustHave15 looks for the daemon as programs do. That it is a unit
// iscsid.service, and pidof finds it, is TestBoot in test/boot.
func TestMustHave15(t *testing.T) {
	h, _ := withTarget(t, open)
	b, err := os.ReadFile(h.Paths.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(b))
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil || !bytes.HasPrefix(status, []byte("Name:\tiscsid\n")) { // longhorn
		t.Errorf("%v, %.40s", err, status)
	}
	if out := h.Shell("ps -e -o pid,cmd | grep '[i]scsid'"); !regexp.MustCompile(`(?m)^\s*` + pid + `\s`).MatchString(out) { // Pacemaker
		t.Errorf("ps does not show %s:\n%s", pid, out)
	}
}

// TestMustHave16 picks a session by its number.
func TestMustHave16(t *testing.T) {
	h, p := withTarget(t, open)
	login(t, h, p)
	sid := h.SID(target)
	for _, args := range []string{"-m session -r " + sid + " -R", "-m session -r " + sid + " --rescan", "--mode session --sid " + sid + " --rescan"} {
		want(t, h, 0, strings.Fields(args)...)
	}
	out := h.Must("-m", "session", "-r", sid, "-P", "1")
	if m := regexp.MustCompile(`(?m)Connection State.*: (.*)$`).FindStringSubmatch(out); m == nil || m[1] != "LOGGED IN" { // Pacemaker
		t.Errorf("no state in\n%s", out)
	}
	want(t, h, 22, "-m", "session", "-r", "77", "-R")
	want(t, h, 0, "-m", "session", "-r", sid, "-u")
	want(t, h, 21, "-m", "session")
}

// TestMustHave18 has a rescan find a new unit and a larger one.
func TestMustHave18(t *testing.T) {
	h, p := withTarget(t, open)
	login(t, h, p)
	size := func(socket string) string { return h.Shell("nbdinfo --size 'nbd+unix:///?socket=" + socket + "'") }
	first := h.Socket()
	for _, rescan := range []string{"-m node -T " + target + " -R", "-m session -R"} {
		p.disk.size.Store(2 * p.disk.Size())
		want(t, h, 0, strings.Fields(rescan)...)
		if got := size(first); got != strconv.FormatInt(p.disk.Size(), 10) {
			t.Errorf("%s: the disk has %s bytes, want %d", rescan, got, p.disk.Size())
		}
	}
	if err := p.SetLUN(target, 2, &iscsitest.LUN{Store: iscsitest.NewMemStore(1 << 20)}); err != nil {
		t.Fatal(err)
	}
	want(t, h, 0, "-m", "node", "-T", target, "-p", p.portal, "--rescan")
	if n := len(h.Sockets()); n != 2 {
		t.Errorf("%d disks after a rescan, want 2", n)
	}
}

// TestMustHave20 has CHAP refused.
func TestMustHave20(t *testing.T) {
	h, p := withTarget(t, iscsitest.CHAP{Username: "user", Password: "password1234"})
	want(t, h, 24, "-m", "discovery", "-t", "st", "-p", p.portal)
	want(t, h, 0, "-m", "node", "-T", target, "-p", p.portal, "-o", "new", "-n", "node.session.auth.authmethod", "-v", "CHAP")
	want(t, h, 0, "-m", "node", "-T", target, "-p", p.portal, "-o", "update", "-n", "node.session.auth.authmethod", "-v", "CHAP",
		"-n", "node.session.auth.username", "-v", "user", "-n", "node.session.auth.password", "-v", "wrongpassword")
	want(t, h, 24, "-m", "node", "-T", target, "-p", p.portal, "-l")
}

// TestMustHave21 gives each command the three seconds that csi-lib-iscsi gives
// it before it kills it.
func TestMustHave21(t *testing.T) {
	h, p := withTarget(t, open)
	for _, args := range []string{
		"-m iface -o show -I default", "-m session", "-m discoverydb -t sendtargets -p " + p.portal + " -I default -o new",
		"-m discoverydb -t sendtargets -p " + p.portal + " -I default --discover", "-m node -T " + target + " -p " + p.portal + " -l",
		"-m node -T " + target + " -p " + p.portal + " -R", "-m node -T " + target + " -p " + p.portal + " -u", "-m node -T " + target + " -o delete",
	} {
		cmd := h.Command("iscsiadm", strings.Fields(args)...)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		limited := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
		limited.Env = cmd.Env
		out, err := limited.CombinedOutput()
		missing := limited.ProcessState.ExitCode() == 21 && strings.HasPrefix(args, "-m session")
		if err != nil && !missing {
			t.Errorf("iscsiadm %s: %v (%v)\n%s", args, err, ctx.Err(), out)
		}
		cancel()
	}
}

// TestMustHave25 logs in to and out of what has a kind of startup, by either
// name of the setting. A record has both; the one that is not set is manual.
func TestMustHave25(t *testing.T) {
	for _, setting := range []string{"node.startup", "node.conn[0].startup"} {
		t.Run(setting, func(t *testing.T) {
			h, p := withTarget(t, open)
			want(t, h, 0, "-m", "node", "-T", target, "-p", p.portal, "-o", "new")
			for kind, no := range map[string]string{"automatic": "onboot", "onboot": "automatic", "manual": "automatic"} {
				want(t, h, 0, "-m", "node", "-T", target, "-o", "update", "-n", setting, "-v", kind)
				want(t, h, 21, "-m", "node", "--loginall="+no)
				want(t, h, 0, "-m", "node", "--loginall="+kind)
				if kind != "onboot" {
					want(t, h, 0, "-m", "node", "--logoutall="+kind)
					continue
				}
				// Such a session holds the root file system: none of these ends it.
				want(t, h, 7, "-m", "node", "--logoutall=onboot")
				if setting == "node.startup" {
					want(t, h, 21, "-m", "node", "--logoutall=all")
				}
				want(t, h, 0, "-m", "node", "-T", target, "-u")
			}
			want(t, h, 0, "-m", "node", "-T", target, "-o", "update", "-n", setting, "-v", "manual")
			want(t, h, 0, "-m", "node", "-L", "all")
			want(t, h, 0, "-m", "node", "-U", "all")
		})
	}
}
