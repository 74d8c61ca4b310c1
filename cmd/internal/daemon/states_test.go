package daemon

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// blockingLogin makes logins wait; the channel tells of each that has begun.
func blockingLogin(t *fakeTarget) (begun chan struct{}, release chan error) {
	begun, release = make(chan struct{}, 10), make(chan error)
	t.login = func(ctx context.Context, _ initiator.Config) error {
		begun <- struct{}{}
		select {
		case err := <-release:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return begun, release
}

func (b *bench) supervisor(sid int) *supervisor {
	b.t.Helper()
	s, err := b.m.reg.get(sid)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func TestLoginInProgressCountsAsPresent(t *testing.T) {
	target := newFakeTarget()
	begun, release := blockingLogin(target)
	b := newBench(t, target)
	first := make(chan error, 1)
	go func() {
		_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord()})
		first <- err
	}()
	<-begun
	_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord()})
	wantCode(t, err, errcode.SessExists)
	if list, _ := b.svc.Sessions(t.Context(), control.SessionQuery{}); len(list) != 0 {
		t.Errorf("a login in progress is listed: %+v", list)
	}
	if list, _ := b.svc.Sessions(t.Context(), control.SessionQuery{Pending: true}); len(list) != 1 || !list[0].Pending {
		t.Errorf("pending sessions: %+v", list)
	}
	release <- nil
	if err := <-first; err != nil {
		t.Errorf("first login: %v", err)
	}
}

func TestClientThatLeavesCancelsItsLogin(t *testing.T) {
	target := newFakeTarget()
	begun, _ := blockingLogin(target)
	b := newBench(t, target)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := b.svc.Login(ctx, &control.LoginRequest{Record: testRecord()})
		result <- err
	}()
	<-begun
	s := b.supervisor(1)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("login: %v", err)
	}
	<-s.done
	target.login = nil
	b.login() // the key is free again
}

func TestNoWaitLoginOutlivesItsClient(t *testing.T) {
	target := newFakeTarget()
	begun, release := blockingLogin(target)
	b := newBench(t, target)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := b.svc.Login(ctx, &control.LoginRequest{Record: testRecord(), NoWait: true})
	if err != nil || s.SID != 1 || !s.Pending {
		t.Fatalf("login: %+v, %v", s, err)
	}
	cancel()
	<-begun
	release <- nil
	<-b.supervisor(1).ready
}

func TestFailedLoginTellsWhy(t *testing.T) {
	target := newFakeTarget()
	target.login = func(context.Context, initiator.Config) error {
		return &initiator.LoginError{Class: 2, Detail: 1, Target: testTarget}
	}
	b := newBench(t, target)
	_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord()})
	wantCode(t, err, errcode.LoginAuthFailed)
	var e *control.Error
	if !errors.As(err, &e) || e.Target != testTarget || e.Portal != "192.0.2.1:3260" || e.Hint == "" {
		t.Errorf("error %+v", e)
	}
	target.login = nil
	if s := b.login(); s.SID != 2 {
		t.Errorf("a failed login left sid %d to the next one, want a gap", s.SID)
	}
}

func TestLogoutCancelsLogin(t *testing.T) {
	target := newFakeTarget()
	begun, _ := blockingLogin(target)
	b := newBench(t, target)
	result := make(chan error, 1)
	go func() {
		_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord()})
		result <- err
	}()
	<-begun
	b.logout(1)
	wantCode(t, <-result, errcode.SessionNotConnected)
}

func TestLogoutDuringRecoveryDoesNotWaitForTheTarget(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	s := b.login()
	for _, st := range []initiator.SessionState{initiator.StateReconnecting, initiator.StateFailed} {
		sess := b.target.last()
		sess.setState(st)
		b.logout(s.SID)
		if sess.loggedOut {
			t.Errorf("%v: Logout was sent on a session without connection", st)
		}
		if n := b.kern.indexes(); len(n) != 0 {
			t.Errorf("%v: kernel devices %v are left", st, n)
		}
		s = b.login()
	}
}

func TestParallelLogoutsAllSucceed(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	s := b.supervisor(b.login().SID)
	results := make(chan error, 10)
	for range cap(results) {
		go func() { results <- s.logout(t.Context(), false) }()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Errorf("logout: %v", err)
		}
	}
}

func TestSessionThatEndsByItselfIsRemoved(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	s := b.supervisor(b.login().SID)
	b.target.last().end(initiator.ErrRecoveryTimeout) // reopen_max is reached
	<-s.done
	if n := b.kern.indexes(); len(n) != 0 {
		t.Errorf("kernel devices %v are left", n)
	}
	b.login()
}

func TestRescanWithoutConnectionIsRefused(t *testing.T) {
	b := newBench(t, newFakeTarget())
	s := b.login()
	b.target.last().setState(initiator.StateReconnecting)
	_, err := b.svc.Rescan(t.Context(), s.SID)
	wantCode(t, err, errcode.SessionNotConnected)
}

func TestStatesAreShownInOpenISCSIsWords(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	for _, tc := range []struct {
		state                     initiator.SessionState
		session, internal, device string
	}{
		{initiator.StateLoggedIn, "LOGGED_IN", "NO CHANGE", "running"},
		{initiator.StateReconnecting, "FAILED", "REOPEN", "blocked"},
		{initiator.StateFailed, "FAILED", "REOPEN", "transport-offline"},
	} {
		b.target.last().setState(tc.state)
		s, err := b.svc.Session(t.Context(), sid, control.SessionQuery{})
		if err != nil {
			t.Fatal(err)
		}
		if s.SessionState != tc.session || s.InternalState != tc.internal || s.Devices[0].State != tc.device {
			t.Errorf("%v: %q %q %q", tc.state, s.SessionState, s.InternalState, s.Devices[0].State)
		}
	}
	b.target.last().setState(initiator.StateLoggedIn)
}

func TestSecretsAreShownOnlyOnRequest(t *testing.T) {
	b := newBench(t, newFakeTarget())
	sid := b.login("node.session.auth.username", "user", "node.session.auth.password", "password1234").SID
	s, _ := b.svc.Session(t.Context(), sid, control.SessionQuery{Record: true})
	if s.CHAP.Password != "" || !s.CHAP.PasswordSet || s.Record["node.session.auth.password"] != "" {
		t.Errorf("password shown: %+v %v", s.CHAP, s.Record)
	}
	s, _ = b.svc.Session(t.Context(), sid, control.SessionQuery{Record: true, Secrets: true})
	if s.CHAP.Password != "password1234" || s.Record["node.session.auth.password"] != "password1234" {
		t.Errorf("password not shown: %+v", s.CHAP)
	}
}

func TestManualScanAttachesNothing(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	s := b.login("node.session.scan", "manual")
	if len(s.Devices) != 0 {
		t.Fatalf("devices %+v", s.Devices)
	}
	if r := b.rescan(s.SID); len(r.Added) != 1 || len(b.kern.indexes()) != 1 {
		t.Errorf("rescan %+v", r)
	}
}

func TestStopCancelsLoginAndParksSession(t *testing.T) {
	target := newFakeTarget(fakeDisk("naa.1", 1<<20))
	b := newBench(t, target)
	b.login()
	begun, _ := blockingLogin(target)
	result := make(chan error, 1)
	go func() {
		_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord("node.conn[0].port", "3261")})
		result <- err
	}()
	<-begun
	svc := b.svc
	b.halt()
	wantCode(t, <-result, errcode.ISCSIDComm)
	if n := b.kern.indexes(); len(n) != 1 {
		t.Errorf("kernel devices %v, want the parked one", n)
	}
	_, err := svc.Login(t.Context(), &control.LoginRequest{Record: testRecord()})
	wantCode(t, err, errcode.ISCSIDComm)
}

func TestBadRecordsAreRefusedBeforeASidIsTaken(t *testing.T) {
	b := newBench(t, newFakeTarget())
	for _, tc := range []struct {
		name, key, value string
		want             errcode.Code
	}{
		{"target with a slash", "node.name", "iqn.2016-01.com.example:a/../b", errcode.Inval},
		{"no target", "node.name", "", errcode.Inval},
		{"address with a slash", "node.conn[0].address", "../../etc", errcode.Inval},
		{"port out of range", "node.conn[0].port", "70000", errcode.Inval},
		{"transport iser", "iface.transport_name", "iser", errcode.TransNotFound},
		{"unknown attach", "node.session.attach", "usb", errcode.Inval},
		{"unknown hardware address", "iface.hwaddress", "02:00:5e:00:53:01", errcode.Inval},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord(tc.key, tc.value)})
			wantCode(t, err, tc.want)
		})
	}
	if s := b.login(); s.SID != 1 {
		t.Errorf("sid %d, want 1", s.SID)
	}
}

func TestNumbersOfTheKernel(t *testing.T) {
	if deadConnTimeout(0) != time.Minute || deadConnTimeout(120) != 2*time.Minute || deadConnTimeout(-1) != 24*time.Hour {
		t.Error("dead connection timeouts are wrong")
	}
	if kernelLUN(pdu.LUNFromNumber(300)) != 0x412c {
		t.Errorf("LUN 300 is %#x in the kernel's numbering", kernelLUN(pdu.LUNFromNumber(300)))
	}
}

// TestPendingLoginTellsWhatItWaitsFor: iscsiadm shows it to whoever waits.
func TestPendingLoginTellsWhatItWaitsFor(t *testing.T) {
	m := &machine{log: slog.New(slog.DiscardHandler)}
	s := newSupervisor(m, 1, 0, &settings{}, nil)
	s.onEvent(initiator.Event{Type: initiator.EventLoginFailed, Err: errors.New("connection refused")})
	s.tellScan(3, 7)
	v := s.view(control.SessionQuery{Pending: true})
	if !v.Pending || v.LastError != "connection refused" || v.Scan == nil || *v.Scan != (control.Scan{Done: 3, Total: 7}) {
		t.Errorf("%+v", v)
	}
	s.tellScan(0, 0)
	if v := s.view(control.SessionQuery{Pending: true}); v.Scan != nil {
		t.Errorf("%+v after the end of the scan", v.Scan)
	}
}
