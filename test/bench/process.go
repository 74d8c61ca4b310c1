package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goiscsi/goiscsi/internal/syncbuf"
)

// patience is how long something may take to come up or to end.
const patience = 15 * time.Second

// A process is a server that runs during measurements.
type process struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	output syncbuf.Buffer
}

// start starts a program with its output collected.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	// Of a process group of its own: an interrupt is for bench alone, which
	// then ends its processes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process, which stop ends and waits for
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// await polls until f succeeds. It fails when the process ends or the time is
// up.
func (p *process) await(f func() error) error {
	deadline := time.After(patience)
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, p.output.String())
		case <-deadline:
			return fmt.Errorf("%s is not ready: %w\n%s", p.cmd.Path, err, p.output.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// signal sends sig to the process and what it has started, unless it has ended: its
// number may be another's by then.
func (p *process) signal(sig syscall.Signal) {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

// stop ends the process and waits.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// kill ends a process that takes its time to end in order.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// cpu returns the processor time that the process has used.
func (p *process) cpu() (time.Duration, error) {
	return cpuOf(p.cmd.Process.Pid)
}

// clockTicks is USER_HZ, which is 100 on every architecture that Go runs on.
const clockTicks = 100

func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field, the name, may have blanks and parentheses in it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("strange /proc/PID/stat")
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks, nil
}

// residentKiB returns the resident memory of the process in KiB.
func (p *process) residentKiB() (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, errors.New("strange /proc/PID/statm")
	}
	pages, err := strconv.Atoi(fields[1])
	return pages * os.Getpagesize() / 1024, err
}

// command makes a command that ends with the run. Programs of administration
// are often not on a user's PATH.
func (b *bench) command(name string, args ...string) *exec.Cmd {
	if !strings.Contains(name, "/") {
		if _, err := exec.LookPath(name); err != nil {
			for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
					name = filepath.Join(dir, name)
					break
				}
			}
		}
	}
	return exec.CommandContext(b.ctx, name, args...)
}

// output runs a program to its end and returns what it printed.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out), err
}

// freePort returns a TCP port of 127.0.0.1 that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
