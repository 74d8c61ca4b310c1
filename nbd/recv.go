//go:build linux

package nbd

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// smallTail is how much is read ahead behind a large payload: the next headers
// should come along, but the next payload should not, since it would have to be
// copied.
const (
	largePayload = 32 << 10
	smallTail    = 4 << 10
)

// errDisconnect ends the reader after NBD_CMD_DISC.
var errDisconnect = errors.New("nbd: peer disconnects")

// inbound is the state of the reader goroutine; nobody else touches it.
type inbound struct {
	buf        []byte
	start, end int // what has been read and not yet parsed

	spare    *Request // free requests, taken from Conn.free in one go
	slots    int      // requests that exist
	taken    int64    // requests taken from spare, ever
	size     int64    // payload bytes taken with them
	seenSize int64    // Conn.releasedSize when last looked at

	gathered int  // requests that went to the backend since the last kick
	last     bool // draining: read only what completes the current request
}

// receive reads and submits requests until the connection ends. It returns nil
// after NBD_CMD_DISC.
func (c *Conn) receive() error {
	in := &c.in
	for {
		for in.end-in.start >= RequestSize {
			h, err := ParseRequest(in.buf[in.start:in.end])
			if err != nil {
				return err
			}
			in.start += RequestSize
			switch err := c.accept(&h); err {
			case nil:
			case errDisconnect:
				return nil
			default:
				return err
			}
		}
		if in.last && in.start == in.end {
			return ErrDrained
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// kick tells the backend that no request is left in memory, and sends what it
// has completed by then.
func (c *Conn) kick() {
	if c.in.gathered > 0 {
		c.in.gathered = 0
		c.backend.Kick()
		c.Flush()
	}
}

// maxGather is how many requests wait at most for others that come behind
// them.
const maxGather = 32

// read reads what has come into a and then b. It kicks the backend only when
// nothing has come: whatever the peer sent while its former requests were
// worked on goes the same way with them, by one system call of the backend's.
// A peer that sends without end does not hold its requests up for long, and one
// that has no other request in flight is not expected to send more.
func (c *Conn) read(a, b []byte) (int, error) {
	if n := c.in.gathered; n > 0 && n < maxGather && c.others() {
		if n, err := c.t.readv(a, b, false); err != errWouldBlock {
			return n, err
		}
	}
	c.kick()
	return c.t.readv(a, b, true)
}

// others reports whether requests are in flight besides those just gathered.
func (c *Conn) others() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.taken-c.released > int64(c.in.gathered)
}

// fill reads more into the buffer, of which less than a header is filled.
func (c *Conn) fill() error {
	in := &c.in
	in.end = copy(in.buf, in.buf[in.start:in.end])
	in.start = 0
	for {
		to := in.buf[in.end:]
		if in.last {
			to = in.buf[in.end:RequestSize]
		}
		n, err := c.read(to, nil)
		if err == nil {
			in.end += n
			return nil
		}
		if isDeadline(err) {
			if err = c.lastRequest(in.end == 0); err == nil {
				continue
			}
			return err
		}
		if in.end > 0 {
			err = unexpected(err)
		}
		return err
	}
}

// lastRequest is called when a deadline has interrupted a read. The first time
// the context has ended: at a boundary between requests that is the end, within
// one the peer is given DrainTimeout to finish it. The second time that has
// passed.
func (c *Conn) lastRequest(boundary bool) error {
	switch {
	case !c.draining.Load() || c.in.last:
		return ErrPeerStuck
	case boundary:
		return ErrDrained
	}
	c.in.last = true
	return c.nc.SetReadDeadline(time.Now().Add(c.opt.DrainTimeout))
}

// accept checks a request, reads its payload and gives it to the backend.
func (c *Conn) accept(h *RequestHeader) error {
	if h.Cmd == CmdDisconnect {
		return errDisconnect
	}
	errno := c.export.check(h, c.blockMask, c.maxPayload)
	size := 0
	switch {
	case h.Cmd == CmdWrite && h.Length > MaxPayload:
		// What follows cannot be skipped in reasonable time; proto.md allows
		// to drop a client that exceeds the maximum that it was told.
		return fmt.Errorf("write of %d bytes: %w", h.Length,
			&FormatError{Message: "request", Field: "length", Got: uint64(h.Length)})
	case errno == 0 && (h.Cmd == CmdRead || h.Cmd == CmdWrite):
		size = int(h.Length)
	}
	r, err := c.take(size)
	if err != nil {
		return err
	}
	r.Cmd, r.Flags, r.Offset, r.Length = h.Cmd, h.Flags, h.Offset, h.Length
	r.cookie = h.Cookie
	if size > 0 {
		r.size = size
		c.opt.Pool.reserve(size)
		if h.Cmd == CmdWrite {
			r.buf = c.opt.Pool.take(size)
			r.Data = r.buf
		}
	}
	if h.Cmd == CmdWrite && h.Length > 0 {
		if errno == 0 {
			err = c.readPayload(r.Data)
		} else {
			err = c.skipPayload(int(h.Length))
		}
		if err != nil {
			c.giveBack(r)
			return err
		}
	}
	r.state.Store(requestSubmitted)
	c.in.gathered++
	if errno != 0 {
		r.Complete(errno)
		return nil
	}
	if h.Cmd == CmdFlush {
		r.Offset, r.Length = 0, 0
	}
	c.backend.Submit(r)
	return nil
}

// readPayload fills p from what is buffered and then from the socket.
func (c *Conn) readPayload(p []byte) error {
	in := &c.in
	n := copy(p, in.buf[in.start:in.end])
	in.start += n
	if n == len(p) {
		return nil
	}
	// The buffer is empty now.
	in.start, in.end = 0, 0
	for p = p[n:]; len(p) > 0; {
		ahead := in.buf
		if len(p) >= largePayload {
			ahead = ahead[:min(smallTail, len(ahead))]
		}
		if in.last {
			ahead = nil
		}
		n, err := c.read(p, ahead)
		if err != nil {
			if isDeadline(err) {
				if err = c.lastRequest(false); err == nil {
					continue
				}
				return err
			}
			return unexpected(err)
		}
		if n > len(p) {
			in.end = n - len(p)
			n = len(p)
		}
		p = p[n:]
	}
	return nil
}

// skipPayload throws away n bytes that belong to a refused write.
func (c *Conn) skipPayload(n int) error {
	in := &c.in
	have := min(n, in.end-in.start)
	in.start += have
	for n -= have; n > 0; {
		got, err := c.read(in.buf[:min(n, len(in.buf))], nil)
		if err != nil {
			if isDeadline(err) {
				if err = c.lastRequest(false); err == nil {
					continue
				}
				return err
			}
			return unexpected(err)
		}
		n -= got
		in.start, in.end = 0, 0
	}
	return nil
}

// take returns a request for size bytes of payload, waiting until there is room
// for it within MaxRequests, MaxBytes and the bound of the pool.
func (c *Conn) take(size int) (*Request, error) {
	in := &c.in
	for in.spare == nil || !c.fits(size) {
		c.mu.Lock()
		if in.spare == nil {
			in.spare, c.free = c.free, nil
		}
		in.seenSize = c.releasedSize
		dead := c.dead
		haveSlot := in.spare != nil || in.slots < c.opt.MaxRequests
		c.waiting = dead == nil && !(haveSlot && c.fits(size))
		waiting := c.waiting
		c.mu.Unlock()
		switch {
		case dead != nil:
			return nil, dead
		case waiting:
			// What has been submitted must make progress meanwhile.
			c.kick()
			<-c.room
		case in.spare == nil:
			in.slots++
			in.spare = &Request{conn: c}
		}
	}
	r := in.spare
	in.spare, r.next = r.next, nil
	in.taken++
	in.size += int64(size)
	return r, nil
}

// fits reports whether size more bytes of payload may be in flight, as far as
// the reader knows; a single request always may. So where something does not fit,
// a request of this very connection is in flight, and its end looks again: other
// connections of the pool need not be heard of.
func (c *Conn) fits(size int) bool {
	if size == 0 {
		return true
	}
	used := c.in.size - c.in.seenSize
	return used == 0 || used+int64(size) <= min(c.opt.MaxBytes, c.opt.Pool.room())
}

// giveBack returns a request that was taken and not submitted.
func (c *Conn) giveBack(r *Request) {
	c.mu.Lock()
	c.releaseList(r)
	c.mu.Unlock()
}

// unexpected turns an end of the stream within a message into
// io.ErrUnexpectedEOF.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
