package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/paths"
	"github.com/goiscsi/goiscsi/internal/version"
)

// DefaultSilence is how long a client waits for any sign of life.
const DefaultSilence = 30 * time.Second

// The protocol versions that this package speaks.
const (
	APIMin = 1
	APIMax = 1
)

// The headers that every answer of a daemon has: its release, and the range of
// protocol versions that it speaks.
const (
	HeaderVersion = "Iscsid-Version"
	HeaderAPIMin  = "Iscsid-Api-Min"
	HeaderAPIMax  = "Iscsid-Api-Max"
)

// maxHeader bounds the headers of an answer.
const maxHeader = 16 << 10

// maxAnswer bounds what a client reads: a session with a thousand devices is
// about 500 KiB.
const maxAnswer = 64 << 20

// Client talks to the daemon behind a unix socket. Its methods return a
// *Error for what the daemon reports and a *ConnError when talking to it
// failed. Its methods may be called concurrently; each call has a connection
// of its own while it waits.
type Client struct {
	socket  string
	silence time.Duration
	program string
	http    *http.Client
	tr      *http.Transport
}

// ClientOptions set up a Client; the zero value is usable.
type ClientOptions struct {
	// Silence is how long a call waits without hearing anything from the
	// daemon, not even an interim answer. 0 is DefaultSilence.
	Silence time.Duration
	// Program is who we say we are, in the User-Agent and in messages about a
	// daemon of another version. Empty is "goiscsi".
	Program string
	// DialContext replaces dialling the unix socket.
	DialContext func(ctx context.Context) (net.Conn, error)
}

// DefaultSocket is where the daemon of this machine listens, as the environment
// variables ISCSI_ROOT and ISCSI_RUN say: usually "/run/iscsid/control.sock".
func DefaultSocket() string { return paths.FromEnv().ControlSocket() }

// NewClient returns a client for the daemon that listens on socket; empty means
// DefaultSocket. It does not connect.
func NewClient(socket string, o ClientOptions) *Client {
	if socket == "" {
		socket = DefaultSocket()
	}
	if o.Silence <= 0 {
		o.Silence = DefaultSilence
	}
	if o.Program == "" {
		o.Program = "goiscsi"
	}
	dial := o.DialContext
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
	}
	tr := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    4,
	}
	return &Client{socket: socket, silence: o.Silence, program: o.Program, tr: tr, http: &http.Client{Transport: tr}}
}

// Socket returns the path of the socket.
func (c *Client) Socket() string { return c.socket }

// Close drops idle connections. Calls in progress are not affected.
func (c *Client) Close() error {
	c.tr.CloseIdleConnections()
	return nil
}

// Version asks the daemon what it is.
func (c *Client) Version(ctx context.Context) (*VersionInfo, error) {
	var v VersionInfo
	if err := c.do(ctx, "version", http.MethodGet, "/version", nil, &v); err != nil {
		return nil, err
	}
	return &v, nil
}

// Initiator asks for the initiator's name.
func (c *Client) Initiator(ctx context.Context) (*Initiator, error) {
	var i Initiator
	if err := c.do(ctx, "initiator", http.MethodGet, "/v1/initiator", nil, &i); err != nil {
		return nil, err
	}
	return &i, nil
}

// Login makes a session. Cancelling ctx cancels the login in the daemon,
// unless req.NoWait is set and the daemon has taken the request.
func (c *Client) Login(ctx context.Context, req *LoginRequest) (*Session, error) {
	var s Session
	if err := c.do(ctx, "login", http.MethodPost, "/v1/sessions", req, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Sessions returns the sessions ordered by sid.
func (c *Client) Sessions(ctx context.Context, q SessionQuery) ([]Session, error) {
	var s []Session
	if err := c.do(ctx, "list sessions", http.MethodGet, "/v1/sessions"+q.encode(), nil, &s); err != nil {
		return nil, err
	}
	return s, nil
}

// Session returns the session sid.
func (c *Client) Session(ctx context.Context, sid int, q SessionQuery) (*Session, error) {
	var s Session
	if err := c.do(ctx, "show session", http.MethodGet, sessionPath(sid, "")+q.encode(), nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Logout ends the session sid and returns when its devices are gone. With safe,
// a device in use is an error with code 28, and the session stays.
func (c *Client) Logout(ctx context.Context, sid int, safe bool) error {
	return c.do(ctx, "logout", http.MethodDelete, sessionPath(sid, safeQuery(safe)), nil, nil)
}

// Rescan looks for changes of the logical units of the session sid.
func (c *Client) Rescan(ctx context.Context, sid int) (*RescanResult, error) {
	var r RescanResult
	if err := c.do(ctx, "rescan", http.MethodPost, sessionPath(sid, "/rescan"), nil, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// RescanLUN looks for changes of one logical unit of the session sid.
func (c *Client) RescanLUN(ctx context.Context, sid int, lun uint64) (*RescanResult, error) {
	var r RescanResult
	if err := c.do(ctx, "rescan", http.MethodPost, unitPath(sid, lun, "/rescan"), nil, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// RemoveLUN takes the device of one logical unit of the session sid away, until
// the next rescan. With safe, a device in use is an error with code 28.
func (c *Client) RemoveLUN(ctx context.Context, sid int, lun uint64, safe bool) error {
	return c.do(ctx, "remove", http.MethodDelete, unitPath(sid, lun, safeQuery(safe)), nil, nil)
}

// Stats returns the counters of the session sid.
func (c *Client) Stats(ctx context.Context, sid int) (*Stats, error) {
	var s Stats
	if err := c.do(ctx, "stats", http.MethodGet, sessionPath(sid, "/stats"), nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Trace writes the session's PDUs to w as they are sent and received, in pcapng
// format, until o.Duration is over, EndTrace is called, the session ends or ctx
// does. Only in the last case is there an error, and the end of what w got missing.
// Code 28 if the session is being traced already.
func (c *Client) Trace(ctx context.Context, sid int, o TraceOptions, w io.Writer) (*TraceResult, error) {
	return c.trace(ctx, sid, o, w)
}

// EndTrace ends the trace of a session, if there is one. It returns at once; Trace
// returns when it has written what was recorded until then.
func (c *Client) EndTrace(ctx context.Context, sid int) error {
	return c.do(ctx, "end trace", http.MethodDelete, sessionPath(sid, "/trace"), nil, nil)
}

// Shutdown asks the daemon to end.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.do(ctx, "shutdown", http.MethodPost, "/v1/shutdown", nil, nil)
}

func sessionPath(sid int, sub string) string { return "/v1/sessions/" + strconv.Itoa(sid) + sub }

func unitPath(sid int, lun uint64, sub string) string {
	return sessionPath(sid, "/luns/"+strconv.FormatUint(lun, 10)+sub)
}

func safeQuery(safe bool) string {
	if safe {
		return "?safe=true"
	}
	return ""
}

func (q SessionQuery) encode() string {
	v := url.Values{}
	for name, on := range map[string]bool{"pending": q.Pending, "record": q.Record, "secrets": q.Secrets} {
		if on {
			v.Set(name, "1")
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// errSilence is the cause of a context that the watchdog ended.
var errSilence = errors.New("no sign of life")

// do sends one request and decodes its answer into out.
func (c *Client) do(ctx context.Context, op, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.silence, func() { cancel(errSilence) })
	defer watchdog.Stop()
	alive := func() { watchdog.Reset(c.silence) }
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { alive(); return nil },
	})

	// The host is never looked up: the transport dials the socket.
	req, err := http.NewRequestWithContext(ctx, method, "http://iscsid"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", c.program+"/"+version.Version)
	resp, err := c.http.Do(req)
	if err != nil {
		return c.connError(ctx, op, err)
	}
	defer resp.Body.Close()
	alive()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.connError(ctx, op, err)
	}
	if err := c.checkVersion(resp.Header); err != nil {
		return &ConnError{Op: op, Socket: c.socket, Code: errcode.InvalidMgmtReq, Err: err}
	}
	if resp.StatusCode/100 != 2 {
		var e Error
		if err := json.Unmarshal(answer, &e); err != nil || e.Code == 0 {
			return &ConnError{Op: op, Socket: c.socket, Code: errcode.ISCSIDComm, Err: fmt.Errorf("unintelligible answer with status %s", resp.Status)}
		}
		return &e
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return &ConnError{Op: op, Socket: c.socket, Code: errcode.ISCSIDComm, Err: fmt.Errorf("unintelligible answer: %w", err)}
	}
	return nil
}

// checkVersion looks whether the server that sent h speaks our version.
func (c *Client) checkVersion(h http.Header) error {
	e := &VersionError{Server: h.Get(HeaderVersion), Client: c.program + " " + version.Version, program: c.program, ClientMin: APIMin, ClientMax: APIMax}
	var err1, err2 error
	e.ServerMin, err1 = strconv.Atoi(h.Get(HeaderAPIMin))
	e.ServerMax, err2 = strconv.Atoi(h.Get(HeaderAPIMax))
	if err1 != nil || err2 != nil {
		e.serverSaidNoRanges = true
		return e
	}
	if e.ServerMin > APIMax || e.ServerMax < APIMin {
		return e
	}
	return nil
}

// connError classifies a failure of the transport. The caller's own
// cancellation comes back as it is.
func (c *Client) connError(ctx context.Context, op string, err error) error {
	// url.Error only adds the made-up URL.
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	code := errcode.ISCSIDComm
	switch {
	case errors.Is(context.Cause(ctx), errSilence):
		code = errcode.ReqTimedOut
		err = fmt.Errorf("no answer for %v", c.silence)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		code = errcode.ISCSIDNotConn
	case errors.Is(err, os.ErrPermission):
		code = errcode.Access
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		// net/http has this one to itself.
		strings.HasSuffix(err.Error(), "server closed idle connection"):
		err = fmt.Errorf("the daemon ended while it worked on the request: %w", err)
	}
	return &ConnError{Op: op, Socket: c.socket, Code: code, Err: err}
}
