package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A stuckWriter holds every write up until it is let go.
type stuckWriter struct {
	entered chan struct{} // receives when a write has begun
	free    chan struct{} // closed to let writes go
	bytes.Buffer
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	select {
	case w.entered <- struct{}{}:
	default:
	}
	<-w.free
	return w.Buffer.Write(p)
}

func TestAStuckLogHoldsNobodyUp(t *testing.T) {
	w := &stuckWriter{entered: make(chan struct{}, 1), free: make(chan struct{})}
	q := newLogQueue()
	log := slog.New(q.handler(newLineHandler(w, slog.LevelInfo))).With("sid", 1)
	log.Info("first")
	<-w.entered // the goroutine holds it
	for i := range logBacklog + 5 {
		log.Info(fmt.Sprint("n", i))
	}
	q.close(time.Millisecond) // does not wait for ever
	close(w.free)
	<-q.done
	text := w.String()
	if !strings.HasPrefix(text, "iscsid: first sid=1\niscsid: 5 messages were dropped: the log was too slow") {
		t.Errorf("the log begins %q", text[:min(len(text), 100)])
	}
	if n := strings.Count(text, "\n"); n != logBacklog+2 {
		t.Errorf("%d lines, want %d", n, logBacklog+2)
	}
}

func TestLogIsWholeWhenItIsClosed(t *testing.T) {
	var b bytes.Buffer
	q := newLogQueue()
	log := slog.New(q.handler(newLineHandler(&b, slog.LevelInfo)))
	for i := range 100 {
		log.Info(fmt.Sprint(i))
	}
	q.close(time.Minute)
	if n := strings.Count(b.String(), "\n"); n != 100 {
		t.Errorf("%d lines, want 100", n)
	}
}
