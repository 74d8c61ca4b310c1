package initiator

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// An establisher makes connections in full feature phase: it connects, logs in,
// and follows redirections. Used by one goroutine at a time.
type establisher struct {
	dialer   dialer
	timeouts Timeouts
	tap      *tap         // of the session; nil: PDUs cannot be traced
	request  loginRequest // portal and cmdSN apart
	log      *slog.Logger

	// home is where every attempt starts: the configured portal, or where the
	// target has moved for good (moved).
	home  Portal
	moved bool

	// onState and onRedirect tell of progress; nil: nobody listens.
	onState    func(s ConnState, at Portal)
	onRedirect func(to Portal)
	onLoginPDU func(n uint64)
}

// attempt makes one attempt. connectTimeout bounds the TCP connection, the login
// timeout the whole of each hop. The errors are those of dial and login; a
// chain of redirections without end is ErrRedirect.
func (e *establisher) attempt(ctx context.Context, connectTimeout time.Duration) (*transport, *loginResult, Portal, error) {
	at := e.home
	group := at.TPGT
	if e.moved {
		group = UnknownTPGT
	}
	for range maxRedirects + 1 {
		t, res, err := e.hop(ctx, at, group, connectTimeout)
		if err == nil {
			return t, res, at, nil
		}
		var moved *redirectError
		if !errors.As(err, &moved) {
			return nil, nil, at, err
		}
		moved.to = moved.to.zoned(at)
		e.log.Info("login redirected", "target", e.request.target, "from", at.Address(), "to", moved.to.Address(), "permanent", moved.permanent)
		// The address of a redirection has no tag (RFC 7143 section 13.8); if
		// it has one all the same, it says nothing.
		at, group = moved.to, UnknownTPGT
		if moved.permanent {
			e.home, e.moved = moved.to, true
		}
		if e.onRedirect != nil {
			e.onRedirect(at)
		}
	}
	return nil, nil, at, withKind(ErrRedirect, errors.New("too many redirections"))
}

// hop connects to one portal and logs in there, to the portal group with the tag
// given if it is known.
func (e *establisher) hop(ctx context.Context, at Portal, group int, connectTimeout time.Duration) (*transport, *loginResult, error) {
	req := e.request
	req.portal, req.portalGroup = at, group
	return e.logIn(ctx, req, connectTimeout)
}

// join makes a further connection of the session that res is about. That is no
// state of the session.
func (e *establisher) join(ctx context.Context, at Portal, res *loginResult, cid uint16, connectTimeout time.Duration) (*transport, *loginResult, error) {
	req := e.request
	req.portal, req.portalGroup = at, res.tpgt
	req.tsih, req.cid, req.cmdSN, req.session = res.tsih, cid, res.cmdSN, &res.params
	quiet := *e
	quiet.onState = nil
	return quiet.logIn(ctx, req, connectTimeout)
}

// reinstate makes a connection in the place of the lost one with the same
// identifier; res is about the session, but for expStatSN, which is the lost
// connection's (RFC 7143 section 11.12.9).
func (e *establisher) reinstate(ctx context.Context, at Portal, res *loginResult, cid uint16, connectTimeout time.Duration) (*transport, *loginResult, error) {
	req := e.request
	req.portal, req.portalGroup = at, res.tpgt
	req.tsih, req.cid, req.cmdSN, req.expStatSN, req.session = res.tsih, cid, res.cmdSN, res.expStatSN, &res.params
	return e.logIn(ctx, req, connectTimeout)
}

// logIn connects and logs in.
func (e *establisher) logIn(ctx context.Context, req loginRequest, connectTimeout time.Duration) (*transport, *loginResult, error) {
	at := req.portal
	ctx, cancel := withTimeout(ctx, e.timeouts.Login)
	defer cancel()
	e.state(ConnConnecting, at)
	cctx, ccancel := withTimeout(ctx, connectTimeout)
	nc, err := e.dialer.dial(cctx, at)
	ccancel()
	if err != nil {
		return nil, nil, err
	}
	e.state(ConnLoggingIn, at)
	t := newTransport(nc, e.tap.point(nc))
	var res *loginResult
	err = t.while(ctx, func() (err error) {
		res, err = login(&timedWire{ctx, t, e.timeouts.Auth}, req)
		return err
	})
	if e.onLoginPDU != nil {
		e.onLoginPDU(t.pdus)
	}
	if err != nil {
		nc.Close() //nolint:errcheck // the login's error counts
		return nil, nil, err
	}
	t.enterFullFeature(&res.params)
	return t, res, nil
}

func (e *establisher) state(s ConnState, at Portal) {
	if e.onState != nil {
		e.onState(s, at)
	}
}

// A timedWire bounds the wait for each answer in the security stage.
type timedWire struct {
	ctx  context.Context //nolint:containedctx // lives as long as one login
	t    *transport
	auth time.Duration
}

// roundTrip implements loginWire.
func (w *timedWire) roundTrip(req *pdu.LoginRequest) (resp *pdu.LoginResponse, err error) {
	if req.CurrentStage != pdu.StageSecurity {
		return w.t.roundTrip(req)
	}
	ctx, cancel := withTimeout(w.ctx, w.auth)
	defer cancel()
	err = w.t.while(ctx, func() (err error) {
		resp, err = w.t.roundTrip(req)
		return err
	})
	return resp, err
}

// retryable reports whether another attempt to log in may succeed: not after a
// refused authentication, a fatal status or a protocol violation, nor for a name
// that does not resolve.
func retryable(err error) bool {
	var status *LoginError
	if errors.As(err, &status) {
		return status.temporary()
	}
	switch {
	case errors.Is(err, ErrRedirect):
		return true
	case errors.Is(err, ErrAuth), errors.Is(err, ErrProtocol), errors.Is(err, ErrResolve):
		return false
	}
	return errors.Is(err, ErrTransport) || errors.Is(err, ErrTimeout)
}
