package iscsiadm_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/iscsiadm"
)

// watchLab has one session, whose disk does 1000 reads and 500 writes a second
// from one look to the next; the clock and the waits are made up.
func watchLab(t *testing.T, looks int) (l *lab, ctx context.Context) {
	l = newLab(t)
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	n := uint64(0)
	l.daemon.Counters = func(*control.Session) control.Stats {
		k := n
		return control.Stats{Recoveries: 2, LUNs: []control.LUNStats{{
			LUN: 1, Name: "nbd0", Pending: 3, InFlight: 2,
			Ops: map[string]control.OpStats{
				"read":  {Requests: 5 + k*1000, Bytes: k * 4096000, Time: k * 1000 * 250e3},
				"write": {Requests: k * 500, Bytes: k * 2048000, Time: k * 500 * 20e6, Errors: k * 4},
				"flush": {Requests: k * 10},
			},
		}}}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	l.env.Now = func() time.Time { return now }
	l.env.Sleep = func(_ context.Context, d time.Duration) error {
		now = now.Add(d)
		n += uint64(d / time.Second)
		if looks--; looks == 0 {
			cancel(iscsiadm.ErrInterrupted)
			return iscsiadm.ErrInterrupted
		}
		return nil
	}
	l.mustRun(discovery...)
	l.mustRun("-m", "node", "-T", tg1, "-l")
	return l, ctx
}

func TestWatchAddsLinesWhereThereIsNoTerminal(t *testing.T) {
	for _, args := range [][]string{{"-m", "session", "-s", "--watch", "-i", "2"}, {"-m", "session", "-r", "1", "-s", "--watch", "--interval=2"}} {
		l, ctx := watchLab(t, 3)
		r := l.runContext(ctx, args...)
		want := "" +
			"TIME     SID  LUN DEVICE      r/s     w/s   rMB/s   wMB/s    r-lat    w-lat   oth/s  PEND FLIGHT  ERR RECOV TARGET\n" +
			"12:00:02 1      1 nbd0       1000     500     4.1     2.0    250us     20ms      10     3      2    8     2 " + tg1 + "\n" +
			"12:00:04 1      1 nbd0       1000     500     4.1     2.0    250us     20ms      10     3      2    8     2 " + tg1 + "\n"
		if r.code != 0 || r.err != "" || r.out != want {
			t.Errorf("%q: code %d, stderr %q\n got %q\nwant %q", args, r.code, r.err, r.out, want)
		}
	}
}

func TestWatchStaysInPlaceOnATerminal(t *testing.T) {
	l, ctx := watchLab(t, 2)
	l.env.Terminal = func(io.Writer) int { return 60 }
	r := l.runContext(ctx, "-m", "session", "-s", "--watch")
	if r.code != 0 || r.err != "" {
		t.Fatalf("code %d, stderr %q", r.code, r.err)
	}
	screens := strings.Split(r.out, "\x1b[H")
	if len(screens) != 3 || screens[0] != "\x1b[?25l" || !strings.HasSuffix(screens[2], "\x1b[J\x1b[?25h") {
		t.Fatalf("%q: want two screens between hiding the cursor and showing it", screens)
	}
	if !strings.Contains(screens[1], "1      1 nbd0          -       -") {
		t.Errorf("the first screen has rates: %q", screens[1])
	}
	for _, line := range strings.Split(strings.TrimSuffix(screens[2], "\x1b[J\x1b[?25h"), "\x1b[K\n") {
		if len(line) > 60 {
			t.Errorf("%q is wider than the terminal", line)
		}
	}
	if !strings.Contains(screens[2], "1      1 nbd0       1000     500     4.1") {
		t.Errorf("the second screen is %q", screens[2])
	}
}

func TestWatchEndsWithTheLastSession(t *testing.T) {
	for _, args := range [][]string{{"-m", "session", "-r", "1", "-s", "--watch"}, {"-m", "session", "-s", "--watch"}} {
		l, ctx := watchLab(t, 100)
		sleep := l.env.Sleep
		l.env.Sleep = func(ctx context.Context, d time.Duration) error {
			return errors.Join(sleep(ctx, d), l.daemon.Logout(ctx, 1, false))
		}
		if r := l.runContext(ctx, args...); r.code != 0 || r.err != "" || r.out != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestCountersThatBeginAnewAreNoNegativeRates(t *testing.T) {
	l, ctx := watchLab(t, 2)
	was := l.daemon.Counters
	calls := 0
	l.daemon.Counters = func(s *control.Session) control.Stats {
		st := was(s)
		if calls++; calls == 1 {
			o := st.LUNs[0].Ops["read"]
			o.Requests, o.Bytes, o.Time = 1<<40, 1<<50, 1<<50
			st.LUNs[0].Ops["read"] = o
		}
		return st
	}
	r := l.runContext(ctx, "-m", "session", "-s", "--watch")
	if !strings.Contains(r.out, "nbd0       1005     500     4.1") {
		t.Errorf("got %q", r.out)
	}
}
