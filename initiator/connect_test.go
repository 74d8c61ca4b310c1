package initiator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
)

// deaf is a portal where nobody listens: the near end of a connection, so that
// nobody else gets its port either.
func deaf(t *testing.T) initiator.Portal {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return initiator.Portal{Host: "127.0.0.1", Port: uint16(nc.LocalAddr().(*net.TCPAddr).Port)}
}

func TestConnectTriesThePortalsInOrder(t *testing.T) {
	r := newRig(t, nil)
	target := r.target(t, 1)
	target.Portals = append([]initiator.Portal{deaf(t)}, target.Portals...)
	v, err := initiator.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := v.Session().Info().Portal.Address(), target.Portals[1].Address(); got != want {
		t.Errorf("connected to %s, want %s", got, want)
	}
	if err := v.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConnectReportsEveryPortal(t *testing.T) {
	r := newRig(t, nil)
	target := r.target(t, 1)
	target.Portals = []initiator.Portal{deaf(t), deaf(t)}
	_, err := initiator.Connect(t.Context(), target)
	if !errors.Is(err, initiator.ErrTransport) || initiator.ErrorCode(err) != initiator.CodeTransportTimeout {
		t.Errorf("%v, code %d", err, initiator.ErrorCode(err))
	}
	for _, p := range target.Portals {
		if !strings.Contains(err.Error(), p.Address()) {
			t.Errorf("%v: does not name %s", err, p.Address())
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q: more than a line", err)
	}
}

func TestConnectStopsAtRefusedCredentials(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) {
		c.Targets[0].CHAP = iscsitest.CHAP{Username: "u", Password: "secretsecret12"}
	})
	target := r.target(t, 1)
	target.CHAP = initiator.CHAP{Username: "u", Password: "not the password"}
	target.Portals = append(target.Portals, target.Portals[0])
	_, err := initiator.Connect(t.Context(), target)
	if !errors.Is(err, initiator.ErrAuth) || initiator.ErrorCode(err) != initiator.CodeAuth {
		t.Errorf("%v, code %d", err, initiator.ErrorCode(err))
	}
	if n := r.srv.Accepted(); n != 1 {
		t.Errorf("%d connections, want 1: no second attempt with a wrong password", n)
	}
}

func TestConnectWithoutPortals(t *testing.T) {
	_, err := initiator.Connect(t.Context(), initiator.Target{Name: "iqn.2026-01.com.example:disk"})
	if !errors.Is(err, initiator.ErrInvalid) || initiator.ErrorCode(err) != initiator.CodeInvalid {
		t.Errorf("%v, code %d", err, initiator.ErrorCode(err))
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	r := newRig(t, nil)
	target := r.target(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	tried := 0
	target.Session.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		tried++
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	target.Portals = append(target.Portals, target.Portals[0])
	if _, err := initiator.Connect(ctx, target); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if tried != 1 {
		t.Errorf("%d portals tried after the caller had left", tried)
	}
}

// Everything that has a password in it is printed, logged and encoded without
// it, with whatever verb.
func TestNothingShowsASecret(t *testing.T) {
	const secret = "tell nobody"
	chap := initiator.CHAP{Username: "alice", Password: secret, UsernameIn: "disk", PasswordIn: secret + " at all"}
	cfg := initiator.Config{InitiatorName: "iqn.2026-01.com.example:me", CHAP: chap}
	for _, v := range []any{
		chap, &chap, cfg, &cfg,
		initiator.Target{CHAP: chap, Session: cfg},
		&initiator.Target{CHAP: chap, Session: cfg},
		initiator.DiscoveryConfig{CHAP: chap},
		initiator.Info{CHAP: chap},
		chap.Password,
	} {
		var log strings.Builder
		l := slog.New(slog.NewTextHandler(&log, nil))
		l.Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		texts := []string{log.String()}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		if b, err := json.Marshal(v); err == nil { // a Config has functions, which JSON does not
			texts = append(texts, string(b))
		}
		for _, text := range texts {
			if strings.Contains(text, "tell nobody") || strings.Contains(text, "74656c6c206e6f626f6479") {
				t.Errorf("%T: %s", v, text)
			}
		}
	}
}

func TestWatchersHearASessionUntilTheyStop(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial(t, r.config(t))
	first, second := make(chan initiator.EventType, 8), make(chan initiator.EventType, 8)
	stop := s.Watch(func(e initiator.Event) { first <- e.Type })
	s.Watch(func(e initiator.Event) { second <- e.Type })
	r.srv.DropConnections()
	for _, want := range []initiator.EventType{initiator.EventDisconnected, initiator.EventRecovered} {
		for _, c := range []chan initiator.EventType{first, second} {
			if got := <-c; got != want {
				t.Fatalf("event %v, want %v", got, want)
			}
		}
	}
	stop()
	stop()
	if err := s.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(first); n != 0 {
		t.Errorf("%d events after stop", n)
	}
	if got := <-second; got != initiator.EventDisconnected {
		t.Errorf("event %v", got)
	}
}

func TestErrorsHaveTheCodesOfTheCommand(t *testing.T) {
	_, portalErr := initiator.ParsePortal("[::1")
	for _, tc := range []struct {
		err  error
		want initiator.Code
		is   error
	}{
		{nil, 0, nil},
		{errors.New("x"), initiator.CodeUnknown, nil},
		{portalErr, initiator.CodeInvalid, initiator.ErrInvalid},
		{&initiator.ConfigError{Field: "Target"}, initiator.CodeInvalid, initiator.ErrInvalid},
		{&initiator.OpError{Op: "login", Err: &initiator.LoginError{Class: 2, Detail: 1}}, initiator.CodeAuth, initiator.ErrAuth},
		{&initiator.OpError{Op: "login", Err: &initiator.LoginError{Class: 2, Detail: 3}}, initiator.CodeFatalLogin, initiator.ErrTargetNotFound},
		{&initiator.OpError{Op: "login", Err: &initiator.LoginError{Class: 3, Detail: 1}}, initiator.CodeLogin, nil},
		{initiator.ErrClosed, initiator.CodeSessionNotFound, initiator.ErrClosed},
		{&initiator.VolumeError{Op: "open", LUN: pdu.LUN(0), Kind: initiator.ErrNoDevice, Err: initiator.ErrNoDevice}, initiator.CodeUnknown, initiator.ErrNoDevice},
	} {
		if got := initiator.ErrorCode(tc.err); got != tc.want {
			t.Errorf("%v: code %d, want %d", tc.err, got, tc.want)
		}
		if tc.is != nil && !errors.Is(tc.err, tc.is) {
			t.Errorf("%v is not %v", tc.err, tc.is)
		}
	}
}
