//go:build linux

package nbd

import (
	"sync/atomic"
	"syscall"
)

// A Backend does the requests of an export. Its methods are called from the
// goroutine that reads the connection; with several connections they are called
// concurrently.
type Backend interface {
	// Submit takes a request, which passed the checks of the Export: it is
	// within the size, aligned, and of a kind that the Export advertises. It
	// must not block on the request's completion; it may call Complete itself.
	// Every request has to be completed exactly once, even after the connection
	// has ended.
	Submit(r *Request)
	// Kick says that no further request is in memory right now: what Submit
	// gathered should be on its way when Kick returns.
	Kick()
}

// A Request is one command of the peer. It belongs to the backend from Submit
// to Complete, and must not be touched after Complete: the connection uses it
// again.
type Request struct {
	// Cmd is CmdRead, CmdWrite, CmdFlush, CmdTrim or CmdWriteZeroes.
	Cmd Command
	// Flags has no flag that the Export does not advertise: CmdFlagFUA,
	// CmdFlagNoHole.
	Flags CommandFlags
	// Offset in bytes; 0 for a flush.
	Offset uint64
	// Length in bytes; 0 for a flush. TRIM and WRITE_ZEROES may have up to
	// 4 GiB - 1 of it in one request: the kernel does not split them.
	Length uint32
	// Data is the payload of a write, Length bytes long, and nil for others. It
	// goes back to its pool after Complete.
	Data []byte
	// Private is the backend's; it stays as it is when the Request is used
	// again, so that what the backend needs per request can be kept there. It
	// is nil at first.
	Private any

	conn   *Conn
	buf    []byte // the pool's: a write's Data at Submit, what Buffer returned for a read
	size   int    // what buf takes or is going to take of the bounds
	cookie uint64
	errno  uint32
	next   *Request // in the list that the request is on; guarded as the list is
	state  atomic.Int32
}

// States of a Request: idle → submitted (reader) → completed (backend) → idle
// (whoever wrote the reply).
const (
	requestIdle int32 = iota
	requestSubmitted
	requestCompleted
)

// Buffer returns what a read has to fill, all of it, unless it fails: Length bytes
// of undefined content. It goes back to its pool after Complete.
//
// The first call takes it from the pool. The later that is, the fewer buffers go
// round, and the more of them the processor still has in its cache from the last
// time. It is not for concurrent use, and nil for all but reads.
func (r *Request) Buffer() []byte {
	if r.Cmd != CmdRead {
		return nil
	}
	if r.buf == nil {
		r.buf = r.conn.opt.Pool.take(r.size)
	}
	return r.buf
}

// Conn returns the connection that the request came from. Its Flush must be
// called after a batch of completions, so take it before Complete.
func (r *Request) Conn() *Conn { return r.conn }

// Complete ends the request with success (0) or an error, which is mapped to
// the nearest one that the protocol knows. It must be called exactly once, from
// any goroutine; a second call panics as long as the request has not been used
// again. A read that succeeds without Buffer having been filled fails with EIO. The
// reply is sent by the next Conn.Flush; the connection flushes by
// itself only after it called Submit and Kick. It never blocks on the peer.
func (r *Request) Complete(errno syscall.Errno) {
	if !r.state.CompareAndSwap(requestSubmitted, requestCompleted) {
		panic("nbd: request completed twice")
	}
	if errno == 0 && r.Cmd == CmdRead && r.buf == nil {
		errno = syscall.EIO
	}
	r.errno = wireErrno(errno)
	r.conn.completed(r)
}
