package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// finish ends the session for the given reason: a stop of the daemon parks it,
// everything else removes it.
func (s *supervisor) finish(cause error) {
	s.failure = cause
	if errors.Is(cause, errStopping) {
		s.park()
		return
	}
	if !errors.Is(cause, errLogout) {
		s.log.Error("session has ended", "err", cause)
	}
	s.teardown()
}

// teardown removes the devices, logs out and forgets the session.
func (s *supervisor) teardown() {
	s.setPhase(phaseLogout)
	// Should we be killed now, the next daemon goes on with this.
	s.ending = true
	if err := s.save(); err != nil {
		s.log.Warn("state", "err", err)
	}
	flush := s.connected()
	if !flush && s.sess != nil {
		// What is in flight would wait for a recovery that no one wants any
		// more; the devices could not go before it.
		s.sess.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.detachTime())
	s.eachUnit(func(u *unit) {
		if err := s.detach(ctx, u, flush); err != nil {
			s.log.Warn("detach", "lun", u.lun, "device", u.label(), "err", err)
		}
	})
	cancel()
	s.releaseClaim("")
	s.discardLeft()
	if s.sess != nil {
		s.quickLogout(s.sess)
	}
	s.waitAttachments()
	if err := s.m.store.remove(s.sid); err != nil {
		s.log.Warn("state file stays behind", "err", err)
	}
	clear(s.units)
	s.publish()
	s.setPhase(phaseGone)
	s.m.reg.forget(s)
	s.log.Info(s.connection() + " is shutdown.")
}

// discardLeft removes kernel devices of units that were never taken up again.
func (s *supervisor) discardLeft() {
	ctx, cancel := context.WithTimeout(context.Background(), s.detachTime())
	defer cancel()
	for _, u := range s.units {
		if u.att == nil && u.state.Backend != "" {
			s.discard(ctx, u)
		}
	}
}

// discard removes a device that is only known from the state file.
func (s *supervisor) discard(ctx context.Context, u *unit) {
	st := u.state
	s.m.udev.remove(st.Backend)
	if st.Attach == attachNBD && st.Index >= 0 {
		s.m.links.forget("nbd"+strconv.Itoa(st.Index), u.link)
	}
	_, how, err := s.m.choose(st.Attach)
	if err == nil && how != nil {
		err = how.discard(ctx, s.sid, st)
	}
	if err != nil {
		s.log.Warn("device of an earlier iscsid", "index", st.Index, "backend", st.Backend, "err", err)
	}
}

// quickLogout logs out and closes. A target that does not answer loses the
// session all the same, as with open-iscsi.
func (s *supervisor) quickLogout(sess session) {
	ctx, cancel := context.WithTimeout(context.Background(), s.set.config.Timeouts.Logout+time.Second)
	defer cancel()
	if sess.info().State == initiator.StateLoggedIn {
		if err := sess.logout(ctx); err != nil {
			s.log.Warn("logout was not answered", "err", err)
		}
	}
	sess.close()
}

// Times of a planned stop: I/O is paused from its start until the next
// daemon's login.
const (
	parkDrain  = 3 * time.Second
	parkLogout = time.Second
)

// park ends the service of the devices, which stay, and the session. The state
// file tells the next daemon. Nothing in flight gets an error: what is not
// answered in time is not answered at all, and the kernel sends it again.
func (s *supervisor) park() {
	drain := s.connected()
	ctx, cancel := context.WithTimeout(context.Background(), parkDrain)
	s.eachUnit(func(u *unit) {
		if u.att != nil {
			u.att.park(ctx, drain)
		}
	})
	cancel()
	if s.sess != nil {
		if s.connected() {
			ctx, cancel := context.WithTimeout(context.Background(), parkLogout)
			if err := s.sess.logout(ctx); err != nil {
				s.log.Debug("logout before a stop", "err", err)
			}
			cancel()
		}
		s.sess.close()
	}
	s.waitAttachments()
	s.releaseClaim("")
	s.setPhase(phaseParked)
	s.m.reg.forget(s)
}

// waitAttachments returns when no goroutine serves a device of the session any
// more. The session is closed by now, so each request has its answer.
func (s *supervisor) waitAttachments() {
	for _, u := range s.units {
		if u.att != nil {
			u.att.wait()
		}
	}
	for _, a := range s.left {
		a.wait()
	}
	for _, u := range s.units {
		s.giveUp(u)
	}
	s.closing.Wait()
}

func (s *supervisor) connected() bool {
	return s.sess != nil && s.sess.info().State == initiator.StateLoggedIn
}

// inherit makes units of what an earlier daemon had on file, so that the
// listing shows them and the first scan finds their devices.
func (s *supervisor) inherit(st *sessionState) {
	for _, us := range st.Units {
		u := &unit{
			lun: pdu.LUN(us.LUN), kind: us.Attach, state: us, inherited: true,
			info: unitInfo{kind: "disk", disk: true}, geo: geometry{size: us.Size, blockSize: us.BlockSize, readOnly: us.ReadOnly},
		}
		if link, err := byPathName(s.key.Address, s.key.Port, s.key.Target, u.lun); err == nil {
			u.link = link
		}
		s.units[u.lun] = u
	}
	for _, lun := range st.Removed {
		s.removed[pdu.LUN(lun)] = true
	}
	s.publish()
}

// save writes the state file.
func (s *supervisor) save() error {
	st := &sessionState{SID: s.sid, Host: s.host, Created: s.created, Name: s.name, Record: s.rec, Ending: s.ending}
	for _, lun := range s.sortedLUNs() {
		if u := s.units[lun]; u.state.Backend != "" {
			st.Units = append(st.Units, u.state)
		}
	}
	for _, lun := range slices.Sorted(maps.Keys(s.removed)) {
		st.Removed = append(st.Removed, uint64(lun))
	}
	return s.m.store.put(st)
}
