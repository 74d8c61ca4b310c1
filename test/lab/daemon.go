package lab

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/internal/syncbuf"
)

// A Daemon is a running iscsid in the foreground.
type Daemon struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	log  syncbuf.Buffer
}

// StartDaemon starts iscsid -f and returns when it answers. It ends with the
// test; what it logged is shown when the test failed.
func (h *Host) StartDaemon(args ...string) *Daemon {
	h.t.Helper()
	d := &Daemon{t: h.t, done: make(chan struct{})}
	d.cmd = h.Command("iscsid", append([]string{"-f"}, args...)...)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { // ends with the process; end waits for it
		_ = d.cmd.Wait()
		close(d.done)
	}()
	h.t.Cleanup(func() {
		select {
		case <-d.done:
		default: // sessions must not outlive the test in a kernel
			h.Run("iscsiadm", "-m", "node", "-U", "all")
		}
		d.Stop()
		if h.t.Failed() {
			h.t.Logf("iscsid logged:\n%s", d.log.String())
		}
	})
	h.daemon = d
	h.waitAnswer(d)
	return d
}

// waitAnswer asks until somebody accepts on the daemon's socket.
func (h *Host) waitAnswer(d *Daemon) {
	h.t.Helper()
	socket := h.Paths.ControlSocket()
	if Reference() {
		socket = "@ISCSIADM_ABSTRACT_NAMESPACE"
	}
	deadline := time.After(20 * time.Second)
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
		select {
		case <-d.done:
			h.t.Fatalf("iscsid ended: %v\n%s", d.cmd.ProcessState, d.log.String())
		case <-deadline:
			h.t.Fatalf("iscsid does not answer on %s\n%s", socket, d.log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// PID is the daemon's process id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log returns what the daemon has logged so far.
func (d *Daemon) Log() string { return d.log.String() }

// Ended reports whether the daemon has ended, or does so within 20 seconds.
func (d *Daemon) Ended() bool {
	select {
	case <-d.done:
		return true
	case <-time.After(20 * time.Second):
		return false
	}
}

// Stop ends the daemon in order (SIGTERM) and waits.
func (d *Daemon) Stop() { d.end(syscall.SIGTERM) }

// Kill ends the daemon as a crash does and waits.
func (d *Daemon) Kill() { d.end(syscall.SIGKILL) }

func (d *Daemon) end(sig syscall.Signal) {
	select {
	case <-d.done: // its number may be another process's by now
		return
	default:
	}
	_ = syscall.Kill(d.cmd.Process.Pid, sig)
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		if !Reference() { // open-iscsi's own hangs there at times
			d.t.Errorf("iscsid (%d) did not end on %v", d.cmd.Process.Pid, sig)
		}
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.done
	}
}

// StatusKiB returns a figure of /proc/PID/status in KiB, such as VmRSS.
func (d *Daemon) StatusKiB(field string) int {
	d.t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(d.PID()) + "/status")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n := 0
			for _, c := range rest {
				if c >= '0' && c <= '9' {
					n = n*10 + int(c-'0')
				}
			}
			return n
		}
	}
	d.t.Fatalf("no %s in /proc/%d/status", field, d.PID())
	return 0
}
