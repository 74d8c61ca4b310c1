//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/lab"
)

// compatSysfs mounts the view and returns its directory. It goes with the test.
func compatSysfs(t *testing.T, h *lab.Host) string {
	t.Helper()
	dir := filepath.Join(h.Dir, "sys")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := h.Command("iscsid", "compat-sysfs", dir)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with the process
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("compat-sysfs: %v\n%s", err, &log)
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("SIGTERM does not end compat-sysfs\n%s", &log)
		}
		if _, err := os.Stat(filepath.Join(dir, "class")); err == nil {
			t.Error("compat-sysfs has left its mount behind")
		}
	})
	lab.Eventually(t, "compat-sysfs to mount", func() bool {
		if len(done) > 0 {
			t.Fatalf("compat-sysfs has ended: %s", &log)
		}
		_, err := os.Stat(filepath.Join(dir, "class/iscsi_session"))
		return err == nil
	})
	return dir
}

// inView runs a line of shell with the view on /sys, in a mount namespace of
// its own.
func inView(t *testing.T, dir, line string) string {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "sh", "-ec", "mount --bind "+dir+" /sys; "+line)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// TestSysfsReaders reads the tree with the programs that read the kernel's: lsscsi,
// systool and open-iscsi's own iscsiadm, which find the session and its unit.
func TestSysfsReaders(t *testing.T) {
	h, tgt := discovered(t)
	dir := compatSysfs(t, h)
	h.Must(node(openTarget, tgt, "-l")...)

	if out := h.Shell("lsscsi --sysfsroot=" + dir); !strings.Contains(out, "disk    IET      VIRTUAL-DISK     0001") {
		t.Errorf("lsscsi:\n%s", out)
	}
	if out := h.Shell("lsscsi --sysfsroot=" + dir + " --hosts"); !strings.Contains(out, "iscsi_tcp") {
		t.Errorf("lsscsi --hosts:\n%s", out)
	}
	if out := inView(t, dir, "lsscsi --transport"); !strings.Contains(out, openTarget) {
		t.Errorf("lsscsi --transport:\n%s", out)
	}
	out := inView(t, dir, "systool -c iscsi_session -v")
	for _, want := range []string{`Class Device = "session1"`, `targetname          = "` + openTarget + `"`, `state               = "LOGGED_IN"`} {
		if !strings.Contains(out, want) {
			t.Errorf("systool lacks %q:\n%s", want, out)
		}
	}
	out = inView(t, dir, "/usr/sbin/iscsiadm -m session -P 3 2>/dev/null")
	for _, want := range []string{
		"Target: " + openTarget + " (non-flash)\n", "Current Portal: " + tgt.Portal().String() + ",1\n",
		"SID: 1\n", "iSCSI Session State: LOGGED_IN\n", "ImmediateData: Yes\n", "Host Number: ", " Channel 00 Id 0 Lun: 1\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("open-iscsi's iscsiadm lacks %q:\n%s", want, out)
		}
	}
	// All else is the machine's.
	if out := inView(t, dir, "cat /sys/class/net/lo/address"); !strings.Contains(out, "00:00:00:00:00:00\n") {
		t.Errorf("real files:\n%s", out)
	}
	h.Must(node(openTarget, tgt, "-u")...)
	if left, _ := filepath.Glob(filepath.Join(dir, "class/iscsi_*/*[0-9]")); len(left) > 0 {
		t.Errorf("the logout left %q", left)
	}
}

// kubernetesScan looks for a unit as Kubernetes' iscsi volumes do: the host of the
// session by its target and portal, then "0 0 LUN" to its scan file.
const kubernetesScan = `
import glob, os, sys
root, target, portal, lun = sys.argv[1:]
hosts = []
for host in glob.glob(root + '/class/iscsi_host/host*'):
    for name in glob.glob(host + '/device/session*/iscsi_session/session*/targetname'):
        if open(name).read().strip() != target:
            continue
        session = os.path.dirname(os.path.dirname(os.path.dirname(name)))
        for conn in glob.glob(session + '/connection*/iscsi_connection/connection*'):
            def read(f): return open(conn + '/' + f).read().strip()
            for kind in ('', 'persistent_'):
                if read(kind + 'address') + ':' + read(kind + 'port') == portal:
                    hosts.append(os.path.basename(host)[4:])
                    break
assert len(hosts) == 1, hosts
open(root + '/class/scsi_host/host%s/scan' % hosts[0], 'w').write('0 0 ' + lun)
print('host%s:%s' % (hosts[0], glob.glob(root + '/class/iscsi_host/host%s/device/session*/target%s:0:0/%s:0:0:%s' % (hosts[0], hosts[0], hosts[0], lun)) != []))
`

// TestSysfsManualScan logs in without a scan and has units by writing to scan only,
// one at a time; delete takes one away until the next scan.
func TestSysfsManualScan(t *testing.T) {
	h, tgt := discovered(t)
	dir := compatSysfs(t, h)
	update(h, openTarget, tgt, "node.session.scan", "manual")
	h.Must(node(openTarget, tgt, "-l")...)
	if left := h.Sockets(); len(left) != 0 {
		t.Fatalf("without a scan there is %q", left)
	}
	scan := func(lun string) string {
		t.Helper()
		out, err := exec.Command("python3", "-c", kubernetesScan, dir, openTarget, tgt.Portal().String(), lun).CombinedOutput()
		if err != nil {
			t.Fatalf("scan of %s: %v\n%s", lun, err, out)
		}
		_, found, _ := strings.Cut(strings.TrimSpace(string(out)), ":")
		return found
	}
	if scan("9") != "False" || scan("1") != "True" || len(h.Sockets()) != 1 {
		t.Errorf("after the scans there is %q", h.Sockets())
	}
	h.Shell("for f in " + dir + "/class/scsi_device/*:0:0:1/device/delete; do echo 1 >$f; done")
	if left := h.Sockets(); len(left) != 0 {
		t.Errorf("after the deletion there is %q", left)
	}
	if out := h.Must("-m", "session"); strings.Count(out, "\n") != 1 {
		t.Errorf("the session is gone: %s", out)
	}
	h.Shell("for f in " + dir + "/class/scsi_host/host*/scan; do echo - - - >$f; done")
	if left := h.Sockets(); len(left) != 1 {
		t.Errorf("after the scan of all there is %q", left)
	}
}

// TestSysfsOutlivesTheDaemon shows the session as lost while iscsid is restarted, and
// as it was afterwards.
func TestSysfsOutlivesTheDaemon(t *testing.T) {
	tgt, h := startTGT(t), lab.NewPrefix(t)
	d := h.StartDaemon()
	dir := compatSysfs(t, h)
	h.Must("-m", "discovery", "-t", "sendtargets", "-p", tgt.Portal().String())
	h.Must(node(openTarget, tgt, "-l")...)
	state := filepath.Join(dir, "class/iscsi_session/session1/state")
	wait := func(want string) {
		t.Helper()
		lab.Eventually(t, "state "+strings.TrimSpace(want), func() bool {
			got, _ := os.ReadFile(state)
			return string(got) == want
		})
	}
	wait("LOGGED_IN\n")
	d.Stop()
	wait("FAILED\n")
	h.StartDaemon()
	wait("LOGGED_IN\n")
}
