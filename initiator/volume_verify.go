package initiator

import (
	"context"
	"fmt"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// postGuard makes the volume one of a session, which from now on has it verify
// the device after each new login. It returns false if the session has logged
// in since then.
func (v *Volume) postGuard(s *Session, since *group) bool {
	g := &guard{lun: v.lun, verify: v.verify}
	for i := range v.queue.tasks {
		v.queue.tasks[i].task.guard = g
	}
	v.session, v.guard = s, g
	v.port = guardedPort{s, g}
	v.prober.port = v.port
	return s.post(g, since)
}

// dismissGuard ends that.
func (v *Volume) dismissGuard() {
	if v.guard != nil {
		v.session.dismiss(v.guard)
	}
}

// verify finds out whether the device is the one it was, and how large it is
// now, and gives the session its verdict. Nothing but the answers counts:
// whoever is busy or not ready does not give any, and is left to the attendant,
// who has the patience.
func (v *Volume) verify(ctx context.Context, port taskPort) error {
	v.mu.Lock()
	broken, was := v.broken, v.state.size
	v.mu.Unlock()
	if broken != nil {
		return broken
	}
	var seen attention
	p := v.prober
	p.port, p.patience, p.hold = port, Immediately, nil
	p.attend = func(more attention, sense scsi.Sense) {
		seen |= more
		v.attend(more&attnDeferred, sense)
	}
	info, c, err := p.confirm(ctx, v.info)
	if ctx.Err() != nil {
		return context.Cause(ctx) // the connection is lost
	}
	var size int64
	var bs int
	switch {
	case info != nil && !v.matches(info):
		v.abandon(&IdentityError{Want: v.info.Identity, Got: info.Identity})
	case err != nil:
	default:
		if size, bs, err = geometryOf(c); err != nil {
			break
		}
		if size != was && v.info.Identity.IsZero() {
			// All that is known of the device is that it was of another size.
			v.abandon(fmt.Errorf("the size changed from %d to %d, and nothing else identifies the device: %w", was, size, ErrIdentity))
			break
		}
		v.takeCapacity(c, size, bs)
	}
	v.mu.Lock()
	broken = v.broken
	v.mu.Unlock()
	switch {
	case broken != nil:
		return broken
	case err != nil:
		v.log.Warn("the device could not be identified after a new login", "target", p.target, "lun", v.lun, "err", err)
		v.attend(attnReplaced, scsi.Sense{}) // hold, and try again with patience
		return err
	}
	// What could not matter to the verdict is asked for while I/O goes on.
	v.attend(seen&^(attnIdentify|attnCapacity|attnDeferred)|attnMode, scsi.Sense{})
	if seen&attnReset != 0 {
		v.log.Info("the device was reset", "target", p.target, "lun", v.lun)
		v.emit(VolumeEvent{Type: VolumeReset})
	}
	return nil
}

// matches reports whether a device can be the one that the volume was opened
// on. One that had something to tell it from others and has nothing now is not.
func (v *Volume) matches(info *LUNInfo) bool {
	was, is := v.info.Identity, info.Identity
	return info.IsDisk() && is.Same(was) && is.IsZero() == was.IsZero()
}
