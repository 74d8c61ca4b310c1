package compatsysfs

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
)

// patience is how long an operation waits for iscsid's list of sessions.
const patience = 2 * time.Second

// A source keeps the newest tree. Its methods may be called concurrently.
type source struct {
	daemon Daemon
	log    *slog.Logger
	now    func() time.Time
	born   time.Time // the times of our files

	// mu guards what follows, and is held while iscsid is asked: one question at
	// a time, whose answer serves everybody who waits.
	mu       sync.Mutex
	tree     *tree
	sessions []control.Session // what tree was made of
	until    time.Time         // tree counts so long
	lost     bool              // iscsid does not answer
	// kept is what was written to the files that keep it, by path.
	kept map[string]string
}

func newSource(d Daemon, log *slog.Logger) *source {
	return &source{daemon: d, log: log, now: time.Now, born: time.Now(), tree: build(nil), kept: make(map[string]string)}
}

// current returns the tree as it is now. An answer of iscsid counts for as long as it
// took to get, from then on, and is made anew after a change of ours.
func (s *source) current(ctx context.Context) *tree {
	s.mu.Lock()
	defer s.mu.Unlock()
	begun := s.now()
	if begun.Before(s.until) {
		return s.tree
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := s.daemon.Sessions(ctx, control.SessionQuery{})
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return s.tree // a signal to who asked, which says nothing of iscsid
		}
		if !s.lost {
			s.log.Warn("iscsid does not answer, its sessions are shown as lost", "err", err)
		}
		list = abandoned(s.sessions)
	} else if s.lost {
		s.log.Info("iscsid answers again")
	}
	s.lost = err != nil
	if !reflect.DeepEqual(list, s.sessions) {
		s.sessions, s.tree = list, build(list)
		for p := range s.kept {
			if n, _ := s.tree.find(p); n == nil {
				delete(s.kept, p)
			}
		}
	}
	end := s.now()
	s.until = end.Add(end.Sub(begun))
	return s.tree
}

// abandoned is what sessions are like while nobody serves them.
func abandoned(sessions []control.Session) []control.Session {
	out := slices.Clone(sessions)
	for i := range out {
		out[i].SessionState, out[i].ConnState = "FAILED", "TRANSPORT WAIT"
		out[i].Devices = slices.Clone(out[i].Devices)
		for n := range out[i].Devices {
			out[i].Devices[n].State = "blocked"
		}
	}
	return out
}

// text returns what reading the file n at p gives.
func (s *source) text(ctx context.Context, p string, n *node) (string, error) {
	if n.secret.name != "" {
		return n.secret.text(ctx, s.daemon)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if kept, ok := s.kept[p]; ok {
		return kept, nil
	}
	return n.text, nil
}

// write does what writing to the file n at p asks for.
func (s *source) write(ctx context.Context, p string, n *node, text string) error {
	kept, err := n.act.do(ctx, s.daemon, text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = time.Time{} // whatever came of it
	if err == nil && kept != "" {
		s.kept[p] = kept
	}
	if err != nil {
		s.log.Info("request refused", "file", p, "text", strings.TrimSpace(text), "err", err)
	}
	return err
}
