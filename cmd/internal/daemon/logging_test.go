package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

func TestJournalGetsFields(t *testing.T) {
	type entry struct {
		message string
		p       journal.Priority
		vars    map[string]string
	}
	var got []entry
	level := new(slog.LevelVar)
	log := slog.New(newJournalHandler(level, func(m string, p journal.Priority, vars map[string]string) {
		got = append(got, entry{m, p, maps.Clone(vars)})
	}))
	log.With("sid", 3).WithGroup("g").Warn("connection\nlost", "err", errors.New("timed \x1b out"), "next login", 0, slog.Group("x", "y", true))
	log.Debug("not this")
	level.Set(slog.LevelDebug)
	log.Debug("this")
	log.Error("and this")
	want := []entry{
		{`connection?lost sid=3 g.err="timed ? out" g.next login=0 g.x.y=true`, journal.PriWarning, map[string]string{
			"SYSLOG_IDENTIFIER": "iscsid", "ISCSI_SID": "3", "ISCSI_G_ERR": "timed ? out", "ISCSI_G_NEXT_LOGIN": "0", "ISCSI_G_X_Y": "true",
		}},
		{"this", journal.PriDebug, map[string]string{"SYSLOG_IDENTIFIER": "iscsid"}},
		{"and this", journal.PriErr, map[string]string{"SYSLOG_IDENTIFIER": "iscsid"}},
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].message != want[i].message || got[i].p != want[i].p || !maps.Equal(got[i].vars, want[i].vars) {
			t.Errorf("entry %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestLinesWhereThereIsNoJournal(t *testing.T) {
	var b bytes.Buffer
	slog.New(foregroundLog(&b, slog.LevelInfo)).Info("hello", "sid", 1)
	if b.String() != "iscsid: hello sid=1\n" {
		t.Errorf("%q", b.String())
	}
}

func TestLogLevelChangesWhileItRuns(t *testing.T) {
	var b bytes.Buffer
	level := new(slog.LevelVar)
	v := &service{level: level, log: slog.New(newLineHandler(&b, level))}
	if l, err := v.LogLevel(t.Context()); err != nil || l.Level != "info" {
		t.Errorf("%+v, %v", l, err)
	}
	library := slog.New(quieter{v.log.Handler()})
	library.Info("the library's own words")
	if b.Len() != 0 {
		t.Errorf("logged %q at level info", b.String())
	}
	if err := v.SetLogLevel(t.Context(), control.LogLevel{Level: "debug"}); err != nil {
		t.Fatal(err)
	}
	library.Info("the library's own words")
	if want := "iscsid: log level is changed level=debug\niscsid: the library's own words\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	if err := v.SetLogLevel(t.Context(), control.LogLevel{Level: "loud"}); errcode.Of(err) != errcode.Inval {
		t.Errorf("level loud: %v", err)
	}
	if err := (&service{}).SetLogLevel(t.Context(), control.LogLevel{Level: "info"}); errcode.Of(err) != errcode.OpNotSupp {
		t.Errorf("log of somebody else: %v", err)
	}
}
