package conformance

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// A conn is the station's end of a connection. It is used by the test's goroutine.
type conn struct {
	t  testing.TB
	st *station
	nc net.Conn
	r  *pdu.Reader
	w  *pdu.Writer

	wait time.Duration // for the next PDU

	// Sequence numbers as a target keeps them.
	statSN    uint32 // the next
	expStatSN uint32 // highest acknowledged
	expCmdSN  uint32
	maxCmdSN  uint32 // as announced
	window    uint32 // MaxCmdSN is so far beyond ExpCmdSN-1

	header pdu.Header        // of the PDU read last
	first  *pdu.LoginRequest // of the connection
	agreed map[string]string // what logIn has answered
	tsih   uint16            // given to the initiator
}

func newConn(st *station, nc net.Conn) *conn {
	return &conn{
		t: st.t, st: st, nc: nc, wait: patience,
		r: pdu.NewReader(nc, 64<<10), w: pdu.NewWriter(nc),
		window: 32, tsih: 0x1234, agreed: map[string]string{},
	}
}

// read reads a PDU.
func (c *conn) read() (pdu.PDU, error) {
	if err := c.nc.SetReadDeadline(time.Now().Add(c.wait)); err != nil {
		return nil, err
	}
	h, err := c.r.Next()
	if err != nil {
		return nil, err
	}
	data, err := c.r.Data()
	if err != nil {
		return nil, err
	}
	c.header = pdu.Header{BHS: h.BHS, AHS: append([]byte(nil), h.AHS...)}
	return pdu.Parse(&c.header, append([]byte(nil), data...))
}

// next returns the next PDU of the initiator, its sequence numbers checked (RFC
// 7143 section 4.2.2).
func (c *conn) next() pdu.PDU {
	c.t.Helper()
	p, err := c.read()
	if err != nil {
		c.t.Fatalf("nothing comes from the initiator: %v", err)
	}
	op, h := p.Opcode(), &c.header
	if op != pdu.OpLoginRequest || c.first != nil {
		switch n := h.ExpStatSN(); {
		case pdu.SerialLess(c.statSN, n):
			c.t.Errorf("%s: ExpStatSN %d acknowledges what was not sent, next is %d", op, n, c.statSN)
		case pdu.SerialLess(n, c.expStatSN):
			c.t.Errorf("%s: ExpStatSN %d went back from %d", op, n, c.expStatSN)
		default:
			c.expStatSN = n
		}
	}
	switch op {
	case pdu.OpSCSICommand, pdu.OpNOPOut, pdu.OpTaskManagementRequest, pdu.OpTextRequest, pdu.OpLogoutRequest:
		if n := h.CmdSN(); n != c.expCmdSN {
			c.t.Errorf("%s: CmdSN %d, expected %d", op, n, c.expCmdSN)
		} else if !h.Immediate() && pdu.SerialLess(c.maxCmdSN, n) {
			c.t.Errorf("%s: CmdSN %d is beyond MaxCmdSN %d", op, n, c.maxCmdSN)
		}
		if !h.Immediate() {
			c.expCmdSN++
		}
	}
	return p
}

// expect returns the next PDU, which must be of one kind.
func expect[T pdu.PDU](c *conn) T {
	c.t.Helper()
	p := c.next()
	want, ok := p.(T)
	if !ok {
		c.t.Fatalf("%s where %s is expected", p.Opcode(), want.Opcode())
	}
	return want
}

// ended checks that the initiator closes the connection without another PDU.
func (c *conn) ended() {
	c.t.Helper()
	p, err := c.read()
	switch {
	case err == nil:
		c.t.Fatalf("%s where the connection must be closed", p.Opcode())
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.Fatal("the connection stays open")
	}
}

// drained reads until the initiator closes the connection, and returns what
// came.
func (c *conn) drained() (got []pdu.PDU) {
	c.t.Helper()
	for {
		p, err := c.read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.t.Fatal("the connection stays open")
		}
		if err != nil {
			return got
		}
		got = append(got, p)
	}
}

// number fills in the sequence numbers of a response.
func (c *conn) number(p pdu.PDU) {
	if limit := c.expCmdSN + c.window - 1; pdu.SerialLess(c.maxCmdSN, limit) {
		c.maxCmdSN = limit
	}
	exp, limit := c.expCmdSN, c.maxCmdSN
	take := func() uint32 {
		c.statSN++
		return c.statSN - 1
	}
	switch p := p.(type) {
	case *pdu.LoginResponse:
		p.ExpCmdSN, p.MaxCmdSN = exp, limit
		if p.StatusClass == pdu.LoginSuccess {
			p.StatSN = take()
		}
	case *pdu.SCSIResponse:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = take(), exp, limit
	case *pdu.DataIn:
		if p.ExpCmdSN, p.MaxCmdSN = exp, limit; p.HasStatus {
			p.StatSN = take()
		}
	case *pdu.R2T:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.statSN, exp, limit
	case *pdu.NOPIn:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = c.statSN, exp, limit
		if p.InitiatorTaskTag != pdu.ReservedTag {
			c.statSN++
		}
	case *pdu.TaskManagementResponse:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = take(), exp, limit
	case *pdu.TextResponse:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = take(), exp, limit
	case *pdu.LogoutResponse:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = take(), exp, limit
	case *pdu.AsyncMessage:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = take(), exp, limit
	case *pdu.Reject:
		p.StatSN, p.ExpCmdSN, p.MaxCmdSN = take(), exp, limit
	}
}

// send sends PDUs with their sequence numbers filled in.
func (c *conn) send(pdus ...pdu.PDU) {
	c.t.Helper()
	for _, p := range pdus {
		c.number(p)
	}
	c.sendAsIs(pdus...)
}

// sendAsIs sends PDUs as they are, in one write. That the initiator may have
// closed the connection is for the test to find out.
func (c *conn) sendAsIs(pdus ...pdu.PDU) {
	c.t.Helper()
	for _, p := range pdus {
		if err := c.w.Append(p); err != nil {
			c.t.Fatal(err)
		}
	}
	c.flush()
}

// sendRaw sends bytes.
func (c *conn) sendRaw(b []byte) {
	c.t.Helper()
	c.w.AppendRaw(b)
	c.flush()
}

func (c *conn) flush() {
	c.t.Helper()
	if err := c.nc.SetWriteDeadline(time.Now().Add(c.wait)); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		c.t.Fatal(err)
	}
	err := c.w.Flush()
	var ne *net.OpError
	if err != nil && !errors.As(err, &ne) && !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal(err)
	}
}

// keysOf parses the text of a request; it must be well-formed in the strict
// sense.
func (c *conn) keysOf(data []byte) map[string]string {
	c.t.Helper()
	kvs, err := pdu.ParseText(data, pdu.TextLimits{Strict: true})
	if err != nil {
		c.t.Fatalf("text of the initiator: %v", err)
	}
	keys := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		if _, twice := keys[kv.Key]; twice {
			c.t.Errorf("%s occurs twice in a PDU", kv.Key)
		}
		keys[kv.Key] = kv.Value
	}
	return keys
}

// text encodes "Key=Value" pairs.
func text(pairs ...string) []byte {
	var kvs []pdu.KeyValue
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		kvs = append(kvs, pdu.KeyValue{Key: k, Value: v})
	}
	return pdu.AppendText(nil, kvs...)
}
