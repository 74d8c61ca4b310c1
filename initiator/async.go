package initiator

import (
	"bytes"
	"fmt"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// onAsync deals with an asynchronous message (RFC 7143 section 11.9).
func (c *conn) onAsync(h *pdu.Header) error {
	c.rx.async++
	data, ok, err := c.payload(h)
	if !ok {
		return err
	}
	m := new(pdu.AsyncMessage)
	if err := m.Decode(h, data); err != nil {
		return withKind(ErrProtocol, err)
	}
	if fresh, err := c.status(h); !fresh {
		return err
	}
	c.updateWindow(h)
	s := c.s
	s.log.Info("asynchronous message", "event", m.Event, "parameter1", m.Parameter1, "parameter2", m.Parameter2, "parameter3", m.Parameter3)
	s.emit(Event{Type: EventAsync, Portal: c.portal, Async: &AsyncEvent{
		Event:      m.Event,
		VendorCode: m.VCode,
		LUN:        m.LUN,
		Parameter1: m.Parameter1,
		Parameter2: m.Parameter2,
		Parameter3: m.Parameter3,
		Sense:      bytes.Clone(m.Sense()),
	}})
	switch m.Event {
	case pdu.AsyncLogoutRequest, pdu.AsyncNegotiationRequest:
		// A new login is a negotiation, too; the RFC allows a logout in
		// answer to either.
		s.mu.Lock()
		s.requestLeave(c, time.Duration(m.Parameter3)*time.Second, m.Event.String())
		s.mu.Unlock()
	case pdu.AsyncConnectionDrop, pdu.AsyncSessionDrop:
		drop := &dropError{
			session: m.Event == pdu.AsyncSessionDrop,
			wait:    time.Duration(m.Parameter2) * time.Second,
			retain:  time.Duration(m.Parameter3) * time.Second,
			text:    fmt.Sprintf("the target announced a %s", m.Event),
		}
		if drop.session || m.Parameter1 == c.cid {
			return drop
		}
		s.announced(c.group, m.Parameter1, drop)
	}
	return nil
}

// announced deals with the end of another connection than the one that the target
// announces it on. It may be lost already, for the news of that is not slower: then
// the times that the target gives still count.
func (s *Session) announced(g *group, cid uint16, drop *dropError) {
	s.mu.Lock()
	c := g.byCID(cid)
	s.mu.Unlock()
	if c == nil {
		s.log.Info("the target announced the end of a connection that there is not", "cid", cid)
		return
	}
	if c.notice.CompareAndSwap(nil, drop) {
		c.fail(drop)
		g.look()
	}
}

// onReject deals with a rejected PDU of ours (RFC 7143 section 11.17). What it
// means depends on what was rejected, whose header is in the data.
func (c *conn) onReject(h *pdu.Header) error {
	c.rx.reject++
	data, ok, err := c.payload(h)
	if !ok {
		return err
	}
	r := new(pdu.Reject)
	if err := r.Decode(h, data); err != nil {
		return withKind(ErrProtocol, err)
	}
	if fresh, err := c.status(h); !fresh {
		return err
	}
	c.updateWindow(h)
	bad, ok := r.BadHeader()
	if !ok {
		return protocolErrorf("reject without the header that is rejected")
	}
	rejected := &RejectError{Reason: r.Reason}
	c.s.log.Warn("target rejected a PDU", "opcode", bad.Opcode(), "reason", r.Reason)
	switch bad.Opcode() {
	case pdu.OpSCSICommand:
		return c.commandRejected(bad.InitiatorTaskTag(), rejected, h)
	case pdu.OpDataOut:
		// RFC 7143 section 11.17.1: the target ends the task with a SCSI
		// Response.
		return nil
	case pdu.OpSNACK:
		// RFC 7143 section 7.8 would have the task fail; to begin anew loses
		// nothing.
		return withKind(ErrTransport, rejected)
	case pdu.OpNOPOut, pdu.OpTaskManagementRequest, pdu.OpLogoutRequest, pdu.OpTextRequest:
		if x := c.s.take(bad.InitiatorTaskTag()); x != nil {
			x.done <- answer{err: rejected}
		}
		return nil
	}
	return nil
}

// commandRejected deals with the rejection of a SCSI Command: it was never
// carried out. With a digest error of its immediate data the target has
// discarded the whole PDU and waits for its CmdSN (RFC 7143 section 7.8), so
// that nothing behind it is carried out either: on error recovery level 1 it is
// sent again; on level 0 the session recovers, which sends all again.
func (c *conn) commandRejected(itt uint32, rejected *RejectError, h *pdu.Header) error {
	if rejected.Reason == pdu.RejectDataDigest && !c.recovers() {
		return withKind(ErrTransport, rejected)
	}
	s := c.s
	s.mu.Lock()
	sl, err := c.find(itt)
	if sl == nil {
		s.mu.Unlock()
		return err
	}
	if rejected.Reason == pdu.RejectDataDigest {
		s.retry(c, sl)
		s.mu.Unlock()
		return nil
	}
	if rejected.Reason == pdu.RejectWaitingForLogout {
		defer s.mu.Unlock()
		return s.turnedAway(c, s.free(c, sl))
	}
	s.mu.Unlock()
	c.finish(sl, outcome{err: notSent(rejected)}, h)
	return nil
}
