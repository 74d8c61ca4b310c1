package iscsiadm_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/iscsiadm"
)

// slowLab has a target that lets logins wait until the progress line has been
// shown, or for two seconds where it must not show.
func slowLab(t *testing.T, stderr *watchedBuffer) *lab {
	l := newLab(t)
	l.mustRun(discovery...)
	connect := l.daemon.Connect
	l.daemon.Connect = func(ctx context.Context, s *control.Session, rec map[string]string) error {
		select {
		case <-stderr.shown:
		case <-time.After(20 * time.Second):
			t.Error("no progress is shown")
		case <-ctx.Done():
			return ctx.Err()
		}
		return connect(ctx, s, rec)
	}
	return l
}

// A watchedBuffer tells when a progress line has been written to it. It is
// written to by one goroutine.
type watchedBuffer struct {
	bytes.Buffer
	shown chan struct{}
	told  bool
}

func (w *watchedBuffer) Write(p []byte) (int, error) {
	if !w.told && bytes.Contains(p, []byte(" done, ")) {
		w.told = true
		close(w.shown)
	}
	return w.Buffer.Write(p)
}

func TestProgressIsShownOnATerminalAndLeavesNothing(t *testing.T) {
	stderr := &watchedBuffer{shown: make(chan struct{})}
	l := slowLab(t, stderr)
	var stdout bytes.Buffer
	env := l.env
	env.Args = []string{"iscsiadm", "-m", "node", "-T", tg1, "-l"}
	env.Stdout, env.Stderr = &stdout, stderr
	env.Terminal = func(w io.Writer) int {
		if w == io.Writer(stderr) {
			return 40
		}
		return 0
	}
	if code := iscsiadm.New(env).Run(t.Context()); code != 0 {
		t.Errorf("code %d", code)
	}
	text := stderr.String()
	if !strings.HasPrefix(text, "\rLogging in: 0 of 1 done, ") || !strings.HasSuffix(text, "\r\x1b[K") {
		t.Errorf("standard error has %q, want lines that are taken away in the end", text)
	}
	for _, line := range strings.Split(text, "\r") {
		if len(strings.TrimSuffix(line, "\x1b[K")) > 39 {
			t.Errorf("%q is too wide", line)
		}
	}
	if strings.ContainsAny(stdout.String(), "\r\x1b") || !strings.HasSuffix(stdout.String(), "successful.\n") {
		t.Errorf("standard output has %q", stdout.String())
	}
}
