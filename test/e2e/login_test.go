//go:build integration

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// TestLoginLogout is the life of a session, with the text of each command.
func TestLoginLogout(t *testing.T) {
	h, tgt := discovered(t)
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No active sessions.\n"}, "-m", "session")
	h.Check(loggedIn(openTarget, tgt), node(openTarget, tgt, "--login")...)
	h.Check(lab.Expect{Stdout: fmt.Sprintf("tcp: [1] 127.0.0.1:%d,1 %s (non-flash)\n", tgt.Port(), openTarget)}, "-m", "session")
	at := fmt.Sprintf("[sid: 1, target: %s, portal: 127.0.0.1,%d]", openTarget, tgt.Port())
	h.Check(lab.Expect{Stdout: "Logging out of session " + at + "\nLogout of " + at + " successful.\n"},
		node(openTarget, tgt, "--logout")...)
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No matching sessions found\n"}, node(openTarget, tgt, "--logout")...)
	if left := h.Sockets(); len(left) > 0 {
		t.Errorf("the logout left %q", left)
	}
}

// TestLoginTwice answers 15 and leaves the first session alone.
func TestLoginTwice(t *testing.T) {
	h, tgt := discovered(t)
	h.Must(node(openTarget, tgt, "--login")...)
	h.Check(lab.Expect{Code: 15, Stderr: "iscsiadm: default: 1 session requested, but 1 already present.\n" +
		"iscsiadm: Could not log into all portals\n"}, node(openTarget, tgt, "--login")...)
	if got := h.Must("-m", "session"); strings.Count(got, "\n") != 1 {
		t.Errorf("sessions:\n%s", got)
	}
}

// TestLoginUnknownTarget answers 19: the target's portal is there, it is not.
func TestLoginUnknownTarget(t *testing.T) {
	h, tgt := discovered(t)
	h.Must(node("iqn.static", tgt, "-o", "new")...)
	h.Check(refused("iqn.static", tgt, 19, "encountered non-retryable iSCSI login failure"), node("iqn.static", tgt, "-l")...)
}

// TestLoginNobodyListens answers 8 when the retries are used up.
func TestLoginNobodyListens(t *testing.T) {
	h := lab.NewPrefix(t)
	h.StartDaemon()
	portal := fmt.Sprintf("127.0.0.3:%d", targets.FreePort(t, "127.0.0.3"))
	args := []string{"-m", "node", "-T", "iqn.static", "-p", portal}
	h.Must(append(args, "-o", "new")...)
	h.Must(append(args, "-o", "update", "-n", "node.session.initial_login_retry_max", "-v", "1")...)
	h.Must(append(args, "-o", "update", "-n", "node.conn[0].timeo.login_timeout", "-v", "2")...)
	r := h.Iscsiadm(append(args, "-l")...)
	if r.Code != 8 {
		t.Errorf("exit status %d, want 8\n%s", r.Code, r)
	}
	if !strings.Contains(r.Stderr, "initiator reported error (8 - connection timed out)") {
		t.Errorf("standard error:\n%s", r)
	}
}

// TestCHAP logs in with credentials set in the record, as the tutorial does.
func TestCHAP(t *testing.T) {
	h, tgt := discovered(t)
	login := node(chapTarget, tgt, "--login")
	h.Check(refused(chapTarget, tgt, 24, authFailed), login...)
	update(h, chapTarget, tgt,
		"node.session.auth.authmethod", "CHAP",
		"node.session.auth.username", incoming.Username,
		"node.session.auth.password", "wrong")
	h.Check(refused(chapTarget, tgt, 24, authFailed), login...)
	update(h, chapTarget, tgt, "node.session.auth.password", incoming.Password)
	h.Check(loggedIn(chapTarget, tgt), login...)
	// Two refused logins have used up two session ids.
	h.Check(lab.Expect{Stdout: fmt.Sprintf("tcp: [3] 127.0.0.1:%d,1 %s (non-flash)\n", tgt.Port(), chapTarget)}, "-m", "session")
}

// TestMutualCHAP wants the target to prove itself, and believes no other: that
// is not the initiator's authorization (24), so open-iscsi answers 19.
func TestMutualCHAP(t *testing.T) {
	h, tgt := discovered(t)
	update(h, mutualTarget, tgt,
		"node.session.auth.authmethod", "CHAP",
		"node.session.auth.username", incoming.Username,
		"node.session.auth.password", incoming.Password,
		"node.session.auth.username_in", outgoing.Username,
		"node.session.auth.password_in", "notthetargets")
	h.Check(refused(mutualTarget, tgt, 19, "encountered non-retryable iSCSI login failure"), node(mutualTarget, tgt, "-l")...)
	update(h, mutualTarget, tgt, "node.session.auth.password_in", outgoing.Password)
	h.Check(loggedIn(mutualTarget, tgt), node(mutualTarget, tgt, "-l")...)
}

// TestSecretsAreNotShown looks for the password in everything that is printed
// or logged without being asked for.
func TestSecretsAreNotShown(t *testing.T) {
	tgt := startTGT(t)
	h := lab.NewPrefix(t)
	d := h.StartDaemon("-d", "8")
	h.Must("-m", "discovery", "-t", "st", "-p", tgt.Portal().String())
	const secret = "very-secret-word"
	update(h, chapTarget, tgt, "node.session.auth.authmethod", "CHAP",
		"node.session.auth.username", "usuario", "node.session.auth.password", secret)
	said := h.Iscsiadm(node(chapTarget, tgt, "-l", "-d", "8")...).String() +
		h.Iscsiadm(node(chapTarget, tgt)...).String() +
		h.Iscsiadm("-m", "session", "-P", "3").String() + d.Log()
	if strings.Contains(said, secret) {
		t.Errorf("the password is in\n%s", said)
	}
	if shown := h.Must(node(chapTarget, tgt, "-S")...); !strings.Contains(shown, "node.session.auth.password = "+secret+"\n") {
		t.Error("-S does not show the password")
	}
}
