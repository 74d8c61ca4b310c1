//go:build linux

package nbd

import "syscall"

// wireErrno maps an errno to the few that the protocol knows (proto.md, "Error
// values"); what it does not know becomes EIO. The kernel's client makes EIO of
// all of them, other clients tell them apart.
func wireErrno(e syscall.Errno) uint32 {
	switch e {
	case 0:
		return 0
	case syscall.EPERM, syscall.EROFS, syscall.EACCES:
		return uint32(syscall.EPERM)
	case syscall.ENOMEM:
		return uint32(syscall.ENOMEM)
	case syscall.EINVAL:
		return uint32(syscall.EINVAL)
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return uint32(syscall.ENOSPC)
	case syscall.EOVERFLOW:
		return uint32(syscall.EOVERFLOW)
	case syscall.ENOTSUP:
		return uint32(syscall.ENOTSUP)
	case syscall.ESHUTDOWN:
		return uint32(syscall.ESHUTDOWN)
	}
	return uint32(syscall.EIO)
}
