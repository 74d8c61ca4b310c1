package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// offer opens a unit's volume and attaches it. On failure the unit stays
// listed with the reason, and the next scan tries again.
func (s *supervisor) offer(ctx context.Context, u *unit) {
	u.err = s.tryOffer(ctx, u)
	switch {
	case u.err == nil:
		u.inherited = false
	case ctx.Err() == nil:
		s.log.Error("logical unit is not attached", "lun", u.lun, "err", u.err)
	}
}

func (s *supervisor) tryOffer(ctx context.Context, u *unit) error {
	kind, how, err := s.m.choose(s.set.attach)
	if err != nil {
		return err
	}
	vol, err := s.sess.open(ctx, u.lun, u.info, s.notify)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	s.giveUp(u)
	u.vol, u.geo, u.kind = vol, vol.geometry(), kind
	if u.told == 0 {
		u.told = u.geo.size
	}
	if kind == attachNone {
		return nil
	}
	if u.link, err = byPathName(s.key.Address, s.key.Port, s.key.Target, u.lun); err != nil {
		s.log.Warn("logical unit gets no by-path link", "lun", u.lun, "err", err)
	}
	adopt := u.state.Backend != "" && u.state.Attach == kind
	if adopt && u.state.BlockSize != u.geo.blockSize {
		// The kernel cannot change it, and would send requests that do not fit.
		s.log.Warn("block size of a logical unit has changed, it is attached afresh", "lun", u.lun,
			"was", u.state.BlockSize, "is", u.geo.blockSize)
		s.discard(ctx, u)
		u.state, adopt = unitState{}, false
	}
	if u.state.Backend == "" {
		u.state = unitState{Backend: s.backendID(u.lun), Index: -1}
	}
	spec := s.spec(u)
	u.state.LUN, u.state.Attach, u.state.WWID = uint64(u.lun), kind, u.info.identity()
	u.state.Size, u.state.BlockSize, u.state.ReadOnly = u.geo.size, u.geo.blockSize, u.geo.readOnly

	// From here on the file knows of the device, whatever happens to us.
	s.units[u.lun] = u
	if err := s.save(); err != nil {
		return err
	}
	if kind == attachNBD {
		s.m.udev.put(u.state.Backend, &u.info, u.link)
	}
	created := func(index int) error {
		u.state.Index = index
		return s.save()
	}
	var att attachment
	err = errNoDevice
	if adopt {
		att, err = how.adopt(ctx, spec, u.state.Index)
	}
	if errors.Is(err, errNoDevice) {
		adopt = false
		att, err = how.attach(ctx, spec, created)
	}
	if err != nil {
		if !adopt {
			s.m.udev.remove(u.state.Backend)
			u.state = unitState{} // attach leaves nothing behind
			if serr := s.save(); serr != nil {
				s.log.Warn("state", "err", serr)
			}
		}
		return fmt.Errorf("attach: %w", err)
	}
	u.att = att
	if att.index() != u.state.Index {
		if err := created(att.index()); err != nil {
			s.log.Warn("state", "err", err)
		}
	}
	s.offered(u)
	return nil
}

// offered makes the links to a device that is served.
func (s *supervisor) offered(u *unit) {
	if u.att.name() != "" {
		if err := s.m.links.offer(u.att.name(), u.link, byIDNames(&u.info)); err != nil {
			s.log.Error("device has no by-path link", "device", u.att.path(), "err", err)
			u.link = ""
		}
	}
	s.log.Info("logical unit is attached", "lun", u.lun, "device", u.att.path(), "size", u.geo.size, "block_size", u.geo.blockSize)
}

// undo takes a unit's device away; the unit stays. With flush, dirty pages are
// written first.
func (s *supervisor) undo(u *unit, flush bool) {
	ctx, cancel := context.WithTimeout(context.Background(), s.detachTime())
	defer cancel()
	if u.att == nil && u.state.Backend != "" {
		s.discard(ctx, u)
	}
	if err := s.detach(ctx, u, flush); err != nil {
		s.log.Warn("detach", "lun", u.lun, "device", u.label(), "err", err)
	}
	if u.att != nil {
		s.left = append(s.left, u.att)
		s.log.Info("logical unit is detached", "lun", u.lun, "device", u.att.path())
	}
	s.giveUp(u)
	u.att, u.state, u.inherited = nil, unitState{}, false
	if err := s.save(); err != nil {
		s.log.Warn("state", "err", err)
	}
}

// giveUp closes a unit's volume. That waits for what the unit is doing, for as
// long as the session lets it, so it has a goroutine, which the end of the
// session waits for.
func (s *supervisor) giveUp(u *unit) {
	v := u.vol
	if v == nil {
		return
	}
	u.vol = nil
	s.closing.Go(v.close)
}

// reattach takes up the devices whose service has ended by itself. One that
// was disconnected by someone else stays away until the next scan.
func (s *supervisor) reattach() {
	for _, lun := range s.sortedLUNs() {
		u := s.units[lun]
		if u.att == nil || !u.att.ended() {
			continue
		}
		if since := time.Since(u.reattached); since < s.m.retry {
			// Not for ever at full speed, whatever is wrong.
			select {
			case <-time.After(s.m.retry - since):
			case <-s.ctx.Done():
				return
			}
		}
		u.reattached = time.Now()
		_, how, err := s.m.choose(u.kind)
		var att attachment
		if err == nil {
			att, err = how.adopt(s.ctx, s.spec(u), u.state.Index)
		}
		if err == nil {
			s.log.Warn("connection of a device was lost and is made anew", "lun", lun, "device", att.path())
			s.left = append(s.left, u.att)
			u.att = att
			continue
		}
		s.log.Error("device was disconnected", "lun", lun, "device", u.label(), "err", err)
		s.undo(u, false)
		u.err = err
	}
	s.publish()
}

// waiting reports whether a device of an earlier daemon has not been taken up
// yet.
func (s *supervisor) waiting() bool {
	for _, u := range s.units {
		if u.inherited {
			return true
		}
	}
	return false
}

// drop removes a unit and its device.
func (s *supervisor) drop(u *unit) {
	delete(s.units, u.lun)
	s.undo(u, false)
}

func (s *supervisor) detach(ctx context.Context, u *unit, flush bool) error {
	if u.att == nil {
		return nil
	}
	name := u.att.name()
	s.m.udev.remove(u.state.Backend)
	if name == "" {
		return u.att.detach(ctx, flush, func() {})
	}
	s.m.links.withdraw(name)
	err := u.att.detach(ctx, flush, func() { s.releaseClaim(name) })
	// udev may have been at work on an event from before.
	s.m.links.forget(name, u.link)
	return err
}

// detachTime bounds the writing of dirty pages and the going of a device.
func (s *supervisor) detachTime() time.Duration { return s.set.config.Timeouts.Logout + 5*time.Second }

// atOnce is how many devices of a session are detached at a time.
const atOnce = 16

// eachUnit calls f for all units, several at a time, and waits.
func (s *supervisor) eachUnit(f func(u *unit)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, lun := range s.sortedLUNs() {
		u := s.units[lun]
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(u)
		})
	}
	wg.Wait()
}
