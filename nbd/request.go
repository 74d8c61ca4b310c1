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
	// Data is the payload of a write, or what a read has to fill, all of it,
	// unless it fails: the buffer has undefined content. It is Length bytes
	// long for these two and nil for others. It goes back to its pool after
	// Complete.
	Data []byte
	// Private is the backend's; it stays as it is when the Request is used
	// again, so that what the backend needs per request can be kept there. It
	// is nil at first.
	Private any

	conn   *Conn
	buf    []byte // what Data was at Submit: the pool's
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

// Conn returns the connection that the request came from. Its Flush must be
// called after a batch of completions, so take it before Complete.
func (r *Request) Conn() *Conn { return r.conn }

// Complete ends the request with success (0) or an error, which is mapped to
// the nearest one that the protocol knows. It must be called exactly once, from
// any goroutine; a second call panics as long as the request has not been used
// again. The reply is sent by the next Conn.Flush; the connection flushes by
// itself only after it called Submit and Kick. It never blocks on the peer.
func (r *Request) Complete(errno syscall.Errno) {
	if !r.state.CompareAndSwap(requestSubmitted, requestCompleted) {
		panic("nbd: request completed twice")
	}
	r.errno = wireErrno(errno)
	r.conn.completed(r)
}
