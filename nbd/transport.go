//go:build linux

package nbd

import (
	"errors"
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxIovec is the kernel's UIO_MAXIOV: more vectors in one call get EINVAL.
const maxIovec = 1024

// errWouldBlock says that there is nothing to read, or that a write took a part
// or nothing and that the rest has to wait for the peer to read.
var errWouldBlock = errors.New("nbd: socket is not ready")

// A transport moves bytes between memory and a socket. readv is for the reading
// goroutine alone, writev for whoever holds Conn.writing.
type transport interface {
	// readv puts what there is to read into a and what does not fit there into
	// b. If there is nothing it waits or, with block unset, returns
	// errWouldBlock. It returns io.EOF at the end of the stream.
	readv(a, b []byte, block bool) (int, error)
	// writev writes v and takes what was written from it. With block unset it
	// returns errWouldBlock instead of waiting.
	writev(v *vector, block bool) error
}

// A vector is a list of byte slices to write, consumed from the front.
type vector struct {
	bufs [][]byte
	off  int // bufs before it have been written
}

func (v *vector) reset()            { clear(v.bufs); v.bufs, v.off = v.bufs[:0], 0 }
func (v *vector) add(b []byte)      { v.bufs = append(v.bufs, b) }
func (v *vector) pending() [][]byte { return v.bufs[v.off:] }

// consume drops the first n bytes.
func (v *vector) consume(n int) {
	for n > 0 {
		b := v.bufs[v.off]
		if n < len(b) {
			v.bufs[v.off] = b[n:]
			return
		}
		n -= len(b)
		v.off++
	}
}

// newTransport returns the fast transport for sockets and a plain one for all
// else (pipes in memory, TLS).
func newTransport(nc net.Conn) transport {
	if sc, ok := nc.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			return newRawTransport(rc)
		}
	}
	return streamTransport{nc}
}

// A streamTransport works with any net.Conn. It cannot try without blocking, so
// all writing is left to the sender goroutine.
type streamTransport struct{ nc net.Conn }

func (t streamTransport) readv(a, b []byte, block bool) (int, error) {
	if !block {
		return 0, errWouldBlock
	}
	if len(a) == 0 {
		a = b
	}
	n, err := t.nc.Read(a)
	if n > 0 {
		err = nil // it comes again
	}
	return n, err
}

func (t streamTransport) writev(v *vector, block bool) error {
	if !block {
		return errWouldBlock
	}
	for len(v.pending()) > 0 {
		n, err := t.nc.Write(v.pending()[0])
		v.consume(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// A rawTransport makes the system calls itself, with vectors and callbacks that
// are kept from call to call: net.Buffers and unix.Writev allocate for more
// than a few vectors, and neither can try without blocking.
//
// The calls are raw ones, of which the scheduler is not told: the sockets are
// non-blocking, so none takes longer than its copying. Told of them, it hands
// the processor on to another thread whenever one takes more than 20 µs, as
// waking the peer does, and the goroutine has to get it back afterwards.
type rawTransport struct {
	rc syscall.RawConn

	// Reading.
	riov   [2]unix.Iovec
	rcount int
	rblock bool
	rn     int
	rerr   error
	rfn    func(fd uintptr) bool

	// Writing.
	wiov   []unix.Iovec
	wv     *vector
	wblock bool
	werr   error
	wfn    func(fd uintptr) bool
}

func newRawTransport(rc syscall.RawConn) *rawTransport {
	t := &rawTransport{rc: rc}
	t.rfn, t.wfn = t.readOnce, t.writeAll
	return t
}

func setIovec(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}

func (t *rawTransport) readv(a, b []byte, block bool) (int, error) {
	t.rcount, t.rblock = 0, block
	for _, p := range [2][]byte{a, b} {
		if len(p) > 0 {
			setIovec(&t.riov[t.rcount], p)
			t.rcount++
		}
	}
	t.rn, t.rerr = 0, nil
	err := t.rc.Read(t.rfn)
	switch {
	case err != nil:
		return 0, err
	case t.rerr != nil:
		return 0, t.rerr
	case t.rn == 0:
		return 0, io.EOF
	}
	return t.rn, nil
}

// readOnce is the callback of RawConn.Read; false waits for the socket.
func (t *rawTransport) readOnce(fd uintptr) bool {
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&t.riov)), uintptr(t.rcount))
		switch e {
		case 0:
			t.rn = int(n)
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			if t.rblock {
				return false
			}
			t.rerr = errWouldBlock
			return true
		default:
			t.rerr = e
			return true
		}
	}
}

func (t *rawTransport) writev(v *vector, block bool) error {
	t.wv, t.wblock, t.werr = v, block, nil
	if err := t.rc.Write(t.wfn); err != nil {
		return err
	}
	return t.werr
}

// writeAll is the callback of RawConn.Write; false waits for the socket.
func (t *rawTransport) writeAll(fd uintptr) bool {
	for {
		bufs := t.wv.pending()
		if len(bufs) == 0 {
			return true
		}
		t.wiov = t.wiov[:0]
		for _, b := range bufs[:min(len(bufs), maxIovec)] {
			var v unix.Iovec
			setIovec(&v, b)
			t.wiov = append(t.wiov, v)
		}
		n, _, e := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&t.wiov[0])), uintptr(len(t.wiov)))
		switch e {
		case 0:
			t.wv.consume(int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			if t.wblock {
				return false
			}
			t.werr = errWouldBlock
			return true
		default:
			t.werr = e
			return true
		}
	}
}
