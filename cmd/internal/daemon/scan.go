package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// maxUnits bounds the logical units of one session, as the kernel's
// iscsi_tcp bounds them (max_lun): a target can claim any number.
const maxUnits = 512

// scan makes the units what the target has now: new ones are attached,
// vanished ones removed, resized ones resized, and one that is another disk
// under a known number is removed and attached afresh. What cannot be asked
// for stays as it is: only an answer of the target takes a device away.
//
// With known, units that were not there before are left alone: nobody has
// asked for them. Units that were removed by request are left alone, too; who
// asks for a scan clears s.removed first.
func (s *supervisor) scan(ctx context.Context, known bool) (*control.RescanResult, error) {
	defer s.impatient()()
	res := new(control.RescanResult)
	luns, err := s.sess.luns(ctx)
	if err != nil {
		return nil, fmt.Errorf("report LUNs: %w", err)
	}
	slices.Sort(luns)
	luns = slices.Compact(luns)
	if len(luns) > maxUnits {
		s.log.Warn("target reports more logical units than are taken", "reported", len(luns), "taken", maxUnits)
		luns = luns[:maxUnits]
	}
	listed := make(map[pdu.LUN]bool, len(luns))
	var errs []error
	defer s.tellScan(0, 0)
	for i, lun := range luns {
		s.tellScan(i, len(luns))
		listed[lun] = true
		if s.removed[lun] {
			if u := s.units[lun]; u != nil {
				s.drop(u) // a daemon was killed while it removed it
			}
			continue
		}
		if known && s.units[lun] == nil {
			continue
		}
		if err := s.scanUnit(ctx, lun, res); err != nil {
			if ctx.Err() != nil {
				break
			}
			errs = append(errs, fmt.Errorf("lun %v: %w", lun, err))
		}
	}
	if ctx.Err() != nil {
		s.publish()
		return nil, context.Cause(ctx)
	}
	for _, lun := range slices.Sorted(maps.Keys(s.units)) {
		if u := s.units[lun]; !listed[lun] {
			s.log.Info("logical unit is gone", "lun", lun, "device", u.label())
			s.drop(u)
			res.Removed = append(res.Removed, kernelLUN(lun))
		}
	}
	// What the target gives the number to next is another unit.
	maps.DeleteFunc(s.removed, func(lun pdu.LUN, _ bool) bool { return !listed[lun] })
	s.publish()
	s.mu.Lock()
	res.Devices = slices.Clone(s.devices)
	s.mu.Unlock()
	return res, errors.Join(errs...)
}

// logoutPatience is how long a logout waits for the answer to a command of a
// scan before it closes the session under it.
const logoutPatience = 2 * time.Second

// impatient sees to it that a target that does not answer cannot hold up a
// logout, until the returned function is called. A stop of the daemon waits: to
// close the session then would fail requests of devices that are to stay.
func (s *supervisor) impatient() (stop func()) {
	done := make(chan struct{})
	sess := s.sess
	cancel := context.AfterFunc(s.ctx, func() {
		if !errors.Is(context.Cause(s.ctx), errLogout) {
			return
		}
		select {
		case <-done:
		case <-time.After(logoutPatience):
			sess.close()
		}
	})
	return func() {
		close(done)
		cancel()
	}
}

// scanUnit looks at one logical unit that the target has listed.
func (s *supervisor) scanUnit(ctx context.Context, lun pdu.LUN, res *control.RescanResult) error {
	info, err := s.sess.inquire(ctx, lun)
	if err != nil {
		return err
	}
	n := kernelLUN(lun)
	u := s.units[lun]
	if !info.present {
		// Listed, but nothing is there: LUN 0 of a target without one.
		if u != nil {
			s.log.Info("logical unit is gone", "lun", lun, "device", u.label())
			s.drop(u)
			res.Removed = append(res.Removed, n)
		}
		return nil
	}
	switch {
	case u == nil:
		s.units[lun] = s.newUnit(ctx, lun, info)
		res.Added = append(res.Added, n)
		return nil
	case !u.is(info):
		s.log.Warn("another logical unit has taken the number of a known one", "lun", lun, "device", u.label(),
			"was", u.identity(), "is", info.identity())
		s.drop(u)
		s.units[lun] = s.newUnit(ctx, lun, info)
		res.Replaced = append(res.Replaced, n)
		return nil
	}
	u.info = info
	if info.disk && !u.running() && u.kind != attachNone {
		// It failed the last time.
		s.offer(ctx, u)
		if u.running() {
			res.Added = append(res.Added, n)
		}
		return nil
	}
	resized, err := s.refreshUnit(ctx, u, true)
	if resized {
		res.Resized = append(res.Resized, n)
	}
	return err
}

// tellSizes adds those of the units to the answer to a rescan whose sizes are not the
// ones that their user was told: the volumes often learn of it from the target,
// and the devices have the new size, before somebody asks.
func (s *supervisor) tellSizes(res *control.RescanResult, luns ...pdu.LUN) {
	if res == nil {
		return
	}
	for _, lun := range luns {
		u, n := s.units[lun], kernelLUN(lun)
		if u == nil || u.geo.size == u.told {
			continue
		}
		u.told = u.geo.size
		if !slices.Contains(res.Resized, n) {
			res.Resized = append(res.Resized, n)
		}
	}
	slices.Sort(res.Resized)
}

// refresh brings the known units up to date with their volumes; with ask, the
// volumes with the target first.
func (s *supervisor) refresh(ctx context.Context, ask bool) error {
	var errs []error
	for _, lun := range slices.Sorted(maps.Keys(s.units)) {
		if _, err := s.refreshUnit(ctx, s.units[lun], ask); err != nil {
			errs = append(errs, fmt.Errorf("lun %v: %w", lun, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	s.publish()
	return errors.Join(errs...)
}

func (s *supervisor) refreshUnit(ctx context.Context, u *unit, ask bool) (resized bool, err error) {
	if u.vol == nil {
		return false, nil
	}
	if ask {
		err = u.vol.refresh(ctx)
	}
	if errors.Is(err, initiator.ErrIdentity) {
		// Another block size than before, which neither the volume nor the
		// kernel can change, or another disk, which offer finds out.
		s.log.Warn("logical unit is not what it was, it is attached afresh", "lun", u.lun, "device", u.label(), "err", err)
		s.undo(u, false)
		s.offer(ctx, u)
		return true, u.err
	}
	if err != nil {
		return false, err
	}
	was, now := u.geo, u.vol.geometry()
	u.geo = now
	if was.readOnly != now.readOnly {
		s.log.Warn("write protection of a logical unit has changed", "lun", u.lun, "device", u.label(), "read_only", now.readOnly)
	}
	if was.size == now.size || u.att == nil {
		return was.size != now.size, nil
	}
	s.log.Info("size of a logical unit has changed", "lun", u.lun, "device", u.label(), "was", was.size, "is", now.size)
	if err := u.att.resize(ctx, now.size); err != nil {
		return false, fmt.Errorf("resize to %d bytes: %w", now.size, err)
	}
	u.state.Size = now.size
	return true, s.save()
}

// newUnit makes a unit of what the target has listed and offers it if it is
// a disk. Failures are kept with the unit and logged.
func (s *supervisor) newUnit(ctx context.Context, lun pdu.LUN, info unitInfo) *unit {
	u := &unit{lun: lun, info: info, kind: attachNone}
	if !info.disk {
		return u
	}
	u.kind = s.set.attach
	s.offer(ctx, u)
	return u
}

func (u *unit) label() string {
	if u.att != nil {
		return u.att.path()
	}
	return "none"
}
