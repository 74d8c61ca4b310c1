package initiator

import (
	"context"
	"errors"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// attendance is what waits for the attendant, the goroutine that deals with
// what sense data tell about the device. It is started when there is something
// and ends when nothing is left; wakeAttendant starts it, Close waits for it.
// Volume.mu protects it.
type attendance struct {
	bits    attention
	lost    scsi.Sense // of the last deferred error
	running bool

	// identified is closed when an attempt to identify the device and to learn
	// its state has ended; failure is then why it did not succeed, nil if it
	// did. Nil if nobody waits.
	identified chan struct{}
	failure    error
}

// release wakes those who wait in awaitIdentified.
func (a *attendance) release(failure error) {
	if a.identified != nil {
		a.failure = failure
		close(a.identified)
		a.identified = nil
	}
}

// attend is note for callers without v.mu.
func (v *Volume) attend(bits attention, sense scsi.Sense) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if bits&attnDeferred != 0 && v.queue.deferred == nil {
		v.queue.deferred = v.wrap("write", &scsi.StatusError{Status: scsi.StatusCheckCondition, Sense: sense})
	}
	v.note(bits, sense)
}

// UnitAttention tells the volume of sense data that came by another way than
// by one of its commands: in an asynchronous message for its logical unit
// (EventAsync). What is no unit attention is ignored.
func (v *Volume) UnitAttention(sense scsi.Sense) {
	if sense.Key == scsi.KeyUnitAttention {
		v.attend(judgeSense(sense).attention, sense)
	}
}

// note hands attentions to the attendant. v.mu is held.
func (v *Volume) note(bits attention, sense scsi.Sense) {
	if bits == 0 || v.closed || v.broken != nil {
		return
	}
	if bits&attnIdentify != 0 {
		v.queue.held = true
	}
	if bits&attnDeferred != 0 {
		v.attn.lost = sense
	}
	v.attn.bits |= bits
	v.wakeAttendant()
}

// wakeAttendant starts the attendant if there is something for it to do. v.mu
// is held.
func (v *Volume) wakeAttendant() {
	if v.attn.running || v.attn.bits == 0 || v.closed {
		return
	}
	v.attn.running = true
	v.running.Add(1)
	go v.attendant()
}

// awaitIdentified waits until the device is known to be the same, or returns
// why it is not.
func (v *Volume) awaitIdentified(ctx context.Context) error {
	v.mu.Lock()
	if v.queue.held && !v.closed && v.broken == nil {
		return v.unlockAndAwait(ctx)
	}
	defer v.mu.Unlock()
	if v.closed {
		return ErrVolumeClosed
	}
	return v.broken
}

// unlockAndAwait releases v.mu and waits for the attempt to identify the
// device that is under way or is started by it.
func (v *Volume) unlockAndAwait(ctx context.Context) error {
	v.wakeAttendant()
	if v.attn.identified == nil {
		v.attn.identified = make(chan struct{})
	}
	identified := v.attn.identified
	v.mu.Unlock()
	select {
	case <-identified:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.attn.failure
}

// attendant deals with attentions until none are left.
func (v *Volume) attendant() {
	defer v.running.Done()
	for {
		v.mu.Lock()
		bits := v.attn.bits
		v.attn.bits = 0
		if bits == 0 || v.closed || v.broken != nil {
			v.attn.running = false
			v.mu.Unlock()
			return
		}
		lost := v.attn.lost
		v.mu.Unlock()
		if !v.handle(bits, lost) {
			return
		}
	}
}

// handle deals with a set of attentions. It returns false, with the attendant
// marked as ended, if the device could not be identified: then nothing is to be
// done until the next request comes.
func (v *Volume) handle(bits attention, lost scsi.Sense) bool {
	identify := bits&attnIdentify != 0
	if identify {
		bits |= attnCapacity | attnMode
	}
	// What our own commands report about what we are looking at is no news.
	p := v.prober
	p.hold = nil
	p.attend = func(more attention, sense scsi.Sense) {
		if more &^= bits; more != 0 {
			v.attend(more, sense)
		}
	}
	if bits&attnDeferred != 0 {
		v.log.Error("the device lost writes that it had answered", "target", p.target, "lun", v.lun, "sense", lost)
		v.emit(VolumeEvent{Type: VolumeDataLost, Err: v.wrap("write", &scsi.StatusError{Status: scsi.StatusCheckCondition, Sense: lost})})
	}
	if identify {
		same, err := v.reidentify(&p)
		if err != nil {
			return v.notIdentified(bits, err)
		}
		if !same {
			return true
		}
	}
	var err error
	if bits&attnCapacity != 0 {
		err = v.resize(&p)
	}
	if bits&attnMode != 0 {
		err = errors.Join(err, v.remode(&p))
	}
	if identify {
		v.resume(err)
	}
	if bits&attnReset != 0 {
		v.log.Info("the device was reset", "target", p.target, "lun", v.lun)
		v.emit(VolumeEvent{Type: VolumeReset})
	}
	if bits&attnThreshold != 0 {
		v.log.Warn("thin provisioning threshold reached: space is getting short", "target", p.target, "lun", v.lun)
		v.emit(VolumeEvent{Type: VolumeSpaceLow})
	}
	if bits&attnAccess != 0 {
		v.log.Info("the access state of the path changed", "target", p.target, "lun", v.lun)
	}
	if bits&attnLUNs != 0 {
		v.emit(VolumeEvent{Type: VolumeLUNsChanged})
	}
	return true
}
