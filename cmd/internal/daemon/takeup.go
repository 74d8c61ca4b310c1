package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// takeUp serves the devices of an earlier daemon again, all at once, because
// their users wait. It asks the target for nothing but whether each unit is still
// the one that the device is for. What it cannot take up it leaves to the scan that
// follows, which also finds what has come and gone.
//
// The units' work is done side by side, and touches the volume and the attachment
// of its own unit only; what the units share is changed afterwards.
func (s *supervisor) takeUp(ctx context.Context) {
	defer s.impatient()()
	kind, how, err := s.m.choose(s.set.attach)
	if err != nil || how == nil {
		return
	}
	var mu sync.Mutex // guards taken
	var taken []*unit
	s.eachUnit(func(u *unit) {
		if !u.inherited || u.state.Attach != kind {
			return
		}
		err := s.adopt(ctx, u, how)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, errNoDevice) {
				s.log.Warn("device is not taken up yet", "lun", u.lun, "index", u.state.Index, "err", err)
			}
			return
		}
		mu.Lock()
		defer mu.Unlock()
		taken = append(taken, u)
	})
	for _, u := range taken {
		if u.kind == attachNBD {
			s.m.udev.put(u.state.Backend, &u.info, u.link)
		}
		s.offered(u)
	}
	if len(taken) > 0 {
		if err := s.save(); err != nil {
			s.log.Warn("state", "err", err)
		}
	}
	s.publish()
}

// adopt opens an inherited unit and takes over its device. On failure the unit is
// what it was.
func (s *supervisor) adopt(ctx context.Context, u *unit, how attacher) error {
	vol, err := s.sess.open(ctx, u.lun, unitInfo{}, s.notify)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	info := vol.info()
	if !u.is(info) {
		s.closing.Go(vol.close)
		return errNoDevice // the scan says what is there now
	}
	if vol.geometry().blockSize != u.state.BlockSize {
		s.closing.Go(vol.close)
		return errNoDevice // the scan attaches it afresh
	}
	was := *u
	u.info, u.vol, u.geo, u.kind = info, vol, vol.geometry(), u.state.Attach
	u.told = u.geo.size
	att, err := how.adopt(ctx, s.spec(u), u.state.Index)
	if err != nil {
		*u = was
		s.closing.Go(vol.close)
		return err
	}
	u.att, u.inherited, u.err = att, false, nil
	u.state.Index = att.index()
	u.state.Size, u.state.BlockSize, u.state.ReadOnly = u.geo.size, u.geo.blockSize, u.geo.readOnly
	return nil
}
