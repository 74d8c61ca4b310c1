//go:build linux

package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// fakeKernel returns a driver and a controller of it.
func fakeKernel(t *testing.T) (*nbdtest.Kernel, *nbd.Controller) {
	t.Helper()
	k, err := nbdtest.NewKernel(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := nbd.Open(k.Options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		k.Close()
	})
	return k, c
}

// fakeDevice connects a device; its sockets are closed with the test.
func fakeDevice(t *testing.T, c *nbd.Controller, cfg nbd.DeviceConfig) (*nbd.Device, []net.Conn) {
	t.Helper()
	if cfg.Export == nil {
		cfg.Export = &nbd.Export{Size: 1 << 20}
	}
	if cfg.BackendID == "" {
		cfg.BackendID = "ours"
	}
	d, conns, err := c.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(conns) })
	return d, conns
}

func closeAll(conns []net.Conn) {
	for _, nc := range conns {
		nc.Close()
	}
}

func TestOpenWithoutDriver(t *testing.T) {
	k, err := nbdtest.NewKernel(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	k.Unload()
	if _, err := nbd.Open(k.Options()); !errors.Is(err, nbd.ErrNotSupported) {
		t.Fatalf("got %v, want ErrNotSupported", err)
	}
	k.Load()
	c, err := nbd.Open(k.Options())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	c.Close() // again
}

func TestConnectTellsTheDriverEverything(t *testing.T) {
	k, c := fakeKernel(t)
	e := &nbd.Export{Size: 8<<20 + 100, BlockSize: 4096, Flush: true, FUA: true, Trim: true, MultiConn: true}
	d, conns := fakeDevice(t, c, nbd.DeviceConfig{
		Export: e, Index: -1, Connections: 2, BackendID: "lun 3",
		DeadConnTimeout: 90*time.Second + time.Millisecond, Timeout: 5 * time.Second,
	})
	got, ok := k.Device(d.Index)
	if !ok {
		t.Fatal("no device")
	}
	if len(conns) != 2 || len(got.Peers) != 2 {
		t.Fatalf("%d sockets here, %d there, want 2", len(conns), len(got.Peers))
	}
	got.Peers = nil
	want := nbdtest.KernelDevice{
		Connected: true, Size: 8 << 20, BlockSize: 4096, ServerFlags: uint64(e.Flags()),
		ClientFlags: 1, Timeout: 5, DeadConnTimeout: 91, BackendID: "lun 3",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("driver has %+v, want %+v", got, want)
	}
	if d.Name() != "nbd0" || filepath.Base(d.Path()) != "nbd0" {
		t.Errorf("device is called %s, %s", d.Name(), d.Path())
	}
	if d.Config().BackendID != "lun 3" {
		t.Errorf("config is %+v", d.Config())
	}
}

func TestConnectedDeviceIsServed(t *testing.T) {
	k, c := fakeKernel(t)
	m := nbdtest.NewMemory(1 << 20)
	d, conns := fakeDevice(t, c, nbd.DeviceConfig{Export: m.Export(""), Index: -1})
	done := make(chan error, 1)
	go func() { done <- nbd.ServeConn(context.Background(), conns[0], m.Export(""), m, nil) }()
	kd, _ := k.Device(d.Index)
	if err := kd.Peers[0].Write(pattern(8192, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Bytes(0, 8192), pattern(8192, 1)) {
		t.Error("data differ")
	}
	if err := d.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("ServeConn: %v", err)
	}
	if _, ok := k.Device(d.Index); ok {
		t.Error("device is still there")
	}
}

func TestConnectIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		errnos []syscall.Errno
		want   error
		calls  int
	}{
		{"passing trouble", []syscall.Errno{syscall.EBADF, syscall.EINVAL, syscall.EBUSY}, nil, 4},
		{"lasting trouble", []syscall.Errno{syscall.EBUSY, syscall.EBUSY, syscall.EBUSY, syscall.EBUSY, syscall.EBUSY}, syscall.EBUSY, 5},
		{"no permission", []syscall.Errno{syscall.EPERM}, os.ErrPermission, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, c := fakeKernel(t)
			k.FailNext(nbdtest.OpConnect, tt.errnos...)
			_, conns, err := c.Connect(t.Context(), nbd.DeviceConfig{Export: &nbd.Export{Size: 4096}, Index: -1})
			closeAll(conns)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if n := k.Calls(nbdtest.OpConnect); n != tt.calls {
				t.Errorf("tried %d times, want %d", n, tt.calls)
			}
		})
	}
}

func TestConnectLeavesNoSocketsWhenItFails(t *testing.T) {
	k, c := fakeKernel(t)
	before := countFiles(t)
	k.FailNext(nbdtest.OpConnect, syscall.EPERM)
	if _, _, err := c.Connect(t.Context(), nbd.DeviceConfig{Export: &nbd.Export{Size: 4096, MultiConn: true}, Connections: 4}); err == nil {
		t.Fatal("no error")
	}
	if n := countFiles(t); n != before {
		t.Errorf("%d files are open, %d before", n, before)
	}
}

func countFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestConfigIsChecked(t *testing.T) {
	_, c := fakeKernel(t)
	for name, cfg := range map[string]nbd.DeviceConfig{
		"no export":           {},
		"large blocks":        {Export: &nbd.Export{Size: 1 << 20, BlockSize: 64 << 10}},
		"no block":            {Export: &nbd.Export{Size: 100}},
		"invalid export":      {Export: &nbd.Export{Size: 1 << 20, BlockSize: 3}},
		"several connections": {Export: &nbd.Export{Size: 1 << 20}, Connections: 2},
	} {
		var de *nbd.DeviceError
		if _, _, err := c.Connect(t.Context(), cfg); !errors.As(err, &de) {
			t.Errorf("connect with %s: %v, want a DeviceError", name, err)
		}
		if _, err := c.Attach(0, cfg); !errors.As(err, &de) {
			t.Errorf("attach with %s: %v, want a DeviceError", name, err)
		}
	}
}

func TestContextThatEndedStopsEverything(t *testing.T) {
	k, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := c.Connect(ctx, d.Config()); !errors.Is(err, context.Canceled) {
		t.Errorf("connect: %v", err)
	}
	if _, err := d.Reconfigure(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("reconfigure: %v", err)
	}
	if err := d.Resize(ctx, 4096); !errors.Is(err, context.Canceled) {
		t.Errorf("resize: %v", err)
	}
	if err := d.Detach(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("detach: %v", err)
	}
	if _, err := c.Status(ctx, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("status: %v", err)
	}
	if n := k.Calls(nbdtest.OpDisconnect) + k.Calls(nbdtest.OpReconfigure) + k.Calls(nbdtest.OpStatus); n != 0 {
		t.Errorf("%d commands were sent", n)
	}
}

func TestReconfigureReplacesADeadSocket(t *testing.T) {
	k, c := fakeKernel(t)
	m := nbdtest.NewMemory(1 << 20)
	d, conns := fakeDevice(t, c, nbd.DeviceConfig{Export: m.Export("")})
	closeAll(conns)
	k.Kill(d.Index)
	conns, err := d.Reconfigure(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(conns)
	done := make(chan error, 1)
	go func() { done <- nbd.ServeConn(context.Background(), conns[0], m.Export(""), m, nil) }()
	kd, _ := k.Device(d.Index)
	if _, err := kd.Peers[0].Read(0, 4096); err != nil {
		t.Error(err)
	}
	if err := kd.Peers[0].Disconnect(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The driver acknowledges a socket that it does not take, because it has not
// noticed yet that the old one is dead.
func TestReconfigureIsNotFooledByTheAcknowledgement(t *testing.T) {
	k, c := fakeKernel(t)
	d, conns := fakeDevice(t, c, nbd.DeviceConfig{})
	closeAll(conns)
	type result struct {
		conns []net.Conn
		err   error
	}
	done := make(chan result, 1)
	go func() {
		conns, err := d.Reconfigure(t.Context(), 1)
		done <- result{conns, err}
	}()
	k.AwaitCalls(nbdtest.OpReconfigure, 2)
	select {
	case r := <-done:
		t.Fatalf("returned with %d sockets while the old one lives: %v", len(r.conns), r.err)
	default:
	}
	k.Kill(d.Index)
	r := <-done
	if r.err != nil || len(r.conns) != 1 {
		t.Fatalf("got %d sockets, %v", len(r.conns), r.err)
	}
	closeAll(r.conns)
}

func TestReconfigureGivesUpOnALiveSocket(t *testing.T) {
	_, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	before := countFiles(t)
	conns, err := d.Reconfigure(ctx, 1)
	if !errors.Is(err, context.DeadlineExceeded) || len(conns) != 0 {
		t.Errorf("got %d sockets, %v", len(conns), err)
	}
	if n := countFiles(t); n != before {
		t.Errorf("%d files are open, %d before", n, before)
	}
}

func TestReconfigureReplacesAllThatDied(t *testing.T) {
	k, c := fakeKernel(t)
	d, conns := fakeDevice(t, c, nbd.DeviceConfig{Export: &nbd.Export{Size: 1 << 20, MultiConn: true}, Connections: 3})
	closeAll(conns)
	k.Kill(d.Index)
	conns, err := d.Reconfigure(t.Context(), 3)
	if err != nil || len(conns) != 3 {
		t.Fatalf("got %d sockets, %v", len(conns), err)
	}
	closeAll(conns)
}

func TestOthersDevicesAreNotTouched(t *testing.T) {
	k, c := fakeKernel(t)
	theirs, _ := fakeDevice(t, c, nbd.DeviceConfig{BackendID: "theirs"})
	cfg := theirs.Config()
	cfg.BackendID = "ours"
	if _, err := c.Attach(theirs.Index, cfg); !errors.Is(err, nbd.ErrForeignDevice) {
		t.Errorf("attach: %v, want ErrForeignDevice", err)
	}
	if _, err := c.Attach(theirs.Index+1, cfg); !errors.Is(err, nbd.ErrNoDevice) {
		t.Errorf("attach to nothing: %v, want ErrNoDevice", err)
	}
	// Ours went, and its number was given to another.
	mine, _ := fakeDevice(t, c, nbd.DeviceConfig{Index: -1, BackendID: "ours"})
	if err := mine.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	fakeDevice(t, c, nbd.DeviceConfig{Index: mine.Index, BackendID: "theirs too"})
	disconnects := k.Calls(nbdtest.OpDisconnect)
	if err := mine.Detach(t.Context()); !errors.Is(err, nbd.ErrForeignDevice) {
		t.Errorf("detach: %v, want ErrForeignDevice", err)
	}
	if err := mine.Disconnect(t.Context()); !errors.Is(err, nbd.ErrForeignDevice) {
		t.Errorf("disconnect: %v, want ErrForeignDevice", err)
	}
	if _, err := mine.Reconfigure(t.Context(), 1); !errors.Is(err, nbd.ErrForeignDevice) {
		t.Errorf("reconfigure: %v, want ErrForeignDevice", err)
	}
	if err := mine.Resize(t.Context(), 4096); !errors.Is(err, nbd.ErrForeignDevice) {
		t.Errorf("resize: %v, want ErrForeignDevice", err)
	}
	if err := mine.Tune(nbd.DefaultQueueSettings(1)); !errors.Is(err, nbd.ErrForeignDevice) {
		t.Errorf("tune: %v, want ErrForeignDevice", err)
	}
	if n := k.Calls(nbdtest.OpDisconnect) + k.Calls(nbdtest.OpReconfigure); n != disconnects {
		t.Errorf("%d commands were sent to the driver", n-disconnects)
	}
}

func TestAttachTakesADeviceOver(t *testing.T) {
	k, c := fakeKernel(t)
	earlier, conns := fakeDevice(t, c, nbd.DeviceConfig{})
	closeAll(conns) // that process died
	k.Kill(earlier.Index)
	d, err := c.Attach(earlier.Index, earlier.Config())
	if err != nil {
		t.Fatal(err)
	}
	conns, err = d.Reconfigure(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	closeAll(conns)
}

func TestResizeReachesKernelAndServer(t *testing.T) {
	k, c := fakeKernel(t)
	e := &nbd.Export{Size: 1 << 20}
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{Export: e})
	for _, size := range []uint64{4 << 20, 512 << 10} {
		if err := d.Resize(t.Context(), size); err != nil {
			t.Fatal(err)
		}
		info, err := c.Info(d.Index)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != size || e.Size != size {
			t.Errorf("kernel has %d, server %d, want %d", info.Size, e.Size, size)
		}
	}
	k.FailNext(nbdtest.OpReconfigure, syscall.EINVAL)
	if err := d.Resize(t.Context(), 8<<20); err == nil {
		t.Error("no error")
	}
	if e.Size != 512<<10 {
		t.Errorf("server has %d after a resize that failed", e.Size)
	}
}

func TestDeviceHeldOpenIsTold(t *testing.T) {
	k, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{})
	k.Hold(d.Index)
	// The wait is a timer, so let it pass in a bubble.
	synctest.Test(t, func(t *testing.T) {
		if err := d.Detach(context.Background()); !errors.Is(err, nbd.ErrHeldOpen) {
			t.Errorf("got %v, want ErrHeldOpen", err)
		}
	})
	if err := k.Release(d.Index); err != nil {
		t.Fatal(err)
	}
	if err := d.WaitGone(t.Context()); err != nil {
		t.Error(err)
	}
	if err := d.Detach(t.Context()); err != nil {
		t.Errorf("detach of what is gone: %v", err)
	}
}

func TestKeptDeviceStays(t *testing.T) {
	k, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{KeepDevice: true})
	if err := d.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kd, ok := k.Device(d.Index); !ok || kd.Connected {
		t.Errorf("device exists: %v, connected: %v", ok, kd.Connected)
	}
	again, _ := fakeDevice(t, c, nbd.DeviceConfig{Index: -1})
	if again.Index != d.Index {
		t.Errorf("connected nbd%d, want nbd%d again", again.Index, d.Index)
	}
}

func TestStatusAndDevices(t *testing.T) {
	_, c := fakeKernel(t)
	a, _ := fakeDevice(t, c, nbd.DeviceConfig{Index: -1, BackendID: "a"})
	b, _ := fakeDevice(t, c, nbd.DeviceConfig{Index: 12, BackendID: "b", KeepDevice: true, Export: &nbd.Export{Size: 8192, ReadOnly: true}})
	if err := b.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	status, err := c.Status(t.Context(), -1)
	if err != nil {
		t.Fatal(err)
	}
	if want := []nbd.DeviceStatus{{Index: a.Index, Connected: true}, {Index: 12}}; !reflect.DeepEqual(status, want) {
		t.Errorf("status is %+v, want %+v", status, want)
	}
	if one, err := c.Status(t.Context(), 12); err != nil || len(one) != 1 || one[0].Index != 12 {
		t.Errorf("status of one: %+v, %v", one, err)
	}
	if _, err := c.Status(t.Context(), 5); !errors.Is(err, nbd.ErrNoDevice) {
		t.Errorf("status of none: %v, want ErrNoDevice", err)
	}
	devices, err := c.Devices()
	if err != nil {
		t.Fatal(err)
	}
	want := []nbd.DeviceInfo{
		{Index: 0, Connected: true, PID: os.Getpid(), BackendID: "a", Size: 1 << 20},
		{Index: 12, ReadOnly: true},
	}
	if !reflect.DeepEqual(devices, want) {
		t.Errorf("devices are %+v, want %+v", devices, want)
	}
}

func TestTuneSetsTheQueue(t *testing.T) {
	k, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{Export: &nbd.Export{Size: 1 << 20, Rotational: true}})
	q := nbd.DefaultQueueSettings(1)
	q.MaxSectorsKB = 1 << 20 // more than the driver takes
	q.NrRequests = 64
	if err := d.Tune(q); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"scheduler": "none", "max_sectors_kb": "32768", "io_timeout": "2000", "read_ahead_kb": "2048",
		"nr_requests": "64", "rq_affinity": "1\n", "rotational": "1",
	} {
		if got, err := k.Attr(d.Index, "queue/"+name); err != nil || got != want {
			t.Errorf("%s is %q, want %q (%v)", name, got, want, err)
		}
	}
}

// TestTuneLeavesAloneWhatIsSet: writing an attribute can hold up I/O, even if it
// changes nothing.
func TestTuneLeavesAloneWhatIsSet(t *testing.T) {
	k, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{Export: &nbd.Export{Size: 1 << 20, Rotational: true}})
	// As the kernel shows it; what is written loses its newline.
	shown := map[string]string{
		"scheduler": "[none] mq-deadline\n", "max_sectors_kb": "1024\n", "io_timeout": "2000\n", "read_ahead_kb": "2048\n",
		"nr_requests": "64\n", "rq_affinity": "2\n", "rotational": "1\n",
	}
	for name, text := range shown {
		if err := os.WriteFile(filepath.Join(k.Options().Sys, "block/nbd0/queue", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q := nbd.DefaultQueueSettings(1)
	q.NrRequests, q.RQAffinity = 64, 2
	if err := d.Tune(q); err != nil {
		t.Fatal(err)
	}
	for name, want := range shown {
		if got, err := k.Attr(d.Index, "queue/"+name); err != nil || got != want {
			t.Errorf("%s was written: it is %q, was %q (%v)", name, got, want, err)
		}
	}
}

func TestTunePassesOverWhatTheKernelLacks(t *testing.T) {
	k, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{})
	if err := os.Remove(filepath.Join(k.Options().Sys, "block/nbd0/queue/io_timeout")); err != nil {
		t.Fatal(err)
	}
	if err := d.Tune(nbd.DefaultQueueSettings(1)); err != nil {
		t.Errorf("without io_timeout: %v", err)
	}
	if got, _ := k.Attr(d.Index, "queue/read_ahead_kb"); got != "2048" {
		t.Errorf("read_ahead_kb is %q", got)
	}
}

func TestSeveralConnectionsKeepTheBlockTimer(t *testing.T) {
	if q := nbd.DefaultQueueSettings(2); q.IOTimeout != 0 {
		t.Errorf("io_timeout is %v, which would kill slow sockets", q.IOTimeout)
	}
}

func TestLinkDeadTellsTheDevice(t *testing.T) {
	k, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{Index: 9})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	one, two := c.LinkDead(ctx), c.LinkDead(context.Background())
	k.Kill(d.Index)
	for _, ch := range []<-chan int{one, two} {
		if i := <-ch; i != 9 {
			t.Errorf("device %d died, want 9", i)
		}
	}
	cancel()
	for range one { // closed by the context
	}
	c.Close()
	for range two { // closed by Close
	}
	if _, ok := <-c.LinkDead(context.Background()); ok {
		t.Error("an event after Close")
	}
}

func TestNotBusyWithoutUsers(t *testing.T) {
	_, c := fakeKernel(t)
	d, _ := fakeDevice(t, c, nbd.DeviceConfig{})
	if err := d.Busy(); err != nil {
		t.Error(err)
	}
	err := &nbd.BusyError{Device: "/dev/nbd0", Mounts: []string{"/mnt"}, Holders: []string{"dm-0"}, Swap: true}
	if want := "nbd: /dev/nbd0 is in use: mounted on /mnt, held by dm-0, used as swap"; err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
}
