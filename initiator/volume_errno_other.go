//go:build !linux

package initiator

import "syscall"

// Stand-ins for the error numbers that only Linux has.
const (
	errnoReservation = syscall.EBUSY
	errnoNoMedium    = syscall.ENODEV
)
