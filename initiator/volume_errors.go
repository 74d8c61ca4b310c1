package initiator

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// An ioSentinel is an error of block I/O to compare with errors.Is. It knows
// the errno under which the operating system has it.
type ioSentinel struct {
	text  string
	errno syscall.Errno
}

func (e *ioSentinel) Error() string           { return e.text }
func (e *ioSentinel) Errno() syscall.Errno    { return e.errno }
func (e *ioSentinel) ISCSICode() errcode.Code { return errcode.Err }

// Errors of volumes, to be found with errors.Is in a *VolumeError. docs/disk.md
// in the repository says which sense data lead to which of them.
var (
	// ErrUnaligned: offset or length is not a multiple of the block size.
	ErrUnaligned error = &ioSentinel{"not aligned to the block size", syscall.EINVAL}

	// ErrOutOfRange: the range does not lie within the volume.
	ErrOutOfRange error = &ioSentinel{"beyond the end of the volume", syscall.EINVAL}

	// ErrReadOnly: the volume is write protected.
	ErrReadOnly error = &ioSentinel{"write protected", syscall.EROFS}

	// ErrNoSpace: a thinly provisioned device has no space left.
	ErrNoSpace error = &ioSentinel{"no space left on the device", syscall.ENOSPC}

	// ErrMedium: the medium is damaged at this place.
	ErrMedium error = &ioSentinel{"medium error", syscall.EIO}

	// ErrDevice: the device could not do it.
	ErrDevice error = &ioSentinel{"device error", syscall.EIO}

	// ErrReservationConflict: another initiator holds a reservation.
	ErrReservationConflict error = &ioSentinel{"reservation conflict", errnoReservation}

	// ErrMiscompare: COMPARE AND WRITE found other data than expected. A
	// *MiscompareError says where.
	ErrMiscompare error = &ioSentinel{"miscompare", syscall.EILSEQ}

	// ErrUnsupported: the device does not have this command or this option.
	ErrUnsupported error = &ioSentinel{"not supported by the device", syscall.EOPNOTSUPP}

	// ErrAccess: the device denies us access.
	ErrAccess error = &ioSentinel{"access denied", syscall.EACCES}

	// ErrNoMedium: there is no medium in the device.
	ErrNoMedium error = &ioSentinel{"no medium", errnoNoMedium}

	// ErrNotReady: the device did not become ready in time, or will not by
	// itself.
	ErrNotReady error = &ioSentinel{"not ready", syscall.EIO}

	// ErrBusy: the device was too busy for longer than we retry.
	ErrBusy error = &ioSentinel{"busy", syscall.EBUSY}

	// ErrNoDevice: there is no device at the logical unit number (any more).
	ErrNoDevice error = &ioSentinel{"no such logical unit", syscall.ENODEV}

	// ErrIdentity: the logical unit is not the one it was before. An
	// *IdentityError has both identities.
	ErrIdentity error = &ioSentinel{"another device than before", syscall.ENODEV}

	// ErrVolumeClosed: the volume was closed.
	ErrVolumeClosed error = &ioSentinel{"volume closed", syscall.ENODEV}

	// ErrInvalidRequest: a Request that makes no sense, or an argument out of
	// range.
	ErrInvalidRequest error = &ioSentinel{"invalid request", syscall.EINVAL}
)

// A VolumeError is a failed operation on a volume.
type VolumeError struct {
	Op     string // "read", "write", "flush", "discard", "write zeroes", "open", …
	Target string // name of the target
	LUN    pdu.LUN

	// Offset and Length are the range in bytes, if Length is not 0: of the
	// command that failed, which may be a part of what was asked for.
	Offset, Length int64

	// Kind is one of the sentinels above that sums the error up, nil for
	// errors of the session.
	Kind error

	// Err is what happened: a *scsi.StatusError, an error of the session, or
	// Kind itself.
	Err error
}

// Error implements error.
func (e *VolumeError) Error() string {
	s := e.Op
	if e.Target != "" {
		s += " " + e.Target
	}
	s += " LUN " + e.LUN.String()
	if e.Length != 0 {
		s += fmt.Sprintf(": %d bytes at %d", e.Length, e.Offset)
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns Err and Kind.
func (e *VolumeError) Unwrap() []error {
	switch {
	case e.Kind == nil || e.Kind == e.Err:
		return []error{e.Err}
	default:
		return []error{e.Err, e.Kind}
	}
}

// Errno returns the error number for a caller that knows nothing finer, such
// as the kernel. It is never 0.
func (e *VolumeError) Errno() syscall.Errno { return Errno(e) }

// Errno returns the error number for any error of this package, EIO where
// there is nothing better, and 0 for nil.
func Errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var n interface{ Errno() syscall.Errno }
	var ve *VolumeError
	if errors.As(err, &ve) {
		err = errors.Join(ve.Kind, ve.Err) // past the method that called us
	}
	var errno syscall.Errno
	switch {
	case errors.As(err, &n):
		return n.Errno()
	case errors.Is(err, ErrClosed):
		return syscall.ENODEV
	case errors.Is(err, ErrTimeout):
		return syscall.ETIMEDOUT
	case errors.As(err, &errno) && errno != 0:
		return errno
	}
	return syscall.EIO
}

// Sense returns the sense data behind an error of this package, if a device
// sent any.
func Sense(err error) (scsi.Sense, bool) {
	var se *scsi.StatusError
	if errors.As(err, &se) && se.Sense.Valid() {
		return se.Sense, true
	}
	return scsi.Sense{}, false
}

// A NotADiskError is the refusal to open a logical unit that is no disk.
type NotADiskError struct {
	Target string
	LUN    pdu.LUN
	Type   scsi.DeviceType
}

// Error implements error.
func (e *NotADiskError) Error() string {
	return fmt.Sprintf("open %s LUN %s: not a disk but %s", e.Target, e.LUN, e.Type)
}

// Errno returns ENODEV.
func (e *NotADiskError) Errno() syscall.Errno { return syscall.ENODEV }

// An IdentityError says that a logical unit number leads to another device
// than before or than expected.
type IdentityError struct {
	Want, Got Identity
}

// Error implements error.
func (e *IdentityError) Error() string {
	return fmt.Sprintf("another device than before: %s instead of %s", e.Got, e.Want)
}

// Is makes errors.Is find ErrIdentity.
func (e *IdentityError) Is(target error) bool { return target == ErrIdentity }

// Errno returns ENODEV.
func (e *IdentityError) Errno() syscall.Errno { return syscall.ENODEV }

// A MiscompareError says where COMPARE AND WRITE found other data.
type MiscompareError struct {
	// Offset is the first byte on the volume that differs, if Known.
	Offset int64
	Known  bool
	Err    error // the *scsi.StatusError
}

// Error implements error.
func (e *MiscompareError) Error() string {
	if !e.Known {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v: first difference at byte %d", e.Err, e.Offset)
}

// Unwrap returns the device's status.
func (e *MiscompareError) Unwrap() error { return e.Err }

// Is makes errors.Is find ErrMiscompare.
func (e *MiscompareError) Is(target error) bool { return target == ErrMiscompare }

// Errno returns EILSEQ.
func (e *MiscompareError) Errno() syscall.Errno { return syscall.EILSEQ }

// A shortTransferError is a command that the device calls a success although
// it transferred less than all of the data.
type shortTransferError struct{ want, got int }

func (e *shortTransferError) Error() string {
	return fmt.Sprintf("short transfer: %d of %d bytes", e.got, e.want)
}

func (e *shortTransferError) Unwrap() error { return ErrDevice }
