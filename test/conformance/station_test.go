package conformance

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
)

const (
	initiatorName = "iqn.2001-04.com.example:client"
	targetName    = "iqn.2001-04.com.example:disk"

	// patience is how long the station waits for what must come: so long that
	// a busy machine does not matter.
	patience = 20 * time.Second
)

// A station is the test station of a suite: where the initiator's connections
// end up. A test accepts them one by one and plays the target.
type station struct {
	t     testing.TB
	pipe  bool
	conns chan net.Conn // accepted and not yet taken by the test

	mu     sync.Mutex // guards dialed
	dialed []string   // addresses in the order of the connections
}

// newStation returns a station that is reached over TCP.
func newStation(t testing.TB) *station {
	t.Helper()
	return &station{t: t, conns: make(chan net.Conn, 64)}
}

// newPipeStation returns a station that is reached through pipes in memory, for
// tests in a synctest bubble.
func newPipeStation(t testing.TB) *station {
	t.Helper()
	return &station{t: t, pipe: true, conns: make(chan net.Conn, 64)}
}

// config returns what logs in to the station.
func (st *station) config() initiator.Config {
	return initiator.Config{
		InitiatorName: initiatorName,
		Target:        targetName,
		Portal:        initiator.Portal{Host: "192.0.2.1", TPGT: initiator.UnknownTPGT},
		Params:        initiator.Params{DefaultTime2Wait: initiator.Immediately},
		// Pings would be PDUs that the station does not expect.
		Timeouts: initiator.Timeouts{NoopInterval: -1},
		Dial:     st.connect,
		Logger:   testLogger(st.t),
	}
}

// connect is the hook that makes the initiator's connections.
func (st *station) connect(ctx context.Context, _, address string) (net.Conn, error) {
	st.mu.Lock()
	st.dialed = append(st.dialed, address)
	st.mu.Unlock()
	if st.pipe {
		ours, theirs := net.Pipe()
		st.conns <- theirs
		return ours, ctx.Err()
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	ours, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	theirs, err := l.Accept()
	if err != nil {
		ours.Close()
		return nil, err
	}
	st.conns <- theirs
	return ours, nil
}

// addresses returns where the initiator connected to so far.
func (st *station) addresses() []string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return append([]string(nil), st.dialed...)
}

// accept returns the next connection of the initiator.
func (st *station) accept() *conn {
	st.t.Helper()
	select {
	case nc := <-st.conns:
		st.t.Cleanup(func() { nc.Close() })
		return newConn(st, nc)
	case <-time.After(patience):
		st.t.Fatal("the initiator does not connect")
		return nil
	}
}

// unwanted fails the test if there is a connection that was not taken.
func (st *station) unwanted() {
	st.t.Helper()
	select {
	case nc := <-st.conns:
		nc.Close()
		st.t.Error("a connection too many")
	default:
	}
}

// A dialing is a call of initiator.Dial that goes on while the test plays the
// target.
type dialing struct {
	t    testing.TB
	done chan struct{} // closed when the fields below are valid
	s    *initiator.Session
	err  error
}

// dial starts a login. The session, if there is one, ends with the test.
func (st *station) dial(cfg initiator.Config) *dialing {
	d := &dialing{t: st.t, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(d.done)
		d.s, d.err = initiator.Dial(ctx, cfg)
	}()
	st.t.Cleanup(func() {
		cancel()
		<-d.done
		if d.s != nil {
			d.s.Close()
		}
		for { // connections that no test has taken
			select {
			case nc := <-st.conns:
				nc.Close()
			default:
				return
			}
		}
	})
	return d
}

// session returns the session that the login has led to.
func (d *dialing) session() *initiator.Session {
	d.t.Helper()
	<-d.done
	if d.err != nil {
		d.t.Fatalf("login: %v", d.err)
	}
	return d.s
}

// fails returns why the login has failed, and checks that it is one of the
// errors.
func (d *dialing) fails(as ...error) error {
	d.t.Helper()
	<-d.done
	if d.err == nil {
		d.t.Fatal("the login has succeeded")
	}
	for _, want := range as {
		if !errors.Is(d.err, want) {
			d.t.Errorf("error %q is not %q", d.err, want)
		}
	}
	return d.err
}

// operational logs in and returns the session and the station's end of its
// connection. mod changes the Config, answers are those of the target that are not
// what the rules give, "Key=Value" each.
func operational(t testing.TB, mod func(*initiator.Config), answers ...string) (*initiator.Session, *conn) {
	t.Helper()
	return newStation(t).logIn(mod, answers...)
}

// logIn is operational for a station that exists.
func (st *station) logIn(mod func(*initiator.Config), answers ...string) (*initiator.Session, *conn) {
	st.t.Helper()
	cfg := st.config()
	if mod != nil {
		mod(&cfg)
	}
	d := st.dial(cfg)
	c := st.accept()
	c.logIn(answers...)
	return d.session(), c
}

// testLogger logs to the test while it runs.
func testLogger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, nil))
}

type testWriter struct {
	mu sync.Mutex // guards t
	t  testing.TB
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}
