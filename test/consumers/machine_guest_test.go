//go:build guest

package consumers

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

const guestTarget = "iqn.2026-11.com.example:consumers"

// archive has the programs that call iscsiadm; test/deps makes it.
func archive() string {
	if f := os.Getenv("GOISCSI_CALLERS"); f != "" {
		return f
	}
	return "/var/cache/goiscsi-test/callers.tar"
}

// install puts our commands where packages have them, and unpacks the programs
// over the guest's root, once.
var install = sync.OnceValue(func() error {
	script := `
		bin=${GOISCSI_BIN:-/lab/bin}
		cp "$bin/iscsiadm" "$bin/iscsid" "$bin/iscsi-iname" /usr/sbin/
		ln -sf ../sbin/iscsiadm /usr/bin/iscsiadm
		tar -C / -x --keep-directory-symlink -f "$1"
		ldconfig
		modprobe nbd nbds_max=0`
	out, err := exec.Command("/bin/sh", "-ec", script, "sh", archive()).CombinedOutput()
	if err != nil {
		return errors.New(string(out))
	}
	return nil
})

// newMachine returns the guest as a host whose iscsid is running, with the
// programs, and a target with one disk of 64 MiB.
func newMachine(t *testing.T) (*lab.Host, targets.PortalAddr) {
	t.Helper()
	if _, err := os.Stat(archive()); err != nil {
		t.Skipf("test/deps test comes first: %v", err)
	}
	if err := install(); err != nil {
		t.Fatal(err)
	}
	h := lab.NewMachine(t)
	disk := filepath.Join(h.Dir, "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 64<<20)); err != nil {
		t.Fatal(err)
	}
	own := targets.StartOwn(t, func(args ...string) *exec.Cmd { return h.Command("iscsi-target", args...) },
		targets.Target{Name: guestTarget, LUNs: []targets.LUN{{Path: disk}}})
	h.StartDaemon()
	return h, own.Portal()
}

// byPath is where the disk of the target is.
func byPath(p targets.PortalAddr) string {
	return "/dev/disk/by-path/ip-" + p.String() + "-iscsi-" + guestTarget + "-lun-1"
}

// A program is one run of a program that calls iscsiadm.
type program struct {
	stdout, stderr string
	code           int
}

func (p program) String() string { return "stdout:\n" + p.stdout + "stderr:\n" + p.stderr }

// run runs a program with additions to its environment and an input. What has
// not ended after two minutes is ended, and fails the test.
func run(t *testing.T, env []string, input, name string, args ...string) program {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Env = append(cmd.Env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	cmd.WaitDelay = time.Second // a child of it may hold the streams
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	p := program{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if p.code < 0 {
		t.Fatalf("%s %q: %v\n%s", name, args, err, p)
	}
	return p
}

// ok is run for what must succeed.
func ok(t *testing.T, env []string, name string, args ...string) program {
	t.Helper()
	p := run(t, env, "", name, args...)
	if p.code != 0 {
		t.Fatalf("%s %q: exit status %d\n%s", name, args, p.code, p)
	}
	return p
}

// sessions returns the list of sessions, empty when there is none.
func sessions(t *testing.T, h *lab.Host) string {
	t.Helper()
	r := h.Iscsiadm("-m", "session")
	if r.Code != 0 && r.Code != 21 {
		t.Fatalf("%s", r)
	}
	return r.Stdout
}
