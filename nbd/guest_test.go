//go:build linux && guest

package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// The tests in this file need root and a kernel whose nbd driver nobody else
// uses, so they are for a guest:
//
//	CGO_ENABLED=0 go test -tags guest -c ./nbd

// guestTimeout bounds each step of a test; the guest may be slow.
const guestTimeout = 60 * time.Second

// openKernel loads the driver and opens it.
func openKernel(t *testing.T) *nbd.Controller {
	t.Helper()
	c, err := nbd.Open(nil)
	if errors.Is(err, nbd.ErrNotSupported) {
		if err = nbd.LoadModule(t.Context()); err == nil {
			c, err = nbd.Open(nil)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A kernelDevice is an attached device with the servers of its sockets.
type kernelDevice struct {
	*nbd.Device
	t       testing.TB
	export  *nbd.Export
	backend nbd.Backend
	wg      sync.WaitGroup

	mu    sync.Mutex // protects what follows
	conns []net.Conn
	errs  []error
}

// serve serves further sockets of the device.
func (d *kernelDevice) serve(conns []net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, conns...)
	for _, nc := range conns {
		d.wg.Add(1)
		go func() {
			defer d.wg.Done()
			err := nbd.ServeConn(context.Background(), nc, d.export, d.backend, nil)
			d.mu.Lock()
			d.errs = append(d.errs, err)
			d.mu.Unlock()
		}()
	}
}

// cut closes the server's ends, as the death of the daemon would.
func (d *kernelDevice) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, nc := range d.conns {
		nc.Close()
	}
	d.conns = nil
}

// connect attaches a device for the length of the test.
func connect(t *testing.T, c *nbd.Controller, cfg nbd.DeviceConfig, b nbd.Backend) *kernelDevice {
	t.Helper()
	cfg.Index = -1
	if cfg.BackendID == "" {
		cfg.BackendID = "test-" + t.Name()
	}
	dev, conns, err := c.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &kernelDevice{Device: dev, t: t, export: cfg.Export, backend: b}
	d.serve(conns)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), guestTimeout)
		defer cancel()
		if err := d.Detach(ctx); err != nil {
			t.Error(err)
		}
		d.cut()
		d.wg.Wait()
	})
	return d
}

// sysAttr returns an attribute of a block device.
func sysAttr(t *testing.T, d *nbd.Device, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/sys/block", d.Name(), name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// aligned returns n bytes that O_DIRECT takes.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	off := -int(uintptr(unsafe.Pointer(&b[0]))) & 4095
	return b[off : off+n]
}

// open opens the device node, without the page cache.
func open(t *testing.T, d *nbd.Device) *os.File {
	t.Helper()
	f, err := os.OpenFile(d.Path(), os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestKernelSeesTheExport(t *testing.T) {
	c := openKernel(t)
	for _, tt := range []struct {
		name      string
		blockSize uint32
		readOnly  bool
	}{
		{"blocks of 512", 512, false},
		{"blocks of 4096", 4096, false},
		{"read-only", 512, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := nbdtest.NewMemory(8 << 20)
			e := m.Export("")
			e.BlockSize, e.ReadOnly = tt.blockSize, tt.readOnly
			d := connect(t, c, nbd.DeviceConfig{Export: e, BackendID: "lun 7"}, m)
			if err := d.Tune(nbd.DefaultQueueSettings(1)); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{
				"size":                     fmt.Sprint(8 << 20 >> 9),
				"queue/logical_block_size": fmt.Sprint(tt.blockSize),
				"ro":                       fmt.Sprint(map[bool]int{true: 1}[tt.readOnly]),
				"queue/max_sectors_kb":     "1024",
				"queue/io_timeout":         "2000",
				"queue/read_ahead_kb":      "2048",
				"queue/write_cache":        "write back",
				"backend":                  "lun 7",
			} {
				if got := sysAttr(t, d.Device, name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if got := sysAttr(t, d.Device, "queue/scheduler"); !strings.Contains(got, "[none]") {
				t.Errorf("scheduler is %q, want none", got)
			}
			info, err := c.Info(d.Index)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", info.PID)); err != nil {
				t.Errorf("pid %d is no thread of this process", info.PID)
			}
			want := nbd.DeviceInfo{Index: d.Index, Connected: true, PID: info.PID, BackendID: "lun 7", Size: 8 << 20, ReadOnly: tt.readOnly}
			if *info != want {
				t.Errorf("info is %+v, want %+v", *info, want)
			}
			status, err := c.Status(t.Context(), d.Index)
			if err != nil {
				t.Fatal(err)
			}
			if len(status) != 1 || status[0] != (nbd.DeviceStatus{Index: d.Index, Connected: true}) {
				t.Errorf("status is %+v", status)
			}
		})
	}
}

func TestKernelWritesAndReads(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(16 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export("")}, m)
	if err := d.Tune(nbd.DefaultQueueSettings(1)); err != nil {
		t.Fatal(err)
	}
	f := open(t, d.Device)
	for _, n := range []int{512, 4096, 128 << 10, 1 << 20, 4 << 20} {
		want := aligned(n)
		copy(want, pattern(n, byte(n>>9)))
		if _, err := f.WriteAt(want, 4096); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Bytes(4096, n), want) {
			t.Fatalf("backend got other data in a write of %d bytes", n)
		}
		got := aligned(n)
		if _, err := f.ReadAt(got, 4096); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("a read of %d bytes got other data", n)
		}
	}
}

func TestKernelFlushFUAAndTrimArrive(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(16 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export("")}, m)
	f := open(t, d.Device)
	b := aligned(4096)
	copy(b, pattern(4096, 1))
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := m.Seen(nbd.CmdFlush, 0); n == 0 {
		t.Error("no flush after fsync")
	}
	fua, err := os.OpenFile(d.Path(), os.O_RDWR|syscall.O_DIRECT|syscall.O_DSYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fua.Close()
	if _, err := fua.WriteAt(b, 4096); err != nil {
		t.Fatal(err)
	}
	if n := m.Seen(nbd.CmdWrite, nbd.CmdFlagFUA); n == 0 {
		t.Error("no FUA write from O_DSYNC")
	}
	// BLKDISCARD takes an array of offset and length.
	r := [2]uint64{0, 8 << 20}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&r))); e != 0 {
		t.Fatal(e)
	}
	if n := m.Seen(nbd.CmdTrim, 0); n != 1 {
		t.Errorf("discard of 8 MiB came as %d requests, want 1", n)
	}
	if !bytes.Equal(m.Bytes(0, 8192), make([]byte, 8192)) {
		t.Error("discarded data are still there")
	}
}

func TestKernelZeroes(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(16 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export("")}, m)
	f := open(t, d.Device)
	b := aligned(64 << 10)
	copy(b, pattern(len(b), 1))
	if _, err := f.WriteAt(b, 4096); err != nil {
		t.Fatal(err)
	}
	// BLKZEROOUT takes an array of offset and length.
	r := [2]uint64{4096, uint64(len(b))}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r))); e != 0 {
		t.Fatal(e)
	}
	if !bytes.Equal(m.Bytes(4096, len(b)), make([]byte, len(b))) {
		t.Error("data are not zero")
	}
	// Drivers before 6.12 send zeroes as data.
	seen := m.Seen(nbd.CmdWriteZeroes, 0) + m.Seen(nbd.CmdWriteZeroes, nbd.CmdFlagNoHole)
	if able := sysAttr(t, d.Device, "queue/write_zeroes_max_bytes") != "0"; able != (seen > 0) {
		t.Errorf("%d requests to write zeroes came from a driver that can: %v", seen, able)
	}
}

func TestKernelFollowsResize(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(16 << 20)
	e := m.Export("")
	e.SetSize(8 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: e}, m)
	f := open(t, d.Device)
	b := aligned(4096)
	if _, err := f.WriteAt(b, 8<<20); err == nil {
		t.Fatal("write beyond the end succeeded")
	}
	for _, size := range []uint64{16 << 20, 4 << 20} {
		if err := d.Resize(t.Context(), size); err != nil {
			t.Fatal(err)
		}
		if got := sysAttr(t, d.Device, "size"); got != fmt.Sprint(size>>9) {
			t.Fatalf("size is %s sectors, want %d", got, size>>9)
		}
		if _, err := f.WriteAt(b, int64(size)-4096); err != nil {
			t.Fatalf("write of the last block of %d bytes: %v", size, err)
		}
	}
}

func TestKernelErrorsAreEIO(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(1 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export("")}, m)
	f := open(t, d.Device)
	m.Hook(func(r *nbd.Request) syscall.Errno {
		if r.Cmd == nbd.CmdWrite {
			return syscall.ENOSPC
		}
		return 0
	})
	if _, err := f.WriteAt(aligned(4096), 0); !errors.Is(err, syscall.EIO) {
		t.Fatalf("write got %v, want EIO", err)
	}
}
