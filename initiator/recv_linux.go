package initiator

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// errWouldBlock says that a read that was not to wait found nothing.
var errWouldBlock = errors.New("nothing to read")

// A vectorReader reads from a socket into two buffers, with or without waiting
// for it. Used by one goroutine at a time. It allocates nothing.
//
// Its calls and those of vectorWriter are raw ones, of which the scheduler is
// not told: the socket is non-blocking, so none takes longer than its copying.
// Told of them, it hands the processor on to another thread whenever one takes
// more than 20 µs, as waking the peer does, and the goroutine has to get it
// back afterwards.
type vectorReader struct {
	rc syscall.RawConn

	// Arguments and results of once, which is made once.
	once  func(fd uintptr) bool
	iov   [2]syscall.Iovec
	count int
	wait  bool
	n     int
	err   error
}

// newVectorReader returns nil if nc is no socket that can be read like this.
func newVectorReader(nc net.Conn) *vectorReader {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	rc, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	r := &vectorReader{rc: rc}
	r.once = r.readv
	return r
}

// read puts what has come into a and what does not fit there into b. If nothing
// has, it waits, or returns errWouldBlock if wait is not set.
func (r *vectorReader) read(a, b []byte, wait bool) (int, error) {
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
func (r *vectorReader) readv(fd uintptr) bool {
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
			r.err = errWouldBlock
			return true
		default:
			r.err = os.NewSyscallError("readv", errno)
			return true
		}
	}
}
