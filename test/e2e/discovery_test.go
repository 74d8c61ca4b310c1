//go:build integration

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// TestDiscovery finds the three targets through each way to name the portal.
func TestDiscovery(t *testing.T) {
	tgt := startTGT(t, "127.0.0.1", "::1")
	for _, tc := range []struct{ name, portal, prints string }{
		{"IPv4", "127.0.0.1", "127.0.0.1"},
		{"IPv6", "[::1]", "[::1]"},
		{"host name", "localhost", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := lab.NewPrefix(t)
			out := h.Must("-m", "discovery", "-t", "sendtargets", "-p", fmt.Sprintf("%s:%d", tc.portal, tgt.Port()))
			host := tc.prints
			if host == "" { // what the name means is the resolver's business
				host = out[:max(0, strings.LastIndex(strings.SplitN(out, ",", 2)[0], ":"))]
			}
			want := ""
			for _, name := range []string{openTarget, chapTarget, mutualTarget} {
				want += fmt.Sprintf("%s:%d,1 %s\n", host, tgt.Port(), name)
			}
			if out != want {
				t.Errorf("discovery printed\n%swant\n%s", out, want)
			}
			if got := h.Must("-m", "node"); got != want {
				t.Errorf("-m node printed\n%swant\n%s", got, want)
			}
		})
	}
}

// TestDiscoveryNobodyListens gives up after reopen_max, with the words and the
// code of open-iscsi, and leaves no node.
func TestDiscoveryNobodyListens(t *testing.T) {
	port := targets.FreePort(t)
	h := lab.NewPrefix(t, "discovery.sendtargets.reopen_max = 1")
	r := h.Iscsiadm("-m", "discovery", "-t", "st", "-p", fmt.Sprintf("127.0.0.1:%d", port))
	if r.Code != 11 || r.Stdout != "" {
		t.Errorf("exit status %d, want 11\n%s", r.Code, r)
	}
	firstLines(t, r.Stderr, "iscsiadm: cannot make connection to 127.0.0.1: Connection refused\n")
	if !strings.Contains(r.Stderr, "iscsiadm: Could not perform SendTargets discovery: iSCSI PDU timed out\n") {
		t.Errorf("standard error lacks the closing line:\n%s", r)
	}
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No records found\n"}, "-m", "node")
}

// TestDiscoveryUnknownHost fails at once with a transport error.
func TestDiscoveryUnknownHost(t *testing.T) {
	h := lab.NewPrefix(t, "discovery.sendtargets.reopen_max = 1")
	r := h.Iscsiadm("-m", "discovery", "-t", "st", "-p", "nosuchhost.invalid")
	if r.Code != 4 {
		t.Errorf("exit status %d, want 4\n%s", r.Code, r)
	}
	if !strings.Contains(r.Stderr, "cannot resolve host name nosuchhost.invalid") {
		t.Errorf("standard error does not name the host:\n%s", r)
	}
}

// TestDiscoveryAgain keeps what was changed in a record by hand out of the
// record's way: a second discovery makes the records anew.
func TestDiscoveryAgain(t *testing.T) {
	h, tgt := discovered(t)
	h.Must("-m", "discovery", "-t", "sendtargets", "-p", tgt.Portal().String())
	if got := strings.Count(h.Must("-m", "node"), "\n"); got != 3 {
		t.Errorf("%d records after the second discovery, want 3", got)
	}
}
