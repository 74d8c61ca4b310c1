package initiator

import (
	"context"
	"fmt"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// Refresh asks the device again who it is, how large and whether it may be
// written, and waits for the answers. I/O waits meanwhile, and fails from then
// on if it is another device. When it returns nil, Size, ReadOnly and Features
// are what the device says now. It is for callers who have reason to think that
// something changed; after a recovery of the session a volume does the same by
// itself.
func (v *Volume) Refresh(ctx context.Context) error {
	v.mu.Lock()
	err := v.broken
	if v.closed {
		err = ErrVolumeClosed
	}
	if err != nil {
		v.mu.Unlock()
		return v.wrap("refresh", err)
	}
	v.note(attnReplaced, scsi.Sense{})
	if err := v.unlockAndAwait(ctx); err != nil {
		return v.wrap("refresh", err)
	}
	return nil
}

// reidentify asks the device who it is while all I/O waits. It returns an
// error if it got no answer, and false if the device is another one: then all
// fails from now on.
func (v *Volume) reidentify(p *prober) (same bool, err error) {
	// The first command takes the unit attentions in.
	if err := p.awaitReady(v.ctx, v.lun); err != nil {
		return false, err
	}
	info, err := p.inquire(v.ctx, v.lun)
	if err != nil {
		return false, err
	}
	if !v.matches(info) {
		v.abandon(&IdentityError{Want: v.info.Identity, Got: info.Identity})
		return false, nil
	}
	return true, nil
}

// resume lets I/O go on after the device was identified.
// err is what is to be told to those who wait.
func (v *Volume) resume(err error) {
	v.mu.Lock()
	v.queue.held = v.attn.bits&attnIdentify != 0 // yet another one in between?
	if !v.queue.held {
		v.attn.release(err)
	}
	v.queue.dispatch()
	v.unlockAndComplete()
	v.flush()
}

// notIdentified fails all that waits, as nobody knows to which device it would
// go. The attentions stay for the next attempt, which the next request starts.
func (v *Volume) notIdentified(bits attention, err error) bool {
	v.log.Warn("the device could not be identified after a reset", "target", v.prober.target, "lun", v.lun, "err", err)
	v.mu.Lock()
	v.attn.bits |= bits &^ attnDeferred
	v.attn.running = false
	v.queue.failAll(err)
	v.attn.release(err)
	v.unlockAndComplete()
	v.flush()
	return false
}

// abandon ends all I/O because the device is not the one it was.
func (v *Volume) abandon(cause error) {
	err := v.wrap("identify", cause)
	v.log.Error("another device at the logical unit number: I/O fails from now on", "target", v.prober.target, "lun", v.lun, "err", cause)
	v.mu.Lock()
	v.broken = err
	v.queue.failAll(err)
	v.attn.release(err)
	v.unlockAndComplete()
	v.flush()
	v.dismissGuard()
	v.emit(VolumeEvent{Type: VolumeReplaced, Err: err})
}

// resize reads the capacity and takes it over.
func (v *Volume) resize(p *prober) error {
	c, err := p.capacity(v.ctx, v.lun)
	var size int64
	var bs int
	if err == nil {
		size, bs, err = geometryOf(c)
	}
	if err != nil {
		v.log.Warn("the capacity could not be read", "target", p.target, "lun", v.lun, "err", err)
		return v.wrap("read capacity", err)
	}
	v.takeCapacity(c, size, bs)
	return nil
}

// takeCapacity takes a capacity over.
func (v *Volume) takeCapacity(c scsi.Capacity, size int64, bs int) {
	if bs != v.blockSize {
		v.abandon(fmt.Errorf("the block size changed from %d to %d: %w", v.blockSize, bs, ErrIdentity))
		return
	}
	v.mu.Lock()
	old := v.state.size
	v.state.size, v.state.capacity = size, c
	v.mu.Unlock()
	if size == old {
		return
	}
	v.log.Info("the device changed its size", "target", v.prober.target, "lun", v.lun, "from", old, "to", size)
	v.emit(VolumeEvent{Type: VolumeResized, OldSize: old, Size: size})
}

// remode reads write protection and caching and takes them over.
func (v *Volume) remode(p *prober) error {
	var d diskState
	if err := p.modes(v.ctx, v.lun, &d); err != nil {
		v.log.Warn("the mode pages could not be read", "target", p.target, "lun", v.lun, "err", err)
		return err
	}
	v.mu.Lock()
	s := v.state
	changed := s.writeProtect != d.writeProtect || s.writeCache != d.writeCache || s.dpofua != d.dpofua
	s.writeProtect, s.writeCache, s.cachingPage, s.dpofua = d.writeProtect, d.writeCache, d.cachingPage, d.dpofua
	v.mu.Unlock()
	if changed {
		v.log.Info("the device changed its mode", "target", p.target, "lun", v.lun,
			"readonly", d.writeProtect, "cache", d.writeCache, "fua", d.dpofua)
		v.emit(VolumeEvent{Type: VolumeModeChanged})
	}
	return nil
}
