package daemon

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// A registry knows the session of each sid. It gives the numbers out and is
// where two logins to the same place meet.
type registry struct {
	// mu guards the fields below, and makes the check for an existing session
	// and the entry of a new one a single step.
	mu       sync.Mutex
	bySID    map[int]*supervisor
	store    *store
	stopping bool
}

func newRegistry(s *store) *registry {
	return &registry{bySID: make(map[int]*supervisor), store: s}
}

// claim enters a session that is about to log in, made by start with the
// numbers it is to have. A session with the same key, whatever state it is in, refuses
// it, unless multiple is set; then limit, if above 0, bounds how many there
// may be.
func (r *registry) claim(key sessionKey, multiple bool, limit int, start func(sid, host int) *supervisor) (*supervisor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return nil, errStopping
	}
	n := 0
	for _, s := range r.bySID {
		if s.key == key {
			n++
		}
	}
	switch {
	case n > 0 && !multiple:
		return nil, refuse(errcode.SessExists, "a session to %s at %s through %s exists or is being made", key.Target, key.Address, key.Iface)
	case multiple && limit > 0 && n >= limit:
		return nil, refuse(errcode.SessExists, "%d of %d sessions to %s at %s through %s exist or are being made", n, limit, key.Target, key.Address, key.Iface)
	}
	sid, host, err := r.store.next()
	if err != nil {
		return nil, refuse(errcode.Internal, "session id: %w", err)
	}
	s := start(sid, host)
	r.bySID[sid] = s
	return s, nil
}

// enter takes a session in that was there before this daemon.
func (r *registry) enter(s *supervisor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bySID[s.sid] = s
}

// forget drops a session that is gone; its key is free again.
func (r *registry) forget(s *supervisor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bySID[s.sid] == s {
		delete(r.bySID, s.sid)
	}
}

// get returns the session, or an error of code 2.
func (r *registry) get(sid int) (*supervisor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.bySID[sid]; s != nil {
		return s, nil
	}
	return nil, refuse(errcode.SessNotFound, "there is no session with sid %d", sid)
}

// all returns the sessions by sid.
func (r *registry) all() []*supervisor {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*supervisor, 0, len(r.bySID))
	for _, s := range r.bySID {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *supervisor) int { return cmp.Compare(a.sid, b.sid) })
	return out
}

// stop refuses logins from here on, ends every session's work and waits until
// each is gone or parked.
func (r *registry) stop(ctx context.Context) {
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	sessions := r.all()
	for _, s := range sessions {
		s.stop()
	}
	for _, s := range sessions {
		select {
		case <-s.done:
		case <-ctx.Done():
			return
		}
	}
}
