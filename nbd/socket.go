//go:build linux

package nbd

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// socketBuffer is the SO_SNDBUF of both ends of a device's sockets: writes fill
// the kernel's end as reads fill ours.
const socketBuffer = 2 << 20

// A socketPair joins the kernel to the server that will be its backend.
type socketPair struct {
	kernel *os.File      // passed to the driver, which keeps a reference of its own
	server *net.UnixConn // for ServeConn
}

func newSocketPair() (*socketPair, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer) != nil {
			// As much as an unprivileged process gets.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
		}
	}
	p := &socketPair{kernel: os.NewFile(uintptr(fds[0]), "nbd-kernel")}
	f := os.NewFile(uintptr(fds[1]), "nbd-server")
	defer f.Close() // FileConn has its own descriptor
	nc, err := net.FileConn(f)
	if err != nil {
		p.kernel.Close()
		return nil, err
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		p.kernel.Close()
		return nil, fmt.Errorf("nbd: socketpair made a %T", nc)
	}
	p.server = uc
	return p, nil
}

func (p *socketPair) close() {
	p.kernel.Close()
	p.server.Close()
}

// adopted closes this process's descriptor of the kernel's end and reports
// whether the driver holds that end: if it does not, ours is at its end now.
//
// It is the only way to know. RECONFIGURE acknowledges a socket that it does not
// take because the old one still lives.
func (p *socketPair) adopted() bool {
	p.kernel.Close()
	rc, err := p.server.SyscallConn()
	if err != nil {
		return false
	}
	taken := false
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		taken = n > 0 || err == unix.EAGAIN || err == unix.EINTR
	})
	return err == nil && taken
}
