//go:build guest

package faults

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/test/faults/checker"
)

// kernelSize is the size in bytes that the kernel gives a disk, "nbd0".
func kernelSize(t *testing.T, disk string) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/sys/block", disk, "size"))
	if err != nil {
		return -1 // gone
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * 512
}

// TestDeviceFollowsLUN has a LUN grow, shrink, vanish and come back, as itself and
// as another disk, under a device of the kernel: its size follows, a rescan removes a
// device without a LUN, and no other disk is ever behind its name.
func TestDeviceFollowsLUN(t *testing.T) {
	tgt := newInProcess(t, nil)
	r := guestRig(t)
	r.record(tgt.addr)
	r.login(tgt.addr)
	link := func() string {
		all, err := filepath.Glob("/dev/disk/by-path/*-lun-1")
		if err != nil || len(all) != 1 {
			return ""
		}
		to, _ := os.Readlink(all[0]) // "" where it has just gone
		return filepath.Base(to)
	}
	for i := range times(2, 20) {
		path := r.Disk(targetName, "1")
		disk := filepath.Base(path)
		d, err := checker.OpenDevice(path)
		if err != nil {
			t.Fatal(err)
		}
		c := start(t, d, checker.Config{Blocks: 1024})
		for _, size := range []int{2 * diskSize, diskSize / 2, diskSize} {
			tgt.disk.resize(size)
			tgt.srv.Resized(tgt.lun)
			eventually(t, "the new size", func() bool { return kernelSize(t, disk) == int64(size) })
			await(t, c)
		}
		verdict(t, c)

		block := checker.Aligned(checker.BlockSize)
		write := func() error {
			_, err := d.WriteAt(block, 0)
			return err
		}
		if i%2 == 0 {
			if err := tgt.srv.SetLUN(targetName, 1, nil); err != nil {
				t.Fatal(err)
			}
			eventually(t, "an error of a LUN that is gone", func() bool { return write() != nil })
			r.Must("-m", "session", "--rescan")
			if got := link(); got != "" {
				t.Errorf("a link leads to %s, whose LUN is gone", got)
			}
			d.Close()
			eventually(t, "the end of the device", func() bool { return len(devices()) == 0 })
			if err := tgt.srv.SetLUN(targetName, 1, tgt.lun); err != nil {
				t.Fatal(err)
			}
		} else {
			other := newDisk(diskSize)
			if err := tgt.srv.SetLUN(targetName, 1, &iscsitest.LUN{Store: other, WriteCache: true, Serial: "second", NAA: []byte{0x30, 0, 0, 0, 0, 0, 0, 2}}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "an error of a disk that is another one", func() bool { return write() != nil })
			r.Must("-m", "session", "--rescan")
			// It is open still, so its number cannot be the new disk's.
			if got := link(); got == disk || got == "" {
				t.Errorf("the link of the new disk leads to %q, the old one was %s", got, disk)
			}
			if err := write(); err == nil {
				t.Error("the old device can be written to")
			}
			if !other.unwritten() {
				t.Errorf("the other disk was written to %d times", other.written())
			}
			d.Close()
			// The first one comes back, which is another disk once more.
			if err := tgt.srv.SetLUN(targetName, 1, tgt.lun); err != nil {
				t.Fatal(err)
			}
		}
		r.Must("-m", "session", "--rescan")
		eventually(t, "a device", func() bool { return len(devices()) == 1 && link() == devices()[0] })
	}
	r.Must("-m", "session", "-u")
	tgt.violations()
}
