package control

import (
	"net"
	"syscall"
	"unsafe"
)

// soPeerGroups is SO_PEERGROUPS of asm-generic/socket.h (Linux 4.13).
const soPeerGroups = 59

// peerOf reads the credentials of the process that connected c.
func peerOf(c net.Conn) (Peer, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}, syscall.ENOTSOCK
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	var serr error
	err = raw.Control(func(fd uintptr) {
		var cred *syscall.Ucred
		if cred, serr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); serr != nil {
			return
		}
		p = Peer{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid), Groups: peerGroups(fd)}
	})
	if err == nil {
		err = serr
	}
	return p, err
}

// peerGroups returns the supplementary groups of the peer, none where the
// kernel cannot tell them.
func peerGroups(fd uintptr) []int {
	// NGROUPS_MAX is 65536; nobody who is to manage disks has more than 256.
	var buf [256]uint32
	size := uint32(unsafe.Sizeof(buf))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, soPeerGroups,
		uintptr(unsafe.Pointer(&buf)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	groups := make([]int, 0, size/4)
	for _, g := range buf[:size/4] {
		groups = append(groups, int(g))
	}
	return groups
}
