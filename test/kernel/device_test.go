//go:build guest

package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/lab"
)

var (
	deviceName = regexp.MustCompile(`\b(sd[a-z]+|nbd\d+)\b`)
	hostNumber = regexp.MustCompile(`\d+`)
)

// device is what a block device must look like.
type device struct {
	size      int64 // bytes
	blockSize int   // logical, bytes
	readOnly  bool
}

// checkDevice compares the kernel's view of a device, in sysfs, with what the
// LUN is.
func checkDevice(t *testing.T, h *lab.Host, disk string, want device) {
	t.Helper()
	queue := "/sys/block/" + filepath.Base(disk)
	read := func(name string) int {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(queue, name))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	got := device{size: int64(read("size")) * 512, blockSize: read("queue/logical_block_size"), readOnly: read("ro") != 0}
	if got != want {
		t.Errorf("%s is %+v, want %+v", disk, got, want)
	}
}

// checkLink wants the by-path link to lead to the disk the moment the login
// command has returned. The kernel's own initiator leaves links to udev, which
// this guest does not run.
func checkLink(t *testing.T, link, disk string) {
	t.Helper()
	if lab.Reference() {
		return
	}
	got, err := filepath.EvalSymlinks(link)
	if err != nil {
		t.Error(err)
	} else if got != disk {
		t.Errorf("%s leads to %s, want %s", link, got, disk)
	}
}

// checkGone wants that a logout left neither device nor link.
func checkGone(t *testing.T, disk, link string) {
	t.Helper()
	if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there after the logout (%v)", link, err)
	}
	// The kernel takes a device away in its own time.
	deadline := time.Now().Add(5 * time.Second)
	for deviceSize(disk) > 0 {
		if time.Now().After(deadline) {
			t.Errorf("%s still has a size after the logout", disk)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func deviceSize(disk string) int64 {
	b, err := os.ReadFile("/sys/block/" + filepath.Base(disk) + "/size")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// writeFiles mounts the disk's file system, writes files into it, unmounts it
// and returns a checksum of what it wrote.
func writeFiles(t *testing.T, h *lab.Host, disk string) string {
	t.Helper()
	dir := t.TempDir()
	return h.Shell(fmt.Sprintf(`mount %[1]s %[2]s
		for i in 1 2 3 4 5 6 7 8; do head -c 1048573 /dev/urandom > %[2]s/file$i; done
		cp -r /etc/iscsi %[2]s/etc-iscsi
		(cd %[2]s && find . -type f | sort | xargs sha256sum) | sha256sum
		umount %[2]s`, disk, dir))
}

// verifyFiles mounts the disk, checks the file system and compares its files
// with the checksum.
func verifyFiles(t *testing.T, h *lab.Host, disk, sum string) {
	t.Helper()
	dir := t.TempDir()
	got := h.Shell(fmt.Sprintf(`e2fsck -fn %[1]s >/dev/null
		mount %[1]s %[2]s
		(cd %[2]s && find . -type f | sort | xargs sha256sum) | sha256sum
		umount %[2]s`, disk, dir))
	if got != sum {
		t.Errorf("the files on %s have checksum %s, want %s", disk, got, sum)
	}
}
