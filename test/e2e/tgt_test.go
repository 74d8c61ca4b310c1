//go:build integration

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// The three targets of the golden transcript: open, CHAP, mutual CHAP.
const (
	openTarget   = "iqn.2016-01-com.example.tg1"
	chapTarget   = "iqn.2016-01.com.example:chap"
	mutualTarget = "iqn.2016-01.com.example:mutual"
)

var (
	incoming = &targets.CHAP{Username: "usuario", Password: "password"}
	outgoing = &targets.CHAP{Username: "outuser", Password: "outpassword12"}
)

const diskSize = 64 << 20

// startTGT starts a tgtd with the three targets.
func startTGT(t *testing.T, hosts ...string) *targets.TGT {
	t.Helper()
	lun := func() []targets.LUN { return []targets.LUN{{Number: 1, Path: targets.SparseFile(t, diskSize)}} }
	return targets.StartTGT(t, 0, hosts,
		targets.Target{Name: openTarget, LUNs: lun()},
		targets.Target{Name: chapTarget, LUNs: lun(), Incoming: incoming},
		targets.Target{Name: mutualTarget, LUNs: lun(), Incoming: incoming, Outgoing: outgoing})
}

// discovered returns a host with a daemon and the records of tgt's targets.
func discovered(t *testing.T, conf ...string) (*lab.Host, *targets.TGT) {
	t.Helper()
	tgt := startTGT(t)
	h := lab.NewPrefix(t, conf...)
	h.StartDaemon()
	h.Must("-m", "discovery", "-t", "sendtargets", "-p", tgt.Portal().String())
	return h, tgt
}

// node is the beginning of a command about one record.
func node(target string, tgt *targets.TGT, rest ...string) []string {
	return append([]string{"-m", "node", "-T", target, "-p", tgt.Portal().String()}, rest...)
}

// update sets fields of a record, name and value by turns.
func update(h *lab.Host, target string, tgt *targets.TGT, kvs ...string) {
	for i := 0; i < len(kvs); i += 2 {
		h.Must(node(target, tgt, "-o", "update", "-n", kvs[i], "-v", kvs[i+1])...)
	}
}

// where is how messages name a login to a target.
func where(target string, tgt *targets.TGT) string {
	return fmt.Sprintf("[iface: default, target: %s, portal: 127.0.0.1,%d]", target, tgt.Port())
}

func loggedIn(target string, tgt *targets.TGT) lab.Expect {
	at := where(target, tgt)
	return lab.Expect{Stdout: "Logging in to " + at + "\nLogin to " + at + " successful.\n"}
}

// refused is a login that ended with a code and open-iscsi's text for it.
func refused(target string, tgt *targets.TGT, code int, text string) lab.Expect {
	at := where(target, tgt)
	return lab.Expect{
		Code:   code,
		Stdout: "Logging in to " + at + "\n",
		Stderr: fmt.Sprintf("iscsiadm: Could not login to %s.\niscsiadm: initiator reported error (%d - %s)\niscsiadm: Could not log into all portals\n", at, code, text),
	}
}

const authFailed = "iSCSI login failed due to authorization failure"

// firstLines compares the beginning of a stream: below the text that scripts
// match, ours may say more.
func firstLines(t *testing.T, got, want string) {
	t.Helper()
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant it to begin with\n%s", got, want)
	}
}
