package iscsitest

import (
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A Handler looks at a PDU of an opcode and says what becomes of it.
//
// For requests it is called when the PDU has arrived; p is a copy that
// the handler may keep. For responses it is called with everything filled in,
// just before the response is sent; the handler may change the fields and let
// it pass. It then runs under the connection's lock and must not call methods
// of c other than ID, Close and Reset, nor methods of Server that send to or
// ask about sessions, nor wait for the peer.
type Handler func(c *Conn, p pdu.PDU) Action

// An Action is what becomes of a PDU. The zero value lets it pass.
type Action struct {
	kind  actionKind
	until <-chan struct{}
	after time.Duration
	pdus  []pdu.PDU
	raw   []byte
}

type actionKind uint8

const (
	actPass actionKind = iota
	actDrop
	actDelay
	actReply
	actReplyAsIs
	actRaw
	actClose
	actReset
	actBadHeaderDigest
	actBadDataDigest
	actTruncate
)

// Pass lets the PDU go its way.
func Pass() Action { return Action{} }

// Drop loses the PDU: a request is treated as if it had never come, so that
// its CmdSN stays expected; a response is not sent, though its StatSN is
// used up.
func Drop() Action { return Action{kind: actDrop} }

// Delay holds the PDU up until the channel is closed. A request counts as
// received, and those behind it go on. One whose connection has ended is not
// executed. Responses cannot be delayed: they pass.
func Delay(until <-chan struct{}) Action { return Action{kind: actDelay, until: until} }

// DelayFor is Delay for a duration.
func DelayFor(d time.Duration) Action { return Action{kind: actDelay, after: d} }

// Reply answers a request with these PDUs, with their sequence numbers filled
// in, instead of executing it, or sends them instead of a response.
// None at all leaves a request unanswered.
func Reply(pdus ...pdu.PDU) Action { return Action{kind: actReply, pdus: pdus} }

// ReplyAsIs is Reply with all sequence numbers as they are in the PDUs.
func ReplyAsIs(pdus ...pdu.PDU) Action { return Action{kind: actReplyAsIs, pdus: pdus} }

// ReplyRaw is Reply with bytes that need not be a PDU.
func ReplyRaw(b []byte) Action { return Action{kind: actRaw, raw: b} }

// CloseConn ends the connection before the PDU is processed or sent; what was
// to be sent before it, is sent.
func CloseConn() Action { return Action{kind: actClose} }

// ResetConn is CloseConn with a TCP reset.
func ResetConn() Action { return Action{kind: actReset} }

// BadHeaderDigest sends a response with a wrong header digest if header
// digests are in use. It lets requests pass.
func BadHeaderDigest() Action { return Action{kind: actBadHeaderDigest} }

// BadDataDigest sends a response with a wrong data digest if data digests are
// in use and there is data. It has a request with data treated as if it had arrived
// with one.
func BadDataDigest() Action { return Action{kind: actBadDataDigest} }

// Truncate sends the first half of a response and ends the connection. It lets
// requests pass.
func Truncate() Action { return Action{kind: actTruncate} }

// A handlerTable is immutable; Handle replaces it.
type handlerTable [64]Handler

// Handle installs the handler for an opcode and returns the one before; nil
// removes it. It applies to PDUs from then on.
func (s *Server) Handle(op pdu.Opcode, f Handler) (old Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var t handlerTable
	if p := s.handlers.Load(); p != nil {
		t = *p
	}
	old, t[op&0x3f] = t[op&0x3f], f
	s.handlers.Store(&t)
	return old
}

func (s *Server) handler(op pdu.Opcode) Handler {
	if t := s.handlers.Load(); t != nil {
		return t[op&0x3f]
	}
	return nil
}

func (s *Server) hooked(op pdu.Opcode) bool { return s.handler(op) != nil }

// receiveHooked gives a request to its handler and does as that says.
func (c *Conn) receiveHooked(h *pdu.Header, data []byte) error {
	// Copies, since the handler and a delay outlast the Reader's.
	hc := &pdu.Header{BHS: h.BHS, AHS: append([]byte(nil), h.AHS...)}
	if data != nil {
		data = append([]byte(nil), data...)
	}
	f := c.srv.handler(h.Opcode())
	p, err := pdu.Parse(hc, data)
	if err != nil || f == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.process(hc, data)
	}
	a := f(c, p)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch a.kind {
	case actDrop:
		c.gaps = true
		return nil
	case actDelay:
		return c.delay(hc, data, a)
	case actReply, actReplyAsIs, actRaw:
		if c.phase == phaseFull && c.checkCmdSN(hc) != turnNow {
			return nil
		}
		if hc.Opcode() == pdu.OpSCSICommand && !hc.Immediate() && c.phase == phaseFull {
			c.inflight--
		}
		if err := c.substitute(a); err != nil {
			return err
		}
		return c.followers()
	case actBadDataDigest:
		if len(data) > 0 && c.phase == phaseFull {
			return c.dataDigestError(hc)
		}
	case actClose:
		_ = c.flush() // the connection ends anyway
		return errEnd
	case actReset:
		_ = c.flush()
		c.Reset()
		return errEnd
	}
	return c.process(hc, data)
}

// substitute sends what a handler wants sent.
func (c *Conn) substitute(a Action) error {
	if a.kind == actRaw {
		c.w.AppendRaw(a.raw)
		return nil
	}
	for _, p := range a.pdus {
		if a.kind == actReply {
			c.number(p)
		}
		if err := c.append(p); err != nil {
			return err
		}
	}
	return nil
}

// sendHooked gives a response to its handler and does as that says.
func (c *Conn) sendHooked(p pdu.PDU) error {
	f := c.srv.handler(p.Opcode())
	if f == nil {
		return c.append(p)
	}
	switch a := f(c, p); a.kind {
	case actDrop:
		return nil
	case actReply, actReplyAsIs, actRaw:
		return c.substitute(a)
	case actClose:
		_ = c.flush()
		return errEnd
	case actReset:
		_ = c.flush()
		c.Reset()
		return errEnd
	case actBadHeaderDigest, actBadDataDigest, actTruncate:
		return c.damage(p, a.kind)
	}
	return c.append(p)
}

// damage sends a response with a fault in its bytes.
func (c *Conn) damage(p pdu.PDU, kind actionKind) error {
	var wire capture
	w := pdu.NewWriter(&wire)
	w.SetDigests(c.neg.HeaderDigest, c.neg.DataDigest)
	if err := w.Append(p); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case kind == actTruncate:
		c.w.AppendRaw(wire[:len(wire)/2])
		_ = c.flush()
		return errEnd
	case kind == actBadHeaderDigest && c.neg.HeaderDigest:
		wire[pdu.BHSLen] ^= 0xff // no response has additional header segments
	case kind == actBadDataDigest && c.neg.DataDigest && len(p.Payload()) > 0:
		wire[len(wire)-1] ^= 0xff
	}
	c.srv.sent[p.Opcode()&0x3f].Add(1)
	c.w.AppendRaw(wire)
	return nil
}

type capture []byte

func (b *capture) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// A delay is a request held up by a handler.
type delay struct {
	h      *pdu.Header
	data   []byte
	action Action
	lun    pdu.LUN
	queued []heldPDU     // Data-Out for it
	gone   chan struct{} // closed when it is aborted
	again  bool          // its connection is not the one that it came on
}

// delay has a goroutine wait with a request. It counts as received now. c.mu
// is held.
func (c *Conn) delay(h *pdu.Header, data []byte, a Action) error {
	if c.phase == phaseFull {
		c.checkExpStatSN(h)
		switch c.checkCmdSN(h) {
		case turnIgnore:
			return nil
		case turnHold:
			c.held[h.CmdSN()] = heldPDU{c: c, h: *h, data: data, delay: &a}
			return nil
		}
	}
	c.hold(h, data, a)
	return c.followers()
}

// hold is delay for a request whose turn it is.
func (c *Conn) hold(h *pdu.Header, data []byte, a Action) {
	c.beginDelay(&delay{h: h, data: data, action: a, lun: h.LUN(), gone: make(chan struct{})})
}

// beginDelay has a goroutine wait for the end of a delay. c.mu is held.
func (c *Conn) beginDelay(d *delay) {
	h := d.h
	itt, isCommand := h.InitiatorTaskTag(), h.Opcode() == pdu.OpSCSICommand
	if isCommand {
		c.delayed[itt] = d
	}
	c.srv.spawn(func() {
		if !c.await(d) {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.phase == phaseClosed || isCommand && c.delayed[itt] != d {
			return
		}
		delete(c.delayed, itt)
		if err := c.resume(d); err != nil {
			c.close()
		}
	})
}

// await waits for the end of a delay and reports whether it came by itself.
func (c *Conn) await(d *delay) bool {
	a := d.action
	until := a.until
	var after <-chan time.Time
	if until == nil {
		t := time.NewTimer(a.after)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-until:
	case <-after:
	case <-d.gone:
		return false
	case <-c.done:
		return false
	}
	select {
	case <-c.done: // at the same time, if until is Done: an answer might still get out
		return false
	default:
		return true
	}
}

// resume executes a request that was held up, and sends the replies.
func (c *Conn) resume(d *delay) error {
	err := error(nil)
	if c.phase == phaseLogin {
		err = c.processLogin(d.h, d.data)
	} else {
		err = c.dispatch(d.h, d.data)
	}
	for _, q := range d.queued {
		if err == nil {
			err = c.dispatch(&q.h, q.data)
		}
	}
	if err == nil && d.again {
		err = c.unasked(d.h.InitiatorTaskTag())
	}
	if err != nil {
		_ = c.flush()
		return err
	}
	return c.flush()
}

// dropDelayed forgets a delayed command.
func (c *Conn) dropDelayed(itt uint32) {
	if d := c.delayed[itt]; d != nil {
		close(d.gone)
		delete(c.delayed, itt)
	}
}
