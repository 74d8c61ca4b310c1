package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// A lineHandler writes each record as one line, "iscsid: message key=value".
// The message comes first because scripts and people know open-iscsi's lines by it.
type lineHandler struct {
	w     *lineWriter
	level slog.Leveler
	attrs string // preformatted " key=value …"
	group string // "a.b."
}

// A quieter passes a library's informational records on only where debugging
// is wanted: the daemon tells the same events in open-iscsi's words.
type quieter struct{ slog.Handler }

func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, l) && (l > slog.LevelInfo || q.Handler.Enabled(ctx, slog.LevelDebug))
}

func (q quieter) WithAttrs(as []slog.Attr) slog.Handler { return quieter{q.Handler.WithAttrs(as)} }
func (q quieter) WithGroup(name string) slog.Handler    { return quieter{q.Handler.WithGroup(name)} }

// A lineWriter makes one Write of each line.
type lineWriter struct {
	mu   sync.Mutex // one line at a time
	emit func(level slog.Level, line []byte)
}

// newLineHandler returns a handler that writes lines to w, each with a new
// line and the "iscsid: " prefix.
func newLineHandler(w io.Writer, level slog.Leveler) slog.Handler {
	return newHandler(level, func(_ slog.Level, line []byte) {
		_, _ = w.Write(append(append([]byte("iscsid: "), line...), '\n'))
	})
}

// newHandler returns a handler that gives each line, without prefix and new
// line, to emit.
func newHandler(level slog.Leveler, emit func(slog.Level, []byte)) slog.Handler {
	return &lineHandler{w: &lineWriter{emit: emit}, level: level}
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	line := h.format(r)
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.w.emit(r.Level, line)
	return nil
}

// format returns the line of a record.
func (h *lineHandler) format(r slog.Record) []byte {
	var b bytes.Buffer
	b.WriteString(clean(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.group, a)
		return true
	})
	return b.Bytes()
}

func (h *lineHandler) WithAttrs(as []slog.Attr) slog.Handler {
	var b bytes.Buffer
	b.WriteString(h.attrs)
	for _, a := range as {
		appendAttr(&b, h.group, a)
	}
	n := *h
	n.attrs = b.String()
	return &n
}

func (h *lineHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.group += name + "."
	return &n
}

// eachAttr calls f for an attribute, or for each of those in a group, with the
// names of its groups before its own. One without a name is left out.
func eachAttr(group string, a slog.Attr, f func(name string, v slog.Value)) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, g := range v.Group() {
			eachAttr(group, g, f)
		}
		return
	}
	if a.Key != "" {
		f(group+a.Key, v)
	}
}

func appendAttr(b *bytes.Buffer, group string, a slog.Attr) {
	eachAttr(group, a, func(name string, v slog.Value) {
		b.WriteByte(' ')
		b.WriteString(name)
		b.WriteByte('=')
		s := clean(v.String())
		if s == "" || strings.ContainsAny(s, " =\"") {
			s = `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
		}
		b.WriteString(s)
	})
}

// clean keeps a line one line: texts of targets may contain anything.
func clean(s string) string {
	if strings.IndexFunc(s, isControl) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return '?'
		}
		return r
	}, s)
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }
