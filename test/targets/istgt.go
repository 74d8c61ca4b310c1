package targets

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An ISTGT is an istgt, FreeBSD's former target, of the test's own.
type ISTGT struct {
	proc *process
	port int
}

// StartISTGT starts an istgt on a free port of 127.0.0.1 that serves the
// targets, without authentication. Its units count from 0, and it takes no
// InitialR2T but Yes. It ends with the test.
func StartISTGT(t testing.TB, tgts ...Target) *ISTGT {
	t.Helper()
	s := &ISTGT{port: FreePort(t)}
	dir := t.TempDir()
	conf := filepath.Join(dir, "istgt.conf")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "auth.conf"), "")
	write(conf, s.config(t, dir, tgts))
	// -D: it stays in the foreground.
	s.proc = start(t, exec.Command("istgt", "-D", "-c", conf, "-p", filepath.Join(dir, "pid")))
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", s.Portal().String())
		if err == nil {
			_ = c.Close()
			return s
		}
		select {
		case <-s.proc.done:
			t.Fatalf("istgt ended: %s", s.proc.output.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("istgt does not answer: %w", err))
		}
	}
}

// Portal is where it listens.
func (s *ISTGT) Portal() PortalAddr { return PortalAddr{"127.0.0.1", s.port} }

// Stop ends it as a crash would.
func (s *ISTGT) Stop() { s.proc.stop(syscall.SIGKILL) }

func (s *ISTGT) config(t testing.TB, dir string, tgts []Target) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `[Global]
  NodeBase "iqn.2007-09.jp.ne.peach.istgt"
  PidFile %[1]s/pid
  AuthFile %[1]s/auth.conf
  MediaDirectory %[1]s
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 16
  MaxConnections 4
  MaxR2T 32
  MaxOutstandingR2T 16
  DefaultTime2Wait 0
  DefaultTime2Retain 20
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0
[UnitControl]
  AuthMethod Auto
[PortalGroup1]
  Portal P1 %[2]s
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
`, dir, s.Portal())
	for i, tgt := range tgts {
		fmt.Fprintf(&b, `[LogicalUnit%d]
  TargetName %s
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth 32
`, i+1, tgt.Name)
		for _, l := range tgt.LUNs {
			st, err := os.Stat(l.Path)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "  LUN%d Storage %s %dMB\n", l.Number, l.Path, st.Size()>>20)
			if l.ReadOnly {
				fmt.Fprintf(&b, "  LUN%d Option ReadOnly\n", l.Number)
			}
		}
	}
	return b.String()
}
