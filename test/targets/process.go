package targets

import (
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/internal/syncbuf"
)

// A process is a server that a test started: it ends with the test, and what
// it printed is shown when the test failed.
type process struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
	output syncbuf.Buffer
}

func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	// A test that is killed must not leave its target running.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	go func() { // ends with the process; stop waits for it
		_ = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s printed:\n%s", cmd.Args[0], p.output.String())
		}
	})
	return p
}

// stop sends sig, waits, and kills what does not end within five seconds. A process
// that has ended gets no signal: its number may be another's by now.
func (p *process) stop(sig syscall.Signal) {
	select {
	case <-p.done:
		return
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// FreePort returns a TCP port that nobody listens on at any of the addresses.
func FreePort(t testing.TB, hosts ...string) int {
	t.Helper()
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	for range 50 {
		port, err := tryPort(hosts)
		if err == nil {
			return port
		}
	}
	t.Fatalf("no free port on %v", hosts)
	return 0
}

func tryPort(hosts []string) (int, error) {
	port := 0
	for _, h := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(h, fmt.Sprint(port)))
		if err != nil {
			return 0, err
		}
		defer l.Close()
		port = l.Addr().(*net.TCPAddr).Port
	}
	return port, nil
}
