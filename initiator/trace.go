package initiator

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// ErrTraced is the error of Session.Trace while another Trace of the session is
// open.
var ErrTraced error = &sentinel{"the session is being traced already", errcode.Busy}

// DefaultTraceMemory is how many bytes a Trace keeps for a slow reader.
const DefaultTraceMemory = 8 << 20

// tracedOverhead is what a PDU that waits takes besides its bytes.
const tracedOverhead = 160

// TraceOptions change how a Trace works. The zero value is usable.
type TraceOptions struct {
	// Memory bounds the bytes of PDUs that wait for Next. Zero means
	// DefaultTraceMemory.
	Memory int
}

// A TracedPDU is a PDU as it was sent or received.
type TracedPDU struct {
	// Time is when it was queued to be sent, or had been received as a whole.
	Time time.Time
	Sent bool // else received
	// Conn tells the session's connections apart: a higher number is a later one.
	// Local and Remote are its ends.
	Conn          uint64
	Local, Remote net.Addr
	// Bytes are the header, the additional header segments, the data segment and
	// its padding. Digests are left out: they were added later, or have been
	// checked. In Login PDUs the value of CHAP_R is overwritten with asterisks.
	Bytes []byte
}

// A Trace is a record of a session's PDUs, of all its connections from when it
// was opened, logins included. It never holds the session up: what its reader does not
// fetch in time is dropped and counted.
//
// A session without a Trace pays one look at a pointer for each PDU. One that
// has it copies each PDU.
type Trace struct {
	tap   *tap
	limit int
	wake  chan struct{} // capacity 1: there is something for Next

	mu      sync.Mutex
	queue   []TracedPDU
	size    int // bytes that PDUs take which are or will be in queue
	dropped uint64
	closed  bool
	masks   [2]chapMask // of what is received and sent
}

// Trace starts to record the session's PDUs. The caller fetches them with Next
// and calls Close in the end. One Trace at a time is possible: the error is
// ErrTraced, or ErrClosed for a session that has ended.
func (s *Session) Trace(o TraceOptions) (*Trace, error) {
	if o.Memory <= 0 {
		o.Memory = DefaultTraceMemory
	}
	t := &Trace{tap: s.tap, limit: o.Memory, wake: make(chan struct{}, 1)}
	if !s.tap.trace.CompareAndSwap(nil, t) {
		return nil, ErrTraced
	}
	select {
	case <-s.done:
		// The end of the session may have looked before we were there.
		t.Close()
		return nil, ErrClosed
	default:
		return t, nil
	}
}

// Next returns the next PDU, and waits for it if there is none. The error is
// io.EOF when the Trace was closed or the session has ended, and all that was
// recorded has been returned; else the cause of the context's end. One goroutine
// at a time may call it.
func (t *Trace) Next(ctx context.Context) (TracedPDU, error) {
	for {
		t.mu.Lock()
		if len(t.queue) > 0 {
			p := t.queue[0]
			t.queue[0] = TracedPDU{}
			t.queue = t.queue[1:]
			t.size -= len(p.Bytes) + tracedOverhead
			t.mu.Unlock()
			return p, nil
		}
		closed := t.closed
		t.mu.Unlock()
		if closed {
			return TracedPDU{}, io.EOF
		}
		select {
		case <-t.wake:
		case <-ctx.Done():
			return TracedPDU{}, context.Cause(ctx)
		}
	}
}

// Waiting reports whether Next would return at once.
func (t *Trace) Waiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue) > 0 || t.closed
}

// Dropped returns how many PDUs were dropped because Next was not called in time.
func (t *Trace) Dropped() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped
}

// Close ends the recording; what was recorded can still be fetched. It may be
// called from any goroutine, more than once.
func (t *Trace) Close() {
	t.tap.trace.CompareAndSwap(t, nil)
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.signal()
}

func (t *Trace) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// add records a PDU. Of one direction it is called by one goroutine at a time.
func (t *Trace) add(at *tapPoint, sent bool, header, ahs, data []byte) {
	n := len(header) + len(ahs) + len(data)
	n += -n & 3
	t.mu.Lock()
	if op := pdu.Opcode(header[0] & 0x3f); op == pdu.OpLoginRequest || op == pdu.OpLoginResponse {
		// Also if the PDU is dropped: a value can go on in the next one.
		i := 0
		if sent {
			i = 1
		}
		data = bytes.Clone(data)
		t.masks[i].apply(data, header[1]&0x40 != 0)
	}
	if t.closed || t.size+n+tracedOverhead > t.limit {
		t.dropped++
		t.mu.Unlock()
		return
	}
	t.size += n + tracedOverhead
	t.mu.Unlock()

	// The other direction need not wait for the copy.
	b := append(append(append(make([]byte, 0, n), header...), ahs...), data...)
	p := TracedPDU{Sent: sent, Conn: at.conn, Local: at.local, Remote: at.remote, Bytes: b[:n]}

	t.mu.Lock()
	p.Time = time.Now()
	t.queue = append(t.queue, p)
	t.mu.Unlock()
	t.signal()
}

// A tap is where a session's PDUs can be listened to.
type tap struct {
	trace atomic.Pointer[Trace]
	conns atomic.Uint64 // connections so far
}

// point returns the tap for one connection. The tap may be nil, as that of a
// discovery is.
func (t *tap) point(nc net.Conn) *tapPoint {
	if t == nil {
		return &tapPoint{tap: new(tap)}
	}
	return &tapPoint{tap: t, conn: t.conns.Add(1), local: nc.LocalAddr(), remote: nc.RemoteAddr()}
}

// end ends the trace of a session that has ended.
func (t *tap) end() {
	if tr := t.trace.Load(); tr != nil {
		tr.Close()
	}
}

// A tapPoint is the tap of one connection.
type tapPoint struct {
	tap           *tap
	conn          uint64
	local, remote net.Addr
}

// trace returns who listens, nil for nobody.
func (at *tapPoint) trace() *Trace { return at.tap.trace.Load() }

// sent records a PDU that has been encoded, if somebody wants it.
func (at *tapPoint) sent(p pdu.PDU) {
	t := at.trace()
	if t == nil {
		return
	}
	header, err := p.AppendHeader(make([]byte, 0, pdu.BHSLen))
	if err != nil {
		return // cannot be: it has been encoded before
	}
	t.add(at, true, header, nil, p.Payload())
}

// received records a PDU whose data have been read.
func (at *tapPoint) received(t *Trace, h *pdu.Header, data []byte) {
	t.add(at, false, h.BHS[:], h.AHS, data)
}

// A chapMask overwrites the values of CHAP_R in a text that comes in parts.
type chapMask struct {
	key    []byte // of the pair at hand, as much as there is of it
	value  bool   // its value has begun
	secret bool   // the value is to be overwritten
}

// apply masks one part; more says that the text goes on in another one.
func (m *chapMask) apply(text []byte, more bool) {
	for i, b := range text {
		switch {
		case b == 0:
			*m = chapMask{key: m.key[:0]}
		case m.value:
			if m.secret {
				text[i] = '*'
			}
		case b == '=':
			m.value, m.secret = true, string(m.key) == "CHAP_R"
		case len(m.key) < len("CHAP_R")+1:
			m.key = append(m.key, b)
		}
	}
	if !more {
		*m = chapMask{key: m.key[:0]}
	}
}
