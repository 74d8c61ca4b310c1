//go:build guest

package faults

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
)

// TestKilledDuringCommand kills iscsid, or iscsiadm, in the middle of a
// command: the next command works, and after a logout nothing is left behind.
func TestKilledDuringCommand(t *testing.T) {
	tgt := newInProcess(t, nil)
	r := guestRig(t)
	r.record(tgt.addr)
	login, logout := node(tgt.addr, "-l"), node(tgt.addr, "-u")
	for _, tc := range []struct {
		name    string
		session bool // there is one before
		client  bool // iscsiadm is killed, not iscsid
		command []string
	}{
		{"login", false, false, login},
		{"logout", true, false, logout},
		{"rescan", true, false, []string{"-m", "session", "--rescan"}},
		{"discovery", false, false, []string{"-m", "discovery", "-t", "st", "-p", tgt.addr, "-l"}},
		{"login, iscsiadm killed", false, true, login},
		{"logout, iscsiadm killed", true, true, logout},
		{"discovery, iscsiadm killed", false, true, []string{"-m", "discovery", "-t", "st", "-p", tgt.addr}},
		{"update, iscsiadm killed", false, true, node(tgt.addr, "-o", "update", "-n", "node.startup", "-v", "automatic")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.t = t
			for range times(2, 50) {
				if tc.session {
					r.Must(login...)
				}
				cmd := r.Command("iscsiadm", tc.command...)
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(rand.N(60 * time.Millisecond))
				if tc.client {
					_ = cmd.Process.Kill()
				} else {
					r.d.Kill()
				}
				_ = cmd.Wait() // however it ended
				if !tc.client {
					r.d = r.StartDaemon()
				}
				r.usable(tgt, login, logout, out.String())
			}
		})
	}
	r.t = t
	tgt.violations()
}

// usable wants that a login and a logout work and leave nothing behind.
func (r *rig) usable(tgt *inProcess, login, logout []string, said string) {
	t := r.t
	t.Helper()
	if res := r.Iscsiadm("-m", "node"); res.Code != 0 || !strings.HasPrefix(res.Stdout, tgt.addr+",") || !strings.HasSuffix(res.Stdout, " "+targetName+"\n") {
		t.Fatalf("the record is damaged:\n%s", res)
	}
	// Present already when the command had got so far, or is taken up again.
	if res := r.Iscsiadm(login...); res.Code != 0 && res.Code != 15 {
		t.Fatalf("exit status %d\n%s\nbefore, iscsiadm said:\n%s", res.Code, res, said)
	}
	eventually(t, "a device", func() bool { return len(devices()) == 1 && r.attached() })
	tgt.disk.erase()
	d, err := checker.OpenDevice("/dev/" + devices()[0])
	if err != nil {
		t.Fatal(err)
	}
	verdict(t, start(t, d, checker.Config{Workers: 1, Blocks: 16}))
	d.Close()
	r.Must(logout...)
	if left := devices(); len(left) != 0 {
		t.Errorf("devices that nobody has: %q", left)
	}
	if res := r.Iscsiadm("-m", "session"); res.Code != 21 {
		t.Errorf("sessions after the logout:\n%s", res)
	}
	eventually(t, "no session is left at the target", func() bool { return tgt.sessions() == 0 })
	links, _ := filepath.Glob("/dev/disk/by-path/*") // the pattern is well formed
	state, _ := filepath.Glob(filepath.Join(r.Paths.StateDir(), "session-*"))
	if len(links)+len(state) != 0 {
		t.Errorf("left behind: %q %q", links, state)
	}
}

// attached reports whether the by-path link of LUN 1 leads to a device.
func (r *rig) attached() bool {
	links, _ := filepath.Glob("/dev/disk/by-path/*-lun-1")
	if len(links) != 1 {
		return false
	}
	_, err := os.Stat(links[0])
	return err == nil && exec.Command("blockdev", "--getsize64", links[0]).Run() == nil
}
