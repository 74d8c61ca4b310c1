package initiator

import (
	"fmt"
)

// reidentify asks the device who it is while all I/O waits. It returns true if
// it is still the same and the I/O goes on. If the device is another one, all
// fails from now on; if it did not answer, what waits fails and the next
// request leads to another attempt.
func (v *Volume) reidentify(p *prober, bits attention) bool {
	err := p.awaitReady(v.ctx, v.lun) // takes the unit attentions in
	var info *LUNInfo
	if err == nil {
		info, err = p.inquire(v.ctx, v.lun)
	}
	if err != nil {
		v.log.Warn("the device could not be identified after a reset", "target", p.target, "lun", v.lun, "err", err)
		v.mu.Lock()
		v.attn.bits |= bits & (attnIdentify | attnCapacity | attnMode | attnLUNs | attnThreshold)
		v.attn.running = false
		v.queue.failAll(err)
		v.attn.release()
		v.unlockAndComplete()
		v.flush()
		return false
	}
	if !info.IsDisk() || !info.Identity.Same(v.info.Identity) {
		v.abandon(&IdentityError{Want: v.info.Identity, Got: info.Identity})
		return true
	}
	v.mu.Lock()
	v.queue.held = v.attn.bits&attnIdentify != 0 // another one in between?
	if !v.queue.held {
		v.attn.release()
	}
	v.queue.dispatch()
	v.unlockAndComplete()
	v.flush()
	if bits&attnReset != 0 {
		v.log.Info("the device was reset", "target", p.target, "lun", v.lun)
		v.emit(VolumeEvent{Type: VolumeReset})
	}
	return true
}

// abandon ends all I/O because the device is not the one it was.
func (v *Volume) abandon(cause error) {
	err := v.prober.fail("identify", v.lun, ErrIdentity, cause)
	v.log.Error("another device at the logical unit number: I/O fails from now on", "target", v.prober.target, "lun", v.lun, "err", cause)
	v.mu.Lock()
	v.broken = err
	v.queue.failAll(err)
	v.attn.release()
	v.unlockAndComplete()
	v.flush()
	v.emit(VolumeEvent{Type: VolumeReplaced, Err: err})
}

// resize reads the capacity and takes it over.
func (v *Volume) resize(p *prober) {
	c, err := p.capacity(v.ctx, v.lun)
	var size int64
	var bs int
	if err == nil {
		size, bs, err = geometryOf(c)
	}
	if err != nil {
		v.log.Warn("the capacity could not be read", "target", p.target, "lun", v.lun, "err", err)
		return
	}
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
	v.log.Info("the device changed its size", "target", p.target, "lun", v.lun, "from", old, "to", size)
	v.emit(VolumeEvent{Type: VolumeResized, OldSize: old, Size: size})
}

// remode reads write protection and caching and takes them over.
func (v *Volume) remode(p *prober) {
	var d diskState
	if err := p.modes(v.ctx, v.lun, &d); err != nil {
		v.log.Warn("the mode pages could not be read", "target", p.target, "lun", v.lun, "err", err)
		return
	}
	v.mu.Lock()
	s := v.state
	changed := s.writeProtect != d.writeProtect || s.writeCache != d.writeCache || s.dpofua != d.dpofua
	s.writeProtect, s.writeCache, s.dpofua = d.writeProtect, d.writeCache, d.dpofua
	v.mu.Unlock()
	if changed {
		v.log.Info("the device changed its mode", "target", p.target, "lun", v.lun,
			"readonly", d.writeProtect, "cache", d.writeCache, "fua", d.dpofua)
		v.emit(VolumeEvent{Type: VolumeModeChanged})
	}
}
