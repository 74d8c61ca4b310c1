package iscsiadm

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
)

// Times of the progress line.
const (
	progressAfter = time.Second            // before it shows for the first time
	progressEvery = 500 * time.Millisecond // between two looks
	progressAsk   = 300 * time.Millisecond // for the daemon's answer
)

// A progress is a line on the terminal that tells how far something is that takes
// long. There is none, a nil *progress, where standard error is no terminal: what
// programs read stays as it is. It is used by one goroutine, but for step.
type progress struct {
	c     *command
	what  string // "Logging in"
	total int
	done  atomic.Int64
	begin time.Time
	tick  *time.Ticker
	shown bool
}

// newProgress returns a progress of total steps, which close ends.
func (c *command) newProgress(what string, total int) *progress {
	if total == 0 || c.Terminal(c.Stderr) == 0 {
		return nil
	}
	return &progress{c: c, what: what, total: total, begin: time.Now(), tick: time.NewTicker(progressEvery)}
}

// step counts a step that is done, from any goroutine.
func (p *progress) step() {
	if p != nil {
		p.done.Add(1)
	}
}

// close takes the line away.
func (p *progress) close() {
	if p != nil {
		p.tick.Stop()
		p.erase()
	}
}

// await returns what comes from the channel, and shows the line until then.
func await[T any](p *progress, ch <-chan T) T {
	if p == nil {
		return <-ch
	}
	for {
		select {
		case v := <-ch:
			p.erase() // something is going to be printed
			return v
		case <-p.tick.C:
			if time.Since(p.begin) >= progressAfter {
				p.draw()
			}
		}
	}
}

func (p *progress) erase() {
	if p.shown {
		fmt.Fprint(p.c.Stderr, "\r"+eraseLine)
		p.shown = false
	}
}

func (p *progress) draw() {
	text := fmt.Sprintf("%s: %d of %d done, %v", p.what, p.done.Load(), p.total, time.Since(p.begin).Round(time.Second))
	ctx, cancel := context.WithTimeout(p.c.ctx, progressAsk)
	defer cancel()
	// Without an answer the line has less to say.
	if l, err := p.c.daemon().Sessions(ctx, control.SessionQuery{Pending: true}); err == nil {
		text += detail(l)
	}
	width := p.c.Terminal(p.c.Stderr)
	fmt.Fprint(p.c.Stderr, "\r"+cutTo(oneLine(text), max(width-1, 0))+eraseLine)
	p.shown = true
}

// detail says what sessions that are being made or scanned are at.
func detail(l []control.Session) string {
	var units control.Scan
	var trouble string
	for i := range l {
		s := &l[i]
		if s.Scan != nil {
			units.Done += s.Scan.Done
			units.Total += s.Scan.Total
		}
		if s.Pending && s.LastError != "" && trouble == "" {
			trouble = s.LastError
		}
	}
	var b strings.Builder
	if units.Total > 0 {
		fmt.Fprintf(&b, "; %d of %d logical units", units.Done, units.Total)
	}
	if trouble != "" {
		b.WriteString("; trying again: " + trouble)
	}
	return b.String()
}
