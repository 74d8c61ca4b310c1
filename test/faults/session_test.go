//go:build integration

package faults

import (
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
	"github.com/goiscsi/goiscsi/test/faults/checker"
)

// TestTargetMovesSession has the target send the session elsewhere, ask for a
// logout and drop it by message: I/O goes on.
func TestTargetMovesSession(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault func(tgt, second *inProcess)
	}{
		{"asks for a logout", func(tgt, _ *inProcess) { tgt.logoutRequest() }},
		{"asks for a negotiation", func(tgt, _ *inProcess) {
			tgt.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncNegotiationRequest, Parameter3: 2})
		}},
		{"drops the connection", func(tgt, _ *inProcess) {
			tgt.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncConnectionDrop})
		}},
		{"drops the session", func(tgt, _ *inProcess) {
			tgt.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncSessionDrop})
		}},
		{"moves temporarily", func(tgt, second *inProcess) {
			if len(tgt.srv.Sessions()) == 0 { // back from where it was sent
				second.srv.DropConnections()
				return
			}
			tgt.srv.RedirectTo(targetName, second.addr, false, 1)
			tgt.srv.DropConnections()
		}},
		{"refuses logins for a while", func(tgt, _ *inProcess) {
			tgt.srv.RejectLogins(3, 1, 3)
			tgt.srv.DropConnections()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tgt, second := twoPortals(t)
			r := newRig(t)
			r.record(tgt.addr)
			r.login(tgt.addr)
			c := r.export(checker.Config{})
			n := times(10, 200)
			for i := range n {
				pauseBetween()
				tc.fault(tgt, second)
				eventually(t, "a recovery", func() bool { return r.recoveries() > i })
				await(t, c)
			}
			verdict(t, c)
			text, _ := summary(outages(r.d.Log()))
			t.Logf("recoveries: %s", text)
			tgt.violations()
			second.violations()
		})
	}
	t.Run("moves for good", func(t *testing.T) {
		tgt, second := twoPortals(t)
		r := newRig(t)
		r.record(tgt.addr)
		r.login(tgt.addr)
		c := r.export(checker.Config{})
		tgt.srv.RedirectTo(targetName, second.addr, true, 1)
		tgt.srv.DropConnections()
		for i := range times(10, 100) {
			eventually(t, "a recovery", func() bool { return len(outages(r.d.Log())) > i })
			await(t, c)
			if out := r.Must("-m", "session", "-P", "1"); !strings.Contains(out, "Current Portal: "+second.addr) ||
				!strings.Contains(out, "Persistent Portal: "+tgt.addr) {
				t.Fatalf("-P 1 shows\n%s", out)
			}
			second.srv.DropConnections()
		}
		verdict(t, c)
	})
}

// twoPortals are two servers with the same target and disk.
func twoPortals(t *testing.T) (first, second *inProcess) {
	t.Helper()
	first = newInProcess(t, nil)
	second = newInProcess(t, func(c *iscsitest.Config) { c.Targets[0].LUNs[1] = first.lun })
	return first, second
}
