package control_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/control/controltest"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func record(target string) map[string]string {
	return map[string]string{
		"node.name": target, "node.tpgt": "1", "node.conn[0].address": "192.0.2.1", "node.conn[0].port": "3260",
		"iface.iscsi_ifacename": "default", "node.session.auth.username": "u", "node.session.auth.password": "hush",
	}
}

func client(t *testing.T, socket string, o control.ClientOptions) *control.Client {
	t.Helper()
	c := control.NewClient(socket, o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestBeginIsCalledBeforeEachRequest(t *testing.T) {
	var begun atomic.Int64
	o := control.Options{Begin: func() { begun.Add(1) }}
	c := client(t, controltest.Serve(t, &controltest.Daemon{}, o), control.ClientOptions{})
	for n := range int64(3) {
		if _, err := c.Version(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := begun.Load(); got != n+1 {
			t.Fatalf("called %d times for %d requests", got, n+1)
		}
	}
}

func TestSessionLifeOverTheSocket(t *testing.T) {
	d := &controltest.Daemon{Name: "iqn.2016-04.com.open-iscsi:me"}
	c := client(t, controltest.Serve(t, d, control.Options{}), control.ClientOptions{})
	ctx := t.Context()

	if v, err := c.Version(ctx); err != nil || v.PID != os.Getpid() || v.APIMax != control.APIMax {
		t.Fatalf("Version() = %+v, %v", v, err)
	}
	if i, err := c.Initiator(ctx); err != nil || i.Name != d.Name {
		t.Fatalf("Initiator() = %+v, %v", i, err)
	}
	if l, err := c.Sessions(ctx, control.SessionQuery{}); err != nil || len(l) != 0 {
		t.Fatalf("Sessions() = %v, %v, want none", l, err)
	}
	s, err := c.Login(ctx, &control.LoginRequest{Record: record("iqn.a")})
	if err != nil || s.SID != 1 || s.Target != "iqn.a" || s.ConnState != control.ConnLoggedIn {
		t.Fatalf("Login() = %+v, %v", s, err)
	}
	if _, err := c.Login(ctx, &control.LoginRequest{Record: record("iqn.a")}); errcode.Of(err) != errcode.SessExists {
		t.Fatalf("second Login() = %v, want code 15", err)
	}
	if s, err := c.Login(ctx, &control.LoginRequest{Record: record("iqn.a"), Multiple: true}); err != nil || s.SID != 2 {
		t.Fatalf("Login(multiple) = %+v, %v", s, err)
	}
	if _, err := c.Login(ctx, &control.LoginRequest{Record: record("iqn.a"), Multiple: true, Limit: 2}); errcode.Of(err) != errcode.SessExists {
		t.Fatalf("Login over the limit = %v, want code 15", err)
	}
	if l, err := c.Sessions(ctx, control.SessionQuery{}); err != nil || len(l) != 2 || l[0].SID != 1 || l[1].SID != 2 {
		t.Fatalf("Sessions() = %+v, %v", l, err)
	}
	if _, err := c.Rescan(ctx, 1); err != nil {
		t.Errorf("Rescan(1): %v", err)
	}
	if _, err := c.RescanLUN(ctx, 1, 3); err != nil {
		t.Errorf("RescanLUN(1, 3): %v", err)
	}
	d.Update(1, func(s *control.Session) { s.Devices = []control.Device{{LUN: 3}, {LUN: 1 << 63}} })
	if err := c.RemoveLUN(ctx, 1, 1<<63, true); err != nil {
		t.Errorf("RemoveLUN(1, 2⁶³): %v", err)
	}
	if s, err := c.Session(ctx, 1, control.SessionQuery{}); err != nil || len(s.Devices) != 1 || s.Devices[0].LUN != 3 {
		t.Errorf("after the removal: %+v, %v", s, err)
	}
	if err := c.RemoveLUN(ctx, 1, 1<<63, false); errcode.Of(err) != errcode.NoObjsFound {
		t.Errorf("second RemoveLUN = %v, want code 21", err)
	}
	if _, err := c.Stats(ctx, 1); err != nil {
		t.Errorf("Stats(1): %v", err)
	}
	if err := c.Logout(ctx, 1, false); err != nil {
		t.Fatalf("Logout(1): %v", err)
	}
	if err := c.Logout(ctx, 1, false); !errors.Is(err, control.NewError(errcode.SessNotFound, "")) {
		t.Errorf("second Logout(1) = %v, want code 2", err)
	}
	if err := c.Shutdown(ctx); err != nil || !d.Stopped() {
		t.Errorf("Shutdown() = %v, stopped %v", err, d.Stopped())
	}
}

func TestSecretsOnlyOnRequest(t *testing.T) {
	c := client(t, controltest.Serve(t, &controltest.Daemon{}, control.Options{}), control.ClientOptions{})
	s, err := c.Login(t.Context(), &control.LoginRequest{Record: record("iqn.a")})
	if err != nil {
		t.Fatal(err)
	}
	if s.Record != nil || s.CHAP.Password != "" || !s.CHAP.PasswordSet {
		t.Errorf("login answer: record %v, CHAP %+v", s.Record, s.CHAP)
	}
	s, err = c.Session(t.Context(), 1, control.SessionQuery{Record: true})
	if err != nil || s.Record["node.name"] != "iqn.a" || s.Record["node.session.auth.password"] != "" || s.CHAP.Password != "" {
		t.Errorf("Session(record) = %+v, %v", s, err)
	}
	s, err = c.Session(t.Context(), 1, control.SessionQuery{Record: true, Secrets: true})
	if err != nil || s.Record["node.session.auth.password"] != "hush" || s.CHAP.Password != "hush" {
		t.Errorf("Session(record, secrets) = %+v, %v", s, err)
	}
}

// waiting is a daemon whose logins wait until they are cancelled.
func waiting() (d *controltest.Daemon, started, ended chan struct{}) {
	started, ended = make(chan struct{}), make(chan struct{})
	return &controltest.Daemon{Connect: func(ctx context.Context, _ *control.Session, _ map[string]string) error {
		close(started)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}}, started, ended
}

func TestCancelledClientCancelsTheLogin(t *testing.T) {
	d, started, ended := waiting()
	c := client(t, controltest.Serve(t, d, control.Options{}), control.ClientOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	if _, err := c.Login(ctx, &control.LoginRequest{Record: record("iqn.a")}); !errors.Is(err, context.Canceled) {
		t.Errorf("Login() = %v, want context.Canceled", err)
	}
	<-ended // the daemon has seen it
}

func TestNoWaitLoginOutlivesTheClient(t *testing.T) {
	d, started, ended := waiting()
	c := client(t, controltest.Serve(t, d, control.Options{}), control.ClientOptions{})
	s, err := c.Login(t.Context(), &control.LoginRequest{Record: record("iqn.a"), NoWait: true})
	if err != nil || !s.Pending {
		t.Fatalf("Login(no wait) = %+v, %v", s, err)
	}
	_ = c.Close()
	<-started
	if l, _ := c.Sessions(t.Context(), control.SessionQuery{}); len(l) != 0 {
		t.Errorf("a pending session is listed unasked: %+v", l)
	}
	if l, _ := c.Sessions(t.Context(), control.SessionQuery{Pending: true}); len(l) != 1 {
		t.Errorf("the pending session is not listed: %+v", l)
	}
	if err := c.Logout(t.Context(), s.SID, false); err != nil {
		t.Errorf("Logout of a pending session: %v", err)
	}
	<-ended
}

func TestSlowAnswerIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &controltest.Daemon{Connect: func(context.Context, *control.Session, map[string]string) error {
			time.Sleep(time.Hour) // longer than the silence that the client would bear
			return nil
		}}
		h := control.NewServer(d, control.Options{})
		// A pipe has no credentials.
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r.WithContext(control.WithPeer(r.Context(), control.Peer{})))
		})}
		l := make(pipeListener)
		go srv.Serve(l) //nolint:errcheck // ended by Close
		defer srv.Close()
		c := client(t, "", control.ClientOptions{DialContext: l.dial})
		if _, err := c.Login(t.Context(), &control.LoginRequest{Record: record("iqn.a")}); err != nil {
			t.Errorf("Login() = %v", err)
		}
	})
}

// A pipeListener accepts one end of each pipe that dial makes.
type pipeListener chan net.Conn

func (l pipeListener) dial(context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	l <- far
	return near, nil
}

func (l pipeListener) Accept() (net.Conn, error) {
	if nc, ok := <-l; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}

func (l pipeListener) Close() error { close(l); return nil }

func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func TestClientErrors(t *testing.T) {
	raw := func(answer string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, answer)
		}
	}
	for _, tc := range []struct {
		name  string
		serve func(net.Conn) // nil: nobody listens
		code  errcode.Code
		text  string
	}{
		{"nobody listens", nil, errcode.ISCSIDNotConn, "no such file"},
		{"closes at once", func(net.Conn) {}, errcode.ISCSIDComm, "the daemon ended"},
		{"is not HTTP", raw("hello\r\n\r\n"), errcode.ISCSIDComm, "malformed"},
		{"is another server", raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), errcode.InvalidMgmtReq, "not iscsid"},
		{
			"newer protocol", raw("HTTP/1.1 404 Not Found\r\nIscsid-Version: 9.1\r\nIscsid-Api-Min: 2\r\nIscsid-Api-Max: 4\r\nContent-Length: 0\r\n\r\n"),
			errcode.InvalidMgmtReq, "iscsid 9.1 speaks control protocol versions 2 to 4, this is iscsiadm",
		},
		{
			"empty refusal", raw("HTTP/1.1 500 Oops\r\nIscsid-Version: 3\r\nIscsid-Api-Min: 1\r\nIscsid-Api-Max: 1\r\nContent-Length: 0\r\n\r\n"),
			errcode.ISCSIDComm, "unintelligible answer with status 500",
		},
		{
			"wrong JSON", raw("HTTP/1.1 200 OK\r\nIscsid-Version: 3\r\nIscsid-Api-Min: 1\r\nIscsid-Api-Max: 1\r\nContent-Length: 2\r\n\r\n{}"),
			errcode.ISCSIDComm, "unintelligible answer",
		},
		{"says nothing", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, errcode.ReqTimedOut, "no answer for 100ms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "control")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			socket := filepath.Join(dir, "s")
			if tc.serve != nil {
				l, err := net.Listen("unix", socket)
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() { // ended by closing l
					defer close(done)
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						tc.serve(c)
						_ = c.Close()
					}
				}()
				defer func() { _ = l.Close(); <-done }()
			}
			var o control.ClientOptions
			if tc.code == errcode.ReqTimedOut {
				o.Silence = 100 * time.Millisecond
			}
			c := client(t, socket, o)
			_, err = c.Sessions(t.Context(), control.SessionQuery{})
			if errcode.Of(err) != tc.code || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("Sessions() = %v (code %d), want code %d with %q", err, errcode.Of(err), tc.code, tc.text)
			}
			if got := control.IsNotRunning(err); got != (tc.code == errcode.ISCSIDNotConn) {
				t.Errorf("IsNotRunning = %v", got)
			}
		})
	}
}

func TestAccess(t *testing.T) {
	srv := control.NewServer(&controltest.Daemon{}, control.Options{Group: 77})
	me, other := os.Geteuid(), os.Geteuid()+1000
	for _, tc := range []struct {
		name         string
		peer         *control.Peer
		method, path string
		want         int
	}{
		{"root may log out", &control.Peer{UID: 0}, "DELETE", "/v1/sessions/5", 404},
		{"own user may log out", &control.Peer{UID: me}, "DELETE", "/v1/sessions/5", 404},
		{"group may log out", &control.Peer{UID: other, GID: 77}, "DELETE", "/v1/sessions/5", 404},
		{"supplementary group may log out", &control.Peer{UID: other, GID: 1, Groups: []int{3, 77}}, "DELETE", "/v1/sessions/5", 404},
		{"others may not log out", &control.Peer{UID: other, GID: 1}, "DELETE", "/v1/sessions/5", 403},
		{"others may not log in", &control.Peer{UID: other, GID: 1}, "POST", "/v1/sessions", 403},
		{"others may not stop iscsid", &control.Peer{UID: other, GID: 1}, "POST", "/v1/shutdown", 403},
		{"others may list", &control.Peer{UID: other, GID: 1}, "GET", "/v1/sessions", 200},
		{"others may not see records", &control.Peer{UID: other, GID: 1}, "GET", "/v1/sessions?record=1", 403},
		{"others may not see secrets", &control.Peer{UID: other, GID: 1}, "GET", "/v1/sessions?secrets=1", 403},
		{"others may not trace", &control.Peer{UID: other, GID: 1}, "GET", "/v1/sessions/5/trace", 403},
		{"others may not end a trace", &control.Peer{UID: other, GID: 1}, "DELETE", "/v1/sessions/5/trace", 403},
		{"others may ask for the log level", &control.Peer{UID: other, GID: 1}, "GET", "/v1/log", 200},
		{"others may not change it", &control.Peer{UID: other, GID: 1}, "PUT", "/v1/log", 403},
		{"root may trace", &control.Peer{UID: 0}, "GET", "/v1/sessions/5/trace", 404},
		{"unknown peer may not log out", nil, "DELETE", "/v1/sessions/5", 403},
		{"unknown peer may ask the version", nil, "GET", "/version", 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, tc.path, nil)
			if tc.peer != nil {
				r = r.WithContext(control.WithPeer(r.Context(), *tc.peer))
			}
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, r)
			if w.Code != tc.want {
				t.Errorf("status %d, want %d: %s", w.Code, tc.want, w.Body)
			}
		})
	}
}

// TestTraceIsStreamed: what is traced arrives before the trace ends, and EndTrace
// ends it in order.
func TestTraceIsStreamed(t *testing.T) {
	d := &controltest.Daemon{PDUs: "some PDUs"}
	c := client(t, controltest.Serve(t, d, control.Options{}), control.ClientOptions{})
	s, err := c.Login(t.Context(), &control.LoginRequest{Record: record("iqn.t")})
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	type ending struct {
		res *control.TraceResult
		err error
	}
	ended := make(chan ending, 1)
	go func() {
		res, err := c.Trace(t.Context(), s.SID, control.TraceOptions{}, w)
		ended <- ending{res, err}
	}()
	b := make([]byte, len(d.PDUs))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != d.PDUs {
		t.Fatalf("%q, %v", b, err)
	}
	if err := c.EndTrace(t.Context(), s.SID); err != nil {
		t.Fatal(err)
	}
	e := <-ended
	if e.err != nil || *e.res != (control.TraceResult{PDUs: uint64(len(d.PDUs)), Dropped: 3}) {
		t.Errorf("%+v, %v", e.res, e.err)
	}
	if res, err := c.Trace(t.Context(), s.SID, control.TraceOptions{Duration: time.Millisecond}, io.Discard); err != nil || res.PDUs == 0 {
		t.Errorf("trace with a duration: %+v, %v", res, err)
	}
	if _, err := c.Trace(t.Context(), 99, control.TraceOptions{}, io.Discard); errcode.Of(err) != errcode.SessNotFound {
		t.Errorf("no session: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("enough")) })
	if _, err := c.Trace(ctx, s.SID, control.TraceOptions{}, io.Discard); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	srv := control.NewServer(&controltest.Daemon{}, control.Options{Version: "3.9"})
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		text                     string
	}{
		{"other protocol version", "GET", "/v7/sessions", "", 404, "iscsid 3.9 speaks control protocol version 1, not 7"},
		{"unknown path", "GET", "/v1/frob", "", 404, "iscsid 3.9 knows no GET /v1/frob"},
		{"unknown method", "PUT", "/v1/sessions", "", 404, "knows no PUT"},
		{"no body", "POST", "/v1/sessions", "", 404, "cannot understand the request"},
		{"not JSON", "POST", "/v1/sessions", "x", 404, "cannot understand the request"},
		{"unknown field", "POST", "/v1/sessions", `{"record":{},"frob":1}`, 404, `unknown field \"frob\"`},
		{"two documents", "POST", "/v1/sessions", `{} {}`, 404, "more than one document"},
		{"no target", "POST", "/v1/sessions", `{"record":{"node.conn[0].address":"a"}}`, 400, "record has no node.name"},
		{"no address", "POST", "/v1/sessions", `{"record":{"node.name":"a"}}`, 400, "record has no node.conn[0].address"},
		{"negative limit", "POST", "/v1/sessions", `{"limit":-1,"record":{"node.name":"a","node.conn[0].address":"a"}}`, 400, "limit -1"},
		{"too large", "POST", "/v1/sessions", strings.Repeat(" ", 2<<20), 400, "larger than"},
		{"sid 0", "GET", "/v1/sessions/0", "", 400, "not a session id"},
		{"sid text", "DELETE", "/v1/sessions/x", "", 400, "not a session id"},
		{"unknown parameter", "GET", "/v1/sessions?frob=1", "", 404, "unknown parameter"},
		{"bad parameter", "GET", "/v1/sessions?pending=perhaps", "", 400, "not a boolean"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body))
			r = r.WithContext(control.WithPeer(r.Context(), control.Peer{UID: 0}))
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, r)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.text) {
				t.Errorf("status %d %s, want %d with %s", w.Code, w.Body, tc.status, tc.text)
			}
			if w.Header().Get("Iscsid-Api-Min") != "1" {
				t.Error("answer does not name the protocol version")
			}
		})
	}
}

func TestServeEndsWaitingRequests(t *testing.T) {
	d, started, ended := waiting()
	l, err := net.Listen("tcp", "127.0.0.1:0") // no credentials on TCP: logins must be refused
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- control.NewServer(d, control.Options{}).Serve(ctx, l) }()
	resp, err := http.Post("http://"+l.Addr().String()+"/v1/shutdown", "application/json", nil)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("shutdown over TCP: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve() = %v", err)
	}

	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ul, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- control.NewServer(d, control.Options{}).Serve(ctx, ul) }()
	c := client(t, filepath.Join(dir, "s"), control.ClientOptions{})
	login := make(chan error, 1)
	go func() {
		_, err := c.Login(t.Context(), &control.LoginRequest{Record: record("iqn.a")})
		login <- err
	}()
	<-started
	cancel()
	<-ended
	if err := <-done; err != nil {
		t.Errorf("Serve() = %v", err)
	}
	if err := <-login; err == nil {
		t.Error("login succeeded although the server stopped")
	}
}

// FuzzRequests sends arbitrary requests: the server must answer each of them
// with one of its own answers.
func FuzzRequests(f *testing.F) {
	for _, s := range [][3]string{
		{"POST", "/v1/sessions", `{"record":{"node.name":"iqn.a","node.conn[0].address":"192.0.2.1"},"multiple":true,"limit":3}`},
		{"POST", "/v1/sessions", `{"record":{"a":1}}`},
		{"GET", "/v1/sessions?pending=1&record=0", ""},
		{"DELETE", "/v1/sessions/1", "x"},
		{"POST", "/v1/sessions/1/rescan", "{}"},
		{"POST", "/v1/sessions/1/luns/18446744073709551615/rescan", ""},
		{"DELETE", "/v1/sessions/1/luns/-1?safe=maybe", ""},
		{"GET", "/v18446744073709551616/sessions", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	srv := control.NewServer(&controltest.Daemon{}, control.Options{})
	f.Fuzz(func(t *testing.T, method, path, body string) {
		r, err := http.NewRequest(method, "http://iscsid"+path, strings.NewReader(body))
		if err != nil || r.URL.Path == "" {
			return
		}
		r = r.WithContext(control.WithPeer(r.Context(), control.Peer{UID: 0}))
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError || w.Code < 200 {
			t.Errorf("%s %s %q: status %d %s", method, path, body, w.Code, w.Body)
		}
		if len(w.Body.Bytes()) > 1<<20 {
			t.Errorf("answer of %d bytes", w.Body.Len())
		}
	})
}

func BenchmarkSessions(b *testing.B) {
	socket := controltest.Serve(b, &controltest.Daemon{}, control.Options{})
	c := control.NewClient(socket, control.ClientOptions{})
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Sessions(context.Background(), control.SessionQuery{}); err != nil {
			b.Fatal(err)
		}
	}
}
