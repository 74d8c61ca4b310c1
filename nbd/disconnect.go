//go:build linux

package nbd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeldOpen says that a device was disconnected, but stays, failing all I/O,
// until the last of its users has closed it.
var ErrHeldOpen = errors.New("nbd device is disconnected, but held open")

// releaseWait is how long Detach waits for other users of a device, such as udev,
// to close it.
const releaseWait = 2 * time.Second

// lingerWait is how long a disconnected device may take to be removed.
const lingerWait = 500 * time.Millisecond

// Disconnect writes back what the page cache holds, tells the driver to let go,
// and waits until it has. The sockets must be served meanwhile: the flush goes
// through them, and the driver ends with NBD_CMD_DISC on each. The device may be
// open or mounted (see Busy); its users get errors then.
//
// When ctx ends before the flush does, Disconnect returns the context's error
// and the device stays connected: Detach ends it without the flush.
func (d *Device) Disconnect(ctx context.Context) error {
	if err := d.ours(); err != nil {
		return deviceError("disconnect", d.Index, err)
	}
	if err := d.flush(ctx); err != nil {
		return deviceError("flush", d.Index, err)
	}
	return d.Detach(ctx)
}

// Detach tells the driver to let go of the device, and waits until it has.
// Requests in flight and pages that were not written back are lost with an
// error to their users. It succeeds when the device is gone already. A device
// that others keep open is disconnected too, but remains until they close it:
// Detach waits two seconds for them and returns ErrHeldOpen then.
func (d *Device) Detach(ctx context.Context) error {
	switch err := d.ours(); {
	case errors.Is(err, ErrNoDevice):
		return nil
	case err != nil:
		return deviceError("disconnect", d.Index, err)
	}
	// The driver's answer to a device that vanished just now is EINVAL or
	// ENODEV; whether it is gone is seen below in any case.
	_, err := d.c.execute(ctx, genlDisconnect, &genlRequest{index: ptr(uint32(d.Index))}, true)
	if err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENODEV) {
		return deviceError("disconnect", d.Index, err)
	}
	short, cancel := context.WithTimeoutCause(ctx, releaseWait, ErrHeldOpen)
	defer cancel()
	return d.WaitGone(short)
}

// WaitGone waits until the device is no longer connected, or is somebody
// else's, and for as long as that usually takes until it is no longer there.
func (d *Device) WaitGone(ctx context.Context) error {
	var lingering time.Time // since when it has been disconnected
	// sysfs attributes of the driver notify nobody, so look, ever less often.
	for delay := time.Millisecond; ; delay = min(2*delay, 100*time.Millisecond) {
		info, err := d.c.info(d.Index)
		switch {
		case errors.Is(err, ErrNoDevice):
			return nil
		case err != nil:
			return deviceError("disconnect", d.Index, err)
		case info.Connected && info.BackendID != d.cfg.BackendID:
			return nil
		case info.Connected:
		case d.cfg.KeepDevice:
			return nil
		case lingering.IsZero():
			// A worker of the driver removes it now, unless whoever connected
			// it had wanted to keep it.
			lingering, delay = time.Now(), time.Millisecond
		case time.Since(lingering) > lingerWait:
			return nil
		}
		if wait(ctx, delay) != nil {
			if !lingering.IsZero() {
				return nil
			}
			return deviceError("disconnect", d.Index, context.Cause(ctx))
		}
	}
}

// flush writes back the device's dirty pages and empties its write cache. It
// does so in a goroutine, because the system call cannot be interrupted; one that
// is stuck ends when the device is detached.
func (d *Device) flush(ctx context.Context) error {
	select {
	case d.flushing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error, 1)
	go func() {
		err := flushDevice(d.Path())
		<-d.flushing
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flushDevice does fsync and BLKFLSBUF on a block device. A node that does not
// exist is one that nobody can have written to.
func flushDevice(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	err = unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
	if errors.Is(err, syscall.ENOTTY) {
		return nil // not a block device: a test's
	}
	return os.NewSyscallError("BLKFLSBUF", err)
}
