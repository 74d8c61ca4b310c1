package initiator

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/goiscsi/goiscsi/initiator/internal/rawsock"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// readBuffer is the size of a connection's read-ahead buffer in bytes: the
// headers, and the data of small reads, of as many commands as usually finish
// together.
const readBuffer = 64 << 10

// A transport is a connection before it is in full feature phase: one PDU goes
// out, one comes back. Used by one goroutine.
type transport struct {
	nc  net.Conn
	src *source
	r   *pdu.Reader
	w   *pdu.Writer
	tap *tapPoint

	resp pdu.LoginResponse
	pdus uint64 // Login requests sent
}

func newTransport(nc net.Conn, tap *tapPoint) *transport {
	src := &source{nc: nc, vector: rawsock.NewReader(nc)}
	return &transport{
		nc:  nc,
		src: src,
		r:   pdu.NewReader(src, readBuffer),
		w:   pdu.NewWriter(nc),
		tap: tap,
	}
}

// maxGather is how many bytes are read at most before what they gave rise to is
// passed on, however much more there is to read.
const maxGather = readBuffer

// A source is the reading end of a connection. It is read by one goroutine.
type source struct {
	nc     net.Conn
	vector *rawsock.Reader // nil: only Read of nc

	// before is called before each read that may have to wait: what came so
	// far has been dealt with and is to be passed on. Nil: nothing.
	before   func()
	gathered int // bytes read since then

	// more says that something is under way besides what was gathered, so that
	// it is worth to look for it. The reading goroutine sets it.
	more bool

	octets atomic.Uint64 // bytes read
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) { return s.ReadVector(p, nil) }

// ReadVector implements pdu.VectorReader.
//
// It passes on what was gathered only when nothing more has come: responses
// that arrived while others were dealt with go the same way with them, by the
// same system call to each of the owners' clients.
func (s *source) ReadVector(a, b []byte) (n int, err error) {
	err = rawsock.ErrWouldBlock
	if s.vector != nil && s.more && s.gathered > 0 && s.gathered < maxGather {
		n, err = s.vector.Read(a, b, false)
	}
	if err == rawsock.ErrWouldBlock {
		s.gathered = 0
		if s.before != nil {
			s.before()
		}
		if s.vector != nil {
			n, err = s.vector.Read(a, b, true)
		} else {
			n, err = s.nc.Read(a)
		}
	}
	if n > 0 {
		s.gathered += n
		s.octets.Add(uint64(n))
	}
	return n, err
}

// while runs f so that the end of the context ends its reads and writes; the
// error is then the context's cause, and the connection of no more use. A cause of
// ErrTimeout gets open-iscsi's code for a PDU that did not come.
func (t *transport) while(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() { t.nc.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // the connection is closed soon
	err := f()
	if stop() {
		return err
	}
	cause := context.Cause(ctx)
	if err == nil {
		err = cause // too late
	}
	switch {
	case errors.Is(cause, ErrTimeout):
		return withCode(errcode.PDUTimeout, withKind(ErrTimeout, err))
	case errors.Is(cause, context.DeadlineExceeded):
		return withCode(errcode.PDUTimeout, withKind(ErrTimeout, withKind(cause, err)))
	}
	return cause
}

// next returns the next PDU's header. An end of the stream is a failure of
// the transport, whose code in a login is that of a failed login.
func (t *transport) next() (*pdu.Header, error) {
	h, err := t.r.Next()
	if err != nil {
		return nil, readError(err)
	}
	return h, nil
}

// readError sorts an error of a pdu.Reader.
func readError(err error) error {
	var format *pdu.FormatError
	var digest *pdu.DigestError
	switch {
	case errors.As(err, &format):
		return withKind(ErrProtocol, err)
	case errors.As(err, &digest):
		return withKind(ErrTransport, err)
	case err == io.EOF:
		return withKind(ErrTransport, ErrHungUp)
	}
	return transportError(err)
}

// roundTrip implements loginWire.
func (t *transport) roundTrip(req *pdu.LoginRequest) (*pdu.LoginResponse, error) {
	resp, err := t.loginRoundTrip(req)
	if err != nil && !errors.Is(err, ErrProtocol) {
		return nil, withCode(errcode.Login, err)
	}
	return resp, err
}

func (t *transport) loginRoundTrip(req *pdu.LoginRequest) (*pdu.LoginResponse, error) {
	t.pdus++
	if err := t.send(req); err != nil {
		return nil, err
	}
	h, err := t.next()
	if err != nil {
		return nil, err
	}
	data, err := t.r.Data()
	if err != nil {
		return nil, readError(err)
	}
	if tr := t.tap.trace(); tr != nil {
		t.tap.received(tr, h, data)
	}
	switch h.Opcode() {
	case pdu.OpLoginResponse:
		if err := t.resp.Decode(h, data); err != nil {
			return nil, withKind(ErrProtocol, err)
		}
		return &t.resp, nil
	case pdu.OpReject:
		var rej pdu.Reject
		if err := rej.Decode(h, data); err != nil {
			return nil, withKind(ErrProtocol, err)
		}
		return nil, withKind(ErrProtocol, &RejectError{Reason: rej.Reason})
	}
	return nil, protocolErrorf("%s during login", h.Opcode())
}

// send writes one PDU.
func (t *transport) send(p pdu.PDU) error {
	if err := t.w.Append(p); err != nil {
		return err
	}
	t.tap.sent(p)
	if err := t.w.Flush(); err != nil {
		return transportError(err)
	}
	return nil
}

// enterFullFeature switches to what was negotiated.
func (t *transport) enterFullFeature(p *Params) {
	t.r.SetDigests(uses(p.HeaderDigest), uses(p.DataDigest))
	t.r.SetMaxDataSegmentLength(p.MaxRecvDataSegmentLength)
	t.w.SetDigests(uses(p.HeaderDigest), uses(p.DataDigest))
}
