//go:build guest

package kernel

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

// viewDir is where the tests mount the view of sysfs.
const viewDir = "/run/compat-sys"

// compatSysfs mounts the view in the background; it goes with the test.
func compatSysfs(t *testing.T, h *lab.Host) {
	t.Helper()
	if lab.Reference() {
		t.Skip("the kernel's initiator has the tree itself")
	}
	h.Shell("modprobe fuse; mkdir -p " + viewDir)
	if r := h.Run("iscsid", "compat-sysfs", "--background", viewDir); r.Code != 0 {
		t.Fatalf("exit status %d\n%s", r.Code, r)
	}
	t.Cleanup(func() {
		h.Shell("umount " + viewDir)
		// Its end follows from that.
		for deadline := time.Now().Add(30 * time.Second); exec.Command("pgrep", "-x", "compat-sysfs").Run() == nil; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("compat-sysfs outlives its mount")
			}
		}
	})
}

// inView runs a line of shell with the view on /sys.
func inView(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("unshare", "--mount", "sh", "-ec", "mount --bind "+viewDir+" /sys; "+line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestSysfsBlockDevice wants an nbd device to be a disk of a SCSI host: for lsblk,
// which drivers of Kubernetes ask for TRAN, by its place, which juju counts, and with
// its partitions.
func TestSysfsBlockDevice(t *testing.T) {
	h, _ := oneTarget(t, disks(t, 2, 64<<20)...)
	h.Must("-m", "node", "-l")
	compatSysfs(t, h)
	disk := h.Disk(tutorialTarget, "1")
	name := filepath.Base(disk)
	h.Shell("echo ',,' | sfdisk -q " + disk)

	place := inView(t, "realpath /sys/block/"+name)
	host, rest, _ := strings.Cut(strings.TrimPrefix(place, "/sys/devices/platform/host"), "/")
	sid := h.SID(tutorialTarget)
	want := "session" + sid + "/target" + host + ":0:0/" + host + ":0:0:1/block/" + name
	if rest != want {
		t.Errorf("%s is at %s, want …/%s", name, place, want)
	}
	if got := inView(t, "lsblk -dnro NAME,HCTL,TYPE,TRAN "+disk); got != name+" "+host+":0:0:1 disk iscsi" {
		t.Errorf("lsblk: %s", got)
	}
	for line, want := range map[string]string{
		"lsblk -nro NAME " + disk:                                             name + "\n" + name + "p1",
		"realpath /sys/class/block/" + name + "p1":                            place + "/" + name + "p1",
		"cat /sys/class/block/" + name + "p1/partition":                       "1",
		"realpath /sys/dev/block/$(cat /sys/block/" + name + "/dev)":          place,
		"cat /sys/block/" + name + "/size":                                    "131072",
		"ls /sys/class/scsi_device/" + host + ":0:0:1/device/block":           name,
		"cat /sys/block/" + name + "/device/vendor":                           "IET",
		"lsscsi | grep -c /dev/nbd":                                           "2",
		"ls /sys/class/iscsi_session/session" + sid + "/device | grep target": "target" + host + ":0:0",
	} {
		if got := inView(t, line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// TestSysfsDelete takes a disk away by its delete file, in use or not, and gets
// it back by scan.
func TestSysfsDelete(t *testing.T) {
	h, _ := oneTarget(t, disks(t, 2, 64<<20)...)
	h.Must("-m", "node", "-l")
	compatSysfs(t, h)
	disk, link := h.Disk(tutorialTarget, "1"), byPath("127.0.0.1:3260", tutorialTarget, 1)
	other := h.Disk(tutorialTarget, "2")
	h.Shell("mkfs.ext4 -q -F " + disk)
	sum := writeFiles(t, h, disk)

	// A safe removal leaves a disk in use alone.
	h.Shell("mkdir -p /run/held; mount " + disk + " /run/held")
	url := "http://iscsid/v1/sessions/" + h.SID(tutorialTarget) + "/luns/1?safe=true"
	curl := "curl -s --unix-socket " + h.Paths.ControlSocket() + " -X DELETE '" + url + "'"
	if out := h.Shell(curl); !strings.Contains(out, `"code":28`) {
		t.Errorf("safe removal of a mounted disk: %s", out)
	}
	h.Shell("umount /run/held")

	inView(t, "echo 1 >/sys/block/"+filepath.Base(disk)+"/device/delete")
	checkGone(t, disk, link)
	if _, err := os.Stat(other); err != nil {
		t.Errorf("the other disk went with it: %v", err)
	}
	inView(t, "for s in /sys/class/scsi_host/host*/scan; do echo 0 0 1 >$s; done")
	disk = h.Disk(tutorialTarget, "1")
	checkLink(t, link, disk)
	verifyFiles(t, h, disk, sum)

	if err := os.WriteFile(viewDir+"/block/"+filepath.Base(disk)+"/device/delete", []byte("1"), 0); err != nil {
		t.Error(err)
	}
	checkGone(t, disk, link)
	if err := os.WriteFile(viewDir+"/block/"+filepath.Base(disk)+"/device/delete", []byte("1"), 0); !isNoEntry(err) {
		t.Errorf("a second time: %v", err)
	}
	h.Must("-m", "session", "-R")
	checkLink(t, link, h.Disk(tutorialTarget, "1"))
}

func isNoEntry(err error) bool {
	return err != nil && strings.HasSuffix(err.Error(), syscall.ENOENT.Error())
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
props = {'target_discovered': False, 'target_portal': '127.0.0.1:3260', 'target_iqn': sys.argv[1], 'target_lun': 1, 'volume_id': 'v', 'access_mode': 'rw'}
info = c.connect_volume(props)
print('connected', info['type'], info['path'], os.path.realpath(info['path']), flush=True)
with open(info['path'], 'r+b', buffering=0) as f:
    f.write(b'x' * 4096)
c.disconnect_volume(props, info)
print('disconnected', flush=True)
`

// TestSysfsOSBrick runs OpenStack's os-brick as Debian has it: without the tree, its
// login never ends.
func TestSysfsOSBrick(t *testing.T) {
	h, _ := oneTarget(t, disks(t, 1, 64<<20)...)
	compatSysfs(t, h)
	script := filepath.Join(h.Dir, "osbrick.py")
	h.WriteFile(script, osBrick)
	out := inView(t, "timeout 240 /usr/bin/python3 "+script+" "+tutorialTarget)
	for _, want := range []string{"connected block ", " /dev/nbd", "disconnected"} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No active sessions.\n"}, "-m", "session")
	if left, _ := filepath.Glob("/dev/disk/by-path/*" + tutorialTarget + "*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
