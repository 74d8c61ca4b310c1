package manager

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
)

var _ Manager = (*Client)(nil)

// busyWait is the time between two looks at a login that another program has
// begun. The daemon has no way to wait for somebody else's.
const busyWait = 200 * time.Millisecond

// Connect implements Manager: it uses the daemon's session with the target where
// there is one, through whichever of the portals, and makes it attach a disk that
// it has not seen yet. A new session attaches all disks of the target, as
// iscsiadm's login does; t.Volume and what NewRecord leaves out have no effect.
// An InitiatorName is not needed: the daemon has its own.
//
// The daemon may use another record's settings for a session that exists.
func (c *Client) Connect(ctx context.Context, t initiator.Target) (*Disk, error) {
	if len(t.Portals) == 0 {
		return nil, &initiator.ConfigError{Field: "Portals", Reason: "missing"}
	}
	for {
		s, err := c.find(ctx, t)
		switch {
		case err != nil:
			return nil, err
		case s == nil:
			s, err = c.login(ctx, t)
		}
		switch {
		case err == nil && !s.Pending:
			return c.disk(ctx, s, t)
		case err != nil && !errors.Is(err, ErrSessionExists):
			return nil, err
		}
		// Somebody else is logging in to it right now.
		select {
		case <-time.After(busyWait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Disconnect implements Manager. The daemon's unit is the session: it ends with
// all of its disks, unless one of them is in use.
func (c *Client) Disconnect(ctx context.Context, t initiator.Target) error {
	s, err := c.find(ctx, t)
	if err != nil || s == nil {
		return err
	}
	if err := c.Logout(ctx, s.SID, true); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// find returns the session with a target, which may be one whose login is not
// done, or nil.
func (c *Client) find(ctx context.Context, t initiator.Target) (*Session, error) {
	list, err := c.Sessions(ctx, SessionQuery{Pending: true})
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(list, func(s Session) bool { return s.leadsTo(t) }); i >= 0 {
		return &list[i], nil
	}
	return nil, nil
}

// leadsTo reports whether the session is one that Connect would make for t.
func (s *Session) leadsTo(t initiator.Target) bool {
	return s.Target == t.Name && s.Iface.Name == ifaceName(t) && slices.ContainsFunc(t.Portals, func(p initiator.Portal) bool {
		want := portalOf(p)
		return s.Persistent.Port == want.Port && sameHost(s.Persistent.Address, want.Address)
	})
}

// sameHost compares addresses as addresses and names as text.
func sameHost(a, b string) bool {
	x, err1 := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	return a == b || err1 == nil && err2 == nil && x == y
}

// login tries the portals in order.
func (c *Client) login(ctx context.Context, t initiator.Target) (*Session, error) {
	var failed []error
	for _, p := range t.Portals {
		s, err := c.Login(ctx, &LoginRequest{Record: NewRecord(t, p)})
		if err == nil {
			return s, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil || errors.Is(err, ErrSessionExists) || errors.Is(err, initiator.ErrAuth) || errors.Is(err, ErrNotRunning) {
			break
		}
	}
	return nil, lastOf(failed)
}

// lastOf returns the last error, which says most, with the others before it.
func lastOf(failed []error) error {
	err := failed[len(failed)-1]
	for _, before := range slices.Backward(failed[:len(failed)-1]) {
		err = fmt.Errorf("%w (and before: %v)", err, before) //nolint:errorlint // one cause is enough
	}
	return err
}

// disk finds the LUN of t among the disks of a session, and has the session look
// for it where it is not there.
func (c *Client) disk(ctx context.Context, s *Session, t initiator.Target) (*Disk, error) {
	for rescanned := false; ; rescanned = true {
		i := slices.IndexFunc(s.Devices, func(d Device) bool { return d.LUN == t.LUN })
		switch {
		case i >= 0 && s.Devices[i].Error != "":
			return nil, fmt.Errorf("%s LUN %d: %s", t.Name, t.LUN, s.Devices[i].Error)
		case i >= 0:
			return &Disk{Device: s.Devices[i], SID: s.SID, Target: s.Target}, nil
		case rescanned:
			return nil, fmt.Errorf("%s LUN %d: %w", t.Name, t.LUN, ErrNoLUN)
		}
		r, err := c.Rescan(ctx, s.SID)
		if err != nil {
			return nil, err
		}
		s.Devices = r.Devices
	}
}
