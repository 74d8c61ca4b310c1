package initiator

import (
	"context"

	"github.com/goiscsi/goiscsi/pdu"
)

// maxPings is how many answers to the target's pings may wait to be sent: a
// target that asks on without reading what we say is cut off.
const maxPings = 256

// Ping sends a NOP-Out to the target and waits for the answer: a sign that the
// whole path works. It fails if the session has no connection at the moment.
func (s *Session) Ping(ctx context.Context) error {
	_, err := s.request(ctx, nil, pdu.OpNOPIn, nil, s.ping)
	if err != nil {
		return s.opError("ping", err)
	}
	return nil
}

// ping builds a NOP-Out that wants an answer. The caller holds mu.
func (s *Session) ping(c *conn, tag, cmdSN uint32) pdu.PDU {
	s.stats.NopTxPDUs++
	return &pdu.NOPOut{
		Immediate:         true,
		InitiatorTaskTag:  tag,
		TargetTransferTag: pdu.ReservedTag,
		CmdSN:             cmdSN,
		ExpStatSN:         c.expStatSN.Load(),
	}
}

// onNOPIn deals with the answer to a ping, with a ping of the target, and with
// a NOP-In that only moves the command window.
func (c *conn) onNOPIn(h *pdu.Header) error {
	c.rx.nop++
	data, ok, err := c.payload(h)
	if !ok {
		return err
	}
	p := new(pdu.NOPIn)
	if err := p.Decode(h, data); err != nil {
		return withKind(ErrProtocol, err)
	}
	if p.InitiatorTaskTag != pdu.ReservedTag {
		if fresh, err := c.status(h); !fresh {
			return err
		}
	}
	c.updateWindow(h)
	if p.InitiatorTaskTag != pdu.ReservedTag {
		if c.recovers() {
			if err := c.remind(p.StatSN); err != nil {
				return err
			}
		}
		return c.answer(p.InitiatorTaskTag, p)
	}
	if c.recovers() {
		if err := c.announced(p.StatSN); err != nil {
			return err
		}
	}
	if p.TargetTransferTag == pdu.ReservedTag {
		return nil
	}
	return c.pong(p)
}

// pong answers a ping of the target.
func (c *conn) pong(p *pdu.NOPIn) error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.group.isLeaving() || c.parted.Load() {
		return nil
	}
	q := &c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	batch, err := q.append(&pdu.NOPOut{
		Immediate:         true,
		LUN:               p.LUN,
		InitiatorTaskTag:  pdu.ReservedTag,
		TargetTransferTag: p.TargetTransferTag,
		CmdSN:             s.win.next,
		ExpStatSN:         c.expStatSN.Load(),
	})
	if err != nil {
		return err
	}
	s.stats.NopTxPDUs++
	if c.pingBatch != batch {
		c.pingBatch, c.pings = batch, 0
	}
	if c.pings++; c.pings > maxPings {
		return protocolErrorf("flood of pings")
	}
	return nil
}
