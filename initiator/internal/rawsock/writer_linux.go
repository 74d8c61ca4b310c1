package rawsock

import (
	"net"
	"os"
	"syscall"
	"unsafe"
)

// maxVectors is how many buffers one writev takes (UIO_MAXIOV).
const maxVectors = 1024

// A Writer writes buffers to a socket without ever waiting for it. Used by
// one goroutine at a time. It allocates nothing in the steady state.
type Writer struct {
	rc  syscall.RawConn
	iov []syscall.Iovec

	// Arguments and results of once, which is made once.
	once func(fd uintptr) bool
	n    int
	err  error
}

// NewWriter returns nil if nc is no socket that can be written to like
// this.
func NewWriter(nc net.Conn) *Writer {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	rc, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	w := &Writer{rc: rc}
	w.once = func(fd uintptr) bool {
		w.writev(fd)
		return true // never wait
	}
	return w
}

// Write writes as much as the socket takes at once and returns what is left. The
// list is modified.
func (w *Writer) Write(bufs [][]byte) (rest [][]byte, err error) {
	for len(bufs) > 0 {
		batch := bufs[:min(len(bufs), maxVectors)]
		w.iov = w.iov[:0]
		total := 0
		for _, b := range batch {
			if len(b) == 0 {
				continue
			}
			v := syscall.Iovec{Base: unsafe.SliceData(b)}
			v.SetLen(len(b))
			w.iov = append(w.iov, v)
			total += len(b)
		}
		w.n, w.err = 0, nil
		err := w.rc.Write(w.once)
		clear(w.iov)
		if err != nil {
			return nil, err
		}
		if w.err != nil {
			return nil, w.err
		}
		if w.n == total {
			bufs = bufs[len(batch):]
			continue
		}
		return consume(bufs, w.n), nil
	}
	return nil, nil
}

// writev makes the system call.
func (w *Writer) writev(fd uintptr) {
	if len(w.iov) == 0 {
		return
	}
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
		switch errno {
		case 0:
			w.n = int(n)
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			w.err = os.NewSyscallError("writev", errno)
		}
		return
	}
}

// consume returns bufs without their first n bytes.
func consume(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}
