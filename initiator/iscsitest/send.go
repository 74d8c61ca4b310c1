package iscsitest

import "github.com/goiscsi/goiscsi/pdu"

const (
	// flushAt is how many bytes of replies are collected at most.
	flushAt = 1 << 20
	// arenaSize is the memory for the data of replies.
	arenaSize = 512 << 10
	// maxDataIn is the longest data segment of a Data-In, in bytes, also
	// where the initiator would take longer ones.
	maxDataIn = 256 << 10
)

// An arena gives out memory for payloads that has to last until the next
// flush.
type arena struct {
	buf  []byte
	used int
}

// alloc returns n bytes, at most arenaSize, of undefined contents.
func (c *Conn) alloc(n int) ([]byte, error) {
	a := &c.arena
	if a.buf == nil {
		a.buf = make([]byte, arenaSize)
	}
	if a.used+n > len(a.buf) {
		if err := c.flush(); err != nil {
			return nil, err
		}
	}
	b := a.buf[a.used : a.used+n : a.used+n]
	a.used += n
	return b, nil
}

// keep copies b into the arena, or onto the heap if it is too long.
func (c *Conn) keep(b []byte) ([]byte, error) {
	if len(b) > arenaSize {
		return append([]byte(nil), b...), nil
	}
	k, err := c.alloc(len(b))
	copy(k, b)
	return k, err
}

// flush sends the collected replies. c.mu is held.
func (c *Conn) flush() error {
	err := c.sock.flush(c.w)
	c.arena.used = 0
	return err
}

// lockedFlush sends the collected replies.
func (c *Conn) lockedFlush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flush()
}

// send numbers a response and appends it to the replies. Its payload must
// last until the next flush. c.mu is held.
func (c *Conn) send(p pdu.PDU) error {
	c.number(p)
	if c.recovers() {
		c.record(p)
	}
	return c.sendNumbered(p)
}

func (c *Conn) sendNumbered(p pdu.PDU) error {
	op := p.Opcode()
	if c.srv.hooked(op) {
		return c.sendHooked(p)
	}
	return c.append(p)
}

func (c *Conn) append(p pdu.PDU) error {
	c.srv.sent[p.Opcode()&0x3f].Add(1)
	if err := c.w.Append(p); err != nil {
		return err
	}
	if c.w.Buffered() >= flushAt {
		return c.flush()
	}
	return nil
}

// reject answers a request that cannot be accepted (RFC 7143 section 11.17).
func (c *Conn) reject(h *pdu.Header, reason pdu.RejectReason) error {
	b, err := c.keep(append(h.BHS[:len(h.BHS):len(h.BHS)], h.AHS...))
	if err != nil {
		return err
	}
	return c.send(&pdu.Reject{Reason: reason, Data: b})
}
