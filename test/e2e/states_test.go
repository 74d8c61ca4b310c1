//go:build integration

package e2e

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/test/lab"
)

// memTarget is the name of the target of memServer.
const memTarget = "iqn.2026-11.com.example:mem"

// memServer is a target of our own in this process, for faults that tgt
// cannot be asked for, and a host that has discovered it.
func memServer(t *testing.T) (*iscsitest.Server, *lab.Host, []string) {
	t.Helper()
	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: memTarget, LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(8 << 20)}},
	}}})
	t.Cleanup(srv.Close)
	h := lab.NewPrefix(t)
	h.StartDaemon()
	h.Must("-m", "discovery", "-t", "st", "-p", srv.Portal())
	return srv, h, []string{"-m", "node", "-T", memTarget, "-p", srv.Portal()}
}

// with returns args and more, leaving args alone.
func with(args []string, more ...string) []string {
	return append(args[:len(args):len(args)], more...)
}

// receive waits for a value.
func receive(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: not within 30 seconds", what)
	}
}

// sessionStates returns the state of each session.
func sessionStates(t *testing.T, h *lab.Host) []string {
	t.Helper()
	r := h.Iscsiadm("-m", "session", "--json")
	if r.Code == 21 {
		return nil
	}
	var list []struct {
		State string `json:"session_state"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
		t.Fatalf("%v\n%s", err, r)
	}
	states := make([]string, len(list))
	for i, s := range list {
		states[i] = s.State
	}
	return states
}

var noSessions = lab.Expect{Code: 21, Stderr: "iscsiadm: No active sessions.\n"}

// TestLoginGivesUpOnASilentPortal gives up after initial_login_retry_max times
// login_timeout: here with the second attempt, because between two attempts lie
// three seconds and before the second one DefaultTime2Wait, too.
func TestLoginGivesUpOnASilentPortal(t *testing.T) {
	b := openBlackHole(t)
	h := lab.NewPrefix(t)
	h.StartDaemon()
	node := b.record(h, 1, 8)
	r := h.Iscsiadm(with(node, "-l")...)
	if r.Code != 11 || !strings.Contains(r.Stderr, "initiator reported error (11 - iSCSI PDU timed out)") {
		t.Errorf("exit status %d, want 11\n%s", r.Code, r)
	}
	if n := len(b.opened); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
	if r.Duration < 2*time.Second || r.Duration > 15*time.Second {
		t.Errorf("gave up after %v, want some seven seconds", r.Duration)
	}
	h.Check(noSessions, "-m", "session")
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No matching sessions found\n"}, with(node, "-u")...)
}

// TestNoWait comes back at once with 0 whatever the portal does, and the login
// goes on in the daemon.
func TestNoWait(t *testing.T) {
	srv, h, node := memServer(t)
	resume := srv.Pause()
	r := h.Iscsiadm(with(node, "-l", "-W")...)
	if r.Code != 0 || r.Stderr != "" || strings.Contains(r.Stdout, "successful") {
		t.Errorf("exit status %d, want 0 and no result\n%s", r.Code, r)
	}
	h.Check(noSessions, "-m", "session")
	if r := h.Iscsiadm(with(node, "-l", "-W")...); r.Code != 15 {
		t.Errorf("a second login while the first goes on: exit status %d, want 15\n%s", r.Code, r)
	}
	resume()
	lab.Eventually(t, "the session is there", func() bool { return len(sessionStates(t, h)) == 1 })
	h.Must(with(node, "-u")...)
	h.Check(noSessions, "-m", "session")
}

// TestInterruptCancelsTheLogin presses ^C while a portal keeps silent: the
// daemon hangs up at once, and another login is not refused.
func TestInterruptCancelsTheLogin(t *testing.T) {
	b := openBlackHole(t)
	h := lab.NewPrefix(t)
	h.StartDaemon()
	node := b.record(h, 100, 8)
	for range 2 {
		cmd := h.Command("iscsiadm", with(node, "-l")...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		receive(t, "connection of the login", b.opened)
		start := time.Now()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		receive(t, "end of the connection", b.closed)
		if cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%v, want exit status 1; standard error %q", err, stderr.String())
		}
		if !strings.HasPrefix(stderr.String(), "iscsiadm: caught SIGINT, exiting...\n") {
			t.Errorf("standard error is %q", stderr.String())
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("took %v", d)
		}
	}
	h.Check(noSessions, "-m", "session")
}

// TestLogoutInEveryState logs out of sessions that are up, being made, lost,
// and of a target that has stopped answering.
func TestLogoutInEveryState(t *testing.T) {
	t.Run("logged in", func(t *testing.T) {
		srv, h, node := memServer(t)
		h.Must(with(node, "-l")...)
		h.Must(with(node, "-u")...)
		h.Check(noSessions, "-m", "session")
		if n := len(srv.Sessions()); n != 0 {
			t.Errorf("the target still has %d sessions", n)
		}
	})
	t.Run("login going on", func(t *testing.T) {
		b := openBlackHole(t)
		h := lab.NewPrefix(t)
		h.StartDaemon()
		node := b.record(h, 100, 8)
		h.Must(with(node, "-l", "-W")...)
		receive(t, "connection of the login", b.opened)
		if r := h.Iscsiadm(with(node, "-u")...); r.Code != 0 || r.Duration > 20*time.Second {
			t.Errorf("exit status %d after %v\n%s", r.Code, r.Duration, r)
		}
		receive(t, "end of the connection", b.closed)
		h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No matching sessions found\n"}, with(node, "-u")...)
	})
	t.Run("connection lost", func(t *testing.T) {
		srv, h, node := memServer(t)
		h.Must(with(node, "-l")...)
		srv.StopListening()
		srv.ResetConnections()
		lab.Eventually(t, "the session has noticed", func() bool {
			s := sessionStates(t, h)
			return len(s) == 1 && s[0] != "LOGGED_IN"
		})
		if r := h.Iscsiadm(with(node, "-u")...); r.Code != 0 || r.Duration > 20*time.Second {
			t.Errorf("exit status %d after %v\n%s", r.Code, r.Duration, r)
		}
		h.Check(noSessions, "-m", "session")
	})
	t.Run("target hangs", func(t *testing.T) {
		srv, h, node := memServer(t)
		h.Must(with(node, "-o", "update", "-n", "node.conn[0].timeo.logout_timeout", "-v", "2")...)
		h.Must(with(node, "-l")...)
		resume := srv.Pause()
		t.Cleanup(resume)
		if r := h.Iscsiadm(with(node, "-u")...); r.Code != 0 || r.Duration > 30*time.Second {
			t.Errorf("exit status %d after %v\n%s", r.Code, r.Duration, r)
		}
		h.Check(noSessions, "-m", "session")
	})
}
