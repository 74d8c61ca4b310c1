package iscsiadm_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/goiscsi/goiscsi/internal/transcript"
)

// TestManyCommandsAtOnce runs discoveries, updates, logins and logouts of the
// same and of different records at the same time: no update may be lost and
// no session made twice.
func TestManyCommandsAtOnce(t *testing.T) {
	const n = 20
	l := newLab(t)
	l.daemon.Connect = nil
	for i := range n {
		l.portals["127.0.0.1:3260"] = append(l.portals["127.0.0.1:3260"], fmt.Sprintf("iqn.%02d", i))
	}
	l.mustRun(discovery...)
	all := func(f func(i int) result) []result {
		results := make([]result, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { results[i] = f(i) })
		}
		wg.Wait()
		return results
	}
	target := func(i int) string { return fmt.Sprintf("iqn.%02d", i) }

	// Every process changes another field of the same record, or the same
	// field of another record, while others discover without updating.
	fields := []string{"node.session.queue_depth", "node.session.cmds_max", "node.session.nr_sessions", "node.session.reopen_max", "node.conn[0].timeo.login_timeout"}
	for i, r := range all(func(i int) result {
		switch {
		case i < len(fields):
			return l.run("-m", "node", "-T", target(0), "-o", "update", "-n", fields[i], "-v", fmt.Sprint(i+1))
		case i%5 == 0:
			return l.run(append(discovery, "-o", "new")...)
		}
		return l.run("-m", "node", "-T", target(i), "-o", "update", "-n", "node.session.queue_depth", "-v", fmt.Sprint(i+1))
	}) {
		if r.code != 0 || r.err != "" {
			t.Errorf("command %d: %+v", i, r)
		}
	}
	for i := range n {
		out := l.mustRun("-m", "node", "-T", target(i))
		want := []string{fmt.Sprintf("node.session.queue_depth = %d\n", i+1)}
		if i == 0 {
			want = nil
			for j, f := range fields {
				want = append(want, fmt.Sprintf("%s = %d\n", f, j+1))
			}
		} else if i >= len(fields) && i%5 == 0 || i < len(fields) {
			continue
		}
		for _, line := range want {
			if !strings.Contains(out, line) {
				t.Errorf("%s has lost %q", target(i), line)
			}
		}
	}
	l.set(target(0), "node.session.nr_sessions", "1")

	// All want the same session: one gets it.
	won := 0
	for i, r := range all(func(int) result { return l.run("-m", "node", "-T", target(0), "-l") }) {
		switch r.code {
		case 0:
			won++
		case 15:
		default:
			t.Errorf("login %d: %+v", i, r)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d logins to one target succeeded", won, n)
	}
	// Each wants its own: all get it.
	for i, r := range all(func(i int) result { return l.run("-m", "node", "-T", target(i), "-l") }) {
		if i > 0 && r.code != 0 || i == 0 && r.code != 15 {
			t.Errorf("login to %s: %+v", target(i), r)
		}
	}
	if got := len(transcript.Lines(l.mustRun("-m", "session"))); got != n {
		t.Errorf("%d sessions, want %d", got, n)
	}
	for i, r := range all(func(i int) result { return l.run("-m", "node", "-T", target(i), "-u") }) {
		if r.code != 0 {
			t.Errorf("logout of %s: %+v", target(i), r)
		}
	}
	l.expect(result{"", "iscsiadm: No active sessions.\n", 21}, "-m", "session")
}
