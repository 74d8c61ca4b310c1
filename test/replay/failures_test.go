//go:build guest

package replay

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/transcript"
	"github.com/goiscsi/goiscsi/pdu"
	"github.com/goiscsi/goiscsi/test/lab"
)

const failing = "iqn.2016-01.com.example:failing"

// A failure is what a target does to a login.
type failure struct {
	name string
	do   func(*iscsitest.Server) (undo func())
	// retried says that a login is tried again until its time is up. Which of
	// its timers runs out last decides open-iscsi's code, 5, 8 or 11; ours tells
	// what the target did last.
	retried bool
}

// refuse answers logins with a status until it is undone.
func refuse(class, detail uint8) func(*iscsitest.Server) func() {
	return func(s *iscsitest.Server) func() {
		s.RejectLogins(class, detail, -1)
		return func() { s.RejectLogins(0, 0, 0) }
	}
}

// redirect sends the next login to where it came to.
func redirect(permanent bool) func(*iscsitest.Server) func() {
	return func(s *iscsitest.Server) func() {
		for _, name := range []string{"", failing} {
			s.RedirectTo(name, "127.0.0.1:3261,1", permanent, 1)
		}
		return func() {
			for _, name := range []string{"", failing} {
				s.RedirectTo(name, "", permanent, 0)
			}
		}
	}
}

// failures are those of the reference, and those next to them.
var failures = []failure{
	{name: "authentication", do: refuse(2, 1)},
	{name: "authorization", do: refuse(2, 2)},
	{name: "not found", do: refuse(2, 3)},
	{name: "removed", do: refuse(2, 4)},
	{name: "initiator error", do: refuse(2, 0)},
	{name: "missing parameter", do: refuse(2, 7)},
	{name: "unavailable", do: refuse(3, 1), retried: true},
	{name: "connection closed", do: func(s *iscsitest.Server) func() {
		s.Handle(pdu.OpLoginRequest, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action { return iscsitest.CloseConn() })
		return func() { s.Handle(pdu.OpLoginRequest, nil) }
	}, retried: true},
	{name: "redirection", do: redirect(false)},
	{name: "permanent redirection", do: redirect(true)},
}

// TestFailuresBesideOpenISCSI has a target refuse discoveries and logins in all
// ways, and compares what both programs say of it.
func TestFailuresBesideOpenISCSI(t *testing.T) {
	h := lab.NewMachine(t, "node.session.initial_login_retry_max = 1", "node.conn[0].timeo.login_timeout = 4")
	h.StartDaemon()
	theirDaemon(t)
	ours, theirs := paths()
	srv := iscsitest.NewUnstartedServer(iscsitest.Config{
		Addrs: []string{"127.0.0.1:3261"},
		Targets: []iscsitest.Target{{
			Name: failing,
			LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NullStore(1 << 20)}},
		}},
	})
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	const node = "iscsiadm -m node -T " + failing + " -p 127.0.0.1:3261"
	for _, path := range []string{ours, theirs} {
		if c := typed(t, node+",1 -o new", path); c.Code != 0 {
			t.Fatal(c)
		}
	}
	for _, f := range failures {
		for _, line := range []string{"iscsiadm -m discovery -t st -p 127.0.0.1:3261 -o nonpersistent", node + " -l"} {
			t.Run(f.name+"/"+strings.Fields(line)[2], func(t *testing.T) {
				undo := f.do(srv)
				want := typed(t, line, theirs)
				undo()
				undo = f.do(srv)
				got := typed(t, line, ours)
				undo()
				typed(t, node+" -u", theirs)
				typed(t, node+" -u", ours)
				if f.retried && slices.Contains([]int{5, 8, 11}, want.Code) && strings.HasSuffix(line, "-l") {
					want.Code = int(errcode.Login)
					want.Err[1] = fmt.Sprintf("iscsiadm: initiator reported error (%d - %s)", want.Code, errcode.Login)
				}
				if res := transcript.Compare(want, got); !res.Same {
					t.Errorf("(-open-iscsi +ours)\n%s", cmp.Diff(transcript.Lines(res.Want.String()), transcript.Lines(res.Got.String())))
				}
			})
		}
	}
}
