//go:build linux

package attach_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/attach"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const diskSize = 1 << 20

// A rig is a target with one disk, and a kernel to attach it to.
type rig struct {
	srv    *iscsitest.Server
	lun    *iscsitest.LUN
	store  *iscsitest.MemStore
	kernel *nbdtest.Kernel
	opt    attach.Options
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{store: iscsitest.NewMemStore(diskSize)}
	r.lun = &iscsitest.LUN{Store: r.store}
	r.srv = iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: "iqn.2026-01.com.example:disk", LUNs: map[uint64]*iscsitest.LUN{1: r.lun},
	}}})
	t.Cleanup(r.srv.Close)
	var err error
	if r.kernel, err = nbdtest.NewKernel(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.kernel.Close() })
	o := r.kernel.Options()
	ctl, err := nbd.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ctl.Close() })
	r.opt = attach.Options{Controller: ctl, Sys: o.Sys, DeadConnTimeout: time.Minute}
	return r
}

func (r *rig) target(t *testing.T) initiator.Target {
	t.Helper()
	portal, err := initiator.ParsePortal(r.srv.Portal())
	if err != nil {
		t.Fatal(err)
	}
	return initiator.Target{
		Name: "iqn.2026-01.com.example:disk", Portals: []initiator.Portal{portal}, LUN: 1,
		InitiatorName: "iqn.2026-01.com.example:client",
	}
}

func connect(t *testing.T, target initiator.Target) *initiator.Volume {
	t.Helper()
	v, err := initiator.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Disconnect(context.Background()) })
	return v
}

// peer is the driver's end of the device's socket.
func (r *rig) peer(t *testing.T, d *attach.Device) *nbdtest.Peer {
	t.Helper()
	k, ok := r.kernel.Device(d.Handle().Index)
	if !ok || len(k.Peers) != 1 {
		t.Fatalf("the kernel has %+v", k)
	}
	return k.Peers[0]
}

func TestKernelDeviceReadsAndWritesTheDisk(t *testing.T) {
	r := newRig(t)
	d, err := attach.Kernel(t.Context(), connect(t, r.target(t)), r.opt)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(d.Path()) != "nbd0" || d.Size() != diskSize {
		t.Errorf("%s of %d bytes", d.Path(), d.Size())
	}
	want := bytes.Repeat([]byte("disk"), 1024)
	if err := r.peer(t, d).Write(want, 8192, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := r.store.ReadAt(got, 8192); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the target's disk does not have what was written: %v", err)
	}
	if err := d.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-d.Done()
	if err := d.Err(); err != nil {
		t.Error(err)
	}
	if k, ok := r.kernel.Device(0); ok && k.Connected {
		t.Error("the kernel's device is still connected")
	}
	if err := d.Detach(t.Context()); err != nil {
		t.Errorf("second Detach: %v", err)
	}
}

func TestDeviceFollowsTheSizeOfTheDisk(t *testing.T) {
	for _, tc := range []struct {
		name   string
		attach func(*rig, *initiator.Volume) (*attach.Device, error)
	}{
		{"kernel", func(r *rig, v *initiator.Volume) (*attach.Device, error) { return attach.Kernel(t.Context(), v, r.opt) }},
		{"socket", func(r *rig, v *initiator.Volume) (*attach.Device, error) {
			return attach.Socket(t.Context(), v, filepath.Join(t.TempDir(), "s"), r.opt)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			v := connect(t, r.target(t))
			d, err := tc.attach(r, v)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Detach(t.Context())
			resized := make(chan int64, 1)
			v.Watch(func(e initiator.VolumeEvent) {
				if e.Type == initiator.VolumeResized {
					resized <- d.Size() // told after the device, which watched first
				}
			})
			r.store.Resize(2 * diskSize)
			r.srv.Resized(r.lun)
			if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil { // hears of it
				t.Fatal(err)
			}
			if got := <-resized; got != 2*diskSize {
				t.Errorf("%d bytes, want %d", got, 2*diskSize)
			}
		})
	}
}

func TestReattachAfterLeave(t *testing.T) {
	r := newRig(t)
	first := connect(t, r.target(t))
	d, err := attach.Kernel(t.Context(), first, r.opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.peer(t, d).Write(make([]byte, 4096), 0, 0); err != nil {
		t.Fatal(err)
	}
	stored, err := json.Marshal(d.Handle())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.kernel.Kill(0)

	// The next process.
	var h attach.Handle
	if err := json.Unmarshal(stored, &h); err != nil {
		t.Fatal(err)
	}
	target, err := h.Target()
	if err != nil {
		t.Fatal(err)
	}
	second := connect(t, target)
	if got, want := second.Session().Info().ISID.String(), h.ISID; got != want {
		t.Errorf("ISID %s, want %s", got, want)
	}
	d, err = attach.Reattach(t.Context(), second, h, r.opt)
	if err != nil {
		t.Fatal(err)
	}
	if k, _ := r.kernel.Device(0); len(k.Peers) == 0 {
		t.Fatal("the device has no socket")
	} else if err := k.Peers[len(k.Peers)-1].Write(make([]byte, 4096), 4096, 0); err != nil {
		t.Errorf("write after Reattach: %v", err)
	}
	if err := d.Detach(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReattachRefuses(t *testing.T) {
	r := newRig(t)
	v := connect(t, r.target(t))
	d, err := attach.Kernel(t.Context(), v, r.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Detach(t.Context())
	for _, tc := range []struct {
		name string
		mod  func(*attach.Handle)
		want error
	}{
		{"another's device", func(h *attach.Handle) { h.BackendID = "someone else's" }, attach.ErrGone},
		{"no device", func(h *attach.Handle) { h.Index = 7 }, attach.ErrGone},
		{"another disk", func(h *attach.Handle) { h.Identity.WWID = "3600" }, initiator.ErrIdentity},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := d.Handle()
			tc.mod(&h)
			if _, err := attach.Reattach(t.Context(), v, h, r.opt); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

func TestDoneTellsOfALostConnection(t *testing.T) {
	r := newRig(t)
	d, err := attach.Kernel(t.Context(), connect(t, r.target(t)), r.opt)
	if err != nil {
		t.Fatal(err)
	}
	r.kernel.Kill(0)
	<-d.Done()
	var ae *attach.Error
	if err := d.Err(); !errors.As(err, &ae) || ae.Op != "serve" {
		t.Errorf("%v", err)
	}
	if err := d.Discard(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestKernelFailsCleanly(t *testing.T) {
	r := newRig(t)
	v := connect(t, r.target(t))
	r.kernel.FailNext(nbdtest.OpConnect, syscall.EPERM)
	_, err := attach.Kernel(t.Context(), v, r.opt)
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), v.Session().Info().Target) {
		t.Errorf("%v", err)
	}
	// The volume is as good as before.
	d, err := attach.Kernel(t.Context(), v, r.opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSocketServesAnyNumberOfClients(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "disk.sock")
	d, err := attach.Socket(t.Context(), connect(t, r.target(t)), path, r.opt)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	a, b := dialNBD(t, path), dialNBD(t, path)
	if err := a.Write(bytes.Repeat([]byte{7}, 512), 512, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Read(512, 512); err != nil || got[0] != 7 {
		t.Errorf("the other client reads %v, %v", got[:1], err)
	}
	if _, err := attach.Socket(t.Context(), d.Volume(), path, r.opt); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second socket at the same path: %v", err)
	}
	bound, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := d.Detach(bound); err != nil { // the clients stay: they are cut off
		t.Error(err)
	}
	<-d.Done()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func dialNBD(t *testing.T, path string) *nbdtest.Peer {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	c, err := nbdtest.NewClient(nc, nbd.HandshakeFixedNewstyle|nbd.HandshakeNoZeroes)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := c.Go("")
	if err != nil {
		t.Fatal(err)
	}
	return p
}
