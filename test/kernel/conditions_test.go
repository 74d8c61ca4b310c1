//go:build guest

package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
	"github.com/goiscsi/goiscsi/test/lab"
)

// What a disk says to a command must reach the program that uses its device,
// and nothing else must: conditions that pass are none of its business.

// page is the unit of direct I/O here.
const page = 4096

// direct is a device that is read and written without the kernel's cache, so
// that each call is one command.
type direct struct {
	t   *testing.T
	f   *os.File
	buf []byte // aligned
}

func openDirect(t *testing.T, disk string) *direct {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b := make([]byte, 3*page)
	skip := (page - int(uintptr(unsafe.Pointer(&b[0]))%page)) % page
	return &direct{t: t, f: f, buf: b[skip : skip+2*page]}
}

func (d *direct) read(at int64) error {
	_, err := d.f.ReadAt(d.buf[:page], at)
	return err
}

func (d *direct) write(at int64) error {
	_, err := d.f.WriteAt(d.buf[:page], at)
	return err
}

// oneLUN serves a disk from this process and logs in to it. The device is at
// its by-path link.
func oneLUN(t *testing.T, lun *iscsitest.LUN) (*lab.Host, *lab.Daemon, *iscsitest.Server, string) {
	t.Helper()
	if lab.Reference() {
		t.Skip("the kernel's own initiator decides in other ways")
	}
	srv := iscsitest.NewUnstartedServer(iscsitest.Config{
		Addrs:   []string{"127.0.0.1:3260"},
		Targets: []iscsitest.Target{{Name: tutorialTarget, LUNs: map[uint64]*iscsitest.LUN{1: lun}}},
	})
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	h := lab.NewMachine(t)
	d := h.StartDaemon()
	h.Must("-m", "discovery", "-t", "st", "-p", "127.0.0.1")
	h.Must("-m", "node", "-T", tutorialTarget, "-l")
	return h, d, srv, byPath("127.0.0.1:3260", tutorialTarget, 1)
}

// TestConditionsThatPassAreNotSeen has commands meet what is over soon.
func TestConditionsThatPassAreNotSeen(t *testing.T) {
	lun := &iscsitest.LUN{Store: iscsitest.NewMemStore(16 << 20)}
	_, _, _, disk := oneLUN(t, lun)
	d := openDirect(t, disk)
	check := scsi.StatusCheckCondition
	sense := func(key scsi.SenseKey, asc, ascq uint8) []byte { return scsi.NewSense(key, asc, ascq).Append(nil) }
	for _, c := range []struct {
		name   string
		times  int
		status scsi.Status
		sense  []byte
	}{
		{"busy", 4, scsi.StatusBusy, nil},
		{"task set full", 4, scsi.StatusTaskSetFull, nil},
		{"task aborted", 2, scsi.StatusTaskAborted, nil},
		{"power on", 1, check, sense(scsi.KeyUnitAttention, 0x29, 0x00)},
		{"mode parameters changed", 1, check, sense(scsi.KeyUnitAttention, 0x2a, 0x01)},
		{"capacity changed", 1, check, sense(scsi.KeyUnitAttention, 0x2a, 0x09)},
		{"inventory changed", 1, check, sense(scsi.KeyUnitAttention, 0x3f, 0x0e)},
		{"thin provisioning threshold", 1, check, sense(scsi.KeyUnitAttention, 0x38, 0x07)},
		{"access state transition", 3, check, sense(scsi.KeyNotReady, 0x04, 0x0a)},
		{"becoming ready", 3, check, sense(scsi.KeyNotReady, 0x04, 0x01)},
		{"aborted command", 2, check, sense(scsi.KeyAbortedCommand, 0x00, 0x00)},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer lun.StopFailing()
			for what, do := range map[string]func(int64) error{"read": d.read, "write": d.write} {
				lun.FailN(c.times, c.status, c.sense, isIO)
				if err := do(page); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// isIO picks the commands that carry the program's data.
func isIO(cdb []byte) bool {
	switch scsi.Opcode(cdb[0]) {
	case scsi.OpRead10, scsi.OpRead16, scsi.OpWrite10, scsi.OpWrite16:
		return true
	}
	return false
}

// TestConditionsThatStayAreErrors has writes fail for good. The kernel's driver
// knows one error only. The disk works on when the reason is gone.
func TestConditionsThatStayAreErrors(t *testing.T) {
	lun := &iscsitest.LUN{Store: iscsitest.NewMemStore(16 << 20)}
	_, _, _, disk := oneLUN(t, lun)
	d := openDirect(t, disk)
	check := scsi.StatusCheckCondition
	for name, c := range map[string]struct {
		status scsi.Status
		sense  []byte
	}{
		"reservation conflict": {scsi.StatusReservationConflict, nil},
		"space exhausted":      {check, scsi.NewSense(scsi.KeyDataProtect, 0x27, 0x07).Append(nil)},
		"write protected":      {check, scsi.NewSense(scsi.KeyDataProtect, 0x27, 0x00).Append(nil)},
		"hardware error":       {check, scsi.NewSense(scsi.KeyHardwareError, 0x44, 0x00).Append(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			lun.FailN(-1, c.status, c.sense, func(cdb []byte) bool { return isIO(cdb) && cdb[0]&0x0f == 0x0a })
			if err := d.write(page); !errors.Is(err, syscall.EIO) {
				t.Errorf("write: %v, want EIO", err)
			}
			if err := d.read(page); err != nil {
				t.Errorf("read: %v", err)
			}
			lun.StopFailing()
			if err := d.write(page); err != nil {
				t.Errorf("write afterwards: %v", err)
			}
		})
	}
}

// TestMediumErrorIsOfOneBlock has one block that cannot be read: it is an
// error, its neighbours are not, and writing it anew repairs it.
func TestMediumErrorIsOfOneBlock(t *testing.T) {
	const bad = 5 // pages
	var broken atomic.Bool
	lun := &iscsitest.LUN{Store: iscsitest.NewMemStore(16 << 20)}
	_, _, _, disk := oneLUN(t, lun)
	d := openDirect(t, disk)
	broken.Store(true)
	lun.FailN(-1, scsi.StatusCheckCondition, scsi.NewSense(scsi.KeyMediumError, 0x11, 0x00).Append(nil), func(cdb []byte) bool {
		cmd, err := scsi.ParseCommand(cdb)
		if err != nil || !isIO(cdb) {
			return false
		}
		first, last := cmd.LBA*512/page, (cmd.LBA+uint64(cmd.Blocks)-1)*512/page
		if first > bad || last < bad {
			return false
		}
		if cmd.Op == scsi.OpWrite10 || cmd.Op == scsi.OpWrite16 {
			broken.Store(false)
		}
		return broken.Load()
	})
	for at := int64(0); at < 10; at++ {
		if err := d.read(at * page); at == bad && !errors.Is(err, syscall.EIO) || at != bad && err != nil {
			t.Errorf("page %d: %v", at, err)
		}
	}
	if err := d.write(bad * page); err != nil {
		t.Fatalf("write of the bad page: %v", err)
	}
	if err := d.read(bad * page); err != nil {
		t.Errorf("the page that was written anew: %v", err)
	}
}

// TestThresholdIsLogged wants a word to the administrator while there is still
// space.
func TestThresholdIsLogged(t *testing.T) {
	lun := &iscsitest.LUN{Store: iscsitest.NewMemStore(16 << 20), Thin: true}
	_, daemon, _, disk := oneLUN(t, lun)
	d := openDirect(t, disk)
	lun.FailNext(scsi.StatusCheckCondition, scsi.NewSense(scsi.KeyUnitAttention, 0x38, 0x07).Append(nil), isIO)
	if err := d.write(0); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, "the threshold in the log", func() bool { return strings.Contains(daemon.Log(), "threshold") })
}

// TestInventoryChangeBringsUnitsAndTakesThemAway needs no rescan: the target
// says so, and the devices come and go.
func TestInventoryChangeBringsUnitsAndTakesThemAway(t *testing.T) {
	_, _, srv, disk := oneLUN(t, &iscsitest.LUN{Store: iscsitest.NewMemStore(16 << 20)})
	d := openDirect(t, disk)
	second := byPath("127.0.0.1:3260", tutorialTarget, 2)
	change := func(lun *iscsitest.LUN) {
		if err := srv.SetLUN(tutorialTarget, 2, lun); err != nil {
			t.Fatal(err)
		}
		srv.UnitAttention(tutorialTarget, 1, 0x3f, 0x0e)
		if err := d.read(0); err != nil {
			t.Fatal(err)
		}
	}
	exists := func() bool { _, err := os.Stat(second); return err == nil }
	change(&iscsitest.LUN{Store: iscsitest.NewMemStore(8 << 20)})
	lab.Eventually(t, "the second unit", exists)
	change(nil)
	lab.Eventually(t, "the second unit to go", func() bool { return !exists() })
}

// TestDiscardReachesTheTarget has blkdiscard free space at the target.
func TestDiscardReachesTheTarget(t *testing.T) {
	h, _, _, disk := oneLUN(t, &iscsitest.LUN{Store: iscsitest.NewMemStore(16 << 20), Thin: true, WriteCache: true})
	h.Shell("dd if=/dev/urandom of=" + disk + " bs=1M count=4 oflag=direct status=none")
	h.Shell("blkdiscard -o 1048576 -l 1048576 " + disk)
	// Four megabytes, of which the second is zeroes and no other is.
	for i, want := range []bool{false, true, false, false} {
		n := strings.TrimSpace(h.Shell(fmt.Sprintf("dd if=%s bs=1M skip=%d count=1 iflag=direct status=none | tr -d '\\000' | wc -c", disk, i)))
		if got := n == "0"; got != want {
			t.Errorf("megabyte %d has %s bytes that are not zero", i, n)
		}
	}
}

// TestDiskBeyond32Bits reaches blocks that only the long commands address.
func TestDiskBeyond32Bits(t *testing.T) {
	const size = 5 << 40
	h, _, srv, disk := oneLUN(t, &iscsitest.LUN{Store: iscsitest.NullStore(size)})
	checkDevice(t, h, h.Disk(tutorialTarget, "1"), device{size: size, blockSize: 512})
	var long atomic.Int32
	srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		cmd, err := scsi.ParseCommand(p.(*pdu.SCSICommand).CDB[:])
		if err == nil && (cmd.Op == scsi.OpRead16 || cmd.Op == scsi.OpWrite16) && cmd.LBA == (size-page)/512 {
			long.Add(1)
		}
		return iscsitest.Pass()
	})
	d := openDirect(t, disk)
	if err := errors.Join(d.write(size-page), d.read(size-page)); err != nil {
		t.Error(err)
	}
	if n := long.Load(); n != 2 {
		t.Errorf("%d long commands, want 2", n)
	}
}
