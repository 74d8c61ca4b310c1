//go:build integration

package faults

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/lab"
)

// restartTime is what a planned restart may pause I/O for.
const restartTime = time.Second

// TestRestartUnderSystemd restarts iscsid by a service manager of its own, with our
// units, while it is busy, each time with another file as its program, as an upgrade
// does. The client of an export keeps its connection: had it to come again, its
// checker would have failed. TestPlannedRestart and TestBoot are the same with devices,
// where system calls, and above all the start of a program, take far longer.
func TestRestartUnderSystemd(t *testing.T) {
	h := lab.NewPrefix(t)
	m := startSystemd(t, h)
	r := &rig{t: t, Host: h}
	tgt := own(t, h)
	portal := tgt.Portal().String()
	r.record(portal)
	r.login(portal)
	before := r.Must("-m", "session")
	c := r.export(checker.Config{Workers: 4})
	pid := m.mainPID()
	var longest, took []time.Duration
	for range times(10, 50) {
		pauseBetween()
		m.install(h)
		c.TakeLongest()
		begin := time.Now()
		m.systemctl("restart", "iscsid")
		took = append(took, time.Since(begin))
		await(t, c)
		longest = append(longest, c.TakeLongest())
		now := m.mainPID()
		if now == pid {
			t.Fatal("iscsid was not restarted")
		}
		pid = now
		if now := r.Must("-m", "session"); now != before {
			t.Fatalf("sessions\n%sbefore\n%s", now, before)
		}
	}
	text, _ := summary(took)
	t.Logf("systemctl restart: %s", text)
	text, _ = summary(longest)
	t.Logf("longest request: %s", text)
	if median(longest) > restartTime {
		t.Errorf("half of the restarts pause I/O for more than %v", restartTime)
	}
	verdict(t, c)
	r.Must("-m", "session", "-u")
}

// A serviceManager is a systemd with our units and no others, in namespaces of its own:
// mounts, processes and control groups. The network is the test's.
type serviceManager struct {
	t       *testing.T
	pid     int
	program string // what the unit starts
}

// startSystemd starts a service manager that runs iscsid for h, until the test ends.
func startSystemd(t *testing.T, h *lab.Host) *serviceManager {
	t.Helper()
	m := &serviceManager{t: t, program: filepath.Join(h.Dir, "iscsid")}
	m.install(h)
	m.units(h)

	// The control groups of the services are below one of their own, which goes with the test.
	groups, group := filepath.Join(h.Dir, "cgroup"), "goiscsi-test-"+strconv.Itoa(os.Getpid())
	if err := os.Mkdir(groups, 0o700); err != nil {
		t.Fatal(err)
	}
	script := `set -e
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$GROUPS_DIR"
mkdir "$GROUPS_DIR/$GROUP"
echo 0 >"$GROUPS_DIR/$GROUP/cgroup.procs"
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
exec unshare --cgroup sh -ec 'mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"' sh \
	/lib/systemd/systemd --system --unit=iscsid.service --log-target=console --show-status=0`
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "container=test", "SYSTEMD_UNIT_PATH="+filepath.Join(h.Dir, "units"), "GROUPS_DIR="+groups, "GROUP="+group)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.pid = cmd.Process.Pid
	t.Cleanup(func() {
		if !t.Failed() {
			m.systemctl("stop", "iscsid.service", "iscsid.socket")
		}
		_ = cmd.Process.Kill() // and with it all that it has started
		_ = cmd.Wait()
		m.removeGroups(groups, group)
		if t.Failed() {
			log, _ := os.ReadFile(m.log(h))
			t.Logf("systemd said:\n%s\niscsid said:\n%s", &out, log)
		}
	})
	eventually(t, "iscsid is started by systemd", func() bool {
		state, err := m.command("systemctl", "is-active", "iscsid").Output()
		return err == nil && string(state) == "active\n"
	})
	return m
}

// install puts the program where the unit wants it, as an upgrade does: a new file under the
// old name.
func (m *serviceManager) install(h *lab.Host) {
	m.t.Helper()
	program, err := os.ReadFile(h.Command("iscsid").Path)
	if err == nil {
		err = os.WriteFile(m.program+".new", program, 0o700)
	}
	if err == nil {
		err = os.Rename(m.program+".new", m.program)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *serviceManager) log(h *lab.Host) string { return filepath.Join(h.Dir, "iscsid.log") }

// units writes our units, changed only in where things are.
func (m *serviceManager) units(h *lab.Host) {
	m.t.Helper()
	dir := filepath.Join(h.Dir, "units")
	if err := os.MkdirAll(filepath.Join(dir, "iscsid.service.d"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	for _, name := range []string{"iscsid.service", "iscsid.socket"} {
		unit, err := os.ReadFile(filepath.Join("..", "..", "internal", "packaging", "systemd", name))
		if err != nil {
			m.t.Fatal(err)
		}
		text := strings.NewReplacer(
			"ExecStart=@/usr/sbin/iscsid", "ExecStart=@"+m.program,
			"ListenStream=/run/iscsid/control.sock", "ListenStream="+h.Paths.ControlSocket(),
		).Replace(string(unit))
		if text == string(unit) {
			m.t.Fatalf("%s names neither the program nor the socket", name)
		}
		h.WriteFile(filepath.Join(dir, name), text)
	}
	var more strings.Builder
	fmt.Fprintf(&more, "[Service]\nStandardOutput=append:%s\nStandardError=inherit\n", m.log(h))
	for _, v := range h.Command("iscsid").Env {
		if strings.HasPrefix(v, "ISCSI_") {
			fmt.Fprintf(&more, "Environment=%s\n", v)
		}
	}
	h.WriteFile(filepath.Join(dir, "iscsid.service.d", "test.conf"), more.String())
}

// command is a command within the service manager's namespaces.
func (m *serviceManager) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(m.pid), "-m", "-p", "-C"}, args...)...)
}

func (m *serviceManager) systemctl(args ...string) {
	m.t.Helper()
	if out, err := m.command(append([]string{"systemctl"}, args...)...).CombinedOutput(); err != nil {
		m.t.Errorf("systemctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// mainPID is iscsid's process, by its number in the service manager's namespace.
func (m *serviceManager) mainPID() int {
	m.t.Helper()
	out, err := m.command("systemctl", "show", "-p", "MainPID", "--value", "iscsid").Output()
	pid, aerr := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || aerr != nil || pid == 0 {
		m.t.Fatalf("process of iscsid: %q, %v", out, err)
	}
	return pid
}

// removeGroups removes the control groups, which are empty now.
func (m *serviceManager) removeGroups(at, group string) {
	script := `mount --make-rprivate / && mount -t cgroup2 cgroup2 "$0" && find "$0/$1" -depth -type d -exec rmdir {} +`
	if out, err := exec.Command("unshare", "--mount", "sh", "-c", script, at, group).CombinedOutput(); err != nil {
		m.t.Errorf("control groups of the service manager: %v\n%s", err, out)
	}
}
