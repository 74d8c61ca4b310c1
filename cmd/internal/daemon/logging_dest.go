package daemon

import (
	"context"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// foregroundLog logs to the journal with fields where standard error is a stream
// to it (JOURNAL_STREAM), else as lines to standard error.
func foregroundLog(stderr io.Writer, level slog.Leveler) slog.Handler {
	lines := newLineHandler(stderr, level)
	if stderr != io.Writer(os.Stderr) {
		return lines // not ours
	}
	if ok, err := journal.StderrIsJournalStream(); err != nil || !ok {
		return lines
	}
	return newJournalHandler(level, func(m string, p journal.Priority, vars map[string]string) {
		if journal.Send(m, p, vars) != nil {
			_, _ = io.WriteString(stderr, "iscsid: "+m+"\n") // the stream may be there all the same
		}
	})
}

// systemLog logs to syslog as a daemon, or nowhere where there is none.
func systemLog(level slog.Leveler) slog.Handler {
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "iscsid")
	if err != nil {
		return slog.DiscardHandler
	}
	// A failure to log has nowhere to go.
	return newHandler(level, func(l slog.Level, line []byte) {
		switch s := string(line); {
		case l >= slog.LevelError:
			_ = w.Err(s)
		case l >= slog.LevelWarn:
			_ = w.Warning(s)
		case l >= slog.LevelInfo:
			_ = w.Info(s)
		default:
			_ = w.Debug(s)
		}
	})
}

// A journalHandler gives each record to the journal: the line that the other logs
// get as the message, and each attribute as a field besides, ISCSI_SID for sid.
type journalHandler struct {
	line   *lineHandler // formats
	fields map[string]string
	send   func(message string, p journal.Priority, vars map[string]string)
}

func newJournalHandler(level slog.Leveler, send func(string, journal.Priority, map[string]string)) slog.Handler {
	return &journalHandler{
		line:   &lineHandler{level: level},
		fields: map[string]string{"SYSLOG_IDENTIFIER": "iscsid"},
		send:   send,
	}
}

func (h *journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.line.Enabled(ctx, l)
}

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	vars := make(map[string]string, len(h.fields)+r.NumAttrs())
	for k, v := range h.fields {
		vars[k] = v
	}
	r.Attrs(func(a slog.Attr) bool {
		addFields(vars, h.line.group, a)
		return true
	})
	p := journal.PriDebug
	switch {
	case r.Level >= slog.LevelError:
		p = journal.PriErr
	case r.Level >= slog.LevelWarn:
		p = journal.PriWarning
	case r.Level >= slog.LevelInfo:
		p = journal.PriInfo
	}
	h.send(string(h.line.format(r)), p, vars)
	return nil
}

func (h *journalHandler) WithAttrs(as []slog.Attr) slog.Handler {
	n := &journalHandler{line: h.line.WithAttrs(as).(*lineHandler), fields: make(map[string]string, len(h.fields)+len(as)), send: h.send}
	for k, v := range h.fields {
		n.fields[k] = v
	}
	for _, a := range as {
		addFields(n.fields, h.line.group, a)
	}
	return n
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.line = h.line.WithGroup(name).(*lineHandler)
	return &n
}

// addFields adds an attribute as a field of the journal.
func addFields(vars map[string]string, group string, a slog.Attr) {
	eachAttr(group, a, func(name string, v slog.Value) {
		vars["ISCSI_"+strings.Map(fieldRune, name)] = clean(v.String())
	})
}

// fieldRune makes a rune one that the name of a journal's field may have.
func fieldRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z':
		return r - 'a' + 'A'
	case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return r
	}
	return '_'
}

// levels are the words for how much is logged.
var levels = []struct {
	word  string
	level slog.Level
}{{"error", slog.LevelError}, {"warn", slog.LevelWarn}, {"info", slog.LevelInfo}, {"debug", slog.LevelDebug}}

// LogLevel implements control.Service.
func (v *service) LogLevel(context.Context) (*control.LogLevel, error) {
	if v.level != nil {
		for _, l := range levels {
			if v.level.Level() == l.level {
				return &control.LogLevel{Level: l.word}, nil
			}
		}
	}
	return nil, refuse(errcode.OpNotSupp, "the level of this log is not ours to know")
}

// SetLogLevel implements control.Service.
func (v *service) SetLogLevel(_ context.Context, to control.LogLevel) error {
	if v.level == nil {
		return refuse(errcode.OpNotSupp, "the level of this log cannot be changed")
	}
	for _, l := range levels {
		if l.word == to.Level {
			v.level.Set(l.level)
			v.log.Log(context.Background(), l.level, "log level is changed", "level", l.word)
			return nil
		}
	}
	return refuse(errcode.Inval, "log level %q: want error, warn, info or debug", to.Level)
}
