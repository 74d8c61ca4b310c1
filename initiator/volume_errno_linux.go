package initiator

import "syscall"

// The error numbers that only Linux has.
const (
	// errnoReservation is what Linux's own SCSI disks return (BLK_STS_RESV_CONFLICT).
	errnoReservation = syscall.EBADE
	errnoNoMedium    = syscall.ENOMEDIUM
)
