//go:build integration

package e2e

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/lab"
)

// TestIdleMemory wants less than 30 MiB resident from a daemon that has
// served a session and has none now.
func TestIdleMemory(t *testing.T) {
	tgt := startTGT(t)
	h := lab.NewPrefix(t)
	d := h.StartDaemon()
	fresh := d.StatusKiB("VmRSS")
	h.Must("-m", "discovery", "-t", "st", "-p", tgt.Portal().String())
	h.Must(node(openTarget, tgt, "-l")...)
	session := d.StatusKiB("VmRSS")
	h.Must(node(openTarget, tgt, "-u")...)
	idle := d.StatusKiB("VmRSS")
	t.Logf("resident: %d KiB fresh, %d KiB with an idle session, %d KiB after the logout", fresh, session, idle)
	const limit = 30 << 10
	if max(fresh, session, idle) > limit {
		t.Errorf("more than %d KiB resident", limit)
	}
}

// TestBackground starts plain iscsid: it answers when the command returns, its
// pid is in the pid file, and "-k 0" ends it.
func TestBackground(t *testing.T) {
	h := lab.NewPrefix(t)
	if r := h.Run("iscsid"); r.Code != 0 {
		t.Fatalf("exit status %d\n%s", r.Code, r)
	}
	b, err := os.ReadFile(h.Paths.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		t.Fatalf("pid file holds %q", b)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No active sessions.\n"}, "-m", "session")
	h.Must("-k", "0")
	deadline := time.Now().Add(10 * time.Second)
	for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		if time.Now().After(deadline) {
			t.Fatalf("iscsid (%d) is still there after -k 0", pid)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestSecondDaemon is refused while the first is running, and does it no harm.
func TestSecondDaemon(t *testing.T) {
	h := lab.NewPrefix(t)
	h.StartDaemon()
	r := h.Run("iscsid", "-f")
	if r.Code == 0 || r.Stderr == "" {
		t.Errorf("exit status %d\n%s", r.Code, r)
	}
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No active sessions.\n"}, "-m", "session")
}

// TestNobodyElsesFiles wants records and state to be for their owner only.
func TestNobodyElsesFiles(t *testing.T) {
	h, tgt := discovered(t)
	h.Must(node(openTarget, tgt, "-l")...)
	for _, path := range []string{h.Paths.DB, h.Paths.Run, h.Paths.ControlSocket(), h.Paths.StateDir(), h.Socket()} {
		st, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if st.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s has mode %v: others can read it", path, st.Mode())
		}
	}
}
