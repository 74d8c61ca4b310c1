package daemon

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/paths"
	"github.com/goiscsi/goiscsi/internal/version"
)

// testAsDaemon makes the test program iscsid.
const testAsDaemon = "ISCSID_TEST_MAIN"

// iscsid runs the command below a root of its own.
func iscsid(t *testing.T, root string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), testAsDaemon+"=1", "ISCSI_ROOT="+root)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

func testRoot(t *testing.T) (string, paths.Paths) {
	t.Helper()
	root, err := os.MkdirTemp("", "iscsid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	p := paths.FromLookup(func(name string) string {
		if name == "ISCSI_ROOT" {
			return root
		}
		return ""
	})
	if err := os.MkdirAll(filepath.Dir(p.PIDFile), 0o755); err != nil {
		t.Fatal(err)
	}
	return root, p
}

func TestCommandLine(t *testing.T) {
	root, _ := testRoot(t)
	for _, tc := range []struct {
		name           string
		args           []string
		stdout, stderr string
		status         int
	}{
		{"version", []string{"-v"}, "iscsid version " + version.Version + "\n", "", 0},
		{"long version", []string{"--version"}, "iscsid version " + version.Version + "\n", "", 0},
		{"unknown flag", []string{"-x"}, "", "iscsid: flag provided but not defined: -x (iscsid --help shows the options)\n", 7},
		{"argument", []string{"-f", "start"}, "", "iscsid: unexpected argument \"start\" (iscsid --help shows the options)\n", 7},
		{"level that is no number", []string{"-d", "much"}, "", "iscsid: invalid value \"much\" for flag -d: parse error (iscsid --help shows the options)\n", 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, stderr, status := iscsid(t, root, tc.args...)
			if stdout != tc.stdout || stderr != tc.stderr || status != tc.status {
				t.Errorf("stdout %q, stderr %q, status %d", stdout, stderr, status)
			}
		})
	}
	stdout, _, status := iscsid(t, root, "--help")
	for _, want := range []string{"--config", "-c", "--initiatorname", "-i", "--foreground", "-f", "--debug", "-d", "--uid", "-u", "--gid", "-g", "--no-pid-file", "-n", "--pid", "-p", "--version", "-v"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("help does not have %s", want)
		}
	}
	if status != 0 {
		t.Errorf("help: status %d", status)
	}
}

func TestBackgroundIsReadyWhenTheCommandReturns(t *testing.T) {
	root, p := testRoot(t)
	_, stderr, status := iscsid(t, root)
	if status != 0 || stderr != "" {
		t.Fatalf("stderr %q, status %d", stderr, status)
	}
	b, err := os.ReadFile(p.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	c := control.NewClient(p.ControlSocket(), control.ClientOptions{})
	defer c.Close()
	if list, err := c.Sessions(t.Context(), control.SessionQuery{}); err != nil || len(list) != 0 {
		t.Errorf("sessions %v, %v", list, err)
	}

	if _, stderr, status := iscsid(t, root); status != 1 || !strings.HasPrefix(stderr, "iscsid: another iscsid runs: ") {
		t.Errorf("a second daemon: stderr %q, status %d", stderr, status)
	}

	exited, err := pidfd(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer exited.Close()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitExit(t, exited)
	for _, file := range []string{p.PIDFile, p.ControlSocket()} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s is left", file)
		}
	}
}

func TestBackgroundTellsWhyItDidNotStart(t *testing.T) {
	root, _ := testRoot(t)
	_, stderr, status := iscsid(t, root, "-c", root)
	if status != 1 || !strings.HasPrefix(stderr, "iscsid: configuration: ") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("stderr %q, status %d", stderr, status)
	}
}
