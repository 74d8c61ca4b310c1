package targets

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An Own is a process of this project's own iscsi-target.
type Own struct {
	t      testing.TB
	cmd    func(args ...string) *exec.Cmd
	proc   *process
	args   []string
	portal PortalAddr
}

// StartOwn starts our iscsi-target with one target on a free port of
// 127.0.0.1. command makes the process from its arguments, as
// (*lab.Host).Command does; extra are flags of iscsi-target that stand before
// the target, such as --data-digest. It ends with the test.
func StartOwn(t testing.TB, command func(args ...string) *exec.Cmd, tgt Target, extra ...string) *Own {
	t.Helper()
	o := &Own{t: t, cmd: command, portal: PortalAddr{Host: "127.0.0.1"}}
	o.args = append(o.args, extra...)
	o.args = append(o.args, "-T", tgt.Name)
	if c := tgt.Incoming; c != nil {
		o.args = append(o.args, "--user", c.Username, "--password-file", secretFile(t, c.Password))
	}
	if c := tgt.Outgoing; c != nil {
		o.args = append(o.args, "--mutual-user", c.Username, "--mutual-password-file", secretFile(t, c.Password))
	}
	o.args = append(o.args, "--write-cache") // as a disk that has something to flush
	for _, l := range tgt.LUNs {             // numbered by the program, in this order
		if l.BlockSize != 0 {
			o.args = append(o.args, "--blocksize", strconv.Itoa(l.BlockSize))
		}
		if l.ReadOnly {
			o.args = append(o.args, "--readonly")
		}
		if l.Memory > 0 {
			o.args = append(o.args, "--mem", strconv.FormatInt(l.Memory, 10))
		} else {
			o.args = append(o.args, "--file", l.Path)
		}
	}
	o.Start()
	return o
}

// Portal is where the target listens, also after a restart.
func (o *Own) Portal() PortalAddr { return o.portal }

// Start starts the target again after Stop; StartOwn has done so once.
func (o *Own) Start() {
	o.t.Helper()
	o.proc = start(o.t, o.cmd(append([]string{"-p", o.portal.String()}, o.args...)...))
	deadline := time.After(10 * time.Second)
	for {
		if addr, ok := listening(o.proc.output.String()); ok {
			ap, err := netip.ParseAddrPort(addr)
			if err != nil {
				o.t.Fatal(err)
			}
			o.portal.Port = int(ap.Port())
			return
		}
		select {
		case <-o.proc.done:
			o.t.Fatalf("iscsi-target ended: %s", o.proc.output.String())
		case <-deadline:
			o.t.Fatal(fmt.Errorf("iscsi-target does not listen: %s", o.proc.output.String()))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop ends the target as a crash does.
func (o *Own) Stop() { o.proc.stop(syscall.SIGKILL) }

// listening finds the line with which the program says that it is up.
func listening(output string) (string, bool) {
	for line := range strings.Lines(output) {
		if addr, ok := strings.CutPrefix(line, "listening on "); ok && strings.HasSuffix(addr, "\n") {
			return strings.TrimSpace(addr), true
		}
	}
	return "", false
}
