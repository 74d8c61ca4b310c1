package initiator_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

func (r *rig) discoveryConfig(t testing.TB) initiator.DiscoveryConfig {
	c := r.config(t)
	return initiator.DiscoveryConfig{InitiatorName: c.InitiatorName, Portal: c.Portal, Logger: c.Logger}
}

func TestDiscover(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) {
		c.TextSegment = 11 // answers come in many pieces
		c.Targets[0].Portals = []string{"192.0.2.1:3260,1", "[2001:db8::1]:3261,2", "san.example.com,3"}
		c.Targets = append(c.Targets, iscsitest.Target{Name: "iqn.2016-01-com.example.tg1"})
	})
	got, err := initiator.Discover(context.Background(), r.discoveryConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	home, err := initiator.ParsePortal(r.srv.Portal() + ",1")
	if err != nil {
		t.Fatal(err)
	}
	want := []initiator.DiscoveredPortal{
		{Target: testTarget, Portal: initiator.Portal{Host: "192.0.2.1", Port: 3260, TPGT: 1}},
		{Target: testTarget, Portal: initiator.Portal{Host: "2001:db8::1", Port: 3261, TPGT: 2}},
		{Target: testTarget, Portal: initiator.Portal{Host: "san.example.com", Port: 3260, TPGT: 3}},
		{Target: "iqn.2016-01-com.example.tg1", Portal: home},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := r.srv.Received(pdu.OpLogoutRequest); n != 1 {
		t.Errorf("%d logouts", n)
	}
	r.checkViolations(t)
}

// One bad record does not lose the others.
func TestDiscoverSkipsBadRecords(t *testing.T) {
	r := newRig(t, nil)
	text := []byte("TargetName=iqn.2001-04.com.example:a\x00TargetAddress=192.0.2.1:3260,1\x00TargetAddress=../../x\x00TargetAddress=192.0.2.2\x00" +
		"TargetName=iqn.\x1b[2J/x\x00TargetAddress=192.0.2.3\x00" +
		"nonsense\x00" +
		"TargetName=iqn.2001-04.com.example:b\x00")
	r.srv.Handle(pdu.OpTextRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		return iscsitest.Reply(&pdu.TextResponse{Final: true, InitiatorTaskTag: p.(*pdu.TextRequest).InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, Data: text})
	})
	cfg := r.discoveryConfig(t)
	var skipped []string
	cfg.OnSkip = func(s initiator.SkippedRecord) {
		if s.Err == nil {
			t.Error("skipped without a reason")
		}
		skipped = append(skipped, s.Target+" "+s.Address)
	}
	got, err := initiator.Discover(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := []initiator.DiscoveredPortal{
		{Target: "iqn.2001-04.com.example:a", Portal: initiator.Portal{Host: "192.0.2.1", Port: 3260, TPGT: 1}},
		{Target: "iqn.2001-04.com.example:a", Portal: initiator.Portal{Host: "192.0.2.2", Port: 3260, TPGT: -1}},
		{Target: "iqn.2001-04.com.example:b", Portal: cfg.Portal},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"iqn.2001-04.com.example:a ../../x", "iqn.\x1b[2J/x ", " nonsense"}, skipped); diff != "" {
		t.Error(diff)
	}
}

// A target does not know our zones: a link-local address that it names gets
// that of the address that was asked.
func TestDiscoverKeepsTheZone(t *testing.T) {
	r := newRig(t, nil)
	text := []byte("TargetName=iqn.2001-04.com.example:a\x00TargetAddress=[fe80::1]:3260,1\x00TargetAddress=[fe80::2%eth9]:3260,1\x00TargetAddress=[2001:db8::1]:3260,1\x00")
	r.srv.Handle(pdu.OpTextRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		return iscsitest.Reply(&pdu.TextResponse{Final: true, InitiatorTaskTag: p.(*pdu.TextRequest).InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, Data: text})
	})
	cfg := r.discoveryConfig(t)
	real := cfg.Portal.Address()
	cfg.Portal = initiator.Portal{Host: "fe80::7%eth1", Port: 3260, TPGT: initiator.UnknownTPGT}
	cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, real)
	}
	got, err := initiator.Discover(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, p := range got {
		hosts = append(hosts, p.Portal.Host)
	}
	if diff := cmp.Diff([]string{"fe80::1%eth1", "fe80::2%eth9", "2001:db8::1"}, hosts); diff != "" {
		t.Error(diff)
	}
}

func TestDiscoverManyTargets(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) {
		for i := range 2000 {
			c.Targets = append(c.Targets, iscsitest.Target{Name: fmt.Sprintf("iqn.2001-04.com.example:disk%d", i)})
		}
	})
	got, err := initiator.Discover(context.Background(), r.discoveryConfig(t))
	if err != nil || len(got) != 2001 {
		t.Errorf("%d portals, %v", len(got), err)
	}
}

func TestDiscoverErrors(t *testing.T) {
	for _, tc := range []struct {
		name     string
		act      func(*rig)
		retries  int
		attempts int
		is       error
		code     errcode.Code
	}{
		{"nobody listens", func(r *rig) { r.srv.StopListening() }, 1, 2, initiator.ErrTransport, errcode.PDUTimeout},
		{"service unavailable", func(r *rig) { r.srv.RejectLogins(3, 1, -1) }, 1, 2, nil, errcode.PDUTimeout},
		{"authentication", func(r *rig) { r.srv.RejectLogins(2, 1, -1) }, 5, 0, initiator.ErrAuth, errcode.LoginAuthFailed},
		{"authorization", func(r *rig) { r.srv.RejectLogins(2, 2, -1) }, 5, 0, initiator.ErrAuth, errcode.LoginAuthFailed},
		{"initiator error", func(r *rig) { r.srv.RejectLogins(2, 7, -1) }, 5, 0, nil, errcode.FatalLogin},
		{"reject", func(r *rig) {
			r.srv.Handle(pdu.OpTextRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
				return iscsitest.Reply(&pdu.Reject{Reason: pdu.RejectCommandNotSupported, Data: make([]byte, 48)})
			})
		}, 5, 0, initiator.ErrProtocol, errcode.FatalLogin},
		{"text without end", func(r *rig) {
			r.srv.Handle(pdu.OpTextRequest, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
				return iscsitest.Reply(&pdu.TextResponse{Continue: true, InitiatorTaskTag: p.(*pdu.TextRequest).InitiatorTaskTag, TargetTransferTag: 1, Data: make([]byte, 200000)})
			})
		}, 5, 0, initiator.ErrProtocol, errcode.FatalLogin},
		{"another answer", func(r *rig) {
			r.srv.Handle(pdu.OpTextRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
				return iscsitest.Reply(&pdu.LogoutResponse{})
			})
		}, 5, 0, initiator.ErrProtocol, errcode.FatalLogin},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, nil)
			cfg := r.discoveryConfig(t)
			tc.act(r)
			cfg.Retries = tc.retries
			attempts := 0
			cfg.OnRetry = func(initiator.Portal, error) { attempts++ }
			_, err := initiator.Discover(context.Background(), cfg)
			if err == nil {
				t.Fatal("no error")
			}
			if tc.is != nil {
				is(t, err, tc.is)
			}
			if code := errcode.Of(err); code != tc.code {
				t.Errorf("error %v has code %d, want %d", err, code, tc.code)
			}
			if attempts != tc.attempts {
				t.Errorf("%d attempts that were not final, want %d", attempts, tc.attempts)
			}
			if oe := (*initiator.OpError)(nil); !errors.As(err, &oe) || oe.Op != "discover" {
				t.Errorf("error %#v is no *OpError", err)
			}
		})
	}
}

func TestDiscoverWithCHAPAndRedirection(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) {
		c.DiscoveryCHAP = iscsitest.CHAP{Username: "user", Password: "secretsecret12"}
	})
	cfg := r.discoveryConfig(t)
	if _, err := initiator.Discover(context.Background(), cfg); !errors.Is(err, initiator.ErrAuth) {
		t.Errorf("without credentials: %v", err)
	}
	cfg.CHAP = initiator.CHAP{Username: "user", Password: "secretsecret12"}
	got, err := initiator.Discover(context.Background(), cfg)
	if err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}
