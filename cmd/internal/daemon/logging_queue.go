package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// logBacklog is how many records wait for a slow log at most; a storm of lost
// connections is a few for each session.
const logBacklog = 1024

// logEnd is how long the end of the process waits for the log.
const logEnd = 2 * time.Second

// A logQueue keeps those who log from waiting for the log. The journal or a file
// behind standard error can be on a disk that iscsid serves: it cannot take a
// message while that disk waits for its session, and the session, if it waited for
// the log, would never come back. What does not fit is dropped and counted.
//
// Its goroutine writes; close ends it.
type logQueue struct {
	entries chan logEntry
	dropped atomic.Uint64
	stop    chan struct{} // closed by close
	once    sync.Once
	done    chan struct{} // closed by the goroutine
}

type logEntry struct {
	to slog.Handler
	r  slog.Record
}

func newLogQueue() *logQueue {
	q := &logQueue{entries: make(chan logEntry, logBacklog), stop: make(chan struct{}), done: make(chan struct{})}
	go q.run()
	return q
}

// handler returns a handler that gives its records to next through the queue.
func (q *logQueue) handler(next slog.Handler) slog.Handler { return queuedHandler{next, q} }

func (q *logQueue) run() {
	defer close(q.done)
	for {
		select {
		case e := <-q.entries:
			q.write(e)
		case <-q.stop:
			for {
				select {
				case e := <-q.entries:
					q.write(e)
				default:
					return
				}
			}
		}
	}
}

func (q *logQueue) write(e logEntry) {
	_ = e.to.Handle(context.Background(), e.r) // a failure to log has nowhere to go
	if n := q.dropped.Swap(0); n > 0 {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, fmt.Sprintf("%d messages were dropped: the log was too slow", n), 0)
		_ = e.to.Handle(context.Background(), r)
	}
}

// close writes what is left, for at most limit, and ends the goroutine unless the
// log holds it up.
func (q *logQueue) close(limit time.Duration) {
	q.once.Do(func() { close(q.stop) })
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-q.done:
	case <-t.C:
	}
}

// A queuedHandler is a handler behind a logQueue.
type queuedHandler struct {
	next slog.Handler
	q    *logQueue
}

func (h queuedHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h queuedHandler) Handle(_ context.Context, r slog.Record) error {
	select {
	case h.q.entries <- logEntry{h.next, r.Clone()}:
	default:
		h.q.dropped.Add(1)
	}
	return nil
}

func (h queuedHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return queuedHandler{h.next.WithAttrs(as), h.q}
}

func (h queuedHandler) WithGroup(name string) slog.Handler {
	return queuedHandler{h.next.WithGroup(name), h.q}
}
