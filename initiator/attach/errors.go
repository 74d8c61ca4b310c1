//go:build linux

package attach

import (
	"errors"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/nbd"
)

// ErrGone says that the device that a Handle names is not there any more, or has become
// another one's.
var ErrGone = errors.New("the device is gone")

// ErrInUse says that the device is mounted, swapped to, or part of another one. A
// *nbd.BusyError says by whom.
var ErrInUse = errors.New("the device is in use")

// An Error is a failed operation on the device of a disk.
type Error struct {
	Op     string // "attach", "reattach", "detach", …
	Target string // name of the target
	LUN    uint64 // number of the logical unit
	Path   string // device or socket, empty where there is none yet
	Err    error  // often a *nbd.DeviceError
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Op + " " + e.Target
	if e.Path != "" {
		s += " at " + e.Path
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is find ErrInUse and ErrGone.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrInUse:
		var busy *nbd.BusyError
		return errors.As(e.Err, &busy)
	case ErrGone:
		return errors.Is(e.Err, nbd.ErrNoDevice) || errors.Is(e.Err, nbd.ErrForeignDevice)
	}
	return false
}

// ISCSICode returns 28 for a device in use, 12 where the kernel has no nbd
// driver, 21 for a device that is gone, and else the code of the cause.
func (e *Error) ISCSICode() initiator.Code {
	switch {
	case e.Is(ErrInUse):
		return initiator.CodeBusy
	case errors.Is(e.Err, nbd.ErrNotSupported):
		return initiator.CodeNoDriver
	case e.Is(ErrGone):
		return initiator.CodeNotFound
	}
	return initiator.ErrorCode(e.Err)
}
