//go:build integration

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/lab"
)

// records makes n records without any network.
func records(h *lab.Host, n int) {
	for i := range n {
		h.Must("-m", "node", "-T", fmt.Sprintf("iqn.2026-11.com.example:disk%04d", i), "-p", "192.0.2.1:3260", "-o", "new")
	}
}

// TestKilledUpdates kills iscsiadm at moments spread over the length of an
// update: whenever that is, the database opens, holds every record, and each
// record has the old value or the new one.
func TestKilledUpdates(t *testing.T) {
	h := lab.NewPrefix(t)
	records(h, 3)
	const target = "iqn.2026-11.com.example:disk0001"
	args := func(value int) []string {
		return []string{
			"-m", "node", "-T", target, "-p", "192.0.2.1:3260", "-o", "update",
			"-n", "node.session.timeo.replacement_timeout", "-v", fmt.Sprint(value),
		}
	}
	start := time.Now()
	h.Must(args(1000)...)
	whole := time.Since(start)
	const rounds = 60
	killed := 0
	for i := range rounds {
		cmd := h.Command("iscsiadm", args(1001+i)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(whole*time.Duration(i)/rounds, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err != nil {
			killed++
		}
		if got := strings.Count(h.Must("-m", "node"), "\n"); got != 3 {
			t.Fatalf("round %d: %d records, want 3", i, got)
		}
		record := h.Must("-m", "node", "-T", target)
		if !strings.HasSuffix(record, "# END RECORD\n") {
			t.Fatalf("round %d: half a record:\n%s", i, record)
		}
	}
	if killed == 0 {
		t.Errorf("no round was killed in time: the test showed nothing (an update takes %v)", whole)
	}
	t.Logf("%d of %d updates killed", killed, rounds)
}

// TestBadInputLeavesTheDatabase tries what is wrong in an option, a name and a
// value, and wants one clear line, the code, and no change.
func TestBadInputLeavesTheDatabase(t *testing.T) {
	h := lab.NewPrefix(t)
	records(h, 1)
	const target = "iqn.2026-11.com.example:disk0000"
	before := h.Must("-m", "node", "-T", target, "-S")
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-o", "update", "-n", "node.no.such.field", "-v", "1"}, 7, "iscsiadm: Cannot modify node.no.such.field. Invalid param name.\n"},
		{[]string{"-o", "update", "-n", "node.conn[0].iscsi.HeaderDigest", "-v", "Bogus"}, 7, "iscsiadm: unknown value format 'Bogus' for parameter name 'node.conn[0].iscsi.HeaderDigest'\n"},
		{[]string{"-o", "update", "-n", "node.startup"}, 7, "iscsiadm: update requires name and value\n"},
		{[]string{"--login", "--logout"}, 7, "iscsiadm: "},
	} {
		r := h.Iscsiadm(append([]string{"-m", "node", "-T", target}, tc.args...)...)
		if r.Code != tc.code || r.Stdout != "" || !strings.HasPrefix(r.Stderr, tc.says) {
			t.Errorf("exit status %d, want %d and %q\n%s", r.Code, tc.code, tc.says, r)
		}
	}
	if after := h.Must("-m", "node", "-T", target, "-S"); after != before {
		t.Errorf("the record has changed from\n%s\nto\n%s", before, after)
	}
}

// BenchmarkCommands measures commands that need no network, with the start of
// their process and, for the list of sessions, the daemon's answer. What keeps
// them quick is tested in cmd/internal/iscsiadm.
func BenchmarkCommands(b *testing.B) {
	h := lab.NewPrefix(b)
	records(h, 10)
	h.StartDaemon()
	one := []string{"-m", "node", "-T", "iqn.2026-11.com.example:disk0003", "-p", "192.0.2.1:3260"}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"version", []string{"-V"}},
		{"list of 10 records", []string{"-m", "node"}},
		{"one record", one},
		{"update of one record", append(slices.Clip(one), "-o", "update", "-n", "node.startup", "-v", "manual")},
		{"list of sessions", []string{"-m", "session"}},
		{"list of ifaces", []string{"-m", "iface"}},
		{"list of discoveries", []string{"-m", "discoverydb"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				h.Iscsiadm(c.args...)
			}
		})
	}
}
