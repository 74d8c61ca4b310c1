package rawsock

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// A Reader reads from a socket into two buffers, with or without waiting for it.
// Used by one goroutine at a time. It allocates nothing.
type Reader struct {
	rc syscall.RawConn

	// Arguments and results of once, which is made once.
	once  func(fd uintptr) bool
	iov   [2]syscall.Iovec
	count int
	wait  bool
	n     int
	err   error
}

// NewReader returns nil if nc is no socket that can be read like this.
func NewReader(nc net.Conn) *Reader {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	rc, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	r := &Reader{rc: rc}
	r.once = r.readv
	return r
}

// Read puts what has come into a and what does not fit there into b. If nothing
// has, it waits, or returns ErrWouldBlock if wait is not set. The error is io.EOF
// at the end of the stream.
func (r *Reader) Read(a, b []byte, wait bool) (int, error) {
	r.count = 0
	for _, p := range [2][]byte{a, b} {
		if len(p) > 0 {
			r.iov[r.count].Base = unsafe.SliceData(p)
			r.iov[r.count].SetLen(len(p))
			r.count++
		}
	}
	r.wait, r.n, r.err = wait, 0, nil
	err := r.rc.Read(r.once)
	clear(r.iov[:])
	switch {
	case err != nil:
		return 0, err
	case r.err != nil:
		return 0, r.err
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}

// readv makes the system call. It returns false to be called again when there
// is something to read.
func (r *Reader) readv(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READV, fd, uintptr(unsafe.Pointer(&r.iov)), uintptr(r.count))
		switch errno {
		case 0:
			r.n = int(n)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			if r.wait {
				return false
			}
			r.err = ErrWouldBlock
			return true
		default:
			r.err = os.NewSyscallError("readv", errno)
			return true
		}
	}
}
