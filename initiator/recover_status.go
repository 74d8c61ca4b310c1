package initiator

import (
	"errors"
	"fmt"

	"github.com/goiscsi/goiscsi/pdu"
)

// Bounds of recovery within a connection: what does not help within them ends
// the connection.
const (
	// maxUnacked is how many responses may have come behind one that is
	// missing: as many as there can be tasks, twice.
	maxUnacked = 2 * MaxCmdsMax
	// maxSNACKs is how often in a row the same is asked for.
	maxSNACKs = 8
	// maxWaitingSNACKs is how many may wait to be sent.
	maxWaitingSNACKs = 1024
)

// A responses is what a connection of error recovery level 1 knows of the
// numbered responses of the target: which of them are missing. (At level 0 the
// next one is the only one there can be.) It belongs to the receiver, except for
// conn.expStatSN, which is the lowest StatSN that is not acknowledged.
//
// Invariant: of the responses from expStatSN to next-1, those in done have been
// dealt with; the others are asked for again, or belong to a task of which data
// is missing and must not be acknowledged before that is there (RFC 7143 section
// 7.9).
type responses struct {
	next   uint32              // the lowest StatSN that was not seen or announced
	done   map[uint32]struct{} // dealt with, and above expStatSN
	snacks int                 // for expStatSN, since it moved
	atPing uint32              // expStatSN when a ping was answered last

	// SNACKs that went into batch snackBatch.
	snackBatch uint64
	waiting    int
}

// recovers reports whether the connection has error recovery level 1 or more.
func (c *conn) recovers() bool { return c.responses != nil }

// status takes notice of the StatSN of a PDU that has one. It returns false if
// that PDU is to be ignored. On error recovery level 0 nothing is sent twice, so
// that a number that is not the next one means that something was lost for good.
func (c *conn) status(h *pdu.Header) (fresh bool, err error) {
	statSN := h.StatSN()
	if c.recovers() {
		if fresh, err = c.seen(h); fresh {
			c.acknowledge(statSN)
		}
		return fresh, err
	}
	want := c.expStatSN.Load()
	if statSN != want {
		return false, withKind(ErrProtocol, &gapError{"StatSN", want, statSN})
	}
	c.expStatSN.Store(want + 1)
	return true, nil
}

// seen takes notice of a response, without acknowledging it. It returns false if
// it was dealt with before.
func (c *conn) seen(h *pdu.Header) (fresh bool, err error) {
	r, statSN := c.responses, h.StatSN()
	base := c.expStatSN.Load()
	if pdu.SerialLess(statSN, base) {
		return false, c.again(h)
	}
	if statSN-base >= maxUnacked {
		return false, withKind(ErrProtocol, &gapError{"StatSN", base, statSN})
	}
	if _, dup := r.done[statSN]; dup {
		return false, c.again(h)
	}
	if err := c.announced(statSN); err != nil {
		return false, err
	}
	if statSN == r.next {
		r.next++
	}
	return true, nil
}

// again deals with a response whose number was dealt with before. It was sent
// again, and that is all; but if somebody still waits for it, the target has used
// its number before, for something else, and nothing would ever answer them.
func (c *conn) again(h *pdu.Header) error {
	itt := h.InitiatorTaskTag()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	_, waited := c.s.exchanges[itt]
	if sl, _ := c.s.slots.find(itt); sl != nil || waited {
		return withKind(ErrProtocol, &gapError{"StatSN", c.expStatSN.Load(), h.StatSN()})
	}
	return nil
}

// announced takes notice that all responses before statSN were sent, and asks for
// those that were not seen.
func (c *conn) announced(statSN uint32) error {
	r := c.responses
	if !pdu.SerialLess(r.next, statSN) {
		return nil
	}
	if statSN-c.expStatSN.Load() >= maxUnacked {
		return withKind(ErrProtocol, &gapError{"StatSN", r.next, statSN})
	}
	from := r.next
	r.next = statSN
	return c.askResponses(from, statSN-from)
}

// acknowledge notes that a response was dealt with.
func (c *conn) acknowledge(statSN uint32) {
	r := c.responses
	base := c.expStatSN.Load()
	if statSN != base {
		if pdu.SerialLess(base, statSN) {
			if r.done == nil {
				r.done = make(map[uint32]struct{})
			}
			r.done[statSN] = struct{}{}
		}
		return
	}
	for base++; len(r.done) > 0; base++ {
		if _, ok := r.done[base]; !ok {
			break
		}
		delete(r.done, base)
	}
	r.snacks = 0
	c.expStatSN.Store(base)
}

// askResponses has the target send responses again.
func (c *conn) askResponses(from, n uint32) error {
	// Others behind the one that holds up the acknowledgement may get lost
	// meanwhile, each for the first time.
	if r := c.responses; from == c.expStatSN.Load() {
		if r.snacks++; r.snacks > maxSNACKs {
			return withKind(ErrTransport, fmt.Errorf("response %d is lost again and again", from))
		}
	}
	return c.snack(&pdu.SNACK{
		Type:              pdu.SNACKStatus,
		InitiatorTaskTag:  pdu.ReservedTag,
		TargetTransferTag: pdu.ReservedTag,
		BegRun:            from,
		RunLength:         n,
	})
}

// snack sends a SNACK. A target that has them sent without reading what we say is
// cut off.
func (c *conn) snack(p *pdu.SNACK) error {
	if c.parted.Load() {
		return nil
	}
	c.rx.snack++
	p.ExpStatSN = c.expStatSN.Load()
	q := &c.q
	q.mu.Lock()
	batch, err := q.append(p)
	q.mu.Unlock()
	if err != nil {
		return err
	}
	r := c.responses
	if r.snackBatch != batch {
		r.snackBatch, r.waiting = batch, 0
	}
	if r.waiting++; r.waiting > maxWaitingSNACKs {
		return protocolErrorf("flood of data that want a SNACK")
	}
	return nil
}

// payload returns the data of a PDU that is not a Data-In. If they are damaged
// and the target can send the PDU again, it is asked to, and payload returns
// false: the PDU is as good as lost (RFC 7143 section 7.8).
func (c *conn) payload(h *pdu.Header) (data []byte, ok bool, err error) {
	if data, err = c.r.Data(); err == nil {
		if t := c.tap.trace(); t != nil {
			c.tap.received(t, h, data)
		}
		return data, true, nil
	}
	if de := (*pdu.DigestError)(nil); !c.recovers() || !errors.As(err, &de) {
		return nil, false, readError(err)
	}
	c.rx.digest++
	if h.Opcode() == pdu.OpNOPIn && h.InitiatorTaskTag() == pdu.ReservedTag {
		return nil, false, nil // it has no number; the target asks again if it wants to know
	}
	if err := c.announced(h.StatSN()); err != nil {
		return nil, false, err
	}
	if c.responses.next == h.StatSN() {
		c.responses.next++
	}
	return nil, false, c.askResponses(h.StatSN(), 1)
}
