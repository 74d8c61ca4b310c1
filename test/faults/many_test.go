//go:build integration

package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/lab"
)

// TestManySessions restarts a target that 256 sessions with a disk each are
// logged in to: all recover, and what the daemon takes is bounded.
func TestManySessions(t *testing.T) {
	const n = 256
	tgt := newInProcess(t, func(c *iscsitest.Config) {
		c.Targets = nil
		for i := range n {
			c.Targets = append(c.Targets, iscsitest.Target{
				Name: fmt.Sprintf("%s:%03d", targetName, i),
				LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(1 << 20), WriteCache: true}},
			})
		}
	})
	h := lab.NewPrefix(t, "node.session.iscsi.DefaultTime2Wait = 0")
	d := h.StartDaemon()
	idle, idleFiles := d.StatusKiB("VmRSS"), descriptors(t, d.PID())
	begin := time.Now()
	h.Must("-m", "discovery", "-t", "st", "-p", tgt.addr)
	h.Must("-m", "node", "-l")
	t.Logf("%d logins: %v", n, time.Since(begin).Round(time.Millisecond))
	sockets := h.Sockets()
	if len(sockets) != n {
		t.Fatalf("%d sockets, want %d", len(sockets), n)
	}
	var all []*checker.Checker
	for _, s := range sockets {
		e, err := checker.OpenExport(s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		all = append(all, checker.Start(e, checker.Config{Workers: 1, Blocks: 64, Pace: 100 * time.Millisecond}))
	}
	awaitAll := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), recoveryTime)
		defer cancel()
		errs := make(chan error, n)
		for _, c := range all {
			go func() { errs <- c.Await(ctx) }() // ends with ctx at the latest
		}
		for range all {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
	}
	awaitAll()
	busy, busyFiles := d.StatusKiB("VmRSS"), descriptors(t, d.PID())
	var back []time.Duration
	for range times(3, 50) {
		tgt.stop()
		between(0, 500*time.Millisecond)
		tgt.start()
		begin := time.Now()
		awaitAll()
		back = append(back, time.Since(begin))
	}
	for _, c := range all {
		if err := c.Check(); err != nil {
			t.Error(err)
		}
	}
	text, _ := summary(back)
	t.Logf("all %d sessions work again: %s", n, text)
	after, afterFiles, most := d.StatusKiB("VmRSS"), descriptors(t, d.PID()), d.StatusKiB("VmHWM")
	t.Logf("resident KiB: %d idle, %d with %d sessions, %d after the restarts, %d at most", idle, busy, n, after, most)
	t.Logf("descriptors: %d idle, %d with sessions, %d after the restarts", idleFiles, busyFiles, afterFiles)
	if afterFiles > busyFiles {
		t.Errorf("%d descriptors more than before the restarts", afterFiles-busyFiles)
	}
	if limit := idle + n<<10; most > limit {
		t.Errorf("%d KiB resident: more than 1 MiB a session", most)
	}
	h.Must("-m", "session", "-u")
	// Connections of commands that have just ended may still be open for a moment.
	eventually(t, "the descriptors of before the login", func() bool { return descriptors(t, d.PID()) <= idleFiles+2 })
	tgt.violations()
}
