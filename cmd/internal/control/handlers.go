package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/initiator/manager"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// handler does the work of one kind of request and returns the status and
// body of a good answer. It runs in a goroutine of its own (see answer).
type handler func(ctx context.Context, r *http.Request) (int, any, error)

// routes fills the table of paths. http.ServeMux prefers the more specific
// pattern, so the last ones catch what is left.
func (s *Server) routes() {
	s.handle("GET /version", accessRead, s.version)
	s.handle("GET /v1/initiator", accessRead, s.initiator)
	s.handle("GET /v1/sessions", accessRead, s.sessions)
	s.handle("POST /v1/sessions", accessAdmin, s.login)
	s.handle("GET /v1/sessions/{sid}", accessRead, s.session)
	s.handle("DELETE /v1/sessions/{sid}", accessAdmin, s.logout)
	s.handle("POST /v1/sessions/{sid}/rescan", accessAdmin, s.rescan)
	s.handle("POST /v1/sessions/{sid}/luns/{lun}/rescan", accessAdmin, s.rescanLUN)
	s.handle("DELETE /v1/sessions/{sid}/luns/{lun}", accessAdmin, s.removeLUN)
	s.handle("GET /v1/sessions/{sid}/stats", accessRead, s.stats)
	s.mux.HandleFunc("GET /v1/sessions/{sid}/trace", s.trace)
	s.handle("DELETE /v1/sessions/{sid}/trace", accessAdmin, s.endTrace)
	s.handle("GET /v1/log", accessRead, s.logLevel)
	s.handle("PUT /v1/log", accessAdmin, s.setLogLevel)
	s.handle("POST /v1/shutdown", accessAdmin, s.shutdown)
	if s.o.Metrics != nil {
		s.mux.Handle("GET /metrics", s.o.Metrics)
	}
	s.handle("/", accessRead, s.unknown)
}

// handle registers h behind the check of credentials.
func (s *Server) handle(pattern string, a access, h handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if s.admitted(w, r, a) {
			s.answer(w, r, h)
		}
	})
}

// admitted reports whether the peer has the access, and tells it if not.
func (s *Server) admitted(w http.ResponseWriter, r *http.Request, a access) bool {
	if s.allowed(r, a) {
		return true
	}
	p, _ := PeerFrom(r.Context())
	s.o.Logger.Warn("control request refused", "method", r.Method, "path", r.URL.Path, "uid", p.UID, "pid", p.PID)
	e := Errorf(errcode.Access, "user %d may not do this", p.UID)
	e.Hint = "run the command as root"
	writeError(w, e)
	return false
}

// answer runs h and tells the client every Heartbeat that it is still alive.
// The handler's goroutine is always waited for, because it ends with the
// request's context.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, h handler) {
	type result struct {
		status int
		body   any
		err    error
	}
	// The body is small and bounded; reading it here lets net/http watch the
	// connection for the client's departure while the handler works.
	body, err := readBody(w, r)
	if err != nil {
		writeError(w, err)
		return
	}
	r.Body = io.NopCloser(strings.NewReader(body))

	done := make(chan result, 1)
	go func() {
		status, body, err := h(r.Context(), r)
		done <- result{status, body, err}
	}()
	beat := time.NewTicker(s.o.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case res := <-done:
			if res.err != nil {
				writeError(w, res.err)
				return
			}
			writeJSON(w, res.status, res.body)
			return
		case <-beat.C:
			w.WriteHeader(http.StatusProcessing)
		}
	}
}

// readBody reads the whole body within the limits.
func readBody(w http.ResponseWriter, r *http.Request) (string, error) {
	rc := http.NewResponseController(w)
	// A recorder or another handler in a test may not know deadlines.
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return "", Errorf(errcode.Inval, "request larger than %d bytes", tooBig.Limit)
		}
		return "", NewError(errcode.ISCSIDComm, err.Error())
	}
	return string(b), nil
}

// decodeRequest decodes the JSON document b into v. A field that v does not
// have, and anything after the document, is refused.
func decodeRequest(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Errorf(errcode.InvalidMgmtReq, "cannot understand the request: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return NewError(errcode.InvalidMgmtReq, "more than one document in the request")
	}
	return nil
}

func (s *Server) version(context.Context, *http.Request) (int, any, error) {
	return http.StatusOK, VersionInfo{Version: s.o.Version, APIMin: APIMin, APIMax: APIMax, PID: os.Getpid()}, nil
}

func (s *Server) initiator(ctx context.Context, _ *http.Request) (int, any, error) {
	i, err := s.svc.Initiator(ctx)
	return http.StatusOK, i, err
}

func (s *Server) login(ctx context.Context, r *http.Request) (int, any, error) {
	var req LoginRequest
	if err := decodeRequest(r.Body, &req); err != nil {
		return 0, nil, err
	}
	if err := checkLogin(&req); err != nil {
		return 0, nil, err
	}
	sess, err := s.svc.Login(ctx, &req)
	if err != nil {
		return 0, nil, err
	}
	status := http.StatusCreated
	if req.NoWait {
		status = http.StatusAccepted
	}
	return status, redacted(sess, SessionQuery{}), nil
}

// checkLogin refuses a request that no daemon could serve.
func checkLogin(req *LoginRequest) error {
	for _, key := range []string{"node.name", "node.conn[0].address"} {
		if req.Record[key] == "" {
			return Errorf(errcode.Inval, "record has no %s", key)
		}
	}
	if req.Limit < 0 {
		return Errorf(errcode.Inval, "limit %d is negative", req.Limit)
	}
	return nil
}

func (s *Server) sessions(ctx context.Context, r *http.Request) (int, any, error) {
	q, err := s.query(r)
	if err != nil {
		return 0, nil, err
	}
	list, err := s.svc.Sessions(ctx, q)
	if err != nil {
		return 0, nil, err
	}
	out := make([]*Session, 0, len(list))
	for i := range list {
		if list[i].Pending && !q.Pending {
			continue
		}
		out = append(out, redacted(&list[i], q))
	}
	slices.SortFunc(out, func(a, b *Session) int { return a.SID - b.SID })
	return http.StatusOK, out, nil
}

func (s *Server) session(ctx context.Context, r *http.Request) (int, any, error) {
	sid, err := sidOf(r)
	if err != nil {
		return 0, nil, err
	}
	q, err := s.query(r)
	if err != nil {
		return 0, nil, err
	}
	sess, err := s.svc.Session(ctx, sid, q)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, redacted(sess, q), nil
}

func (s *Server) logout(ctx context.Context, r *http.Request) (int, any, error) {
	sid, err := sidOf(r)
	if err != nil {
		return 0, nil, err
	}
	safe, err := safeOf(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.svc.Logout(ctx, sid, safe)
}

func (s *Server) rescan(ctx context.Context, r *http.Request) (int, any, error) {
	sid, err := sidOf(r)
	if err != nil {
		return 0, nil, err
	}
	res, err := s.svc.Rescan(ctx, sid)
	return http.StatusOK, res, err
}

func (s *Server) rescanLUN(ctx context.Context, r *http.Request) (int, any, error) {
	sid, lun, err := unitOf(r)
	if err != nil {
		return 0, nil, err
	}
	res, err := s.svc.RescanLUN(ctx, sid, lun)
	return http.StatusOK, res, err
}

func (s *Server) removeLUN(ctx context.Context, r *http.Request) (int, any, error) {
	sid, lun, err := unitOf(r)
	if err != nil {
		return 0, nil, err
	}
	safe, err := safeOf(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.svc.RemoveLUN(ctx, sid, lun, safe)
}

func (s *Server) stats(ctx context.Context, r *http.Request) (int, any, error) {
	sid, err := sidOf(r)
	if err != nil {
		return 0, nil, err
	}
	st, err := s.svc.Stats(ctx, sid)
	return http.StatusOK, st, err
}

func (s *Server) logLevel(ctx context.Context, _ *http.Request) (int, any, error) {
	l, err := s.svc.LogLevel(ctx)
	return http.StatusOK, l, err
}

func (s *Server) setLogLevel(ctx context.Context, r *http.Request) (int, any, error) {
	var l LogLevel
	if err := decodeRequest(r.Body, &l); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.svc.SetLogLevel(ctx, l)
}

func (s *Server) shutdown(ctx context.Context, _ *http.Request) (int, any, error) {
	return http.StatusNoContent, nil, s.svc.Shutdown(ctx)
}

// unknown answers every path and method that is not in the table; for
// another protocol version it says which ones there are.
func (s *Server) unknown(_ context.Context, r *http.Request) (int, any, error) {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if n, err := strconv.Atoi(strings.TrimPrefix(first, "v")); err == nil && first != "" && first[0] == 'v' && (n < APIMin || n > APIMax) {
		return 0, nil, Errorf(errcode.InvalidMgmtReq, "iscsid %s speaks control protocol %s, not %d",
			s.o.Version, manager.VersionRange(APIMin, APIMax), n)
	}
	return 0, nil, Errorf(errcode.InvalidMgmtReq, "iscsid %s knows no %s %s", s.o.Version, r.Method, r.URL.Path)
}

// query reads the parameters of r. Records and secrets need admin access.
func (s *Server) query(r *http.Request) (SessionQuery, error) {
	var q SessionQuery
	for name, values := range r.URL.Query() {
		var p *bool
		switch name {
		case "pending":
			p = &q.Pending
		case "record":
			p = &q.Record
		case "secrets":
			p = &q.Secrets
		default:
			return q, Errorf(errcode.InvalidMgmtReq, "unknown parameter %q", name)
		}
		v, err := strconv.ParseBool(values[0])
		if err != nil {
			return q, Errorf(errcode.Inval, "parameter %s=%q is not a boolean", name, values[0])
		}
		*p = v
	}
	if (q.Record || q.Secrets) && !s.allowed(r, accessAdmin) {
		return q, NewError(errcode.Access, "records and secrets are for root only")
	}
	return q, nil
}

func sidOf(r *http.Request) (int, error) {
	sid, err := strconv.Atoi(r.PathValue("sid"))
	if err != nil || sid <= 0 {
		return 0, Errorf(errcode.Inval, "%q is not a session id", r.PathValue("sid"))
	}
	return sid, nil
}

// unitOf returns the session and logical unit of a path.
func unitOf(r *http.Request) (sid int, lun uint64, err error) {
	if sid, err = sidOf(r); err != nil {
		return 0, 0, err
	}
	if lun, err = strconv.ParseUint(r.PathValue("lun"), 10, 64); err != nil {
		return 0, 0, Errorf(errcode.Inval, "%q is not a logical unit number", r.PathValue("lun"))
	}
	return sid, lun, nil
}

// safeOf returns the parameter safe of r, false where there is none.
func safeOf(r *http.Request) (bool, error) {
	v := r.URL.Query().Get("safe")
	if v == "" {
		return false, nil
	}
	safe, err := strconv.ParseBool(v)
	if err != nil {
		return false, Errorf(errcode.Inval, "parameter safe=%q is not a boolean", v)
	}
	return safe, nil
}

// redacted returns a copy of s without what q did not ask for, whatever the
// service put in.
func redacted(s *Session, q SessionQuery) *Session {
	c := *s
	if c.Devices == nil {
		c.Devices = []Device{}
	}
	if !q.Record {
		c.Record = nil
	}
	if q.Secrets {
		return &c
	}
	if c.CHAP != nil {
		chap := *c.CHAP
		chap.Password, chap.PasswordIn = "", ""
		c.CHAP = &chap
	}
	if c.Record != nil {
		r := make(map[string]string, len(c.Record))
		for k, v := range c.Record {
			if strings.HasSuffix(k, ".password") || strings.HasSuffix(k, ".password_in") {
				continue
			}
			r[k] = v
		}
		c.Record = r
	}
	return &c
}

// statusOf maps a code onto the nearest HTTP status, for people with curl;
// our client looks at the body.
func statusOf(c errcode.Code) int {
	switch c {
	case errcode.Inval:
		return http.StatusBadRequest
	case errcode.InvalidMgmtReq:
		return http.StatusNotFound
	case errcode.Access:
		return http.StatusForbidden
	case errcode.SessNotFound, errcode.NoObjsFound, errcode.HostNotFound:
		return http.StatusNotFound
	case errcode.SessExists, errcode.Busy:
		return http.StatusConflict
	case errcode.TransTimeout, errcode.PDUTimeout, errcode.ReqTimedOut:
		return http.StatusGatewayTimeout
	case errcode.Trans, errcode.Login, errcode.FatalLogin, errcode.LoginAuthFailed, errcode.Logout:
		return http.StatusBadGateway
	default:
		return http.StatusInternalServerError
	}
}

func writeError(w http.ResponseWriter, err error) {
	e := FromError(err)
	writeJSON(w, statusOf(e.ISCSICode()), e)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	if v == nil {
		w.WriteHeader(status)
		return
	}
	b, err := json.Marshal(v)
	if err != nil { // our own types always marshal
		b, status = fmt.Appendf(nil, `{"code":9,"name":"ERR_INTERNAL","message":%q}`, err), http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	// An error here means that the client has gone.
	_, _ = w.Write(append(b, '\n'))
}
