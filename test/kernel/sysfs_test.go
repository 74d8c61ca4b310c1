//go:build guest

package kernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
		lab.Eventually(t, "compat-sysfs to end with its mount", func() bool {
			return exec.Command("pgrep", "-x", "compat-sysfs").Run() != nil
		})
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
