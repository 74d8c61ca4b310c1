//go:build linux

package nbd

import (
	"encoding/binary"
)

const (
	// maxBatch is the most replies that go into one writev: each takes up to
	// two vectors.
	maxBatch = maxIovec / 2
	// maxRounds is how many batches a completing goroutine writes before it
	// leaves the rest to the sender, lest others' completions keep it busy.
	maxRounds = 4
)

// outbound is the state of writing. It belongs to whoever set Conn.writing.
//
//	idle --Flush finds replies--> a flusher writes, without blocking
//	flusher: nothing left --> idle
//	flusher: socket full, or too many rounds --> sender (handoff)
//	sender: writes, blocking; nothing left --> idle
type outbound struct {
	batch *Request // replies that vec is made of
	rest  *Request // replies taken from the list for the batches after it
	vec   vector
	hdrs  []byte // the headers that vec points at
}

// completed appends a reply to the list, or drops it if nobody will read it.
func (c *Conn) completed(r *Request) {
	r.next = nil
	c.mu.Lock()
	switch {
	case c.dead != nil:
		c.releaseList(r)
	case c.head == nil:
		c.head, c.tail = r, r
	default:
		c.tail.next = r
		c.tail = r
	}
	c.mu.Unlock()
}

// Flush sends the replies of all requests completed so far with one writev. It
// is cheap when there are none, or when another goroutine is writing, which
// then sends these too. It does not block: what the socket does not take is
// left to the connection's own goroutine.
func (c *Conn) Flush() {
	c.mu.Lock()
	if c.writing || c.head == nil {
		c.mu.Unlock()
		return
	}
	c.writing = true
	for round := 1; ; round++ {
		c.nextBatch()
		c.mu.Unlock()
		c.encodeBatch()
		err := c.t.writev(&c.out.vec, false)
		if err == errWouldBlock {
			c.handoff <- struct{}{}
			return
		}
		c.mu.Lock()
		if c.batchDone(err) {
			c.mu.Unlock()
			c.closeIf(err)
			return
		}
		if round == maxRounds {
			c.nextBatch()
			c.mu.Unlock()
			c.encodeBatch()
			c.handoff <- struct{}{}
			return
		}
	}
}

// send is the sender goroutine: it takes over the writing that a flusher handed
// to it, until there is nothing more to write. It ends when ServeConn closes
// handoff.
func (c *Conn) send() {
	for range c.handoff {
		for {
			err := c.t.writev(&c.out.vec, true)
			c.mu.Lock()
			if c.batchDone(err) {
				c.mu.Unlock()
				c.closeIf(err)
				break
			}
			c.nextBatch()
			c.mu.Unlock()
			c.encodeBatch()
		}
	}
}

// closeIf closes the socket after a failed write, so that the reader ends too.
func (c *Conn) closeIf(err error) {
	if err != nil {
		c.nc.Close()
	}
}

// nextBatch takes what is to be written next. The caller holds mu and writing.
func (c *Conn) nextBatch() {
	o := &c.out
	o.batch = o.rest
	o.rest = nil
	if o.batch == nil {
		o.batch = c.head
		c.head, c.tail = nil, nil
	}
}

// encodeBatch makes the vector of the batch: for each reply its header, and its
// data if it is a successful read. Headers that follow one another share a
// vector. The caller holds writing.
func (c *Conn) encodeBatch() {
	o := &c.out
	o.vec.reset()
	o.hdrs = o.hdrs[:0]
	if cap(o.hdrs) < maxBatch*ReplySize {
		// Vectors point into it, so it must not move while it is filled.
		o.hdrs = make([]byte, 0, maxBatch*ReplySize)
	}
	from := 0 // headers from here on are not yet in the vector
	n := 0
	var last *Request
	for r := o.batch; r != nil; r = r.next {
		if n == maxBatch {
			o.rest, last.next = r, nil
			break
		}
		n++
		last = r
		o.hdrs = binary.BigEndian.AppendUint32(o.hdrs, SimpleReplyMagic)
		o.hdrs = binary.BigEndian.AppendUint32(o.hdrs, r.errno)
		o.hdrs = binary.BigEndian.AppendUint64(o.hdrs, r.cookie)
		if r.Cmd == CmdRead && r.errno == 0 {
			o.vec.add(o.hdrs[from:])
			o.vec.add(r.buf)
			from = len(o.hdrs)
		}
	}
	if from < len(o.hdrs) {
		o.vec.add(o.hdrs[from:])
	}
}

// batchDone releases the batch after its write and reports whether there is
// nothing more to write; writing is then unset. The caller holds mu and writing.
func (c *Conn) batchDone(err error) (idle bool) {
	o := &c.out
	if err != nil && c.dead == nil {
		c.dead = err
	}
	c.writes++
	o.vec.reset()
	batch := o.batch
	o.batch = nil
	c.releaseList(batch)
	if c.dead != nil {
		rest, head := o.rest, c.head
		o.rest, c.head, c.tail = nil, nil, nil
		c.releaseList(rest)
		c.releaseList(head)
	}
	if o.rest == nil && c.head == nil {
		c.writing = false
		c.wakeReader()
		return true
	}
	return false
}

// releaseList makes requests free for the reader to use again. The caller holds
// mu.
func (c *Conn) releaseList(r *Request) {
	for r != nil {
		next := r.next
		if r.size > 0 {
			c.opt.Pool.release(r.buf, r.size)
			c.releasedSize += int64(r.size)
			r.buf, r.Data, r.size = nil, nil, 0
		}
		r.state.Store(requestIdle)
		r.next = c.free
		c.free = r
		c.released++
		r = next
	}
	c.wakeReader()
}

// wakeReader wakes the reader if it waits. The caller holds mu.
func (c *Conn) wakeReader() {
	if c.waiting {
		c.waiting = false
		select {
		case c.room <- struct{}{}:
		default:
		}
	}
}
