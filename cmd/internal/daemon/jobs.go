package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// A job is a request about a session's units, which run does and answers
// between other things. Who asked may have left by then: reply has room.
type job struct {
	do    func() (*control.RescanResult, error)
	reply chan outcome
}

type outcome struct {
	res *control.RescanResult
	err error
}

// ask has run do a job and waits for it or for ctx. connected refuses it while
// the session has no connection.
func (s *supervisor) ask(ctx context.Context, connected bool, do func() (*control.RescanResult, error)) (*control.RescanResult, error) {
	s.mu.Lock()
	p, live := s.phase, s.live
	s.mu.Unlock()
	if p != phaseScan && p != phaseUp || connected && live.info().State != initiator.StateLoggedIn {
		return nil, refuse(errcode.SessionNotConnected, "session %d is not connected", s.sid)
	}
	j := job{do, make(chan outcome, 1)}
	select {
	case s.jobs <- j:
	case <-s.done:
		return nil, refuse(errcode.SessNotFound, "session %d is gone", s.sid)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case out := <-j.reply:
		return out.res, out.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// rescan scans all units, the removed ones too.
func (s *supervisor) rescan(ctx context.Context) (*control.RescanResult, error) {
	return s.ask(ctx, true, func() (*control.RescanResult, error) {
		if len(s.removed) > 0 {
			clear(s.removed)
			if err := s.save(); err != nil {
				s.log.Warn("state", "err", err)
			}
		}
		res, err := s.scan(s.ctx, false)
		s.tellSizes(res, s.sortedLUNs()...)
		return res, err
	})
}

// rescanUnit scans one unit, whether it is known or not. n is the kernel's
// number of it.
func (s *supervisor) rescanUnit(ctx context.Context, n uint64) (*control.RescanResult, error) {
	return s.ask(ctx, true, func() (*control.RescanResult, error) { return s.scanOne(s.ctx, lunFromKernel(n)) })
}

func (s *supervisor) scanOne(ctx context.Context, lun pdu.LUN) (*control.RescanResult, error) {
	defer s.impatient()()
	res := new(control.RescanResult)
	luns, err := s.sess.luns(ctx)
	if err != nil {
		return nil, fmt.Errorf("report LUNs: %w", err)
	}
	if s.removed[lun] {
		delete(s.removed, lun)
		if err := s.save(); err != nil {
			s.log.Warn("state", "err", err)
		}
	}
	u := s.units[lun]
	switch {
	case slices.Contains(luns, lun):
		if u == nil && len(s.units) >= maxUnits {
			return nil, refuse(errcode.Inval, "session %d has %d logical units already", s.sid, maxUnits)
		}
		err = s.scanUnit(ctx, lun, res)
	case u != nil:
		s.log.Info("logical unit is gone", "lun", lun, "device", u.label())
		s.drop(u)
		res.Removed = append(res.Removed, kernelLUN(lun))
	}
	s.tellSizes(res, lun)
	s.publish()
	s.mu.Lock()
	res.Devices = slices.Clone(s.devices)
	s.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("lun %v: %w", lun, err)
	}
	return res, err
}

// removeUnit takes one unit's device away, until somebody asks for a rescan. It
// needs no connection: the paths to a target that is gone are what gets removed.
func (s *supervisor) removeUnit(ctx context.Context, n uint64, safe bool) error {
	_, err := s.ask(ctx, false, func() (*control.RescanResult, error) { return nil, s.takeAway(lunFromKernel(n), safe) })
	return err
}

func (s *supervisor) takeAway(lun pdu.LUN, safe bool) error {
	u := s.units[lun]
	if u == nil {
		return refuse(errcode.NoObjsFound, "session %d has no logical unit %v", s.sid, lun)
	}
	s.claiming.Lock()
	defer s.claiming.Unlock()
	if safe && u.att != nil && u.att.name() != "" {
		switch c, err := claimDevice(u.att.path()); {
		case errors.Is(err, errInUse):
			return refuse(errcode.Busy, "session %d, lun %v: %w", s.sid, lun, err)
		case err == nil:
			c.name = u.att.name()
			s.mu.Lock()
			s.claims = append(s.claims, c)
			s.mu.Unlock()
		}
	}
	// The file first: should we be killed, the next daemon goes on with this.
	s.removed[lun] = true
	if err := s.save(); err != nil {
		s.log.Warn("state", "err", err)
	}
	s.log.Info("logical unit is removed by request", "lun", lun, "device", u.label())
	delete(s.units, lun)
	s.undo(u, s.connected())
	s.publish()
	return nil
}

// lunFromKernel is the inverse of kernelLUN.
func lunFromKernel(n uint64) pdu.LUN { return pdu.LUN(kernelLUN(pdu.LUN(n))) }

func (s *supervisor) sortedLUNs() []pdu.LUN { return slices.Sorted(maps.Keys(s.units)) }
