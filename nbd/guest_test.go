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

func TestKernelDisconnectWritesBack(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(8 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export("")}, m)
	f, err := os.OpenFile(d.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := pattern(4<<20, 3)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	// Still open: closing would write back by itself.
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	if err := d.Disconnect(ctx); !errors.Is(err, nbd.ErrHeldOpen) {
		t.Fatalf("disconnect of an open device: %v, want ErrHeldOpen", err)
	}
	f.Close()
	if err := d.WaitGone(ctx); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Bytes(0, len(want)), want) {
		t.Error("dirty pages were not written back before the disconnect")
	}
	if info, err := c.Info(d.Index); err == nil && info.Connected {
		t.Error("device is connected after Disconnect")
	}
	d.wg.Wait()
	if d.errs[0] != nil {
		t.Errorf("ServeConn: %v, want nil after NBD_CMD_DISC", d.errs[0])
	}
}

func TestKernelDetachFailsWhatIsInFlight(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(1 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export("")}, m)
	f := open(t, d.Device)
	arrived, proceed := make(chan struct{}), make(chan struct{})
	m.Hook(func(r *nbd.Request) syscall.Errno {
		if r.Cmd == nbd.CmdWrite {
			close(arrived)
			<-proceed
		}
		return 0
	})
	werr := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(aligned(4096), 0)
		werr <- err
	}()
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	if err := d.Detach(ctx); !errors.Is(err, nbd.ErrHeldOpen) {
		t.Errorf("detach of an open device: %v, want ErrHeldOpen", err)
	}
	if err := <-werr; err == nil {
		t.Error("write in flight succeeded")
	}
	close(proceed)
	d.wg.Wait()
}

func TestKernelGoesOnAfterReconfigure(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(4 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export(""), DeadConnTimeout: 5 * time.Minute}, m)
	q := nbd.DefaultQueueSettings(1)
	q.IOTimeout = time.Second
	if err := d.Tune(q); err != nil {
		t.Fatal(err)
	}
	f := open(t, d.Device)

	// A write is in flight when the socket dies: its reply never comes.
	arrived, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m.Hook(func(r *nbd.Request) syscall.Errno {
		if r.Cmd == nbd.CmdWrite {
			once.Do(func() {
				close(arrived)
				<-proceed
			})
		}
		return 0
	})
	want := aligned(64 << 10)
	copy(want, pattern(len(want), 5))
	werr := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(want, 0)
		werr <- err
	}()
	<-arrived
	dead := c.LinkDead(t.Context())
	d.cut()
	close(proceed)
	for i := range dead {
		if i == d.Index {
			break
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	start := time.Now()
	conns, err := d.Reconfigure(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	d.serve(conns)
	select {
	case err := <-werr:
		if err != nil {
			t.Fatalf("write across the death of the socket: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("write in flight was not sent again")
	}
	t.Logf("write completed %v after the reconfigure", time.Since(start))
	if !bytes.Equal(m.Bytes(0, len(want)), want) {
		t.Error("data differ")
	}
	got := aligned(len(want))
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("data differ when read")
	}
}

func TestKernelDeadConnTimeoutFailsAndReconfigureRevives(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(1 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export(""), DeadConnTimeout: time.Second}, m)
	if err := d.Tune(nbd.DefaultQueueSettings(1)); err != nil {
		t.Fatal(err)
	}
	f := open(t, d.Device)
	d.cut()
	if _, err := f.WriteAt(aligned(4096), 0); !errors.Is(err, syscall.EIO) {
		t.Fatalf("write without a server: %v, want EIO", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	conns, err := d.Reconfigure(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	d.serve(conns)
	if _, err := f.WriteAt(aligned(4096), 0); err != nil {
		t.Fatalf("write after the reconfigure: %v", err)
	}
}

func TestKernelReconfigureWaitsForTheOldSocket(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(1 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export(""), DeadConnTimeout: 5 * time.Minute}, m)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	conns, err := d.Reconfigure(ctx, 1)
	if !errors.Is(err, context.DeadlineExceeded) || len(conns) != 0 {
		t.Fatalf("reconfigure of a live socket: %d taken, %v", len(conns), err)
	}
	// The device has not suffered.
	if _, err := open(t, d.Device).ReadAt(aligned(4096), 0); err != nil {
		t.Fatal(err)
	}
}

func TestKernelDeviceOfAnotherIsNotTouched(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(1 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export(""), BackendID: "theirs"}, m)
	if _, err := c.Attach(d.Index, nbd.DeviceConfig{Export: m.Export(""), BackendID: "ours"}); !errors.Is(err, nbd.ErrForeignDevice) {
		t.Errorf("attach: %v, want ErrForeignDevice", err)
	}
	if _, err := c.Attach(d.Index, nbd.DeviceConfig{Export: m.Export("")}); !errors.Is(err, nbd.ErrForeignDevice) {
		t.Errorf("attach without identifier: %v, want ErrForeignDevice", err)
	}
	if _, err := c.Attach(d.Index+100, nbd.DeviceConfig{Export: m.Export("")}); !errors.Is(err, nbd.ErrNoDevice) {
		t.Errorf("attach to a device that is not there: %v, want ErrNoDevice", err)
	}
	mine, err := c.Attach(d.Index, nbd.DeviceConfig{Export: m.Export(""), BackendID: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	if mine.Path() != d.Path() {
		t.Errorf("attached to %s, want %s", mine.Path(), d.Path())
	}
}

func TestKernelSeveralConnections(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(4 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export(""), Connections: 3, DeadConnTimeout: time.Minute}, m)
	f := open(t, d.Device)
	want := aligned(1 << 20)
	copy(want, pattern(len(want), 9))
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	// All die, and all come back.
	d.cut()
	ctx, cancel := context.WithTimeout(t.Context(), guestTimeout)
	defer cancel()
	conns, err := d.Reconfigure(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	d.serve(conns)
	got := aligned(len(want))
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("data differ")
	}
}

func TestKernelDrainedSocketIsServedOn(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(16 << 20)
	e := m.Export("")
	dev, conns, err := c.Connect(t.Context(), nbd.DeviceConfig{Export: e, Index: -1, BackendID: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	nc := conns[0]
	ctx, handOver := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- nbd.ServeConn(ctx, nc, e, m, nil) }()
	f := open(t, dev)
	wdone := make(chan error, 1)
	want := aligned(8 << 20)
	copy(want, pattern(len(want), 11))
	go func() {
		for off := 0; off < len(want); off += 256 << 10 {
			if _, err := f.WriteAt(want[off:off+256<<10], int64(off)); err != nil {
				wdone <- err
				return
			}
		}
		wdone <- nil
	}()
	for range 20 {
		handOver()
		if err := <-served; !errors.Is(err, nbd.ErrDrained) {
			t.Fatalf("ServeConn: %v, want ErrDrained", err)
		}
		ctx, handOver = context.WithCancel(context.Background())
		go func() { served <- nbd.ServeConn(ctx, nc, e, m, nil) }()
	}
	defer handOver()
	if err := <-wdone; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Bytes(0, len(want)), want) {
		t.Error("data differ")
	}
	f.Close()
	if err := dev.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

func TestKernelBusyDeviceIsSeen(t *testing.T) {
	c := openKernel(t)
	m := nbdtest.NewMemory(1 << 20)
	d := connect(t, c, nbd.DeviceConfig{Export: m.Export("")}, m)
	f := open(t, d.Device)
	if err := d.Busy(); err != nil {
		t.Fatalf("a device that is only open: %v", err)
	}
	f.Close()
	excl, err := os.OpenFile(d.Path(), os.O_RDONLY|syscall.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer excl.Close()
	var busy *nbd.BusyError
	if err := d.Busy(); !errors.As(err, &busy) {
		t.Fatalf("a claimed device: %v, want a BusyError", err)
	}
}

func TestKernelCyclesLeaveNothing(t *testing.T) {
	c := openKernel(t)
	before, err := c.Devices()
	if err != nil {
		t.Fatal(err)
	}
	fds := openFiles(t)
	m := nbdtest.NewMemory(1 << 20)
	for i := range 50 {
		e := m.Export("")
		dev, conns, err := c.Connect(t.Context(), nbd.DeviceConfig{Export: e, Index: -1, BackendID: fmt.Sprint("cycle ", i)})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- nbd.ServeConn(context.Background(), conns[0], e, m, nil) }()
		if i%5 == 0 {
			f := open(t, dev)
			if _, err := f.WriteAt(aligned(4096), 0); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		if err := dev.Disconnect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
	}
	after, err := c.Devices()
	if err != nil {
		t.Fatal(err)
	}
	if len(after) > len(before) {
		t.Errorf("%d devices are left of %d before: %+v", len(after), len(before), after)
	}
	if n := openFiles(t); n > fds {
		t.Errorf("%d files are open, %d before", n, fds)
	}
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
