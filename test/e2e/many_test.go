//go:build integration

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/test/lab"
)

const (
	manyTargets   = 20 // targets of the lab
	manyProcesses = 50 // processes at once
)

// manyName is the name of a target of the lab.
func manyName(i int) string { return fmt.Sprintf("iqn.2026-11.com.example:many%02d", i) }

// manyLab is a portal with many targets, discovered, and next to it a portal
// that keeps silent, to which a login is going on. The returned channel is
// closed when that login has ended.
func manyLab(t *testing.T) (*iscsitest.Server, *lab.Host, <-chan struct{}) {
	t.Helper()
	var cfg iscsitest.Config
	for i := range manyTargets {
		cfg.Targets = append(cfg.Targets, iscsitest.Target{
			Name: manyName(i), LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(1 << 20)}},
		})
	}
	srv := iscsitest.NewServer(cfg)
	t.Cleanup(srv.Close)
	h := lab.NewPrefix(t)
	h.StartDaemon()
	h.Must("-m", "discovery", "-t", "st", "-p", srv.Portal())
	b := openBlackHole(t)
	cmd := h.Command("iscsiadm", append(b.record(h, 200, 8), "-l")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	receive(t, "the slow login's connection", b.opened)
	ended := make(chan struct{})
	go func() { // ends with the process
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return srv, h, ended
}

// atOnce runs processes at the same time and returns their results.
func atOnce(h *lab.Host, args [][]string) []lab.Result {
	results := make([]lab.Result, len(args))
	start := make(chan struct{}) // closed when all are ready to run
	var wg sync.WaitGroup
	for i, a := range args {
		wg.Go(func() {
			<-start
			results[i] = h.Iscsiadm(a...)
		})
	}
	close(start)
	wg.Wait()
	return results
}

// TestFiftyProcesses runs fifty at once against one daemon: ten discoveries,
// ten updates of different fields of one record, ten of one field of different
// records, ten logins to different nodes, and ten to the same. Then fifty
// logouts and logins. No update may be lost, no session be there twice, and
// nobody may wait for the login that hangs all the while.
func TestFiftyProcesses(t *testing.T) {
	srv, h, slow := manyLab(t)
	node := func(i int, more ...string) []string {
		return append([]string{"-m", "node", "-T", manyName(i), "-p", srv.Portal()}, more...)
	}
	const n = manyProcesses / 5
	same := 19 // the node that several log in to
	fields := []string{
		"node.session.queue_depth", "node.session.cmds_max", "node.session.reopen_max", "node.session.initial_login_retry_max",
		"node.conn[0].timeo.login_timeout", "node.conn[0].timeo.logout_timeout", "node.conn[0].timeo.noop_out_interval",
		"node.conn[0].timeo.noop_out_timeout", "node.session.timeo.replacement_timeout", "node.session.err_timeo.abort_timeout",
	}
	if len(fields) != n {
		t.Fatalf("%d fields", len(fields))
	}
	const untouched = 18 // whose fields are changed, and nobody logs in to
	var args [][]string
	for i := range n {
		args = append(args,
			[]string{"-m", "discovery", "-t", "st", "-p", srv.Portal(), "-o", "new"},
			node(untouched, "-o", "update", "-n", fields[i], "-v", fmt.Sprint(41+i)),
			node(i, "-o", "update", "-n", "node.session.timeo.replacement_timeout", "-v", fmt.Sprint(61+i)),
			node(i, "-l"),
			node(same, "-l"))
	}
	won := 0
	for i, r := range atOnce(h, args) {
		switch {
		case i%5 == 4 && r.Code == 0:
			won++
		case i%5 == 4 && r.Code == 15:
		case r.Code != 0 || r.Stderr != "":
			t.Errorf("exit status %d\n%s", r.Code, r)
		}
		checkQuick(t, r)
	}
	if won != 1 {
		t.Errorf("%d logins to one node succeeded, want 1", won)
	}
	checkMany(t, srv, h, append(numbers(n), same))
	record := h.Must(node(untouched)...)
	for i, f := range fields {
		if line := fmt.Sprintf("\n%s = %d\n", f, 41+i); !strings.Contains(record, line) {
			t.Errorf("the update %q is lost", line)
		}
		if line := fmt.Sprintf("\nnode.session.timeo.replacement_timeout = %d\n", 61+i); !strings.Contains(h.Must(node(i)...), line) {
			t.Errorf("record %d lacks %q", i, line)
		}
	}
	if got := strings.Count(h.Must("-m", "node"), "\n"); got != manyTargets+1 {
		t.Errorf("%d records, want %d and the slow one", got, manyTargets)
	}

	// Logouts of all, twice each, while others log in to nodes that have no
	// session yet, twice each, and rescan.
	args = nil
	for i := range n {
		args = append(args, node(i, "-u"), node(i, "-u"), []string{"-m", "session"})
		if n+i < untouched {
			args = append(args, node(n+i, "-l"), node(n+i, "-l"))
		} else {
			args = append(args, node(same, "-R"), node(same, "-s"))
		}
	}
	in, out := map[string]int{}, map[string]int{}
	for i, r := range atOnce(h, args) {
		checkQuick(t, r)
		kind, target := r.Args[len(r.Args)-1], ""
		if len(r.Args) > 4 {
			target = r.Args[4]
		}
		switch {
		case kind == "-u" && r.Code == 0:
			out[target]++
		case kind == "-l" && r.Code == 0:
			in[target]++
		case kind == "-l" && r.Code == 15:
		case kind == "-u" && (r.Code == 21 || r.Code == 2):
			// The other logout was quicker: before this one looked, or after.
		case r.Code != 0:
			t.Errorf("command %d: exit status %d\n%s", i, r.Code, r)
		}
	}
	up := []int{same}
	for i := range n {
		if out[manyName(i)] < 1 {
			t.Errorf("nobody logged out of %s", manyName(i))
		}
		if n+i < untouched {
			up = append(up, n+i)
			if in[manyName(n+i)] != 1 {
				t.Errorf("%d logins to %s succeeded, want 1", in[manyName(n+i)], manyName(n+i))
			}
		}
	}
	checkMany(t, srv, h, up)
	select {
	case <-slow:
		t.Error("the login to the silent portal has ended: nothing was shown")
	default:
	}
	// It goes, too, and only now.
	h.Must("-m", "session", "-u")
	h.Check(noSessions, "-m", "session")
	receive(t, "end of the slow login", slow)
	if s := srv.Sessions(); len(s) != 0 {
		t.Errorf("the target still has %d sessions", len(s))
	}
}

// checkQuick holds a command against a small part of the time that the slow
// login takes.
func checkQuick(t *testing.T, r lab.Result) {
	t.Helper()
	if r.Duration > 45*time.Second {
		t.Errorf("took %v\n%s", r.Duration, r)
	}
}

// checkMany compares the sessions that the target and iscsiadm see.
func checkMany(t *testing.T, srv *iscsitest.Server, h *lab.Host, want []int) {
	t.Helper()
	names := map[string]bool{}
	for _, i := range want {
		names[manyName(i)] = true
	}
	seen := map[string]int{}
	for _, s := range srv.Sessions() {
		if !s.Discovery {
			seen[s.Target]++
		}
	}
	for line := range strings.Lines(h.Must("-m", "session")) {
		seen[strings.Fields(line)[3]] += 100
	}
	for name, n := range seen {
		if n != 101 || !names[name] {
			t.Errorf("%s: %d sessions at the target, %d listed, wanted %v", name, n%100, n/100, names[name])
		}
	}
	if len(seen) != len(names) {
		t.Errorf("sessions with %d targets, want %d", len(seen), len(names))
	}
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
