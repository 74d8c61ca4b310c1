package initiator

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A conn is one connection of a session in full feature phase. It knows the wire:
// what is sent how, and what the target's PDUs mean; what becomes of tasks is the
// session's business.
//
// Two goroutines belong to it, the receiver and the sender. start starts them,
// fail makes them end, wait waits for them.
type conn struct {
	s      *Session
	nc     net.Conn
	src    *source
	r      *pdu.Reader // the receiver's
	tap    *tapPoint
	q      sendQueue
	params Params
	portal Portal
	cid    uint16
	group  *group // the connections of the session, this one among them

	// Session.mu protects these.
	keepalive keepalive
	leave     *leaveRequest // the target's wish that we log out of it, nil if it has none
	busy      int           // tasks in slots, and exchanges, that keep to it
	idle      chan struct{} // not nil: somebody waits until there is none; closed then

	// parted: the Logout for it was sent, and nothing more may be (RFC 7143 section
	// 11.14). Set with Session.mu held.
	parted atomic.Bool
	// notice is what the target has said of its end, on another connection or
	// on this one; nil: nothing.
	notice atomic.Pointer[dropError]

	// What becomes of it when it is lost, the supervisor's. removed: the target keeps
	// its tasks, which can be reassigned from reassignAt on.
	removed    bool
	reassignAt time.Duration

	begun uint64        // highest batch of which a byte may have been sent; the supervisor's
	born  time.Duration // when it became a live one, on the session's clock; the supervisor's

	// expStatSN is the next StatSN we expect. The receiver writes it, everybody
	// who sends reads it.
	expStatSN atomic.Uint32

	last    atomic.Int64  // when the last batch with a whole PDU was received, on the session's clock
	batches atomic.Uint64 // such batches

	wg     sync.WaitGroup // receiver and sender
	once   sync.Once      // guards err, lostAt and the closing of failed
	failed chan struct{}  // closed when the connection has failed
	err    error          // why; valid once failed is closed
	lostAt time.Duration  // when, on the session's clock; as err
	gone   chan struct{}  // closed when the supervisor has sorted out its tasks

	// The rest belongs to the receiver.
	handled  bool   // a PDU since the last batch
	fruitful bool   // a task has finished on it
	maxCmdSN uint32 // as last seen, to spare the session's lock
	expCmdSN uint32
	cur      *slot // of the last Data-In while its task is not finished
	// responses is nil on error recovery level 0; whether it is, does not change.
	responses *responses
	dirty     []Completer
	rx        rxCounters
	readUpTo  uint64        // src.octets when the clock was looked at last
	readAt    time.Duration // what it showed, see came
	// Answers to pings of the target in batch pingBatch.
	pingBatch uint64
	pings     int
	dataIn    pdu.DataIn
	resp      pdu.SCSIResponse
	r2t       pdu.R2T
}

// rxCounters are those counters of Stats that the receiver counts. They are
// added up once a batch.
type rxCounters struct {
	nop, rsp, tmf, text, dataIn, logout, r2t, async, reject, digest, dataOut, snack uint64
}

func newConn(s *Session, t *transport, res *loginResult, portal Portal) *conn {
	c := &conn{
		s:        s,
		nc:       t.nc,
		src:      t.src,
		r:        t.r,
		tap:      t.tap,
		params:   res.params,
		portal:   portal,
		failed:   make(chan struct{}),
		gone:     make(chan struct{}),
		expCmdSN: res.expCmdSN,
		maxCmdSN: res.maxCmdSN,
		dirty:    make([]Completer, 0, 8),
	}
	c.q.init(t.nc, t.w, t.tap, uses(c.params.HeaderDigest), uses(c.params.DataDigest))
	c.expStatSN.Store(res.expStatSN)
	if c.params.ErrorRecoveryLevel > 0 {
		c.responses = &responses{next: res.expStatSN}
	}
	t.src.before = c.endBatch
	c.last.Store(int64(s.now()))
	return c
}

// start starts the connection's goroutines. What was appended before is sent by
// the next flush.
func (c *conn) start() {
	c.wg.Go(c.receive)
	c.wg.Go(func() {
		if err := c.q.run(c.failed, c.s.finishWritten); err != nil {
			c.fail(err)
		}
	})
}

// fail ends the connection because of err and has the supervisor see to what
// follows. Only the first call has an effect. It may be called from any goroutine
// and does not block.
func (c *conn) fail(err error) {
	first := false
	c.once.Do(func() {
		first = true
		c.err, c.lostAt = err, c.s.now()
		c.nc.Close() //nolint:errcheck // nothing to learn from it
		close(c.failed)
	})
	if first {
		c.group.failed(err)
	}
}

// hasFailed reports whether the connection has failed.
func (c *conn) hasFailed() bool {
	select {
	case <-c.failed:
		return true
	default:
		return false
	}
}

// wait waits until nobody uses the connection, and with it its tasks' buffers, any
// more. It has failed.
func (c *conn) wait() {
	c.wg.Wait()
	c.begun = c.q.shut(c.err)
}

// flush sends what was appended, on whichever connection of the session. It does
// not block.
func (c *conn) flush() { c.group.flush() }

// write sends what was appended on this connection. It does not block.
func (c *conn) write() {
	if err := c.q.flush(); err != nil {
		c.fail(err)
	}
}

// receive is the receiver: it reads PDUs until the connection fails.
func (c *conn) receive() {
	for {
		h, err := c.r.Next()
		if err == nil {
			c.handled = true
			err = c.handle(h)
		} else {
			err = readError(err)
		}
		if err != nil {
			c.countDigestError(err)
			c.fail(err)
			c.endBatch()
			return
		}
	}
}

// endBatch is called when everything in memory is dealt with: before a read
// that may block. It sends what the batch gave rise to, and then lets the owners
// of finished tasks pass on their results.
func (c *conn) endBatch() {
	c.flush()
	if c.handled {
		c.handled = false
		c.last.Store(int64(c.came()))
		c.batches.Add(1)
	}
	c.addCounters()
	if len(c.dirty) == 0 {
		return
	}
	for i, o := range c.dirty {
		c.dirty[i] = nil
		o.Flush()
	}
	c.dirty = c.dirty[:0]
	c.flush() // what the owners submitted meanwhile
}

// came returns when what is being handled was read, on the session's clock: the
// first caller after a read looks. The receiver's.
func (c *conn) came() time.Duration {
	if n := c.src.octets.Load(); n != c.readUpTo {
		c.readUpTo, c.readAt = n, c.s.now()
	}
	return c.readAt
}

// done gives a finished task back and remembers to flush its owner. Called by
// the receiver without locks.
func (c *conn) done(t *Task) {
	o := t.Owner
	t.came = c.came()
	o.TaskDone(t)
	for _, d := range c.dirty {
		if d == o {
			return
		}
	}
	if len(c.dirty) == cap(c.dirty) {
		c.dirty[0].Flush()
		c.dirty = append(c.dirty[:0], c.dirty[1:]...)
	}
	c.dirty = append(c.dirty, o)
}

// lifeOctets is how many bytes within a PDU are a sign of life of the target, as
// a whole PDU is. Fewer are not: when the framing is lost, answers to pings still
// trickle in as what seems to be somebody's data.
const lifeOctets = 8192

// life returns a number that changes with every sign of life.
func (c *conn) life() uint64 { return c.batches.Load() + c.src.octets.Load()/lifeOctets }

// addCounters adds the batch's counts to the session's.
func (c *conn) addCounters() {
	if c.rx == (rxCounters{}) {
		return
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.stats
	st.NopRxPDUs += c.rx.nop
	st.SCSIRspPDUs += c.rx.rsp
	st.TMFRspPDUs += c.rx.tmf
	st.TextRspPDUs += c.rx.text
	st.DataInPDUs += c.rx.dataIn
	st.LogoutRspPDUs += c.rx.logout
	st.R2TPDUs += c.rx.r2t
	st.AsyncPDUs += c.rx.async
	st.RejectPDUs += c.rx.reject
	st.DigestErrors += c.rx.digest
	st.DataOutPDUs += c.rx.dataOut
	st.SNACKPDUs += c.rx.snack
	c.rx = rxCounters{}
}
