//go:build linux

package attach_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/attach"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// Attach a disk as /dev/nbdN. On a real machine Options can be left empty, and it
// takes root; here a kernel from package nbdtest stands in.
func ExampleKernel() {
	ctx := context.Background()
	vol, stop := exampleVolume(ctx)
	defer stop()
	opt, _, done := exampleKernel()
	defer done()

	dev, err := attach.Kernel(ctx, vol, opt)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(filepath.Base(dev.Path()), "has", dev.Size()>>20, "MiB")
	// mkfs, mount, …

	// A disk in use is left as it is: errors.Is(err, attach.ErrInUse).
	if err := dev.Detach(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: nbd0 has 64 MiB
}

// Serve a disk on a unix socket, for qemu-img, nbdcopy, fio and everything else
// that speaks NBD. It needs neither root nor a kernel driver.
func ExampleSocket() {
	ctx := context.Background()
	vol, stop := exampleVolume(ctx)
	defer stop()
	dir, err := os.MkdirTemp("", "attach")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	dev, err := attach.Socket(ctx, vol, filepath.Join(dir, "disk.sock"), attach.Options{})
	if err != nil {
		log.Fatal(err)
	}
	// nbdcopy nbd+unix:///?socket=disk.sock image
	size, err := sizeByNBD(dev.Path())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("a client sees", size>>20, "MiB")
	if err := dev.Detach(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: a client sees 64 MiB
}

// Take up the device of a mounted disk after a restart: its users see a pause.
func ExampleReattach() {
	ctx := context.Background()
	vol, stop := exampleVolume(ctx)
	defer stop()
	opt, kernel, done := exampleKernel()
	defer done()
	opt.DeadConnTimeout = time.Minute // how long its users wait for us
	dev, err := attach.Kernel(ctx, vol, opt)
	if err != nil {
		log.Fatal(err)
	}
	handle := dev.Handle() // stored as JSON
	if err := dev.Leave(ctx); err != nil {
		log.Fatal(err)
	}
	if err := vol.Disconnect(ctx); err != nil {
		log.Fatal(err)
	}

	kernel.Kill(handle.Index) // the real one notices by itself

	// The next process. Credentials are not part of the handle.
	target, err := handle.Target()
	if err != nil {
		log.Fatal(err)
	}
	vol, err = initiator.Connect(ctx, target)
	if err != nil {
		log.Fatal(err)
	}
	defer vol.Disconnect(ctx)
	dev, err = attach.Reattach(ctx, vol, handle, opt)
	if err != nil { // errors.Is(err, attach.ErrGone): make a new one
		log.Fatal(err)
	}
	fmt.Println("the same device:", dev.Handle().Index == handle.Index)
	if err := dev.Detach(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: the same device: true
}

// What follows is the world that the examples live in.

func exampleVolume(ctx context.Context) (vol *initiator.Volume, stop func()) {
	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: "iqn.2026-01.com.example:disk",
		LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(64 << 20)}},
	}}})
	portal, err := initiator.ParsePortal(srv.Portal())
	if err != nil {
		log.Fatal(err)
	}
	vol, err = initiator.Connect(ctx, initiator.Target{
		Name: "iqn.2026-01.com.example:disk", Portals: []initiator.Portal{portal}, LUN: 1,
		InitiatorName: "iqn.2026-01.com.example:client",
	})
	if err != nil {
		log.Fatal(err)
	}
	return vol, func() {
		vol.Disconnect(ctx)
		srv.Close()
	}
}

func exampleKernel() (o attach.Options, kernel *nbdtest.Kernel, done func()) {
	dir, err := os.MkdirTemp("", "kernel")
	if err != nil {
		log.Fatal(err)
	}
	kernel, err = nbdtest.NewKernel(dir)
	if err != nil {
		log.Fatal(err)
	}
	ko := kernel.Options()
	ctl, err := nbd.Open(ko)
	if err != nil {
		log.Fatal(err)
	}
	return attach.Options{Controller: ctl, Sys: ko.Sys}, kernel, func() {
		ctl.Close()
		kernel.Close()
		os.RemoveAll(dir)
	}
}

func sizeByNBD(path string) (uint64, error) {
	nc, err := net.Dial("unix", path)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	c, err := nbdtest.NewClient(nc, nbd.HandshakeFixedNewstyle|nbd.HandshakeNoZeroes)
	if err != nil {
		return 0, err
	}
	_, info, err := c.Go("")
	for _, i := range info {
		if i.Type == nbd.InfoExport {
			return i.Size, err
		}
	}
	return 0, err
}
