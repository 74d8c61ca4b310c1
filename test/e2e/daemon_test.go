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
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No active sessions.\n"}, "-m", "session")
	h.Must("-k", "0")
	deadline := time.Now().Add(10 * time.Second)
	for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		if time.Now().After(deadline) {
			t.Fatalf("iscsid (%d) is still there after -k 0", pid)
		}
		time.Sleep(10 * time.Millisecond)
	}
	ended = true // the number may be another process's from now on
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

// TestNobodyElsesFiles wants records, state and disks to be for their owner only.
// Of the run directory others may open by name what is for them, the control
// socket, at which the daemon looks at who asks.
func TestNobodyElsesFiles(t *testing.T) {
	h, tgt := discovered(t)
	h.Must(node(openTarget, tgt, "-l")...)
	for path, forOthers := range map[string]os.FileMode{
		h.Paths.DB: 0, h.Paths.StateDir(): 0, h.Paths.LUNDir(): 0, h.Socket(): 0, h.Paths.Run + "/lock": 0,
		h.Paths.Run: 0o001, h.Paths.ControlSocket(): 0o006,
	} {
		st, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := st.Mode().Perm() & 0o007; got != forOthers {
			t.Errorf("%s has mode %v: others have %o, want %o", path, st.Mode(), got, forOthers)
		}
	}
}
