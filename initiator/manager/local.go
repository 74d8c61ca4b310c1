//go:build linux

package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/attach"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/pdu"
)

// LocalOptions set up a Local; the zero value is usable.
type LocalOptions struct {
	// Attach is how disks are offered: AttachNBD, AttachSocket or AttachNone.
	// Empty means AttachNBD where the kernel has it and else AttachSocket, as
	// iscsid does.
	Attach string

	// Dir is the directory of the sockets, SID-LUN.sock. It must exist where
	// sockets are used.
	Dir string

	// Device are the options of the devices.
	Device attach.Options
}

// A Local is a Manager without a daemon: sessions and devices are this process's,
// and end with it. A session has the disks that Connect was called for, and ends
// with the last of them. Close ends all of them. Package attach says what a process must
// heed that serves its own machine's disks.
//
// Calls for one target wait for each other, as long as their contexts last; calls
// for different targets do not.
type Local struct {
	o LocalOptions

	mu   sync.Mutex // protects what follows
	last int        // SID
	// sessions has an entry for each target that was ever asked for, which keeps
	// its SID.
	sessions map[localKey]*localSession
}

var _ Manager = (*Local)(nil)

// NewLocal returns a Local without sessions.
func NewLocal(o LocalOptions) *Local {
	return &Local{o: o, sessions: make(map[localKey]*localSession)}
}

// A localKey is what makes two targets share a session.
type localKey struct{ target, iface, initiator string }

// A localSession is a session with a target, made or to be made.
type localSession struct {
	sid  int
	turn chan struct{} // capacity 1: who has put something in may change the rest

	mu      sync.Mutex // protects what follows, for those who only look
	session *initiator.Session
	target  initiator.Target
	disks   map[uint64]*localDisk
	known   []pdu.LUN // of the last rescan
}

type localDisk struct {
	vol *initiator.Volume
	dev *attach.Device // nil with AttachNone
}

// take waits for the turn to change a target's session. The caller calls done.
func (m *Local) take(ctx context.Context, t initiator.Target) (s *localSession, done func(), err error) {
	key := localKey{t.Name, ifaceName(t), t.InitiatorName}
	m.mu.Lock()
	s = m.sessions[key]
	if s == nil {
		m.last++
		s = &localSession{sid: m.last, turn: make(chan struct{}, 1), disks: make(map[uint64]*localDisk)}
		m.sessions[key] = s
	}
	m.mu.Unlock()
	done, err = s.take(ctx)
	return s, done, err
}

func (s *localSession) take(ctx context.Context) (done func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Connect implements Manager.
func (m *Local) Connect(ctx context.Context, t initiator.Target) (*Disk, error) {
	s, done, err := m.take(ctx, t)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := s.login(ctx, t); err != nil {
		return nil, err
	}
	d := s.disks[t.LUN]
	if d == nil {
		if d, err = m.open(ctx, s, t); err != nil {
			if len(s.disks) == 0 {
				_ = s.logout(context.WithoutCancel(ctx)) // of no use to anybody
			}
			return nil, err
		}
		s.mu.Lock()
		s.disks[t.LUN] = d
		s.mu.Unlock()
	}
	return &Disk{Device: d.device(), SID: s.sid, Target: t.Name}, nil
}

// login makes the session unless there is one. One that has ended by itself is
// replaced, and its devices, which serve nobody any more, are removed. It counts as
// ended from its EventClosed on, which its Done follows a little later.
func (s *localSession) login(ctx context.Context, t initiator.Target) error {
	if s.session != nil {
		if s.session.Info().State != initiator.StateClosed {
			return nil
		}
		if err := s.logout(ctx); err != nil {
			return err
		}
	}
	session, err := initiator.DialAny(ctx, t)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session, s.target, s.known = session, t, nil
	return nil
}

// open opens and attaches a disk.
func (m *Local) open(ctx context.Context, s *localSession, t initiator.Target) (*localDisk, error) {
	vol, err := s.session.OpenVolumeWith(ctx, pdu.LUNFromNumber(t.LUN), t.Volume)
	var other *initiator.NotADiskError
	switch {
	case errors.Is(err, initiator.ErrNoDevice), errors.As(err, &other):
		return nil, fmt.Errorf("%w: %w", ErrNoLUN, err)
	case err != nil:
		return nil, err
	}
	d := &localDisk{vol: vol}
	how := m.o.Attach
	if how == AttachNBD || how == "" {
		d.dev, err = attach.Kernel(ctx, vol, m.o.Device)
		if how == "" && errors.Is(err, nbd.ErrNotSupported) {
			how = AttachSocket
		}
	}
	if how == AttachSocket {
		d.dev, err = attach.Socket(ctx, vol, filepath.Join(m.o.Dir, fmt.Sprintf("%d-%d.sock", s.sid, t.LUN)), m.o.Device)
	}
	if err != nil {
		_ = vol.Close() // has no error
		return nil, err
	}
	return d, nil
}

// Disconnect implements Manager.
func (m *Local) Disconnect(ctx context.Context, t initiator.Target) error {
	s, done, err := m.take(ctx, t)
	if err != nil {
		return err
	}
	defer done()
	if err := s.detach(ctx, t.LUN, false); err != nil {
		return err
	}
	if len(s.disks) > 0 {
		return nil
	}
	return s.logout(ctx)
}

// detach removes a disk, with force whoever uses it.
func (s *localSession) detach(ctx context.Context, lun uint64, force bool) error {
	d := s.disks[lun]
	if d == nil {
		return nil
	}
	if d.dev != nil {
		end := d.dev.Detach
		if force {
			end = d.dev.Discard
		}
		if err := end(ctx); errors.Is(err, attach.ErrInUse) {
			return fmt.Errorf("%w: %w", ErrInUse, err)
		} else if err != nil {
			return err
		}
	}
	_ = d.vol.Close() // has no error
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.disks, lun)
	return nil
}

// logout ends the session and what is left of its disks.
func (s *localSession) logout(ctx context.Context) error {
	if s.session == nil {
		return nil
	}
	for lun := range s.disks {
		if err := s.detach(ctx, lun, true); err != nil {
			return err
		}
	}
	session := s.session
	s.mu.Lock()
	s.session = nil
	s.mu.Unlock()
	return session.Logout(ctx)
}

// Close disconnects everything. A disk in use is left as it is, with its session:
// ErrInUse. The error is the first one; Close may be called again.
func (m *Local) Close(ctx context.Context) error {
	var first error
	for _, s := range m.list() {
		first = cmp.Or(first, s.close(ctx))
	}
	return first
}

func (s *localSession) close(ctx context.Context) error {
	done, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	var first error
	for lun := range s.disks {
		first = cmp.Or(first, s.detach(ctx, lun, false))
	}
	if len(s.disks) > 0 {
		return first
	}
	return cmp.Or(first, s.logout(ctx))
}

// list returns the sessions, those to be made included, ordered by SID.
func (m *Local) list() []*localSession {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*localSession
	for _, s := range m.sessions {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *localSession) int { return cmp.Compare(a.sid, b.sid) })
	return all
}

// Sessions implements Manager. It never waits for a login that is going on.
func (m *Local) Sessions(context.Context, SessionQuery) ([]Session, error) {
	var all []Session
	for _, s := range m.list() {
		if v, ok := s.view(); ok {
			all = append(all, v)
		}
	}
	return all, nil
}

// Rescan implements Manager. It reports units that Connect was not called for,
// too; the first rescan of a session reports all that have no device as added.
func (m *Local) Rescan(ctx context.Context, sid int) (*RescanResult, error) {
	all := m.list()
	i := slices.IndexFunc(all, func(s *localSession) bool { return s.sid == sid })
	if i < 0 {
		return nil, fmt.Errorf("session %d: %w", sid, ErrNotFound)
	}
	s := all[i]
	done, err := s.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if s.session == nil {
		return nil, fmt.Errorf("session %d: %w", sid, ErrNotFound)
	}
	return s.rescan(ctx)
}

func (s *localSession) rescan(ctx context.Context) (*RescanResult, error) {
	luns, err := s.session.LUNs(ctx)
	if err != nil {
		return nil, err
	}
	r := &RescanResult{}
	number := func(l pdu.LUN) uint64 {
		if n, ok := l.Number(); ok {
			return n
		}
		return uint64(l)
	}
	for _, l := range luns {
		if !slices.Contains(s.known, l) && s.disks[number(l)] == nil {
			r.Added = append(r.Added, number(l))
		}
	}
	for _, l := range s.known {
		if !slices.Contains(luns, l) {
			r.Removed = append(r.Removed, number(l))
		}
	}
	for lun, d := range s.disks {
		size := d.vol.Size()
		switch err := d.vol.Refresh(ctx); {
		case errors.Is(err, initiator.ErrIdentity):
			r.Replaced = append(r.Replaced, lun)
		case err == nil && d.vol.Size() != size:
			r.Resized = append(r.Resized, lun)
		}
	}
	slices.Sort(r.Resized)
	slices.Sort(r.Replaced)
	s.mu.Lock()
	s.known = luns
	s.mu.Unlock()
	v, _ := s.view()
	r.Devices = v.Devices
	return r, nil
}
