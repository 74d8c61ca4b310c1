package iscsiadm_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/cmd/internal/iscsiadm"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/isns"
)

var discovery = []string{"-m", "discovery", "-t", "sendtargets", "-p", "127.0.0.1"}

func TestDiscoveryWritesRecords(t *testing.T) {
	l := newLab(t)
	node := func() string { return l.run("-m", "node").out }
	show := func(target string) string { return l.run("-m", "node", "-T", target, "-p", "127.0.0.1").out }
	all := "127.0.0.1:3260,1 " + tg1 + "\n127.0.0.1:3260,1 " + chap + "\n127.0.0.1:3260,1 " + mutual + "\n"
	less := "127.0.0.1:3260,1 " + chap + "\n127.0.0.1:3260,1 " + mutual + "\n"
	const kept, reset = "node.session.timeo.replacement_timeout = 77\n", "node.session.timeo.replacement_timeout = 120\n"

	for _, tc := range []struct {
		name       string
		ops        []string
		tg1, chaps bool // tg1 is still there; the changed record of chap keeps its settings
		fresh      bool // records are made where there were none
	}{
		{"all operations by default", nil, false, false, true},
		{"new", []string{"-o", "new"}, true, true, true},
		{"update", []string{"-o", "update"}, true, false, false},
		{"delete", []string{"-o", "delete"}, false, true, false},
		{"new and delete", []string{"-o", "new", "-o", "delete"}, false, true, true},
		{"new and update", []string{"--op=new", "--op=update"}, true, false, true},
		{"nonpersistent", []string{"-o", "nonpersistent"}, true, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l.run("-m", "node", "-o", "delete")
			l.portals["127.0.0.1:3260"] = []string{tg1, chap, mutual}
			args := append(slices.Clone(discovery), tc.ops...)
			if got := l.mustRun(args...); got != all {
				t.Errorf("printed %q, want %q", got, all)
			}
			if got := node() != ""; got != tc.fresh {
				t.Errorf("records were made: %v, want %v", got, tc.fresh)
			}
			l.mustRun(discovery...)
			l.set(chap, "node.session.timeo.replacement_timeout", "77")
			l.portals["127.0.0.1:3260"] = []string{chap, mutual}
			if got := l.mustRun(args...); got != less {
				t.Errorf("printed %q, want %q", got, less)
			}
			want := less
			if tc.tg1 {
				want = all
			}
			if got := node(); got != want {
				t.Errorf("records %q, want %q", got, want)
			}
			want = reset
			if tc.chaps {
				want = kept
			}
			if got := show(chap); !strings.Contains(got, want) {
				t.Errorf("record of %s has no %q", chap, want)
			}
		})
	}
}

func TestDiscoveryKeepsRecordsInUse(t *testing.T) {
	l := newLab(t)
	l.mustRun(discovery...)
	l.mustRun("-m", "node", "-T", tg1, "-l")
	l.portals["127.0.0.1:3260"] = []string{chap}
	r := l.run(discovery...)
	want := result{
		"127.0.0.1:3260,1 " + chap + "\n",
		"iscsiadm: This command will remove the record [iface: default, target: " + tg1 + ", portal: 127.0.0.1,3260], but a session is using it. Logout session then rerun command to remove record.\n",
		0,
	}
	if r != want {
		t.Errorf("got %+v\nwant %+v", r, want)
	}
	if got := l.mustRun("-m", "node"); got != "127.0.0.1:3260,1 "+tg1+"\n127.0.0.1:3260,1 "+chap+"\n" {
		t.Errorf("records %q", got)
	}
}

func TestDiscoveryByEachInterface(t *testing.T) {
	l := newLab(t)
	l.portals["127.0.0.1:3260"] = []string{tg1}
	line := "127.0.0.1:3260,1 " + tg1 + "\n"
	l.mustRun("-m", "iface", "-I", "one", "-o", "new", "-n", "iface.net_ifacename", "-v", "lo")
	l.mustRun("-m", "iface", "-I", "two", "-o", "new", "-n", "iface.initiatorname", "-v", "iqn.me.two", "-n", "iface.ipaddress", "-v", "127.0.0.2")

	// Every interface of the user, and then not the default one.
	if got := l.mustRun(discovery...); got != line+line {
		t.Errorf("printed %q", got)
	}
	tree := "Target: " + tg1 + "\n\tPortal: 127.0.0.1:3260,1\n\t\tIface Name: one\n\tPortal: 127.0.0.1:3260,1\n\t\tIface Name: two\n"
	if got := l.mustRun("-m", "node", "-P", "1"); got != tree {
		t.Errorf("tree %q, want %q", got, tree)
	}
	if got := l.mustRun(append(discovery, "-P", "1")...); got != tree {
		t.Errorf("tree of the discovery %q, want %q", got, tree)
	}
	if one, two := l.asked[0], l.asked[1]; one.TCP.NetIface != "lo" || one.InitiatorName != labInitiator ||
		two.TCP.LocalAddr.String() != "127.0.0.2" || two.InitiatorName != "iqn.me.two" {
		t.Errorf("asked %+v and %+v", one, two)
	}
	// Those that are named, and only those.
	l.mustRun("-m", "node", "-o", "delete")
	if got := l.mustRun(append(discovery, "-I", "two", "-I", "default")...); got != line+line {
		t.Errorf("printed %q", got)
	}
	if got := l.mustRun("-m", "iface", "-P", "1"); got != "Iface: one\nIface: two\n\tTarget: "+tg1+"\n\t\tPortal: 127.0.0.1:3260,1\nIface: default\n\tTarget: "+tg1+"\n\t\tPortal: 127.0.0.1:3260,1\nIface: iser\n" {
		t.Errorf("interfaces %q", got)
	}
	r := l.run(append(discovery, "-I", "nothere", "-I", "two")...)
	if r.code != 0 || r.out != line || !strings.HasPrefix(r.err, "iscsiadm: Could not read iface info for nothere. Make sure") {
		t.Errorf("with an interface that is not there: %+v", r)
	}
	if r := l.run(append(discovery, "-I", "nothere")...); r.code != 21 || r.out != "" {
		t.Errorf("with nothing but an interface that is not there: %+v", r)
	}
}

func TestDiscoveryWithoutResult(t *testing.T) {
	l := newLab(t)
	l.portals["127.0.0.1:3260"] = nil
	l.expect(result{"", "iscsiadm: No portals found\n", 21}, discovery...)
	// The record of the discovery is there all the same.
	l.expect(result{"127.0.0.1:3260 via sendtargets\n", "", 0}, "-m", "discovery")
}

func TestDiscoveryIgnoresBadNames(t *testing.T) {
	l := newLab(t)
	l.portals["127.0.0.1:3260"] = []string{"iqn.a/../../x", tg1, "iqn.\x1b[31m", "with blank"}
	r := l.run(discovery...)
	if want := "127.0.0.1:3260,1 " + tg1 + "\n"; r.out != want || r.code != 0 {
		t.Errorf("printed %q with code %d, want %q", r.out, r.code, want)
	}
	if n := strings.Count(r.err, "iscsiadm: ignoring"); n != 3 || strings.Contains(r.err, "\x1b") {
		t.Errorf("standard error %q, want three lines", r.err)
	}
}

func TestDiscoveryFailures(t *testing.T) {
	retries := func(line string) string {
		return strings.Repeat(line, 6) + "iscsiadm: connection login retries (reopen_max) 5 exceeded\n"
	}
	op := func(op string, errs ...error) error {
		return &initiator.OpError{Op: op, Err: errors.Join(errs...)}
	}
	status := func(class, detail uint8) error {
		return op("discover", &initiator.LoginError{Class: class, Detail: detail})
	}
	const last = "iscsiadm: Could not perform SendTargets discovery: "
	const auth = last + "iSCSI login failed due to authorization failure\n"
	for _, tc := range []struct {
		name string
		err  error
		text string
		code int
	}{
		{"refused", dialError(syscall.ECONNREFUSED), retries("iscsiadm: cannot make connection to 127.0.0.1: Connection refused\n") + last + "iSCSI PDU timed out\n", 11},
		{"no route", dialError(syscall.EHOSTUNREACH), retries("iscsiadm: cannot make connection to 127.0.0.1: No route to host\n") + last + "iSCSI PDU timed out\n", 11},
		{"no answer to SYN", op("discover", initiator.ErrTimeout, initiator.ErrTransport, &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}), retries("iscsiadm: connect to 127.0.0.1 timed out\n") + last + "iSCSI PDU timed out\n", 11},
		{
			"closed", op("login", initiator.ErrTransport, initiator.ErrHungUp),
			retries("iscsiadm: Connection to Discovery Address 127.0.0.1 closed\niscsiadm: Login I/O error, failed to receive a PDU\niscsiadm: retrying discovery login to 127.0.0.1\n") + last + "iSCSI PDU timed out\n", 11,
		},
		{
			"reset", op("login", initiator.ErrTransport, syscall.ECONNRESET),
			retries("iscsiadm: Connection to Discovery Address 127.0.0.1 failed\niscsiadm: Login I/O error, failed to receive a PDU\niscsiadm: retrying discovery login to 127.0.0.1\n") + last + "iSCSI PDU timed out\n", 11,
		},
		{
			"no answer to login", op("login", initiator.ErrTimeout),
			"iscsiadm: Login response timeout. Waited 15 seconds and did not get response PDU.\niscsiadm: discovery login to 127.0.0.1 failed, giving up 2\n" + last + "encountered non-retryable iSCSI login failure\n", 19,
		},
		{"wrong password", status(2, 1), "iscsiadm: Login failed to authenticate with target \niscsiadm: discovery login to 127.0.0.1 rejected: initiator failed authorization\n" + auth, 24},
		{"not authorized", status(2, 2), "iscsiadm: discovery login to 127.0.0.1 rejected: initiator failed authorization\n" + auth, 24},
		{"other initiator error", status(2, 3), "iscsiadm: discovery login to 127.0.0.1 rejected: initiator error (02/03), non-retryable, giving up\n" + last + "encountered non-retryable iSCSI login failure\n", 19},
		{"target error", status(3, 1), retries("iscsiadm: discovery login to 127.0.0.1 rejected: target error (03/01)\n") + last + "iSCSI PDU timed out\n", 11},
		{"protocol violation", op("discover", initiator.ErrProtocol), "iscsiadm: discovery login to 127.0.0.1 failed: discover: protocol violation by the target\n" + last + "encountered non-retryable iSCSI login failure\n", 19},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			l.errors["127.0.0.1:3260"] = tc.err
			l.expect(result{"", tc.text, tc.code}, discovery...)
		})
	}
}

func TestDiscoveryPausesBetweenAttempts(t *testing.T) {
	l := newLab(t)
	l.errors["127.0.0.1:3260"] = dialError(syscall.ECONNREFUSED)
	l.mustRun("-m", "discoverydb", "-t", "st", "-p", "127.0.0.1", "-o", "new")
	l.mustRun("-m", "discoverydb", "-t", "st", "-p", "127.0.0.1", "-o", "update", "-n", "discovery.sendtargets.reopen_max", "-v", "14")
	if r := l.run("-m", "discoverydb", "-t", "st", "-p", "127.0.0.1", "-D"); r.code != 11 || !strings.Contains(r.err, "(reopen_max) 14 exceeded") {
		t.Errorf("%+v", r)
	}
	s := time.Second
	if diff := cmp.Diff([]time.Duration{0, s, s, s, s, s, s, s, s, s, 2 * s, 5 * s, 15 * s, 60 * s}, l.slept); diff != "" {
		t.Errorf("pauses (-want +got)\n%s", diff)
	}
}

func TestDiscoveryDBHonoursItsRecord(t *testing.T) {
	l := newLab(t)
	db := []string{"-m", "discoverydb", "-t", "sendtargets", "-p", "127.0.0.1"}
	l.expect(result{"New discovery record for [127.0.0.1,3260] added.\n", "", 0}, append(db, "-o", "new")...)
	l.mustRun(append(db, "-o", "update", "-n", "discovery.sendtargets.auth.authmethod", "-v", "CHAP",
		"-n", "discovery.sendtargets.auth.username", "-v", "me", "-n", "discovery.sendtargets.auth.password", "-v", "secret",
		"-n", "node.session.auth.chap_algs", "-v", "SHA3-256,MD5", "-n", "discovery.sendtargets.timeo.login_timeout", "-v", "7")...)
	l.mustRun(append(db, "--discover")...)
	cfg := l.asked[len(l.asked)-1]
	if cfg.CHAP.Username != "me" || cfg.CHAP.Password.Reveal() != "secret" || cfg.Timeouts.Login != 7*time.Second ||
		!slices.Equal(cfg.CHAP.Algorithms, []initiator.CHAPAlgorithm{initiator.CHAPSHA3256, initiator.CHAPMD5}) {
		t.Errorf("discovered with %+v", cfg)
	}
	// By discovery mode, too, unless a type is given: that resets the record.
	l.mustRun("-m", "discovery", "-p", "127.0.0.1", "-D")
	if cfg := l.asked[len(l.asked)-1]; cfg.CHAP.Username != "me" {
		t.Errorf("rediscovered with %+v", cfg.CHAP)
	}
	l.mustRun(discovery...)
	if out := l.mustRun(db...); !strings.Contains(out, "discovery.sendtargets.auth.username = <empty>\n") {
		t.Errorf("plain discovery kept the record:\n%s", out)
	}
	// A record that is not there is made, unless nothing is to be written.
	l.mustRun("-m", "discoverydb", "-t", "st", "-p", "[::1]", "-D", "-o", "nonpersistent")
	l.expect(result{"127.0.0.1:3260 via sendtargets\n", "", 0}, "-m", "discoverydb")
	l.mustRun("-m", "discoverydb", "-t", "st", "-p", "[::1]", "-D")
	l.expect(result{"::1:3260 via sendtargets\n127.0.0.1:3260 via sendtargets\n", "", 0}, "-m", "discoverydb")
	for _, name := range []string{"discovery.type", "discovery.sendtargets.address", "discovery.sendtargets.port", "node.startup"} {
		if r := l.run(append(db, "-o", "update", "-n", name, "-v", "x")...); r.code != 7 || r.err == "" {
			t.Errorf("update of %s: %+v", name, r)
		}
	}
}

func TestDiscoveryLogsIn(t *testing.T) {
	l := newLab(t)
	r := l.run(append(discovery, "-l")...)
	if r.code != 24 || !strings.HasPrefix(r.out, "127.0.0.1:3260,1 "+tg1+"\n") || !strings.Contains(r.out, loggedIn(tg1)) {
		t.Errorf("discovery with login: %+v", r)
	}
	l.mustRun("-m", "session", "-u")
	l.mustRun("-m", "node", "-o", "delete")
	l.portals["127.0.0.1:3260"] = []string{tg1}
	l.mustRun(append(discovery, "-o", "nonpersistent", "-l")...)
	l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "node")
	l.mustRun("-m", "session", "-u")
}

func TestDiscoveryMakesAnInitiatorName(t *testing.T) {
	l := newLab(t)
	if err := os.Remove(l.env.Paths.InitiatorName); err != nil {
		t.Fatal(err)
	}
	l.mustRun(discovery...)
	if name := l.asked[0].InitiatorName; !strings.HasPrefix(name, "iqn.2016-04.com.open-iscsi:") {
		t.Errorf("discovered as %q", name)
	}
}

func TestISNSWithoutSupport(t *testing.T) {
	l := newLab(t)
	l.expect(result{"", "iscsiadm: Could not perform iSNS discovery: iSNS service not supported\n", 17}, "-m", "discovery", "-t", "isns", "-p", "127.0.0.1")
	l.expect(result{"", "", 21}, "-m", "discovery") // leaves no record
}

func TestISNS(t *testing.T) {
	l := newLab(t)
	var asked iscsiadm.ISNSConfig
	answer := []initiator.DiscoveredPortal{{Target: tg1, Portal: initiator.Portal{Host: "127.0.0.1", Port: 3260, TPGT: 4}}}
	var fail error
	l.env.DiscoverISNS = func(_ context.Context, cfg iscsiadm.ISNSConfig) ([]initiator.DiscoveredPortal, error) {
		asked = cfg
		return answer, fail
	}
	line := "127.0.0.1:3260,4 " + tg1 + "\n"
	l.expect(result{line, "", 0}, "-m", "discovery", "-t", "isns", "-p", "10.0.0.5")
	if want := (iscsiadm.ISNSConfig{InitiatorName: labInitiator, Server: initiator.Portal{Host: "10.0.0.5", Port: 3205}}); asked != want {
		t.Errorf("asked %+v, want %+v", asked, want)
	}
	if out := l.mustRun("-m", "node", "-T", tg1); !strings.Contains(out, "node.discovery_address = 10.0.0.5\nnode.discovery_port = 3205\nnode.discovery_type = isns\n") {
		t.Errorf("record:\n%s", out)
	}
	l.expect(result{"", "", 21}, "-m", "discovery") // only discoverydb keeps a record
	l.expect(result{line, "", 0}, "-m", "discoverydb", "-t", "isns", "-p", "10.0.0.5", "-D")
	l.expect(result{"10.0.0.5:3205 via isns\n", "", 0}, "-m", "discoverydb")
	fail = &isns.StatusError{Status: 8}
	l.expect(result{"", "iscsiadm: iSNS discovery failed: iSNS server: source unauthorized (status 8)\n" +
		"iscsiadm: Could not perform iSNS discovery: iSNS query failed\n", 25}, "-m", "discovery", "-t", "isns", "-p", "10.0.0.5")
}

func TestConfigWarningsAreShown(t *testing.T) {
	l := newLab(t)
	write(t, l.env.Paths.Config, "node.startup=automatic\nnode.session.queue_depth = 5\n")
	r := l.run(discovery...)
	if r.code != 0 || !strings.Contains(r.err, "iscsiadm: Config file line 1") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("with a bad line: %+v", r)
	}
	// What is shown later comes from the record: nobody asked for the file.
	if out := l.mustRun("-m", "node", "-T", tg1); !strings.Contains(out, "node.session.queue_depth = 5\n") {
		t.Error("the good line has no effect")
	}
}

// TestDiscoveryTreeOfTwoInterfaces has the interfaces of a portal below one
// line, where the tree of node mode repeats the portal, and an unknown tag as
// -1, as open-iscsi 2.1.8 prints them.
func TestDiscoveryTreeOfTwoInterfaces(t *testing.T) {
	l := newLab(t)
	l.portals["127.0.0.1:3260"] = []string{tg1, chap}
	l.mustRun("-m", "iface", "-I", "lan", "-o", "new")
	l.mustRun(append(discovery, "-I", "default", "-I", "lan")...)
	l.mustRun("-m", "node", "-T", "iqn.old", "-p", "192.0.2.1", "-o", "new")
	l.expect(result{"SENDTARGETS:\n" +
		"DiscoveryAddress: 127.0.0.1,3260\n" +
		"Target: " + chap + "\n\tPortal: 127.0.0.1:3260,1\n\t\tIface Name: lan\n\t\tIface Name: default\n" +
		"Target: " + tg1 + "\n\tPortal: 127.0.0.1:3260,1\n\t\tIface Name: lan\n\t\tIface Name: default\n" +
		"iSNS:\nNo targets found.\n" +
		"STATIC:\nTarget: iqn.old\n\tPortal: 192.0.2.1:3260,-1\n\t\tIface Name: default\n" +
		"FIRMWARE:\nNo targets found.\n", "", 0}, "-m", "discovery", "-P", "1")
	l.expect(result{"Target: " + tg1 + "\n\tPortal: 127.0.0.1:3260,1\n\t\tIface Name: default\n\tPortal: 127.0.0.1:3260,1\n\t\tIface Name: lan\n" +
		"Target: " + chap + "\n\tPortal: 127.0.0.1:3260,1\n\t\tIface Name: default\n\tPortal: 127.0.0.1:3260,1\n\t\tIface Name: lan\n" +
		"Target: iqn.old\n\tPortal: 192.0.2.1:3260,-1\n\t\tIface Name: default\n", "", 0}, "-m", "node", "-P", "1")
}
