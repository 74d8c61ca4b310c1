package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLogIsNotFlooded has something happen without end.
func TestLogIsNotFlooded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(newFloodgate(newLineHandler(&b, slog.LevelInfo))).With("sid", 1)
		lines := func() []string {
			text := strings.TrimSuffix(b.String(), "\n")
			b.Reset()
			if text == "" {
				return nil
			}
			return strings.Split(text, "\n")
		}
		for range gateBurst {
			log.Warn("connection lost")
		}
		if n := len(lines()); n != gateBurst {
			t.Errorf("%d lines of a bad day, want all %d", n, gateBurst)
		}
		for range 1000 {
			log.With("more", 1).Warn("connection lost")
			time.Sleep(10 * time.Millisecond)
		}
		if got := lines(); len(got) > 4 {
			t.Errorf("%d lines in ten seconds", len(got))
		}
		time.Sleep(time.Hour)
		log.Info("operational again")
		got := lines()
		if len(got) != 2 || !strings.Contains(got[0], "more happened than is told sid=1 left_out=") || got[1] != "iscsid: operational again sid=1" {
			t.Errorf("afterwards %q", got)
		}
	})
}

func TestDebuggingIsToldInFull(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newFloodgate(newLineHandler(&b, slog.LevelDebug)))
	for range 2 * gateBurst {
		log.Debug("something")
	}
	if n := strings.Count(b.String(), "\n"); n != 2*gateBurst {
		t.Errorf("%d lines, want %d", n, 2*gateBurst)
	}
}
