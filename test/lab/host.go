package lab

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/internal/paths"
)

// commandTimeout bounds one command of a host. The slowest that is right, a
// login to a portal where nobody answers, takes login_timeout × retries.
const commandTimeout = 2 * time.Minute

// InitiatorName is the initiator name of a host in a prefix.
const InitiatorName = "iqn.2026-11.com.example:initiator"

// A Host is an initiator: its files, its commands and its daemon.
type Host struct {
	t     testing.TB
	bin   string   // directory of the commands
	env   []string // added to the environment of each command
	Paths paths.Paths
	// Dir is where a test may put files of its own.
	Dir    string
	daemon *Daemon
}

// Reference reports whether the commands are open-iscsi's own instead of
// ours: GOISCSI_REFERENCE is set. Tests of what open-iscsi does run with
// both; device names differ.
func Reference() bool { return os.Getenv("GOISCSI_REFERENCE") != "" }

// NewPrefix returns a host whose files are all in a temporary directory. Its
// LUNs are served on unix sockets, never attached to the machine's kernel.
// Lines in conf are appended to its iscsid.conf.
func NewPrefix(t testing.TB, conf ...string) *Host {
	t.Helper()
	// Not t.TempDir: the path of a unix socket may have 107 bytes only, and
	// a test's name can be long.
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &Host{t: t, bin: binDir(t), Dir: dir}
	// The machine's own settings must not show through.
	h.env = append(h.env,
		"ISCSI_ROOT="+dir, "ISCSI_CONFIG=", "ISCSI_INITIATORNAME=", "ISCSI_DB=",
		"ISCSI_RUN=", "ISCSI_PIDFILE=", "ISCSI_DEV=")
	h.Paths = paths.FromLookup(func(name string) string {
		if name == "ISCSI_ROOT" {
			return dir
		}
		return ""
	})
	for _, d := range []string{filepath.Dir(h.Paths.Config), filepath.Dir(h.Paths.DB), h.Paths.Run, h.Paths.Dev} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.WriteFile(h.Paths.InitiatorName, "InitiatorName="+InitiatorName+"\n")
	h.WriteConfig(append([]string{"node.session.attach = socket"}, conf...)...)
	return h
}

// NewMachine returns the machine itself as host. Lines in conf become its
// iscsid.conf. Only for a guest, whose files are thrown away.
func NewMachine(t testing.TB, conf ...string) *Host {
	t.Helper()
	h := &Host{t: t, bin: binDir(t), Dir: t.TempDir()}
	h.Paths = paths.FromLookup(func(string) string { return "" })
	// What the host machine had configured for itself is none of the test's.
	for _, d := range []string{"nodes", "send_targets", "static", "isns", "ifaces"} {
		_ = os.RemoveAll("/etc/iscsi/" + d)
		_ = os.RemoveAll("/var/lib/iscsi/" + d)
	}
	_ = os.Remove(h.Paths.DB)
	for _, d := range []string{"/etc/iscsi", "/var/lib/iscsi", "/run/lock/iscsi"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.WriteFile(h.Paths.InitiatorName, "InitiatorName="+InitiatorName+"\n")
	h.WriteConfig(conf...)
	if Reference() {
		for _, m := range []string{"iscsi_tcp", "sd_mod", "crc32c_generic"} {
			_ = exec.Command("modprobe", m).Run()
		}
	}
	return h
}

func binDir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("GOISCSI_BIN"); dir != "" {
		return dir
	}
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no path of the source file")
	}
	return filepath.Join(filepath.Dir(file), "..", "..", "bin")
}

// WriteConfig replaces the host's iscsid.conf.
func (h *Host) WriteConfig(lines ...string) {
	h.t.Helper()
	h.WriteFile(h.Paths.Config, strings.Join(lines, "\n")+"\n")
}

// WriteFile writes a file for root's eyes only.
func (h *Host) WriteFile(path, text string) {
	h.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// A Result is what a command printed and how it ended.
type Result struct {
	Args     []string
	Stdout   string
	Stderr   string
	Code     int
	Duration time.Duration
}

// String shows a command as the golden transcripts do.
func (r Result) String() string {
	var b strings.Builder
	b.WriteString("$ " + strings.Join(r.Args, " ") + "\n")
	for _, s := range []struct{ mark, text string }{{"out| ", r.Stdout}, {"err| ", r.Stderr}} {
		for line := range strings.Lines(s.text) {
			b.WriteString(s.mark + strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}

// Iscsiadm runs iscsiadm and returns how it ended.
func (h *Host) Iscsiadm(args ...string) Result {
	h.t.Helper()
	return h.Run("iscsiadm", args...)
}

// Must runs iscsiadm and returns its standard output; the test ends when it
// fails.
func (h *Host) Must(args ...string) string {
	h.t.Helper()
	r := h.Iscsiadm(args...)
	if r.Code != 0 {
		h.t.Fatalf("exit status %d\n%s", r.Code, r)
	}
	return r.Stdout
}

// Command returns one of the host's commands, ready to be started.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	path := filepath.Join(h.bin, name)
	if Reference() {
		path = name
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), h.env...)
	return cmd
}

// Run runs one of the host's commands to its end.
func (h *Host) Run(name string, args ...string) Result {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := h.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	timer := time.AfterFunc(commandTimeout, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	r := Result{
		Args: append([]string{name}, args...), Stdout: stdout.String(), Stderr: stderr.String(),
		Code: cmd.ProcessState.ExitCode(), Duration: time.Since(start),
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("%v\n%s", err, r)
	}
	if r.Code < 0 {
		h.t.Fatalf("not finished after %v\n%s", r.Duration, r)
	}
	return r
}

// hints are the lines with which our iscsiadm adds to open-iscsi's messages.
var hints = regexp.MustCompile(`(?m)^iscsiadm: hint: .*\n`)

// WithoutHints returns a standard error without the lines that ours adds: what
// is left must be open-iscsi's.
func WithoutHints(stderr string) string { return hints.ReplaceAllString(stderr, "") }

// Expect is a command's expected ending. Empty strings mean that the stream
// must be empty, hints of ours apart.
type Expect struct {
	Stdout, Stderr string
	Code           int
}

// Check runs iscsiadm and compares both streams and the exit status.
func (h *Host) Check(want Expect, args ...string) {
	h.t.Helper()
	r := h.Iscsiadm(args...)
	if r.Stdout != want.Stdout || WithoutHints(r.Stderr) != want.Stderr || r.Code != want.Code {
		w := Result{Args: r.Args, Stdout: want.Stdout, Stderr: want.Stderr}
		h.t.Errorf("got exit status %d:\n%s\nwant exit status %d:\n%s", r.Code, r, want.Code, w)
	}
}
