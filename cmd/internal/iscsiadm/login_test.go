package iscsiadm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/control/controltest"
	"github.com/goiscsi/goiscsi/cmd/internal/iscsiadm"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/transcript"
)

// add makes a record.
func (l *lab) add(target, portal string) {
	l.t.Helper()
	l.mustRun("-m", "node", "-T", target, "-p", portal, "-o", "new")
}

// set changes a record.
func (l *lab) set(target, name, value string) {
	l.t.Helper()
	l.mustRun("-m", "node", "-T", target, "-o", "update", "-n", name, "-v", value)
}

func loggingIn(target string) string {
	return "Logging in to [iface: default, target: " + target + ", portal: 127.0.0.1,3260]\n"
}

func loggedIn(target string) string {
	return "Login to [iface: default, target: " + target + ", portal: 127.0.0.1,3260] successful.\n"
}

func notLoggedIn(target string, code errcode.Code) string {
	return "iscsiadm: Could not login to [iface: default, target: " + target + ", portal: 127.0.0.1,3260].\n" +
		fmt.Sprintf("iscsiadm: initiator reported error (%d - %s)\n", int(code), code)
}

const notAll = "iscsiadm: Could not log into all portals\n"

func TestEveryLoginFailureIsReported(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	var fail error
	l.daemon.Connect = func(context.Context, *control.Session, map[string]string) error { return fail }
	for code := errcode.Trans; code <= errcode.ReqTimedOut; code++ {
		fail = control.NewError(code, "")
		l.expect(result{loggingIn(tg1), notLoggedIn(tg1, code) + notAll, int(code)}, "-m", "node", "-T", tg1, "-l")
	}
}

func TestLoginFailureExplainsItself(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	l.daemon.Connect = func(context.Context, *control.Session, map[string]string) error {
		e := control.NewError(errcode.FatalLogin, "target not found\x1b[31m (login status 0x0203)")
		e.Hint = "run discovery again"
		return e
	}
	want := notLoggedIn(tg1, errcode.FatalLogin) +
		"iscsiadm: hint: target not found?[31m (login status 0x0203)\niscsiadm: hint: run discovery again\n" + notAll
	l.expect(result{loggingIn(tg1), want, 19}, "-m", "node", "-l")
}

func TestLoginTriesAllRecordsAndReturnsTheFirstError(t *testing.T) {
	l := newLab(t)
	for _, target := range []string{"iqn.a", "iqn.b", "iqn.c"} {
		l.add(target, "127.0.0.1")
	}
	l.daemon.Connect = func(_ context.Context, s *control.Session, _ map[string]string) error {
		switch s.Target {
		case "iqn.a":
			return control.NewError(errcode.LoginAuthFailed, "")
		case "iqn.b":
			return control.NewError(errcode.TransTimeout, "")
		}
		return nil
	}
	out := loggingIn("iqn.a") + loggingIn("iqn.b") + loggingIn("iqn.c")
	failures := notLoggedIn("iqn.a", errcode.LoginAuthFailed) + notLoggedIn("iqn.b", errcode.TransTimeout)
	l.expect(result{out + loggedIn("iqn.c"), failures + notAll, 24}, "-m", "node", "-l")
	// What is refused before anything is sent comes first.
	out = loggingIn("iqn.a") + loggingIn("iqn.b")
	l.expect(result{out, "iscsiadm: default: 1 session requested, but 1 already present.\n" + failures + notAll, 15}, "-m", "node", "-l")
}

func TestLoginsWaitTogether(t *testing.T) {
	l := newLab(t)
	const n = 20
	for i := range n {
		l.add(fmt.Sprintf("iqn.%02d", i), "127.0.0.1")
	}
	// Every login waits until all have arrived.
	arrived := make(chan struct{}, n)
	all := make(chan struct{})
	go func() {
		for range n {
			<-arrived
		}
		close(all)
	}()
	l.daemon.Connect = func(context.Context, *control.Session, map[string]string) error {
		arrived <- struct{}{}
		<-all
		return nil
	}
	if out := l.mustRun("-m", "node", "-l"); strings.Count(out, "successful.") != n {
		t.Errorf("not all logins succeeded: %q", out)
	}
}

func TestNumberOfSessions(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	l.set(tg1, "node.session.nr_sessions", "3")
	multiple := "Logging in to [iface: default, target: " + tg1 + ", portal: 127.0.0.1,3260] (multiple)\n"
	l.expect(result{strings.Repeat(multiple, 3) + strings.Repeat(loggedIn(tg1), 3), "", 0}, "-m", "node", "-l")
	l.expect(result{"", "iscsiadm: default: 3 sessions requested, but 3 already present.\n" + notAll, 15}, "-m", "node", "-l")
	l.mustRun("-m", "session", "-r", "2", "-u")
	l.expect(result{multiple + loggedIn(tg1), "", 0}, "-m", "node", "-l")
	// One more is one more, whatever the record says.
	l.expect(result{multiple + loggedIn(tg1), "", 0}, "-m", "session", "-r", "1", "-o", "new")
	if got := strings.Count(l.mustRun("-m", "session"), tg1); got != 4 {
		t.Errorf("%d sessions, want 4", got)
	}
	// The second session to a portal has no line for the target and an empty
	// one for the portals.
	if tree := l.mustRun("-m", "session", "-P", "1"); strings.Count(tree, "Target: ") != 1 || strings.Count(tree, "NO CHANGE\n\n\t\t**********\n") != 3 {
		t.Errorf("tree of four sessions to one portal:\n%s", tree)
	}
}

func TestNoWait(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	release := make(chan struct{})
	l.daemon.Connect = func(ctx context.Context, _ *control.Session, _ map[string]string) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.expect(result{loggingIn(tg1), "", 0}, "-m", "node", "-l", "-W")
	// It is being logged in to: not listed, but in the way of another login,
	// of deleting its record, and to be cancelled by a logout.
	l.expect(result{"", "iscsiadm: No active sessions.\n", 21}, "-m", "session")
	l.expect(result{loggingIn(tg1), notLoggedIn(tg1, errcode.SessExists) + notAll, 15}, "-m", "node", "-l", "-W")
	if r := l.run("-m", "node", "-o", "delete"); r.code != 15 {
		t.Errorf("delete during a login: code %d", r.code)
	}
	l.expect(result{"Logging out of session [sid: 1, target: " + tg1 + ", portal: 127.0.0.1,3260]\n" +
		"Logout of [sid: 1, target: " + tg1 + ", portal: 127.0.0.1,3260] successful.\n", "", 0}, "-m", "node", "-u")
	close(release)
	l.expect(result{loggingIn(tg1) + loggedIn(tg1), "", 0}, "-m", "node", "-l")
}

func TestInterruptCancelsTheLogin(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	started, ended := make(chan struct{}), make(chan struct{})
	l.daemon.Connect = func(ctx context.Context, _ *control.Session, _ map[string]string) error {
		close(started)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-started
		cancel(iscsiadm.ErrInterrupted)
	}()
	got := l.runContext(ctx, "-m", "node", "-l")
	<-ended // the daemon has given up
	if want := (result{loggingIn(tg1), "iscsiadm: caught SIGINT, exiting...\n", 1}); got != want {
		t.Errorf("interrupted login: %+v, want %+v", got, want)
	}
}

func TestDaemonIsStarted(t *testing.T) {
	l := newLabWithoutDaemon(t)
	l.add(tg1, "127.0.0.1")
	write(t, l.env.Paths.Config, "iscsid.startup = /bin/start-it\n")
	ran := ""
	l.env.Start = func(_ context.Context, cmd string, _ io.Writer) error {
		ran = cmd
		write(t, l.env.Paths.Run+"/x", "")
		controltest.ServeAt(t, l.env.Paths.ControlSocket(), l.daemon, control.Options{})
		return nil
	}
	l.expect(result{loggingIn(tg1) + loggedIn(tg1), "", 0}, "-m", "node", "-l")
	if ran != "/bin/start-it" {
		t.Errorf("ran %q", ran)
	}
}

func TestDaemonThatDoesNotStart(t *testing.T) {
	l := newLabWithoutDaemon(t)
	l.add(tg1, "127.0.0.1")
	hint := "iscsiadm: hint: is iscsid running? It listens on " + l.env.Paths.ControlSocket() + "; try: systemctl start iscsid\n"
	notConnected := "iscsiadm: can not connect to iSCSI daemon (111)!\n" + hint + notLoggedIn(tg1, errcode.ISCSIDNotConn) + notAll
	l.expect(result{loggingIn(tg1), notConnected, 20}, "-m", "node", "-l")
	write(t, l.env.Paths.Config, "iscsid.startup = /bin/start-it\n")
	l.env.Start = func(context.Context, string, io.Writer) error { return errors.New("exit status 3") }
	l.expect(result{loggingIn(tg1), "iscsiadm: could not start iscsid with iscsid.startup: exit status 3\n" + notConnected, 20}, "-m", "node", "-l")
	l.env.Start = func(context.Context, string, io.Writer) error { return nil }
	l.expect(result{loggingIn(tg1), notConnected, 20}, "-m", "node", "-l")
	if len(l.slept) == 0 {
		t.Error("did not wait for the daemon that was started")
	}
	// What needs no daemon works.
	l.mustRun("-m", "node")
	l.mustRun("-m", "node", "-o", "delete")
}

func TestLoginLearnsThePortalGroupTag(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	l.expect(result{"127.0.0.1:3260,4294967295 " + tg1 + "\n", "", 0}, "-m", "node")
	l.mustRun("-m", "node", "-l")
	l.expect(result{"127.0.0.1:3260,1 " + tg1 + "\n", "", 0}, "-m", "node")
}

func TestLogoutFailures(t *testing.T) {
	l := newLab(t)
	for _, target := range []string{"iqn.a", "iqn.b", "iqn.c"} {
		l.add(target, "127.0.0.1")
	}
	l.daemon.Connect = nil
	l.daemon.SID = func(r map[string]string) int { return int(r["node.name"][4]-'a') + 1 }
	l.mustRun("-m", "node", "-l")
	l.daemon.Disconnect = func(_ context.Context, sid int) error {
		return map[int]error{1: control.NewError(errcode.Busy, ""), 2: control.NewError(errcode.Internal, "")}[sid]
	}
	r := l.run("-m", "session", "-u")
	text := func(sid int, target string) string {
		return fmt.Sprintf("[sid: %d, target: %s, portal: 127.0.0.1,3260]", sid, target)
	}
	want := result{
		"Logging out of session " + text(1, "iqn.a") + "\nLogging out of session " + text(2, "iqn.b") + "\nLogging out of session " + text(3, "iqn.c") + "\n" +
			"Logout of " + text(3, "iqn.c") + " successful.\n",
		"iscsiadm: Could not logout of " + text(1, "iqn.a") + ".\niscsiadm: initiator reported error (28 - device or resource in use)\n" +
			"iscsiadm: Could not logout of " + text(2, "iqn.b") + ".\niscsiadm: initiator reported error (9 - internal error)\n" +
			"iscsiadm: Could not logout of all requested sessions\n",
		9, // the last one, unlike login
	}
	if r != want {
		t.Errorf("got %+v\nwant %+v", r, want)
	}
}

func TestStartupGroups(t *testing.T) {
	l := newLab(t)
	l.daemon.Connect = nil
	for _, target := range []string{"iqn.auto", "iqn.conn", "iqn.manual", "iqn.onboot"} {
		l.add(target, "127.0.0.1")
	}
	l.set("iqn.auto", "node.startup", "automatic")
	l.set("iqn.conn", "node.conn[0].startup", "automatic")
	l.set("iqn.onboot", "node.startup", "onboot")
	in := func(args ...string) string {
		t.Helper()
		var targets []string
		for _, line := range strings.Split(l.mustRun(args...), "\n") {
			if strings.HasSuffix(line, "successful.") {
				targets = append(targets, strings.Split(strings.Split(line, "target: ")[1], ",")[0])
			}
		}
		return strings.Join(targets, " ")
	}
	for _, tc := range []struct{ word, in, out string }{
		{"automatic", "iqn.auto iqn.conn", "iqn.auto iqn.conn"},
		{"onboot", "iqn.onboot", ""},
		// Either field counts, so all but one are manual somewhere.
		{"manual", "iqn.auto iqn.conn iqn.manual iqn.onboot", "iqn.auto iqn.conn iqn.manual"},
		{"all", "iqn.auto iqn.conn iqn.manual iqn.onboot", "iqn.auto iqn.conn iqn.manual"},
	} {
		if got := in("-m", "node", "-L", tc.word); got != tc.in {
			t.Errorf("-L %s: %q, want %q", tc.word, got, tc.in)
		}
		if tc.out != "" {
			// Which sid each got is up to chance, and so is the order.
			got := strings.Fields(in("-m", "node", "--logoutall="+tc.word))
			slices.Sort(got)
			if strings.Join(got, " ") != tc.out {
				t.Errorf("-U %s: %q, want %q", tc.word, got, tc.out)
			}
		}
		l.run("-m", "session", "-u") // what -U leaves
	}
}

func TestLogoutAllLeavesSessionsWithoutRecord(t *testing.T) {
	l := newLab(t)
	l.mustRun("-m", "discovery", "-t", "st", "-p", "127.0.0.1")
	l.mustRun("-m", "node", "-T", tg1, "-l")
	// Deleting the discovery deletes the record, in use or not.
	l.mustRun("-m", "discovery", "-p", "127.0.0.1", "-o", "delete")
	l.expect(result{"", "iscsiadm: No matching sessions found\n", 21}, "-m", "node", "-U", "all")
	l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "session", "-r", "1")
	l.mustRun("-m", "node", "-T", tg1, "-u")
}

func TestLeadingLogin(t *testing.T) {
	l := newLab(t)
	l.mustRun("-m", "iface", "-I", "a", "-o", "new")
	l.mustRun("-m", "iface", "-I", "b", "-o", "new")
	for _, iface := range []string{"a", "b"} {
		l.mustRun("-m", "node", "-T", tg1, "-p", "127.0.0.1", "-I", iface, "-o", "new")
	}
	l.set(tg1, "node.leading_login", "Yes")
	attempts := 0
	l.daemon.Connect = func(_ context.Context, s *control.Session, _ map[string]string) error {
		if attempts++; s.Iface.Name == "a" {
			return control.NewError(errcode.TransTimeout, "")
		}
		return nil
	}
	text := func(iface string) string {
		return "[iface: " + iface + ", target: " + tg1 + ", portal: 127.0.0.1,3260]"
	}
	l.expect(result{
		"Logging in to " + text("a") + "\nLogging in to " + text("b") + "\nLogin to " + text("b") + " successful.\n",
		"iscsiadm: Could not login to " + text("a") + ".\niscsiadm: initiator reported error (8 - connection timed out)\n" +
			"iscsiadm: Could not log into all portals on a, trying next interface\n", 0,
	}, "-m", "node", "-L", "all")
	l.expect(result{"", "", 0}, "-m", "node", "-L", "all")
	if attempts != 2 {
		t.Errorf("%d attempts, want 2: one interface is enough", attempts)
	}
	l.mustRun("-m", "session", "-u")
	l.mustRun("-m", "node", "-I", "b", "-o", "delete")
	if r := l.run("-m", "node", "-L", "all"); r.code != 19 || !strings.HasSuffix(r.err, "iscsiadm: Could not login all leading-login portals\n") {
		t.Errorf("no leading login succeeded: %+v", r)
	}
}

func TestSessionModeByPath(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	l.mustRun("-m", "node", "-l")
	record := l.mustRun("-m", "node", "-T", tg1)
	for _, path := range []string{"1", "/sys/devices/platform/host2/session1", "/sys/class/iscsi_session/session1/", "/sys/devices/platform/host2/session1/target2:0:0/2:0:0:0"} {
		if got := l.mustRun("-m", "session", "-r", path); got != record {
			t.Errorf("-r %s shows %q, want the record", path, got)
		}
	}
	tree := l.mustRun("-m", "session", "-P", "2")
	if got := l.mustRun("-m", "session", "-r", "1", "-P", "2"); got != tree {
		t.Errorf("-r 1 -P 2 = %q, want %q", got, tree)
	}
	l.mustRun("-m", "session", "-r", "1", "-o", "update", "-n", "node.startup", "-v", "automatic")
	if out := l.mustRun("-m", "node", "-T", tg1); !strings.Contains(out, "node.startup = automatic\n") {
		t.Error("update by session did not change the record")
	}
	if r := l.run("-m", "session", "-r", "1", "-o", "delete"); r.code != 15 {
		t.Errorf("delete by session: %+v, want code 15", r)
	}
	l.mustRun("-m", "session", "-r", "1", "-R")
	l.mustRun("-m", "session", "--sid", "1", "--rescan")
	l.mustRun("-m", "session", "-r", "1", "-u")
}

func TestRedirectedSessionIsFoundByItsRecord(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	l.mustRun("-m", "node", "-l")
	l.daemon.Update(1, func(s *control.Session) { s.Portal = control.Portal{Address: "10.9.9.9", Port: 3261} })
	l.expect(result{"tcp: [1] 127.0.0.1:3260,1 " + tg1 + " (non-flash)\n", "", 0}, "-m", "session")
	if tree := l.mustRun("-m", "session", "-P", "1"); !strings.Contains(tree, "\tCurrent Portal: 10.9.9.9:3261,1\n\tPersistent Portal: 127.0.0.1:3260,1\n") {
		t.Errorf("tree does not show both portals:\n%s", tree)
	}
	l.mustRun("-m", "node", "-p", "127.0.0.1", "-u")
}

func TestSessionsAreListedByTextOfTheirID(t *testing.T) {
	l := newLab(t)
	l.daemon.Connect = nil
	for i := range 11 {
		l.add(fmt.Sprintf("iqn.%02d", i), "127.0.0.1")
	}
	l.mustRun("-m", "node", "-l")
	var order []string
	for _, line := range transcript.Lines(l.mustRun("-m", "session")) {
		order = append(order, strings.Fields(line)[1])
	}
	if got := strings.Join(order, ""); got != "[1][10][11][2][3][4][5][6][7][8][9]" {
		t.Errorf("order %s", got)
	}
}

func TestSecretsInTheSessionTree(t *testing.T) {
	l := newLab(t)
	l.add(chap, "127.0.0.1")
	l.set(chap, "node.session.auth.username", "usuario")
	l.set(chap, "node.session.auth.password", "password")
	l.mustRun("-m", "node", "-l")
	const masked = "\t\tusername: usuario\n\t\tpassword: ********\n\t\tusername_in: <empty>\n\t\tpassword_in: ********\n"
	const shown = "\t\tusername: usuario\n\t\tpassword: password\n\t\tusername_in: <empty>\n\t\tpassword_in: <empty>\n"
	if out := l.mustRun("-m", "session", "-P", "2"); !strings.Contains(out, masked) {
		t.Errorf("-P 2:\n%s", out)
	}
	if out := l.mustRun("-m", "session", "-P", "2", "-S"); !strings.Contains(out, shown) {
		t.Errorf("-P 2 -S:\n%s", out)
	}
}

func TestLUNOnASocketIsShown(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	l.mustRun("-m", "node", "-l")
	l.daemon.Update(1, func(s *control.Session) {
		s.Devices = []control.Device{{LUN: 1, Type: "disk", Attach: control.AttachSocket, Path: "/run/iscsid/luns/x", State: "running"}}
	})
	const want = "\t\tscsi0 Channel 00 Id 0 Lun: 1\n\t\t\tAttached nbd socket /run/iscsid/luns/x\t\tState: running\n"
	if out := l.mustRun("-m", "session", "-P", "3"); !strings.Contains(out, want) {
		t.Errorf("-P 3:\n%s", out)
	}
}

// TestLookingWinsOverLeaving gives contradictory options to a session: what
// only looks at it is done, and a logout with an operation is refused.
func TestLookingWinsOverLeaving(t *testing.T) {
	l := newLab(t)
	l.mustRun(discovery...)
	l.mustRun("-m", "node", "-T", tg1, "-p", "127.0.0.1", "-l")
	listed := l.mustRun("-m", "session")
	const withOp = "iscsiadm: Invalid parameters. Login/logout and op passed in\n"
	for _, tc := range []struct {
		args, begins, err string
		code              int
	}{
		{"-m session -r 1 -u -R", "Rescanning session", "", 0},
		{"-m session -r 1 -u -s", "Stats for session", "", 0},
		{"-m session -u -R", "Rescanning session", "", 0},
		{"-m session -u -s", "Stats for session", "", 0},
		{"-m node -u -R", "Rescanning session", "", 0},
		{"-m session -r 1 -u -o new", "", "iscsiadm: Invalid parameters. Both login and logout passed in\n", 7},
		{"-m session -r 1 -u -o show", "", withOp, 7},
		{"-m session -r 1 -u -o delete", "", withOp, 7},
		{"-m session -u -o delete", "", withOp, 7},
	} {
		r := l.run(strings.Fields(tc.args)...)
		if !strings.HasPrefix(r.out, tc.begins) || (r.out == "") != (tc.begins == "") || r.err != tc.err || r.code != tc.code {
			t.Errorf("%s: %+v", tc.args, r)
		}
		if got := l.mustRun("-m", "session"); got != listed {
			t.Fatalf("%s: sessions are now %q", tc.args, got)
		}
	}
}
