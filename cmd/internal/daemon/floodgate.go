package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Bounds of the lines of a session: a bad day is told in full, and what goes on
// without end, whatever a target may think of, by a line every few seconds.
const (
	gateBurst = 600
	gateEvery = 5 * time.Second
)

// A floodgate passes on the records of one session, as long as there are not too
// many of them. What it leaves out is counted, and told before the next one that it
// passes on. Where debugging is wanted, all pass.
type floodgate struct {
	slog.Handler
	g *gate
}

// A gate is the state that a floodgate shares with those derived from it.
type gate struct {
	mu    sync.Mutex // guards what follows
	left  int        // records that may pass at once
	since time.Time  // when left was last added to
	shut  int        // records left out
}

func newFloodgate(h slog.Handler) floodgate {
	return floodgate{h, &gate{left: gateBurst, since: time.Now()}}
}

// Handle implements slog.Handler.
func (f floodgate) Handle(ctx context.Context, r slog.Record) error {
	if !f.Enabled(ctx, slog.LevelDebug) {
		pass, shut := f.g.take(time.Now())
		if !pass {
			return nil
		}
		if shut > 0 {
			more := slog.NewRecord(r.Time, slog.LevelWarn, "more happened than is told", 0)
			more.AddAttrs(slog.Int("left_out", shut))
			if err := f.Handler.Handle(ctx, more); err != nil {
				return err
			}
		}
	}
	return f.Handler.Handle(ctx, r)
}

// take asks for a record to pass, and returns how many were left out before it.
func (g *gate) take(now time.Time) (pass bool, shut int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := now.Sub(g.since) / gateEvery; n > 0 {
		g.left = int(min(int64(g.left)+int64(n), gateBurst))
		g.since = g.since.Add(n * gateEvery)
	}
	if g.left == 0 {
		g.shut++
		return false, 0
	}
	g.left--
	shut, g.shut = g.shut, 0
	return true, shut
}

// WithAttrs implements slog.Handler.
func (f floodgate) WithAttrs(as []slog.Attr) slog.Handler {
	return floodgate{f.Handler.WithAttrs(as), f.g}
}

// WithGroup implements slog.Handler.
func (f floodgate) WithGroup(name string) slog.Handler {
	return floodgate{f.Handler.WithGroup(name), f.g}
}
