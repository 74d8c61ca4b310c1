//go:build linux

package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// Errors of the kernel's side.
var (
	// ErrNotSupported says that the kernel has no nbd driver, or that it is not
	// loaded.
	ErrNotSupported = errors.New("kernel has no nbd driver")
	// ErrNoDevice says that the device does not exist or is not connected.
	ErrNoDevice = errors.New("no such nbd device")
	// ErrForeignDevice says that the device's backend identifier is not the
	// expected one: it serves someone else.
	ErrForeignDevice = errors.New("nbd device belongs to another backend")
)

// A DeviceError is an operation on a device that did not succeed.
type DeviceError struct {
	Op    string // "connect", "reconfigure", …
	Index int    // the device's number; -1 when it has none yet
	Err   error
}

// Error implements error.
func (e *DeviceError) Error() string {
	if e.Index < 0 {
		return fmt.Sprintf("nbd: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("nbd: %s nbd%d: %v", e.Op, e.Index, e.Err)
}

// Unwrap returns the cause.
func (e *DeviceError) Unwrap() error { return e.Err }

func deviceError(op string, index int, err error) error {
	if err == nil {
		return nil
	}
	return &DeviceError{Op: op, Index: index, Err: err}
}

// ControllerOptions say where the kernel is. The zero value, and nil, mean the
// real one.
type ControllerOptions struct {
	// Dial opens a generic netlink socket.
	Dial func() (*genetlink.Conn, error)
	// Sys is the root of sysfs; empty means /sys.
	Sys string
	// Dev is the directory of device nodes; empty means /dev.
	Dev string
	// Logger gets what is tried again or passed over; nil means none.
	Logger *slog.Logger
}

// A Controller drives the kernel's nbd devices over generic netlink and sysfs.
// Most of it needs CAP_SYS_ADMIN in the initial user namespace, and on kernels
// before 6.12 the initial network namespace.
type Controller struct {
	opt ControllerOptions

	// watch receives the driver's multicasts; its goroutine ends when Close
	// closes the socket, and closes watchDone.
	watch     *genetlink.Conn
	watchDone chan struct{}
	closeOnce sync.Once
	closing   atomic.Bool // set before Close closes watch

	mu   sync.Mutex // protects subs
	subs map[*subscription]struct{}
}

// Open connects to the driver. It returns ErrNotSupported when the kernel has
// none or has not loaded it; LoadModule may help then.
func Open(o *ControllerOptions) (*Controller, error) {
	c := &Controller{watchDone: make(chan struct{}), subs: make(map[*subscription]struct{})}
	if o != nil {
		c.opt = *o
	}
	if c.opt.Dial == nil {
		c.opt.Dial = func() (*genetlink.Conn, error) { return genetlink.Dial(nil) }
	}
	if c.opt.Sys == "" {
		c.opt.Sys = "/sys"
	}
	if c.opt.Dev == "" {
		c.opt.Dev = "/dev"
	}
	if c.opt.Logger == nil {
		c.opt.Logger = slog.New(slog.DiscardHandler)
	}
	nl, family, err := c.dial()
	if err != nil {
		return nil, deviceError("open", -1, err)
	}
	for _, g := range family.Groups {
		if g.Name != genlGroup {
			continue
		}
		if err := nl.JoinGroup(g.ID); err != nil {
			nl.Close()
			return nil, deviceError("join multicast group", -1, err)
		}
	}
	c.watch = nl
	go c.receive()
	return c, nil
}

// Close ends the subscriptions. Devices stay as they are.
func (c *Controller) Close() error {
	c.closeOnce.Do(func() {
		c.closing.Store(true)
		c.watch.Close()
	})
	<-c.watchDone
	return nil
}

// dial opens a netlink socket and looks the family up. Every operation has its
// own socket: an answer that comes late can confuse nobody then, and a driver
// that was loaded again has a new number.
func (c *Controller) dial() (*genetlink.Conn, genetlink.Family, error) {
	nl, err := c.opt.Dial()
	if err != nil {
		return nil, genetlink.Family{}, err
	}
	family, err := nl.GetFamily(genlFamily)
	if err != nil {
		nl.Close()
		if errors.Is(err, syscall.ENOENT) {
			err = ErrNotSupported
		}
		return nil, genetlink.Family{}, err
	}
	return nl, family, nil
}

// execute sends one command and returns the answers. Commands that are only
// acknowledged need ack; for the others the kernel would send the
// acknowledgement after the answer.
func (c *Controller) execute(ctx context.Context, cmd uint8, r *genlRequest, ack bool) ([]genetlink.Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	nl, family, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	data, err := r.encode()
	if err != nil {
		return nil, err
	}
	flags := netlink.Request
	if ack {
		flags |= netlink.Acknowledge
	}
	return nl.Execute(genetlink.Message{
		Header: genetlink.Header{Command: cmd, Version: genlVersion},
		Data:   data,
	}, family.ID, flags)
}

// Status asks the driver for one device, or for all of them when index is
// negative. It returns ErrNoDevice for a device that does not exist.
func (c *Controller) Status(ctx context.Context, index int) ([]DeviceStatus, error) {
	var r genlRequest
	if index >= 0 {
		r.index = ptr(uint32(index))
	}
	msgs, err := c.execute(ctx, genlStatus, &r, false)
	if err != nil {
		return nil, deviceError("status", index, err)
	}
	var list []DeviceStatus
	for _, m := range msgs {
		l, err := decodeStatus(m.Data)
		if err != nil {
			return nil, deviceError("status", index, err)
		}
		list = append(list, l...)
	}
	if index >= 0 && len(list) == 0 {
		return nil, deviceError("status", index, ErrNoDevice)
	}
	return list, nil
}

// ptr returns a pointer to a copy of v.
func ptr[T any](v T) *T { return &v }
