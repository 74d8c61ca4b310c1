package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goiscsi/goiscsi/initiator/attach"
	"github.com/goiscsi/goiscsi/internal/blockdev"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nbd"
)

// A kernel is what a kernelAttacher needs of an nbd.Controller.
type kernel interface {
	// connect makes a device of one connection and returns our end of it.
	connect(ctx context.Context, cfg nbd.DeviceConfig) (kernelDevice, net.Conn, error)
	// attach finds a device that an earlier process connected.
	attach(index int, cfg nbd.DeviceConfig) (kernelDevice, error)
	Devices() ([]nbd.DeviceInfo, error)
	Close() error
}

// A kernelDevice is what an attachment needs of an nbd.Device.
type kernelDevice interface {
	index() int
	Path() string
	Reconfigure(ctx context.Context, n int) ([]net.Conn, error)
	Resize(ctx context.Context, size uint64) error
	Disconnect(ctx context.Context) error
	Detach(ctx context.Context) error
	Tune(nbd.QueueSettings) error
}

// realKernel is the driver of the running kernel.
type realKernel struct{ *nbd.Controller }

// realDevice gives an nbd.Device the method for its number.
type realDevice struct{ *nbd.Device }

func (d realDevice) index() int { return d.Index }

func (k realKernel) connect(ctx context.Context, cfg nbd.DeviceConfig) (kernelDevice, net.Conn, error) {
	d, conns, err := k.Connect(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	return realDevice{d}, conns[0], nil
}

func (k realKernel) attach(index int, cfg nbd.DeviceConfig) (kernelDevice, error) {
	d, err := k.Attach(index, cfg)
	if err != nil {
		return nil, err
	}
	return realDevice{d}, nil
}

// moduleTime bounds modprobe.
const moduleTime = 20 * time.Second

// openKernel opens the driver; where it is not loaded, root loads it first.
func openKernel(dev, sys string, log *slog.Logger) (kernel, error) {
	o := &nbd.ControllerOptions{Dev: dev, Sys: sys, Logger: log}
	c, err := nbd.Open(o)
	if errors.Is(err, nbd.ErrNotSupported) && os.Geteuid() == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), moduleTime)
		defer cancel()
		if lerr := nbd.LoadModule(ctx); lerr != nil {
			return nil, fmt.Errorf("%w (%w)", err, lerr)
		}
		c, err = nbd.Open(o)
	}
	if err != nil {
		return nil, err
	}
	return realKernel{c}, nil
}

// A kernelAttacher attaches volumes as /dev/nbdN.
type kernelAttacher struct {
	dev, sys string
	log      *slog.Logger
	open     func() (kernel, error)
	store    fdStore
	pool     *nbd.BufferPool

	mu sync.Mutex // guards k, and that it is opened once
	k  kernel
}

func newKernelAttacher(k kernel, dev, sys string, store fdStore, pool *nbd.BufferPool, log *slog.Logger) *kernelAttacher {
	return &kernelAttacher{
		dev: dev, sys: sys, log: log, k: k, store: store, pool: pool,
		open: func() (kernel, error) { return openKernel(dev, sys, log) },
	}
}

// get returns the driver, which it opens when it is wanted for the first
// time; while there is none, each login looks again.
func (a *kernelAttacher) get() (kernel, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.k == nil {
		k, err := a.open()
		if err != nil {
			return nil, err
		}
		a.k = k
	}
	return a.k, nil
}

func (a *kernelAttacher) available() bool {
	_, err := a.get()
	return err == nil
}

func (a *kernelAttacher) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.k != nil {
		a.k.Close()
		a.k = nil
	}
	a.store.close()
}

// ours returns the connected devices of an instance.
func (a *kernelAttacher) ours(instance string) map[int]string {
	k, err := a.get()
	if err != nil {
		return nil
	}
	all, err := k.Devices()
	if err != nil {
		a.log.Warn("devices of an earlier iscsid cannot be listed", "err", err)
		return nil
	}
	out := make(map[int]string)
	for _, d := range all {
		if d.Connected && ourBackend(instance, d.BackendID) {
			out[d.Index] = d.BackendID
		}
	}
	return out
}

// chooseAttacher says how disks are offered that are to be offered in the
// way want.
func chooseAttacher(want attachKind, kern *kernelAttacher, sockets attacher) (attachKind, attacher, error) {
	switch want {
	case attachNone:
		return attachNone, nil, nil
	case attachSocket:
		return attachSocket, sockets, nil
	}
	_, err := kern.get()
	switch {
	case err == nil:
		return attachNBD, kern, nil
	case want == attachAuto:
		return attachSocket, sockets, nil
	}
	return "", nil, refuse(errcode.TransNotFound, "kernel nbd driver: %w", err)
}

// adoptTime is how long the kernel may take to see that the old socket is dead.
const adoptTime = 15 * time.Second

// config says what the kernel is told of a volume.
func (spec *attachSpec) config(e *nbd.Export) nbd.DeviceConfig {
	return nbd.DeviceConfig{Export: e, Index: -1, BackendID: spec.backend, DeadConnTimeout: spec.deadConn}
}

func (a *kernelAttacher) attach(ctx context.Context, spec attachSpec, created func(int) error) (attachment, error) {
	k, err := a.get()
	if err != nil {
		return nil, err
	}
	t := a.newAttachment(spec)
	dev, conn, err := k.connect(ctx, spec.config(t.export))
	if err != nil {
		return nil, err
	}
	t.serve(dev, conn)
	if err := created(t.index()); err != nil {
		t.undo()
		return nil, err
	}
	if err := t.offer(ctx); err != nil {
		t.undo()
		return nil, err
	}
	t.announce()
	return t, nil
}

func (a *kernelAttacher) adopt(ctx context.Context, spec attachSpec, index int) (attachment, error) {
	k, err := a.get()
	if err != nil {
		return nil, err
	}
	t := a.newAttachment(spec)
	dev, err := findDevice(k, index, spec.config(t.export))
	if err != nil {
		return nil, err
	}
	conn := a.kept(spec.backend)
	if conn == nil {
		bound, cancel := context.WithTimeout(ctx, adoptTime)
		conns, err := dev.Reconfigure(bound, 1)
		cancel()
		if err != nil {
			return nil, err
		}
		conn = conns[0]
	}
	t.serve(dev, conn)
	if spec.known != spec.geo.size { // it changed while no daemon looked
		if err := dev.Resize(ctx, uint64(spec.geo.size)); err != nil {
			a.log.Warn("size of a device is not brought up to date", "device", t.name(), "err", err)
		}
	}
	if err := t.offer(ctx); err != nil {
		t.park(ctx, false)
		t.wait()
		return nil, err
	}
	return t, nil
}

func (a *kernelAttacher) discard(ctx context.Context, _ int, st unitState) error {
	return a.remove(ctx, st.Index, st.Backend)
}

// remove removes the device with the number, if its backend identifier is that one.
func (a *kernelAttacher) remove(ctx context.Context, index int, backend string) error {
	if conn := a.kept(backend); conn != nil {
		conn.Close()
	}
	k, err := a.get()
	if err != nil {
		return err
	}
	dev, err := findDevice(k, index, nbd.DeviceConfig{Export: &nbd.Export{Size: 512}, BackendID: backend})
	if errors.Is(err, errNoDevice) {
		return nil
	}
	if err != nil {
		return err
	}
	return dev.Detach(ctx)
}

// kept returns the socket of a device that an earlier daemon has handed over, or
// nil.
func (a *kernelAttacher) kept(backend string) net.Conn {
	conns := takeConns(a.store, backend)
	if len(conns) == 0 {
		return nil
	}
	for _, more := range conns[1:] { // a device has one
		more.Close()
	}
	return conns[0]
}

// findDevice finds the device with the backend identifier of cfg, by its
// number, or with -1 by the identifier alone.
func findDevice(k kernel, index int, cfg nbd.DeviceConfig) (kernelDevice, error) {
	if index < 0 {
		all, err := k.Devices()
		if err != nil {
			return nil, err
		}
		for _, d := range all {
			if d.Connected && d.BackendID == cfg.BackendID {
				index = d.Index
			}
		}
		if index < 0 {
			return nil, fmt.Errorf("backend %q: %w", cfg.BackendID, errNoDevice)
		}
	}
	d, err := k.attach(index, cfg)
	if errors.Is(err, nbd.ErrNoDevice) || errors.Is(err, nbd.ErrForeignDevice) {
		return nil, fmt.Errorf("%w: %w", errNoDevice, err)
	}
	return d, err
}

// A kernelAttachment is one /dev/nbdN with the goroutine that serves it.
type kernelAttachment struct {
	a      *kernelAttacher
	spec   attachSpec
	export *nbd.Export
	dev    kernelDevice
	conn   net.Conn

	drain   context.CancelFunc // asks the server to end when it is through
	closing atomic.Bool        // detach or park has begun
	stopped chan struct{}      // closed when the server has ended
	result  error              // why; valid after stopped is closed
	wg      sync.WaitGroup     // the server and the probe
}

func (a *kernelAttacher) newAttachment(spec attachSpec) *kernelAttachment {
	e := exportOf(&spec)
	e.MultiConn = false // one connection a device, see docs/daemon.md
	return &kernelAttachment{a: a, spec: spec, export: e, stopped: make(chan struct{})}
}

// serve answers the device's requests from now on.
func (t *kernelAttachment) serve(dev kernelDevice, conn net.Conn) {
	t.dev, t.conn = dev, conn
	ctx, cancel := context.WithCancel(context.Background())
	t.drain = cancel
	b := attach.NewBackend(t.spec.vol)
	t.wg.Go(func() {
		defer cancel()
		t.result = nbd.ServeConn(ctx, conn, t.export, b, &nbd.ServerOptions{Logger: t.a.log, Pool: t.a.pool})
		close(t.stopped)
		if !t.closing.Load() && t.spec.lost != nil {
			t.spec.lost()
		}
	})
}

// offer makes the device usable: queue, node, partitions.
func (t *kernelAttachment) offer(ctx context.Context) error {
	if err := t.dev.Tune(nbd.DefaultQueueSettings(1)); err != nil {
		t.a.log.Warn("queue is not tuned", "device", t.name(), "err", err)
	}
	return blockdev.Offer(ctx, t.a.sys, t.path(), t.a.log, t.wg.Go)
}

// announce has the kernel announce the device and its partitions once more. The
// first event comes before sysfs shows whose device it is, so udev may have
// found no properties for it; and multipathd, among others, never comes back
// to a disk that had none when it was added.
func (t *kernelAttachment) announce() {
	dir := filepath.Join(t.a.sys, "block", t.name())
	files, _ := filepath.Glob(filepath.Join(dir, t.name()+"p*", "uevent")) // the pattern is a good one
	for _, file := range append([]string{filepath.Join(dir, "uevent")}, files...) {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("add")
			f.Close()
		}
		if err != nil {
			t.a.log.Debug("device is not announced again", "err", err)
		}
	}
}

// undo removes the device after a failure.
func (t *kernelAttachment) undo() {
	ctx, cancel := context.WithTimeout(context.Background(), blockdev.NodeTime)
	defer cancel()
	if err := t.detach(ctx, false, func() {}); err != nil {
		t.a.log.Warn("detach", "device", t.name(), "err", err)
	}
}

func (t *kernelAttachment) name() string { return filepath.Base(t.dev.Path()) }
func (t *kernelAttachment) path() string { return t.dev.Path() }
func (t *kernelAttachment) index() int   { return t.dev.index() }

func (t *kernelAttachment) resize(ctx context.Context, size int64) error {
	return t.dev.Resize(ctx, uint64(size))
}

func (t *kernelAttachment) detach(ctx context.Context, flush bool, before func()) error {
	t.closing.Store(true)
	before()
	var errs []error
	gone := false
	if flush {
		// Half of the time, so that some is left for the device to go.
		bound, cancel := context.WithTimeout(ctx, remaining(ctx)/2)
		err := t.dev.Disconnect(bound)
		cancel()
		if errors.Is(err, nbd.ErrHeldOpen) {
			t.a.log.Warn("device was in use: it is disconnected, and stays until its last user has closed it", "device", t.name())
			err = nil
		}
		if gone = err == nil || errors.Is(err, nbd.ErrNoDevice); !gone {
			errs = append(errs, fmt.Errorf("write back: %w", err))
		}
	}
	if !gone {
		if err := t.dev.Detach(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	// Requests in flight end with the session; the socket is of no use.
	select {
	case <-t.stopped:
	case <-ctx.Done():
	}
	t.conn.Close()
	return errors.Join(errs...)
}

func (t *kernelAttachment) park(ctx context.Context, drain bool) {
	t.closing.Store(true)
	if drain {
		t.drain()
		select {
		case <-t.stopped:
			if errors.Is(t.result, nbd.ErrDrained) && keepConn(t.a.store, t.spec.backend, t.conn) {
				t.a.log.Debug("socket of a device is kept for the next iscsid", "device", t.name())
			}
		case <-ctx.Done():
		}
	}
	t.conn.Close()
}

func (t *kernelAttachment) ended() bool {
	select {
	case <-t.stopped:
		return true
	default:
		return false
	}
}

func (t *kernelAttachment) wait() { t.wg.Wait() }

// remaining is the time until ctx's deadline.
func remaining(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return time.Until(d)
	}
	return time.Hour
}
