//go:build linux && guest

package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// The tests in this file are about devices that lose their server, or go.

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
