package manager

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// An EventType says what has changed between two looks at the sessions.
type EventType uint8

// What Watch reports.
const (
	SessionUp       EventType = iota + 1 // there is a new session
	SessionDown                          // a session is gone
	SessionLost                          // a session has lost its connection, and tries to get it back
	SessionRestored                      // it has its connection again
	DiskAdded                            // a session has a new disk
	DiskRemoved                          // a disk is gone
	DiskResized                          // a disk has another size than before
	DiskReplaced                         // another disk is at the LUN
	ManagerLost                          // the daemon does not answer; Err says why
	ManagerRestored                      // it answers again
)

// String returns a short name.
func (t EventType) String() string {
	names := [...]string{
		"", "session up", "session down", "session lost", "session restored",
		"disk added", "disk removed", "disk resized", "disk replaced", "manager lost", "manager restored",
	}
	if int(t) >= len(names) || t == 0 {
		return fmt.Sprintf("event %d", uint8(t))
	}
	return names[t]
}

// An Event is a change of the sessions of a Manager and their disks.
type Event struct {
	Type    EventType
	Session Session // as it is now, or was last; zero for ManagerLost and ManagerRestored
	Disk    Device  // of events of disks: as it is now, or was last
	OldSize int64   // of DiskResized: bytes before
	Err     error   // of ManagerLost
}

// DefaultInterval is the time between two looks of Watch.
const DefaultInterval = time.Second

// Watch calls f for every change of m's sessions and their disks until ctx ends,
// and returns the cause of that. What is there at the beginning is reported as
// new, so a program needs nothing but Watch to know the state of affairs. It looks
// every interval (0 means DefaultInterval): what comes and goes in between is not
// seen, and nothing that lasts is missed. The calls come one after another, from
// the goroutine that called Watch.
//
// When the first look fails, Watch returns its error. Later, a daemon that is
// restarted for example, is reported and waited for.
func Watch(ctx context.Context, m Manager, interval time.Duration, f func(Event)) error {
	if interval <= 0 {
		interval = DefaultInterval
	}
	var before []Session
	known, lost := false, false
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		now, err := m.Sessions(ctx, SessionQuery{})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !known:
			return err
		case err != nil && !lost:
			lost = true
			f(Event{Type: ManagerLost, Err: err})
		case err == nil:
			if lost {
				lost = false
				f(Event{Type: ManagerRestored})
			}
			compare(before, now, f)
			before, known = now, true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// compare reports what has changed: what is gone first.
func compare(before, now []Session, f func(Event)) {
	byKey(before, now, func(s Session) sessionKey { return sessionKey{s.SID, s.Target} }, cmpSession, func(old, s *Session) {
		switch {
		case s == nil:
			for _, d := range old.Devices {
				f(Event{Type: DiskRemoved, Session: *old, Disk: d})
			}
			f(Event{Type: SessionDown, Session: *old})
			return
		case old == nil:
			f(Event{Type: SessionUp, Session: *s})
			old = &Session{ConnState: ConnLoggedIn}
		}
		if was, is := old.ConnState == ConnLoggedIn, s.ConnState == ConnLoggedIn; was != is {
			t := SessionLost
			if is {
				t = SessionRestored
			}
			f(Event{Type: t, Session: *s})
		}
		compareDisks(old, s, f)
	})
}

func compareDisks(old, s *Session, f func(Event)) {
	byKey(old.Devices, s.Devices, func(d Device) uint64 { return d.LUN }, cmp.Compare, func(was, is *Device) {
		switch {
		case is == nil:
			f(Event{Type: DiskRemoved, Session: *s, Disk: *was})
		case was == nil:
			f(Event{Type: DiskAdded, Session: *s, Disk: *is})
		case was.WWID != is.WWID:
			f(Event{Type: DiskReplaced, Session: *s, Disk: *is})
		case was.Size != is.Size:
			f(Event{Type: DiskResized, Session: *s, Disk: *is, OldSize: was.Size})
		}
	})
}

// A sessionKey tells sessions apart. A daemon that was started anew may use a
// SID again.
type sessionKey struct {
	sid    int
	target string
}

func cmpSession(a, b sessionKey) int {
	return cmp.Or(cmp.Compare(a.sid, b.sid), cmp.Compare(a.target, b.target))
}

// byKey calls f for each key of two lists with what each has, first for what is
// only in the old one. The keys of a list are different from each other.
func byKey[T any, K comparable](before, now []T, key func(T) K, order func(a, b K) int, f func(before, now *T)) {
	find := func(list []T, k K) *T {
		if i := slices.IndexFunc(list, func(v T) bool { return key(v) == k }); i >= 0 {
			return &list[i]
		}
		return nil
	}
	sorted := func(list []T) []T {
		return slices.SortedFunc(slices.Values(list), func(a, b T) int { return order(key(a), key(b)) })
	}
	for _, v := range sorted(before) {
		if find(now, key(v)) == nil {
			f(&v, nil)
		}
	}
	for _, v := range sorted(now) {
		f(find(before, key(v)), &v)
	}
}
