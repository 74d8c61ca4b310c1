package initiator_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLogoutTellsTheTarget(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	if err := s.Logout(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := r.srv.Received(pdu.OpLogoutRequest); n != 1 {
		t.Errorf("%d logout requests", n)
	}
	is(t, s.Err(), initiator.ErrClosed)
	is(t, s.Do(context.Background(), readTask(0, 512)), initiator.ErrClosed)
	if err := s.Logout(context.Background()); err != nil {
		t.Errorf("second logout: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestLogoutWaitsForTasks(t *testing.T) {
	r, release := held(t, nil)
	s := r.dial(t, r.config(t))
	c := newCollector(1)
	task := submit(s, c, readTask(0, 512))
	arrived(t, r, 1)
	done := make(chan error)
	go func() { done <- s.Logout(context.Background()) }()
	for s.Info().State != initiator.StateLoggingOut {
		time.Sleep(time.Millisecond) //nolint:forbidigo // polls the state
	}
	is(t, s.Do(context.Background(), readTask(0, 512)), initiator.ErrClosed)
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := good(c.wait(t)); err != nil {
		t.Error(task.Err)
	}
}

func TestLogoutWithoutAnswer(t *testing.T) {
	r := newRig(t, nil)
	r.srv.Handle(pdu.OpLogoutRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.Drop() })
	cfg := r.config(t)
	cfg.Timeouts.Logout = 20 * time.Millisecond
	s := r.dial(t, cfg)
	if err := s.Logout(context.Background()); err != nil {
		t.Errorf("a missing answer is no error, but %v", err)
	}
}

func TestLogoutWhileTheTargetIsAway(t *testing.T) {
	r := newRig(t, nil)
	events := make(eventLog, 100)
	cfg := r.config(t)
	cfg.OnEvent = events.add
	s := r.dial(t, cfg)
	r.srv.StopListening()
	r.srv.DropConnections()
	events.await(t, initiator.EventLoginFailed)
	c := newCollector(1)
	task := submit(s, c, readTask(0, 512))
	if err := s.Logout(context.Background()); err != nil {
		t.Error(err)
	}
	c.wait(t)
	is(t, task.Err, initiator.ErrClosed)
}

func TestLogoutContextEnds(t *testing.T) {
	r, release := held(t, nil)
	defer release()
	s := r.dial(t, r.config(t))
	c := newCollector(1)
	task := submit(s, c, readTask(0, 512))
	arrived(t, r, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	is(t, s.Logout(ctx), context.Canceled)
	c.wait(t)
	is(t, task.Err, initiator.ErrClosed)
	<-s.Done()
}

func TestCloseFailsTasksAndIsIdempotent(t *testing.T) {
	r, release := held(t, nil)
	defer release()
	s := r.dial(t, r.config(t))
	c := newCollector(200)
	for range 200 {
		submit(s, c, readTask(0, 512))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { s.Close() })
		wg.Go(func() { s.Logout(context.Background()) })
	}
	wg.Wait()
	for range 200 {
		is(t, c.wait(t).Err, initiator.ErrClosed)
	}
	if st := s.Info().State; st != initiator.StateClosed {
		t.Errorf("state %v", st)
	}
}

func TestSubmitAfterCloseDoesNotCallBackWithin(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	s.Close()
	var mu sync.Mutex
	c := &lockedOwner{mu: &mu, done: make(chan struct{})}
	task := readTask(0, 512)
	task.Owner = c
	mu.Lock()
	s.Submit(task) // deadlocks if it calls TaskDone
	s.Kick()
	mu.Unlock()
	<-c.done
	is(t, task.Err, initiator.ErrClosed)
}

type lockedOwner struct {
	mu   *sync.Mutex
	done chan struct{}
}

func (o *lockedOwner) TaskDone(*initiator.Task) { o.mu.Lock(); defer o.mu.Unlock(); close(o.done) }
func (o *lockedOwner) Flush()                   {}

func TestDialErrors(t *testing.T) {
	chapTarget := func(c *iscsitest.Config) {
		c.Targets[0].CHAP = iscsitest.CHAP{Username: "user", Password: "secretsecret12", MutualUsername: "tgt", MutualPassword: "othersecret123"}
	}
	for _, tc := range []struct {
		name string
		rig  func(*iscsitest.Config)
		cfg  func(*initiator.Config)
		act  func(*rig)
		is   error
		code errcode.Code
	}{
		{"wrong password", chapTarget, func(c *initiator.Config) { c.CHAP = initiator.CHAP{Username: "user", Password: "wrongsecret12"} }, nil, initiator.ErrAuth, errcode.LoginAuthFailed},
		{"no password", chapTarget, nil, nil, initiator.ErrAuth, errcode.LoginAuthFailed},
		{"wrong mutual password", chapTarget, func(c *initiator.Config) {
			c.CHAP = initiator.CHAP{Username: "user", Password: "secretsecret12", UsernameIn: "tgt", PasswordIn: "wrongsecret12"}
		}, nil, initiator.ErrAuth, errcode.FatalLogin},
		{"mutual wanted, none offered", nil, func(c *initiator.Config) {
			c.CHAP = initiator.CHAP{Username: "user", Password: "secretsecret12", UsernameIn: "tgt", PasswordIn: "othersecret123"}
		}, nil, initiator.ErrAuth, 0},
		{"unknown target", nil, func(c *initiator.Config) { c.Target += "x" }, nil, initiator.ErrTargetNotFound, errcode.FatalLogin},
		{"nobody listens", nil, func(c *initiator.Config) { c.Portal = deaf(t) }, nil, initiator.ErrTransport, errcode.TransTimeout},
		{"host does not resolve", nil, func(c *initiator.Config) {
			c.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "nowhere.invalid", IsNotFound: true}}
			}
		}, nil, initiator.ErrResolve, errcode.Trans},
		{"closed in the login", nil, nil, func(r *rig) {
			r.srv.Handle(pdu.OpLoginRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.CloseConn() })
		}, initiator.ErrHungUp, errcode.Login},
		{"no answer to the login", nil, func(c *initiator.Config) {
			c.Timeouts.Login = 30 * time.Millisecond
			c.Dial = func(_ context.Context, network, address string) (net.Conn, error) {
				return net.Dial(network, address) // the time is not over before there is a connection
			}
		}, func(r *rig) {
			r.srv.Handle(pdu.OpLoginRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.Drop() })
		}, initiator.ErrTimeout, errcode.PDUTimeout},
		{"service unavailable", nil, nil, func(r *rig) { r.srv.RejectLogins(3, 1, -1) }, nil, errcode.Login},
		{"not iscsi", nil, nil, func(r *rig) {
			r.srv.Handle(pdu.OpLoginResponse, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
				return iscsitest.ReplyRaw(append([]byte{0x3f}, make([]byte, 47)...))
			})
		}, initiator.ErrProtocol, errcode.FatalLogin},
		{"no initiator name", nil, func(c *initiator.Config) { c.InitiatorName = "" }, nil, nil, errcode.Inval},
		{"bad target name", nil, func(c *initiator.Config) { c.Target = "a/b c" }, nil, nil, errcode.Inval},
		{"equal secrets", nil, func(c *initiator.Config) {
			c.CHAP = initiator.CHAP{Username: "u", Password: "samesecret123", PasswordIn: "samesecret123"}
		}, nil, nil, errcode.Inval},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.rig)
			cfg := r.config(t)
			if tc.cfg != nil {
				tc.cfg(&cfg)
			}
			if tc.act != nil {
				tc.act(r)
			}
			s, err := initiator.Dial(context.Background(), cfg)
			if err == nil {
				s.Close()
				t.Fatal("login succeeded")
			}
			if tc.is != nil {
				is(t, err, tc.is)
			}
			if code := errcode.Of(err); tc.code != 0 && code != tc.code {
				t.Errorf("error %v has code %d, want %d", err, code, tc.code)
			}
			if tc.code != errcode.Inval {
				if oe := (*initiator.OpError)(nil); !errors.As(err, &oe) || oe.Target != cfg.Target || oe.Portal.IsZero() {
					t.Errorf("error %#v is no complete *OpError", err)
				}
			}
		})
	}
}

func TestDialWithCHAP(t *testing.T) {
	for name, in := range map[string]initiator.CHAP{
		"one-way": {Username: "user", Password: "secretsecret12"},
		"mutual":  {Username: "user", Password: "secretsecret12", UsernameIn: "tgt", PasswordIn: "othersecret123"},
		"all algorithms": {
			Username: "user", Password: "secretsecret12", UsernameIn: "tgt", PasswordIn: "othersecret123",
			Algorithms: []initiator.CHAPAlgorithm{initiator.CHAPSHA3256, initiator.CHAPSHA256, initiator.CHAPSHA1, initiator.CHAPMD5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *iscsitest.Config) {
				c.Targets[0].CHAP = iscsitest.CHAP{Username: "user", Password: "secretsecret12", MutualUsername: "tgt", MutualPassword: "othersecret123"}
			})
			cfg := r.config(t)
			cfg.CHAP = in
			do(t, r.dial(t, cfg), readTask(0, 512))
		})
	}
}

func TestDialIsCancelled(t *testing.T) {
	r := newRig(t, nil)
	entered := make(chan struct{})
	r.srv.Handle(pdu.OpLoginRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		close(entered)
		return iscsitest.Drop()
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-entered; cancel() }()
	_, err := initiator.Dial(ctx, r.config(t))
	is(t, err, context.Canceled)
}

func TestDialKeyContinuation(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.LoginSegment = 7 })
	do(t, r.dial(t, r.config(t)), readTask(0, 512))
}
