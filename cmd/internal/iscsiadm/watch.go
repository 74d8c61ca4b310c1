package iscsiadm

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// A look is what the counters were at one moment.
type look struct {
	at       time.Time
	sessions []control.Session
	stats    []*control.Stats // of each session; nil: it has ended
}

// watch shows the rates of the sessions that list returns, anew every interval,
// until ^C, which is no failure, or until there is no session left.
func (c *command) watch(list func() ([]control.Session, error)) error {
	_ = c.out.Flush()
	interval := time.Duration(max(c.req.interval, 1)) * time.Second
	show := c.watchLines()
	width := c.Terminal(c.Stdout)
	if width > 0 {
		show = c.watchScreen()
		fmt.Fprint(c.Stdout, hideCursor)
		defer fmt.Fprint(c.Stdout, showCursor)
	}
	var before *look
	for {
		now, err := c.look(list)
		switch {
		case c.ctx.Err() != nil:
			return nil
		case errcode.Of(err) == errcode.SessNotFound:
			return nil // the one that was watched has ended
		case err != nil:
			return err
		case len(now.sessions) == 0:
			return nil
		}
		if before != nil || width > 0 {
			show(before, now)
		}
		before = now
		if c.Sleep(c.ctx, interval) != nil {
			return nil
		}
	}
}

// look asks the daemon.
func (c *command) look(list func() ([]control.Session, error)) (*look, error) {
	l, err := list()
	if err != nil {
		return nil, err
	}
	sortAsListed(l)
	n := &look{sessions: l, stats: make([]*control.Stats, len(l))}
	errs := make([]error, len(l))
	each(len(l), func(i int) { n.stats[i], errs[i] = c.daemon().Stats(c.ctx, l[i].SID) })
	n.at = c.Now()
	for _, err := range errs {
		if err != nil && errcode.Of(err) != errcode.SessNotFound {
			return nil, err
		}
	}
	return n, nil
}

// A row is what is shown of a disk, or of a session without one.
type row struct {
	sid    int
	lun    string
	device string
	state  string // of the session, if it is not logged in

	known         bool // the rates are
	reads, writes rate
	other         float64 // other requests a second: flushes, discards
	errors        uint64  // since the last look

	pending, inFlight int
	recoveries        uint64
	target            string
}

// A rate is how requests of one kind went.
type rate struct {
	ops, bytes float64 // a second
	latency    time.Duration
}

// rows compares two looks. Without a first one there are no rates.
func rows(before, now *look) []row {
	type place struct {
		sid int
		lun uint64
	}
	old := make(map[place]*control.LUNStats)
	var elapsed float64
	if before != nil {
		elapsed = now.at.Sub(before.at).Seconds()
		for i, st := range before.stats {
			for n := range lunsOf(st) {
				old[place{before.sessions[i].SID, st.LUNs[n].LUN}] = &st.LUNs[n]
			}
		}
	}
	var out []row
	for i, st := range now.stats {
		if st == nil {
			continue
		}
		s := &now.sessions[i]
		r := row{sid: s.SID, recoveries: st.Recoveries, target: s.Target, lun: "-", device: "-"}
		if s.SessionState != control.SessionLoggedIn {
			r.state = s.ConnState
		}
		for n := range st.LUNs {
			l := &st.LUNs[n]
			r := r
			r.lun, r.device = fmt.Sprint(l.LUN), l.Name
			if l.Name == "" {
				r.device = "socket"
			}
			r.pending, r.inFlight = l.Pending, l.InFlight
			if was := old[place{s.SID, l.LUN}]; was != nil && elapsed > 0 {
				r.compare(was, l, elapsed)
			}
			out = append(out, r)
		}
		if len(st.LUNs) == 0 {
			out = append(out, r)
		}
	}
	return out
}

func lunsOf(st *control.Stats) []control.LUNStats {
	if st == nil {
		return nil
	}
	return st.LUNs
}

// compare fills in the rates. Counters that went back began anew: the disk was
// opened again.
func (r *row) compare(was, is *control.LUNStats, elapsed float64) {
	r.known = true
	for name, o := range is.Ops {
		w := was.Ops[name]
		if o.Requests < w.Requests || o.Bytes < w.Bytes || o.Time < w.Time || o.Errors < w.Errors {
			w = control.OpStats{}
		}
		n := o.Requests - w.Requests
		v := rate{ops: float64(n) / elapsed, bytes: float64(o.Bytes-w.Bytes) / elapsed}
		if n > 0 {
			v.latency = time.Duration((o.Time - w.Time) / n)
		}
		r.errors += o.Errors - w.Errors
		switch name {
		case "read":
			r.reads = v
		case "write":
			r.writes = v
		default:
			r.other += v.ops
		}
	}
}

const watchHead = "SID  LUN DEVICE      r/s     w/s   rMB/s   wMB/s    r-lat    w-lat   oth/s  PEND FLIGHT  ERR RECOV TARGET"

// line shows a row under watchHead.
func (r *row) line() string {
	target := r.target
	if r.state != "" {
		target += " (" + r.state + ")"
	}
	queue := fmt.Sprintf("%5d %6d", r.pending, r.inFlight)
	rates := fmt.Sprintf("%7s %7s %7s %7s %8s %8s %7s", "-", "-", "-", "-", "-", "-", "-")
	if r.known {
		rates = fmt.Sprintf("%7.0f %7.0f %7.1f %7.1f %8s %8s %7.0f", r.reads.ops, r.writes.ops, r.reads.bytes/1e6, r.writes.bytes/1e6,
			latencyText(r.reads.latency), latencyText(r.writes.latency), r.other)
	}
	return oneLine(fmt.Sprintf("%-4d %3s %-7s %s %s %4d %5d %s", r.sid, r.lun, r.device, rates, queue, r.errors, r.recoveries, target))
}

// latencyText shows a time in three digits or four.
func latencyText(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%dus", d.Microseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.0fs", d.Seconds())
}

// What terminals are told (ECMA-48).
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	goHome     = "\x1b[H"
	eraseLine  = "\x1b[K"
	eraseBelow = "\x1b[J"
)

// watchScreen shows each look in the place of the one before.
func (c *command) watchScreen() func(before, now *look) {
	return func(before, now *look) {
		width := c.Terminal(c.Stdout) // it may have changed
		var b strings.Builder
		b.WriteString(goHome)
		put := func(line string) { b.WriteString(cutTo(line, width) + eraseLine + "\n") }
		put(now.at.Format(time.TimeOnly) + "  sessions: " + fmt.Sprint(len(now.sessions)) + "  (^C ends)")
		put("")
		put(watchHead)
		for _, r := range rows(before, now) {
			put(r.line())
		}
		b.WriteString(eraseBelow)
		fmt.Fprint(c.Stdout, b.String())
	}
}

// cutTo returns as much of a line as fits.
func cutTo(line string, width int) string {
	for utf8.RuneCountInString(line) > width {
		_, n := utf8.DecodeLastRuneInString(line)
		line = line[:len(line)-n]
	}
	return line
}

// watchLines adds each look to those before, with the head above the first.
func (c *command) watchLines() func(before, now *look) {
	head := false
	return func(before, now *look) {
		if !head {
			head = true
			c.printf("TIME     %s\n", watchHead)
		}
		for _, r := range rows(before, now) {
			c.printf("%s %s\n", now.at.Format(time.TimeOnly), r.line())
		}
		_ = c.out.Flush()
	}
}
