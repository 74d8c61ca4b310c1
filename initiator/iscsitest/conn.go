package iscsitest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A phase is where a connection stands (RFC 7143 section 8.1.3, reduced to
// what this target tells apart). It only goes
// upwards.
type phase uint8

const (
	phaseLogin  phase = iota // from the first byte to the final login response
	phaseFull                // full feature phase
	phaseLogout              // a logout was answered: nothing more may come
	phaseClosed              // the connection is ended
)

// readBuffer is the size of a connection's read buffer in bytes.
const readBuffer = 64 << 10

// A Conn is one connection of a Server, and its session in full feature phase.
type Conn struct {
	reinstates bool // it has taken the place of a connection with its CID

	srv  *Server
	nc   net.Conn
	sock socket // of nc
	id   uint64
	// r is used by the goroutine in serve only.
	r *pdu.Reader
	// done is closed when the connection ends.
	done     chan struct{}
	doneOnce sync.Once

	// mu guards everything below. It is held while a PDU is processed and
	// while replies are flushed, never while reading. The connections of a
	// session share it.
	mu sharedLock
	*common
	phase phase
	w     *pdu.Writer
	arena arena

	// Sequence numbers (RFC 7143 section 4.2.2).
	statSN    uint32
	expStatSN uint32 // highest acknowledged

	nexus     nexus
	tsih      uint16
	cid       uint16
	alias     string
	discovery bool
	target    *target
	neg       Negotiated
	login     *login
	joins     *Conn // the leading connection of the session that the login is to join

	tasks   map[uint32]*task  // writes waiting for data, by ITT
	delayed map[uint32]*delay // requests held up by a handler, by ITT
	aborted map[uint32]struct{}
	free    []*task
	lastTTT uint32
	pings   map[uint32]pdu.LUN // NOP-Ins sent as pings, by TTT
	text    textExchange
	backlog backlog // of error recovery level 1
	// interrupted are commands whose execution the end of the connection has cut
	// short, at error recovery level 2; by ITT.
	interrupted map[uint32]*orphan

	// Flyweights, and memory for parameter data.
	cmd     pdu.SCSICommand
	dataOut pdu.DataOut
	nopOut  pdu.NOPOut
	rsp     pdu.SCSIResponse
	dataIn  pdu.DataIn
	r2t     pdu.R2T
	req     request
	scratch []byte
}

// A heldPDU is a request that came before its turn, and the unsolicited Data-Out
// that belong to it.
type heldPDU struct {
	c    *Conn // on which it came
	h    pdu.Header
	data []byte
	out  []heldPDU
	// damaged: it is a Data-Out that arrived so.
	damaged bool
	// delay is what a handler wants done with it when its turn has come.
	delay *Action
}

func newConn(s *Server, nc net.Conn, id uint64) *Conn {
	c := &Conn{
		srv: s, nc: nc, sock: newSocket(nc), id: id,
		done:    make(chan struct{}),
		w:       pdu.NewWriter(nc),
		statSN:  s.cfg.InitialStatSN,
		tasks:   map[uint32]*task{},
		delayed: map[uint32]*delay{},
		aborted: map[uint32]struct{}{},
		pings:   map[uint32]pdu.LUN{},
		login:   &login{},
		neg:     defaultNegotiated(),
	}
	c.common = &common{
		lead: c, conns: []*Conn{c}, held: map[uint32]heldPDU{}, orphans: map[uint32]*orphan{}, ended: make(chan struct{}),
	}
	c.mu.lock.Store(new(sync.Mutex))
	c.r = pdu.NewReader(flushingReader{c}, readBuffer)
	return c
}

// flushingReader is the source of a Conn's Reader. It is read when everything
// in memory has been worked off: the time to send the replies.
type flushingReader struct{ c *Conn }

func (r flushingReader) Read(p []byte) (int, error) {
	if err := r.c.lockedFlush(); err != nil {
		return 0, err
	}
	return r.c.sock.Read(p)
}

var errEnd = errors.New("connection is to end")

// serve runs until the connection ends.
func (c *Conn) serve() {
	err := c.loop()
	c.end()
	c.srv.forget(c)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errEnd) && !errors.Is(err, net.ErrClosed) {
		c.srv.logf("connection %d of %q: %v", c.id, c.nexus.initiator, err)
	}
}

func (c *Conn) loop() error {
	if d := c.srv.cfg.LoginTimeout; d > 0 {
		if err := c.nc.SetReadDeadline(time.Now().Add(d)); err != nil {
			return err
		}
	}
	for {
		h, err := c.r.Next()
		if err == nil {
			err = c.receive(h)
		}
		if err != nil {
			return c.explain(err)
		}
	}
}

// explain records a violation for errors that are the initiator's.
func (c *Conn) explain(err error) error {
	var fe *pdu.FormatError
	if errors.As(err, &fe) {
		c.violated(fe.Opcode, "%v", err)
	}
	return err
}

// receive takes in the data segment of a PDU and processes it.
func (c *Conn) receive(h *pdu.Header) error {
	if !c.srv.waitPaused(c.done) {
		return errEnd
	}
	op := h.Opcode()
	c.srv.received[op].Add(1)
	data, err := c.r.Data()
	if err != nil {
		// Within the branch, as it escapes: PDUs that arrive whole allocate
		// nothing.
		var de *pdu.DigestError
		if !errors.As(err, &de) {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.dataDigestError(h)
	}
	if len(data) == 0 {
		data = nil
	}
	if c.srv.hooked(op) {
		return c.receiveHooked(h, data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process(h, data)
}

// process is the way of a request in order: is it allowed now, is it its turn,
// what does it want. c.mu is held.
func (c *Conn) process(h *pdu.Header, data []byte) error {
	switch c.phase {
	case phaseLogin:
		return c.processLogin(h, data)
	case phaseLogout, phaseClosed:
		if c.phase == phaseLogout && h.Opcode() != pdu.OpDataOut { // which is no new request
			c.violated(h.Opcode(), "request after logout (11.14)")
		}
		return errEnd
	}
	c.checkExpStatSN(h)
	turn := c.checkCmdSN(h)
	switch turn {
	case turnIgnore:
		return nil
	case turnHold:
		c.held[h.CmdSN()] = heldPDU{c, pdu.Header{BHS: h.BHS, AHS: append([]byte(nil), h.AHS...)}, append([]byte(nil), data...), nil, false, nil}
		return nil
	}
	if err := c.dispatch(h, data); err != nil {
		return err
	}
	return c.followers()
}

// followers executes the requests whose turn has come with the one before. c.mu is
// held.
func (c *Conn) followers() error {
	for len(c.held) > 0 {
		next, ok := c.held[c.expCmdSN]
		if !ok {
			break
		}
		delete(c.held, c.expCmdSN)
		c.advance(&next.h)
		if err := next.c.takeTurn(&next); err != nil && next.c == c {
			return err
		} else if err != nil {
			next.c.close()
		}
	}
	return nil
}

// takeTurn executes a request that waited for its turn, perhaps on behalf of
// another connection of the session, and then sends its replies.
func (c *Conn) takeTurn(held *heldPDU) error {
	if c.phase != phaseFull {
		if c.isLevelTwo() && held.h.Opcode() == pdu.OpSCSICommand {
			c.interrupt(held.h.InitiatorTaskTag(), &orphan{lun: c.target.lun(held.h.LUN()), counted: true, held: held})
		} else if held.h.Opcode() == pdu.OpSCSICommand {
			c.inflight-- // it died with its connection
		}
		return nil
	}
	if held.delay != nil {
		c.hold(&held.h, held.data, *held.delay)
	} else if err := c.dispatch(&held.h, held.data); err != nil {
		return err
	}
	for _, out := range held.out {
		if err := c.dispatchHeld(&out); err != nil {
			return err
		}
	}
	return c.flush()
}

// dispatchHeld is dispatch for a Data-Out that waited with its command.
func (c *Conn) dispatchHeld(out *heldPDU) error {
	if out.damaged {
		return c.damagedData(&out.h)
	}
	return c.dispatch(&out.h, out.data)
}

// dispatch executes a request whose turn it is. c.mu is held.
func (c *Conn) dispatch(h *pdu.Header, data []byte) error {
	op := h.Opcode()
	if c.discovery && op != pdu.OpTextRequest && op != pdu.OpLogoutRequest && op != pdu.OpNOPOut {
		c.violated(op, "not allowed in a discovery session (4.3)")
		return c.reject(h, pdu.RejectProtocolError)
	}
	var err error
	switch op {
	case pdu.OpSCSICommand:
		if err = c.cmd.Decode(h, data); err == nil {
			return c.cutShort(c.scsiCommand(&c.cmd))
		}
	case pdu.OpDataOut:
		if err = c.dataOut.Decode(h, data); err == nil {
			return c.dataOutArrived(h, &c.dataOut)
		}
	case pdu.OpNOPOut:
		if err = c.nopOut.Decode(h, data); err == nil {
			return c.nop(h, &c.nopOut)
		}
	case pdu.OpTaskManagementRequest:
		var p pdu.TaskManagementRequest
		if err = p.Decode(h, data); err == nil {
			return c.taskManagement(&p)
		}
	case pdu.OpTextRequest:
		var p pdu.TextRequest
		if err = p.Decode(h, data); err == nil {
			return c.textRequest(h, &p)
		}
	case pdu.OpLogoutRequest:
		var p pdu.LogoutRequest
		if err = p.Decode(h, data); err == nil {
			return c.logout(h, &p)
		}
	case pdu.OpLoginRequest:
		c.violated(op, "login request in full feature phase (6.3)")
		return c.reject(h, pdu.RejectProtocolError)
	case pdu.OpSNACK:
		var p pdu.SNACK
		if err = p.Decode(h, data); err == nil {
			return c.snack(h, &p)
		}
	default:
		c.violated(op, "opcode is not one of an initiator (11.2.1.2)")
		return c.reject(h, pdu.RejectCommandNotSupported)
	}
	c.violated(op, "%v", err)
	return c.reject(h, pdu.RejectInvalidField)
}

// dataDigestError answers a PDU whose data segment arrived damaged (RFC 7143
// section 7.8). c.mu is held.
func (c *Conn) dataDigestError(h *pdu.Header) error {
	if c.phase != phaseFull {
		return errEnd
	}
	c.gaps = true // the initiator may or may not send it again
	if err := c.reject(h, pdu.RejectDataDigest); err != nil {
		return err
	}
	if h.Opcode() != pdu.OpDataOut {
		return nil
	}
	return c.damagedData(h)
}

// damagedData deals with a Data-Out of which only the header can be used.
func (c *Conn) damagedData(h *pdu.Header) error {
	t := c.tasks[h.InitiatorTaskTag()]
	if t == nil {
		c.holdData(h, nil, true)
		return nil
	}
	if c.recovers() {
		var p pdu.DataOut
		if err := p.Decode(&pdu.Header{BHS: h.BHS}, make([]byte, h.DataSegmentLength())); err != nil {
			return err
		}
		return c.recoverData(t, &p, int64(h.DataSegmentLength()))
	}
	t.fail(scsiCRCError)
	if !h.Final() {
		return nil
	}
	return c.complete(t)
}

func (c *Conn) violated(op pdu.Opcode, format string, args ...any) {
	c.srv.violated(Violation{Initiator: c.nexus.initiator, Conn: c.id, Opcode: op, Rule: fmt.Sprintf(format, args...)})
}

// close ends the connection from outside; serve notices. Nothing is sent any more
// when Done tells.
func (c *Conn) close() {
	c.nc.Close()
	c.doneOnce.Do(func() { close(c.done) })
}

// Close ends the connection as if it had failed.
func (c *Conn) Close() { c.close() }

// Reset ends a TCP connection with a reset instead of the regular FIN.
func (c *Conn) Reset() {
	if tc, ok := c.nc.(*net.TCPConn); ok {
		_ = tc.SetLinger(0) // a connection that is gone already needs no reset
	}
	c.close()
}

// end is what follows the last PDU: nothing more is executed or sent.
func (c *Conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == phaseLogout {
		_ = c.sock.flush(c.w) // the connection ends anyway
	}
	was := c.phase
	c.phase = phaseClosed
	c.w.Reset()
	c.close()
	switch {
	case c.over, was == phaseClosed:
	case was == phaseFull, was == phaseLogin && c.lead != c: // it has just joined
		c.lost()
	case was == phaseLogout:
		c.finishIfEmpty()
	default:
		c.finish()
	}
	if c.over {
		for itt := range c.delayed {
			c.dropDelayed(itt)
		}
		clear(c.tasks)
	}
}

// ID returns the number of the connection, counted from 1.
func (c *Conn) ID() uint64 { return c.id }

// CID returns the connection identifier that the initiator gave. It must not be
// called in a handler of a response.
func (c *Conn) CID() uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cid
}

// Initiator returns the initiator's name, "" before it is known. It must not
// be called in a handler of a response.
func (c *Conn) Initiator() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nexus.initiator
}

// Done is closed when the connection ends.
func (c *Conn) Done() <-chan struct{} { return c.done }

// waitPaused waits while the server is paused. It returns false if the connection
// has ended meanwhile: what came on it is not executed.
func (s *Server) waitPaused(done <-chan struct{}) bool {
	gate := s.pause.Load()
	if gate == nil {
		return true
	}
	select {
	case <-*gate:
		return true
	case <-done:
		return false
	}
}
