//go:build linux

package attach

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/blockdev"
	"github.com/goiscsi/goiscsi/nbd"
)

// Kernel attaches a disk as a block device of this machine, /dev/nbdN, and
// returns when it can be opened. That needs CAP_SYS_ADMIN, and a kernel with nbd:
// Error.ISCSICode is 12 where it has none.
func Kernel(ctx context.Context, v *initiator.Volume, o Options) (*Device, error) {
	k := newKernelService(v, o)
	d := k.device()
	d.handle.BackendID = "goiscsi:" + d.handle.TargetName + ":" + rand.Text()[:8]
	if err := k.open(); err != nil {
		return nil, d.error("attach", err)
	}
	dev, conns, err := k.ctl.Connect(ctx, k.config(d.handle))
	if err != nil {
		k.close()
		return nil, d.error("attach", err)
	}
	if err := k.offer(ctx, d, dev, conns[0]); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		return nil, d.error("attach", errors.Join(err, d.Discard(undo)))
	}
	return d, nil
}

// Reattach takes up the kernel device of a handle for a disk that was connected
// to by Handle.Target. It waits until the kernel has seen that the earlier
// process is gone. ErrGone says that there is no such device any more: Kernel
// makes a new one. When Reattach fails otherwise, the device is left as it was.
func Reattach(ctx context.Context, v *initiator.Volume, h Handle, o Options) (*Device, error) {
	k := newKernelService(v, o)
	d := k.device()
	size := d.handle.Size
	d.handle.Index, d.handle.BackendID, d.handle.Size = h.Index, h.BackendID, h.Size
	if !h.Identity.Same(v.Identity()) {
		return nil, d.error("reattach", &initiator.IdentityError{Want: h.Identity, Got: v.Identity()})
	}
	if err := k.open(); err != nil {
		return nil, d.error("reattach", err)
	}
	fail := func(err error) (*Device, error) {
		k.close()
		return nil, d.error("reattach", err)
	}
	dev, err := k.ctl.Attach(h.Index, k.config(h))
	if err != nil {
		return fail(err)
	}
	bound, cancel := context.WithTimeout(ctx, reattachTime)
	defer cancel()
	conns, err := dev.Reconfigure(bound, 1)
	if err != nil {
		return fail(err)
	}
	if size > h.Size {
		k.export.SetSize(uint64(size)) // Resize, in offer, tells the kernel
	}
	if err := k.offer(ctx, d, dev, conns[0]); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		return nil, d.error("reattach", errors.Join(err, d.Leave(undo)))
	}
	return d, nil
}

const (
	reattachTime = 15 * time.Second // until the kernel has seen that the old socket is dead
	undoTime     = 10 * time.Second // to take back what has failed
	moduleTime   = 20 * time.Second // for modprobe
)

// A kernelService is a device of the kernel.
type kernelService struct {
	vol    *initiator.Volume
	o      Options
	export *nbd.Export
	ctl    *nbd.Controller
	dev    *nbd.Device
	conn   net.Conn

	// ctx ends when the server is to answer what has come, and end.
	ctx   context.Context //nolint:containedctx // the life of the server
	drain context.CancelFunc

	probes sync.WaitGroup // goroutines of blockdev.Offer, which end with the device
}

func newKernelService(v *initiator.Volume, o Options) *kernelService {
	e := Export(v)
	e.MultiConn = false // one connection a device
	k := &kernelService{vol: v, o: o.withDefaults(), export: e}
	k.ctx, k.drain = context.WithCancel(context.Background())
	return k
}

// device returns the Device to be, whose methods must not be called yet.
func (k *kernelService) device() *Device {
	return &Device{vol: k.vol, log: k.o.Logger, export: k.export, how: k, handle: newHandle(k.vol)}
}

func (k *kernelService) config(h Handle) nbd.DeviceConfig {
	return nbd.DeviceConfig{Export: k.export, Index: -1, BackendID: h.BackendID, DeadConnTimeout: k.o.DeadConnTimeout}
}

// open opens the kernel's driver, unless the caller gave us one.
func (k *kernelService) open() error {
	if k.ctl = k.o.Controller; k.ctl != nil {
		return nil
	}
	open := func() (err error) {
		k.ctl, err = nbd.Open(&nbd.ControllerOptions{Sys: k.o.Sys, Logger: k.o.Logger})
		return err
	}
	err := open()
	if errors.Is(err, nbd.ErrNotSupported) && os.Geteuid() == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), moduleTime)
		defer cancel()
		if lerr := nbd.LoadModule(ctx); lerr != nil {
			return errors.Join(err, lerr)
		}
		err = open()
	}
	return err
}

// offer makes the device usable.
func (k *kernelService) offer(ctx context.Context, d *Device, dev *nbd.Device, conn net.Conn) error {
	k.dev, k.conn = dev, conn
	d.path, d.handle.Index = dev.Path(), dev.Index
	return d.start(func() error {
		if err := dev.Tune(nbd.DefaultQueueSettings(1)); err != nil {
			k.o.Logger.Warn("queue is not tuned", "device", d.path, "err", err)
		}
		return blockdev.Offer(ctx, k.o.Sys, d.path, k.o.Logger, k.probes.Go)
	})
}

func (k *kernelService) serve() error {
	return nbd.ServeConn(k.ctx, k.conn, k.export, NewBackend(k.vol), &nbd.ServerOptions{Logger: k.o.Logger})
}

func (k *kernelService) resize(ctx context.Context, size int64) error {
	return k.dev.Resize(ctx, uint64(size))
}

func (k *kernelService) detach(ctx context.Context, flush bool) error {
	if !flush {
		return ignoreHeldOpen(k.dev.Detach(ctx))
	}
	if err := k.dev.Busy(); err != nil {
		return err
	}
	err := ignoreHeldOpen(k.dev.Disconnect(ctx))
	if errors.Is(err, nbd.ErrNoDevice) {
		return nil
	}
	return err
}

// ignoreHeldOpen: somebody, udev for example, has the device open still. It is
// disconnected, and goes when they have closed it.
func ignoreHeldOpen(err error) error {
	if errors.Is(err, nbd.ErrHeldOpen) {
		return nil
	}
	return err
}

func (k *kernelService) leave(context.Context) error {
	k.drain()
	return nil
}

func (k *kernelService) close() {
	k.drain()
	if k.conn != nil {
		k.conn.Close()
	}
	if k.ctl != nil && k.ctl != k.o.Controller {
		k.ctl.Close()
	}
}
