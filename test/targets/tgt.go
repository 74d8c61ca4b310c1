package targets

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A TGT is a tgtd of the test's own.
type TGT struct {
	t       testing.TB
	proc    *process
	control string // tgtadm's control number
	port    int
	hosts   []string
	targets []Target
}

// StartTGT starts a tgtd that listens on the port at every host (127.0.0.1
// when none is named) and serves the targets. Port 0 means a free one. It
// ends with the test.
func StartTGT(t testing.TB, port int, hosts []string, tgts ...Target) *TGT {
	t.Helper()
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	if port == 0 {
		port = FreePort(t, hosts...)
	}
	// tgtd and tgtadm meet on a socket named by a number of at most 32767, 0
	// being the machine's own tgtd; a port that is ours makes one that is ours.
	s := &TGT{t: t, control: strconv.Itoa(port%32767 + 1), port: port, hosts: hosts, targets: tgts}
	t.Cleanup(func() {
		_ = os.Remove("/var/run/tgtd/socket." + s.control)
		_ = os.Remove("/var/run/tgtd/socket." + s.control + ".lock")
	})
	s.Start()
	return s
}

// Portal is the portal at the first host.
func (s *TGT) Portal() PortalAddr { return PortalAddr{s.hosts[0], s.port} }

// Port is the TCP port of all portals.
func (s *TGT) Port() int { return s.port }

// Targets returns what is served, for a caller that changes it before a
// restart.
func (s *TGT) Targets() []Target { return s.targets }

// Start starts the daemon and creates its targets; StartTGT has done so once.
func (s *TGT) Start() {
	s.t.Helper()
	if err := os.MkdirAll("/var/run/tgtd", 0o755); err != nil {
		s.t.Fatal(err)
	}
	first := PortalAddr{s.hosts[0], s.port}
	s.proc = start(s.t, exec.Command("tgtd", "-f", "-C", s.control, "--iscsi", "portal="+first.String()))
	s.waitReady()
	for _, h := range s.hosts[1:] {
		s.adm("--op", "new", "--mode", "portal", "--param", "portal="+PortalAddr{h, s.port}.String())
	}
	accounts := map[string]bool{}
	account := func(c *CHAP) string {
		if !accounts[c.Username] {
			s.adm("--op", "new", "--mode", "account", "--user", c.Username, "--password", c.Password)
			accounts[c.Username] = true
		}
		return c.Username
	}
	for i, tgt := range s.targets {
		tid := strconv.Itoa(i + 1)
		s.adm("--op", "new", "--mode", "target", "--tid", tid, "-T", tgt.Name)
		for _, l := range tgt.LUNs {
			args := []string{"--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", strconv.Itoa(l.Number), "-b", l.Path}
			if l.BlockSize != 0 {
				args = append(args, "--blocksize", strconv.Itoa(l.BlockSize))
			}
			s.adm(args...)
			if l.ReadOnly {
				s.adm("--op", "update", "--mode", "logicalunit", "--tid", tid, "--lun", strconv.Itoa(l.Number), "--params", "readonly=1")
			}
		}
		if tgt.Incoming != nil {
			s.adm("--op", "bind", "--mode", "account", "--tid", tid, "--user", account(tgt.Incoming))
		}
		if tgt.Outgoing != nil {
			s.adm("--op", "bind", "--mode", "account", "--tid", tid, "--user", account(tgt.Outgoing), "--outgoing")
		}
		s.adm("--op", "bind", "--mode", "target", "--tid", tid, "-I", "ALL")
	}
}

// Stop ends the daemon as a crash would: its initiators see their connections
// reset. (tgtd's own shutdown waits for its initiators.)
func (s *TGT) Stop() { s.proc.stop(syscall.SIGKILL) }

// Restart is what "systemctl restart tgt" does after the configuration was
// changed: the same portals, other targets.
func (s *TGT) Restart(tgts ...Target) {
	s.t.Helper()
	s.Stop()
	s.targets = tgts
	s.Start()
}

// adm runs tgtadm for this daemon.
func (s *TGT) adm(args ...string) {
	s.t.Helper()
	if out, err := s.Adm(args...); err != nil {
		s.t.Fatalf("tgtadm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Adm runs tgtadm with the arguments for this daemon and returns its output.
func (s *TGT) Adm(args ...string) (string, error) {
	cmd := exec.Command("tgtadm", append([]string{"-C", s.control, "--lld", "iscsi"}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// waitReady asks until the daemon answers: it gives no other sign of being up.
func (s *TGT) waitReady() {
	s.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := s.Adm("--op", "show", "--mode", "portal")
		if err == nil {
			return
		}
		select {
		case <-s.proc.done:
			s.t.Fatalf("tgtd ended: %s", s.proc.output.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatal(fmt.Errorf("tgtd does not answer: %w", err))
		}
	}
}
