package initiator

import (
	"context"
	"slices"

	"github.com/goiscsi/goiscsi/pdu"
)

// An exchange is a management request that waits for its answer: NOP-Out, task
// management, Logout. They are rare, so each may allocate. Session.mu protects
// the table of exchanges; an exchange does not change.
type exchange struct {
	tag  uint32
	conn *conn      // on which it was sent
	want pdu.Opcode // of the answer

	// handle, if not nil, is called by the receiver with the answer before
	// it goes on to the next PDU, without locks.
	handle func(c *conn, p pdu.PDU)

	done chan answer // capacity 1; receives once unless the exchange is forgotten
}

type answer struct {
	p   pdu.PDU
	err error
}

// open makes an exchange with a new tag. The caller holds Session.mu.
func (s *Session) open(c *conn, want pdu.Opcode, handle func(*conn, pdu.PDU)) *exchange {
	x := &exchange{tag: s.mgmtTag(), conn: c, want: want, handle: handle, done: make(chan answer, 1)}
	s.exchanges[x.tag] = x
	c.busy++
	return x
}

// remove takes an exchange out of the table. The caller holds Session.mu.
func (s *Session) remove(x *exchange) {
	delete(s.exchanges, x.tag)
	x.conn.relieve()
}

// mgmtTag returns a task tag for a management request. The caller holds
// Session.mu.
func (s *Session) mgmtTag() uint32 {
	for {
		s.mgmtGen++
		tag := s.mgmtGen<<indexBits | mgmtIndex
		if _, used := s.exchanges[tag]; !used && tag != pdu.ReservedTag {
			return tag
		}
	}
}

// cut answers the exchanges of a connection that has failed. The caller holds
// Session.mu.
func (s *Session) cut(c *conn) {
	for _, x := range s.exchanges {
		if x.conn == c {
			s.remove(x)
			x.done <- answer{err: transportError(c.err)}
		}
	}
}

// forget gives up an exchange; a late answer is ignored.
func (s *Session) forget(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exchanges[x.tag] == x {
		s.remove(x)
	}
}

// take removes and returns the exchange with a tag, nil if there is none.
func (s *Session) take(tag uint32) *exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exchanges[tag]
	if x != nil {
		s.remove(x)
	}
	return x
}

// A builder makes the request of an exchange. It is called with Session.mu held.
type builder func(c *conn, tag, cmdSN uint32) pdu.PDU

// request sends a management request on the given connection, or on a live one
// if c is nil, and waits for the answer, the end of the context or that of the
// connection.
func (s *Session) request(ctx context.Context, c *conn, want pdu.Opcode, handle func(*conn, pdu.PDU), build builder) (pdu.PDU, error) {
	s.mu.Lock()
	if s.group == nil || s.group.isLeaving() || c != nil && !slices.Contains(s.group.conns(), c) {
		err := s.refusal()
		s.mu.Unlock()
		return nil, err
	}
	if c == nil {
		c = s.group.lead()
	}
	if c.parted.Load() {
		s.mu.Unlock()
		return nil, c.awaitEnd(ctx)
	}
	x, err := s.ask(c, want, handle, build)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c.flush()
	return s.await(ctx, x)
}

// ask sends a management request on a live connection. The caller holds mu and has
// c flushed.
func (s *Session) ask(c *conn, want pdu.Opcode, handle func(*conn, pdu.PDU), build builder) (*exchange, error) {
	x := s.open(c, want, handle)
	if err := c.q.post(build(c, x.tag, s.win.next)); err != nil {
		s.remove(x)
		return nil, err
	}
	return x, nil
}

// await waits for the answer of an exchange, the end of the context or that of the
// connection.
func (s *Session) await(ctx context.Context, x *exchange) (pdu.PDU, error) {
	c := x.conn
	select {
	case a := <-x.done:
		return a.p, a.err
	case <-c.failed:
		// The supervisor, who would say so, may be the one who asks.
		s.forget(x)
		select {
		case a := <-x.done:
			return a.p, a.err
		default:
			return nil, transportError(c.err)
		}
	case <-ctx.Done():
		s.forget(x)
		return nil, context.Cause(ctx)
	}
}

// onAnswer deals with the answers to task management, Logout and Text requests.
func (c *conn) onAnswer(h *pdu.Header) error {
	data, ok, err := c.payload(h)
	if !ok {
		return err
	}
	p, err := pdu.Parse(h, data)
	if err != nil {
		return withKind(ErrProtocol, err)
	}
	switch h.Opcode() {
	case pdu.OpTaskManagementResponse:
		c.rx.tmf++
	case pdu.OpLogoutResponse:
		c.rx.logout++
	case pdu.OpTextResponse:
		c.rx.text++
	}
	if fresh, err := c.status(h); !fresh {
		return err
	}
	c.updateWindow(h)
	return c.answer(h.InitiatorTaskTag(), p)
}

// answer gives an answer to whoever waits for it.
func (c *conn) answer(tag uint32, p pdu.PDU) error {
	if tag&indexMask != mgmtIndex {
		return protocolErrorf("%s with tag %#08x", p.Opcode(), tag)
	}
	x := c.s.take(tag)
	if x == nil {
		return nil // nobody waits any more
	}
	if x.want != p.Opcode() {
		x.done <- answer{err: protocolErrorf("%s in answer to a request of another kind", p.Opcode())}
		return protocolErrorf("%s in answer to a request of another kind", p.Opcode())
	}
	if x.handle != nil {
		x.handle(c, p)
	}
	x.done <- answer{p: p}
	return nil
}
