//go:build guest

package consumers

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
)

// compatSysfs mounts the view of sysfs and returns its directory. It goes with
// the test.
func compatSysfs(t *testing.T, h *lab.Host) string {
	t.Helper()
	h.Shell("modprobe fuse; [ -c /dev/fuse ] || mknod /dev/fuse c 10 229")
	view := filepath.Join(h.Dir, "sys")
	h.Shell("mkdir " + view + "; /usr/sbin/iscsid compat-sysfs -b " + view)
	t.Cleanup(func() {
		h.Shell("umount " + view)
		lab.Eventually(t, "compat-sysfs to end with its mount", func() bool {
			return exec.Command("pgrep", "-x", "compat-sysfs").Run() != nil
		})
	})
	return view
}

// inView is the command line of a program that has the view in place of /sys.
func inView(view string, args ...string) []string {
	return append([]string{"/usr/bin/unshare", "--mount", "/bin/sh", "-ec", `mount --bind "$1" /sys; shift; exec "$@"`, "sh", view}, args...)
}

// osBrick connects and disconnects a volume as Cinder and Nova do.
const osBrick = `
import os, sys
import os_brick
from os_brick import privileged
from os_brick.initiator import connector
from oslo_concurrency import lockutils
from oslo_config import cfg
lockutils.set_defaults('/run')
os_brick.setup(cfg.CONF)
privileged.default.set_client_mode(False)
c = connector.InitiatorConnector.factory('ISCSI', 'sudo', use_multipath=False, device_scan_attempts=5)
props = {'target_discovered': False, 'target_portal': sys.argv[2], 'target_iqn': sys.argv[1], 'target_lun': 1, 'volume_id': 'v', 'access_mode': 'rw'}
info = c.connect_volume(props)
print('connected', info['type'], info['path'], os.path.realpath(info['path']), flush=True)
with open(info['path'], 'r+b', buffering=0) as f:
    f.write(b'x' * 4096)
c.disconnect_volume(props, info)
print('disconnected', flush=True)
`

// TestOSBrick runs OpenStack's os-brick: without the tree, its login never
// ends.
func TestOSBrick(t *testing.T) {
	h, p := newMachine(t)
	view := compatSysfs(t, h)
	script := filepath.Join(h.Dir, "osbrick.py")
	h.WriteFile(script, osBrick)
	line := inView(view, "/usr/bin/python3", script, guestTarget, p.String())
	out := ok(t, nil, line[0], line[1:]...)
	for _, want := range []string{"connected block ", " /dev/nbd", "disconnected"} {
		if !strings.Contains(out.stdout, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	if s := sessions(t, h); s != "" {
		t.Errorf("os-brick has not logged out:\n%s", s)
	}
	if left, _ := filepath.Glob("/dev/disk/by-path/*" + guestTarget + "*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
