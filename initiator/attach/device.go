//go:build linux

package attach

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/nbd"
)

// Options change how a disk is attached. The zero value of every field is a
// usable default.
type Options struct {
	// Controller is the driver to use. Nil opens the kernel's for this one
	// device, after loading its module where that is missing and we are root.
	// A program with many devices opens one controller, and closes it after the
	// last has gone. Socket does not look at it.
	Controller *nbd.Controller

	// Sys is where sysfs is mounted. Empty means "/sys".
	Sys string

	// DeadConnTimeout is how long the kernel holds requests back for Reattach
	// when this process has died or called Leave, in whole seconds. Zero fails
	// them at once, and the device goes.
	DeadConnTimeout time.Duration

	// Logger receives what is worth an administrator's attention. Nil means no
	// logging.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Sys == "" {
		o.Sys = "/sys"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Device is a disk that is offered to other programs. It is made by Kernel,
// Reattach and Socket.
type Device struct {
	vol    *initiator.Volume
	log    *slog.Logger
	path   string
	export *nbd.Export
	how    service
	handle Handle

	unwatch func() // ends the watch for changes of the size; set before users see the device
	closing atomic.Bool

	// done is closed by the goroutine that serves, as its last deed; err is set
	// before that.
	done chan struct{}
	err  error

	mu    sync.Mutex // held while the device is resized or ends
	ended bool       // Detach, Discard or Leave has succeeded
}

// A service is what differs between a device of the kernel and a socket.
type service interface {
	// serve answers requests until the device ends, and returns why.
	serve() error
	// resize tells users a new size in bytes.
	resize(ctx context.Context, size int64) error
	// detach ends the device, with flush after writing back what is dirty, and
	// not at all if somebody uses it.
	detach(ctx context.Context, flush bool) error
	// leave ends the service and leaves what Reattach can take up.
	leave(ctx context.Context) error
	// close frees what is left once serve has returned.
	close()
}

// Path returns the device node, "/dev/nbd0", or the path of the socket.
func (d *Device) Path() string { return d.path }

// Size returns the size in bytes that users see. It follows the disk's.
func (d *Device) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.handle.Size
}

// Volume returns the disk.
func (d *Device) Volume() *initiator.Volume { return d.vol }

// Done returns a channel that is closed when the device is not served any more:
// after Detach, Discard or Leave, or when somebody else disconnected it.
func (d *Device) Done() <-chan struct{} { return d.done }

// Err returns why the service ended, nil if it was asked to or has not.
func (d *Device) Err() error {
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}

// Detach writes back what the kernel holds of the device, has it let go, and
// returns when the device is gone. A device in use is left as it is: ErrInUse. A
// device that is gone already is no error. Clients of a socket are disconnected
// after their requests have been answered, as long as ctx lasts.
//
// What is in flight with a target that does not answer is given up by the session
// in its own time; Detach does not wait for that longer than ctx lasts.
func (d *Device) Detach(ctx context.Context) error {
	return d.end(ctx, "detach", func() error { return d.how.detach(ctx, true) })
}

// Discard ends the device at once, whoever uses it: what was not written back is
// lost, with an error to its users. It is for disks that do not answer any more.
func (d *Device) Discard(ctx context.Context) error {
	return d.end(ctx, "discard", func() error { return d.how.detach(ctx, false) })
}

// Leave ends the service and leaves a kernel device for Reattach, which has to
// come before Options.DeadConnTimeout is over; users see a pause. Requests that
// have come are answered first, as long as ctx lasts. A socket cannot be left:
// Leave detaches it.
func (d *Device) Leave(ctx context.Context) error {
	return d.end(ctx, "leave", func() error { return d.how.leave(ctx) })
}

// end does one of the above, once.
func (d *Device) end(ctx context.Context, op string, f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil
	}
	d.closing.Store(true)
	if err := f(); err != nil {
		d.closing.Store(false)
		return d.error(op, err)
	}
	d.ended = true
	d.unwatch()
	select {
	case <-d.done:
	case <-ctx.Done():
	}
	d.how.close()
	return nil
}

// start serves the device. The goroutine ends with the device.
func (d *Device) start(ready func() error) error {
	d.done = make(chan struct{})
	go func() {
		defer close(d.done)
		err := d.how.serve()
		if !d.closing.Load() {
			d.err = d.error("serve", err)
			d.log.Error("device is not served any more", "device", d.path, "err", err)
		}
	}()
	d.unwatch = d.vol.Watch(func(e initiator.VolumeEvent) {
		if e.Type == initiator.VolumeResized {
			d.resize(e.Size)
		}
	})
	if err := ready(); err != nil {
		d.unwatch()
		return err
	}
	// It may have changed before anybody watched.
	d.resize(d.vol.Size())
	return nil
}

// resizeTime bounds what the driver may take to note a new size.
const resizeTime = 10 * time.Second

func (d *Device) resize(size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended || size == d.handle.Size {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), resizeTime)
	defer cancel()
	if err := d.how.resize(ctx, size); err != nil {
		d.log.Error("device keeps its old size", "device", d.path, "size", size, "err", err)
		return
	}
	d.handle.Size = size
}

func (d *Device) error(op string, err error) error {
	return &Error{Op: op, Target: d.handle.TargetName, LUN: d.handle.LUN, Path: d.path, Err: err}
}

// Export describes a volume to NBD clients, as it is now.
func Export(v *initiator.Volume) *nbd.Export {
	f := v.Features()
	return &nbd.Export{
		Size: uint64(v.Size()), BlockSize: uint32(v.BlockSize()),
		ReadOnly: f.ReadOnly, Flush: f.WriteCache, FUA: f.FUA, Trim: f.Discard, WriteZeroes: f.WriteZeroes, Rotational: f.Rotational,
		MultiConn: true, // a flush reaches the disk behind all connections
	}
}
