//go:build guest

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// disks returns n LUNs on files of size bytes, numbered from 1.
func disks(t *testing.T, n int, size int64) []targets.LUN {
	t.Helper()
	var luns []targets.LUN
	for i := range n {
		luns = append(luns, targets.LUN{Number: i + 1, Path: targets.SparseFile(t, size)})
	}
	return luns
}

// oneTarget serves one target by tgt on 127.0.0.1 and ::1, discovers it and
// returns a host with a daemon.
func oneTarget(t *testing.T, luns ...targets.LUN) (*lab.Host, *targets.TGT) {
	t.Helper()
	tgt := targets.StartTGT(t, 3260, []string{"127.0.0.1", "::1"}, targets.Target{Name: tutorialTarget, LUNs: luns})
	h := lab.NewMachine(t)
	h.StartDaemon()
	h.Must("-m", "discovery", "-t", "st", "-p", "127.0.0.1")
	return h, tgt
}

func byPath(portal, target string, lun int) string {
	return fmt.Sprintf("/dev/disk/by-path/ip-%s-iscsi-%s-lun-%d", portal, target, lun)
}

// TestReadOnly gives a device that the kernel knows to be read-only.
func TestReadOnly(t *testing.T) {
	luns := disks(t, 1, 16<<20)
	luns[0].ReadOnly = true
	h, _ := oneTarget(t, luns...)
	h.Must("-m", "node", "-l")
	disk := h.Disk(tutorialTarget, "1")
	checkDevice(t, h, disk, device{size: 16 << 20, blockSize: 512, readOnly: true})
	if f, err := os.OpenFile(disk, os.O_WRONLY, 0); err == nil {
		f.Close()
		// The kernel lets root open it and refuses the write.
		if out := h.Shell("dd if=/dev/zero of=" + disk + " bs=4k count=1 oflag=direct 2>&1 || echo refused"); !strings.Contains(out, "refused") {
			t.Errorf("a write to a read-only LUN succeeded: %s", out)
		}
	}
}

// TestBlockSize4096 gives a device of 4096-byte blocks with a file system.
func TestBlockSize4096(t *testing.T) {
	luns := disks(t, 1, 64<<20)
	luns[0].BlockSize = 4096
	h, _ := oneTarget(t, luns...)
	h.Must("-m", "node", "-l")
	disk := h.Disk(tutorialTarget, "1")
	checkDevice(t, h, disk, device{size: 64 << 20, blockSize: 4096})
	h.Shell("mkfs.ext4 -q -F " + disk)
	sum := writeFiles(t, h, disk)
	h.Must("-m", "node", "-u")
	h.Must("-m", "node", "-l")
	verifyFiles(t, h, h.Disk(tutorialTarget, "1"), sum)
}

// TestSeveralLUNs gives each disk a device with a link of its own, and tgt's
// LUN 0, a controller, a line in -P 3 and nothing else.
func TestSeveralLUNs(t *testing.T) {
	h, _ := oneTarget(t, disks(t, 3, 16<<20)...)
	h.Must("-m", "node", "-l")
	out := h.Must("-m", "session", "-P", "3")
	seen := map[string]bool{}
	for lun := 1; lun <= 3; lun++ {
		disk := h.Disk(tutorialTarget, fmt.Sprint(lun))
		if seen[disk] {
			t.Errorf("LUN %d shares %s", lun, disk)
		}
		seen[disk] = true
		checkDevice(t, h, disk, device{size: 16 << 20, blockSize: 512})
		checkLink(t, byPath("127.0.0.1:3260", tutorialTarget, lun), disk)
		// Each is the LUN that it says it is.
		h.Shell(fmt.Sprintf("echo this is LUN %d | dd of=%s bs=512 conv=sync oflag=direct status=none", lun, disk))
	}
	if !strings.Contains(out, " Lun: 0\n") || strings.Count(out, "Attached scsi disk") != 3 {
		t.Errorf("-P 3 shows\n%s", out)
	}
	h.Must("-m", "node", "-u")
	h.Must("-m", "node", "-l")
	for lun := 1; lun <= 3; lun++ {
		got := h.Shell("head -c 13 " + h.Disk(tutorialTarget, fmt.Sprint(lun)))
		if want := fmt.Sprintf("this is LUN %d", lun); got != want {
			t.Errorf("LUN %d holds %q, want %q", lun, got, want)
		}
	}
}

// TestIPv6 logs in over IPv6; the link's name has the address bare.
func TestIPv6(t *testing.T) {
	h, _ := oneTarget(t, disks(t, 1, 16<<20)...)
	h.Check(lab.Expect{Stdout: "[::1]:3260,1 " + tutorialTarget + "\n"}, "-m", "discovery", "-t", "st", "-p", "[::1]")
	at := "[iface: default, target: " + tutorialTarget + ", portal: ::1,3260]"
	h.Check(lab.Expect{Stdout: "Logging in to " + at + "\nLogin to " + at + " successful.\n"},
		"-m", "node", "-T", tutorialTarget, "-p", "[::1]:3260", "-l")
	checkLink(t, byPath("::1:3260", tutorialTarget, 1), h.Disk(tutorialTarget, "1"))
}

// TestAutomatic logs in the records that are to be logged in at boot, and no
// other.
func TestAutomatic(t *testing.T) {
	h, _ := oneTarget(t, disks(t, 1, 16<<20)...)
	h.Must("-m", "discovery", "-t", "st", "-p", "[::1]")
	h.Must("-m", "node", "-T", tutorialTarget, "-p", "127.0.0.1", "-o", "update", "-n", "node.startup", "-v", "automatic")
	at := "[iface: default, target: " + tutorialTarget + ", portal: 127.0.0.1,3260]"
	h.Check(lab.Expect{Stdout: "Logging in to " + at + "\nLogin to " + at + " successful.\n"}, "-m", "node", "--loginall=automatic")
	h.Check(lab.Expect{Code: 15, Stderr: "iscsiadm: default: 1 session requested, but 1 already present.\n" +
		"iscsiadm: Could not log into all portals\n"}, "-m", "node", "--loginall=automatic")
	h.Check(lab.Expect{Stdout: "tcp: [" + h.SID(tutorialTarget) + "] 127.0.0.1:3260,1 " + tutorialTarget + " (non-flash)\n"}, "-m", "session")
	r := h.Iscsiadm("-m", "node", "--logoutall=automatic")
	if r.Code != 0 {
		t.Errorf("exit status %d\n%s", r.Code, r)
	}
}

// TestQueue looks at the settings that the NBD driver gets wrong by default:
// the scheduler, the size of a request and the time after which the kernel
// sends a request again.
func TestQueue(t *testing.T) {
	if lab.Reference() {
		return // these are the NBD driver's
	}
	h, _ := oneTarget(t, disks(t, 1, 16<<20)...)
	h.Must("-m", "node", "-l")
	disk := h.Disk(tutorialTarget, "1")
	queue := filepath.Join("/sys/block", filepath.Base(disk), "queue")
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(queue, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if got := read("scheduler"); !strings.Contains(got, "[none]") {
		t.Errorf("scheduler is %s, want none", got)
	}
	var kb, timeout int
	if _, err := fmt.Sscan(read("max_sectors_kb"), &kb); err != nil || kb <= 128 {
		t.Errorf("max_sectors_kb is %d: requests are cut small (%v)", kb, err)
	}
	if _, err := fmt.Sscan(read("io_timeout"), &timeout); err != nil || timeout > 5000 {
		t.Errorf("io_timeout is %d ms: what was in flight when iscsid died waits that long (%v)", timeout, err)
	}
}

// TestPartitions finds the partitions of a disk that has some.
func TestPartitions(t *testing.T) {
	h, _ := oneTarget(t, disks(t, 1, 64<<20)...)
	h.Must("-m", "node", "-l")
	disk := h.Disk(tutorialTarget, "1")
	h.Shell("printf 'label: gpt\n,16M\n,16M\n' | sfdisk -q " + disk)
	h.Must("-m", "node", "-u")
	h.Must("-m", "node", "-l")
	disk = h.Disk(tutorialTarget, "1")
	parts := h.Shell("ls -d /sys/block/" + filepath.Base(disk) + "/" + filepath.Base(disk) + "* | wc -l")
	if parts != "2" {
		t.Errorf("%s partitions, want 2", parts)
	}
}
