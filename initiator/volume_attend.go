package initiator

import (
	"context"
	"fmt"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// A VolumeEventType says what happened to a volume.
type VolumeEventType uint8

// The events of a volume.
const (
	// VolumeResized: the device grew or shrank; OldSize and Size tell. Size is
	// what Volume.Size returns from now on.
	VolumeResized VolumeEventType = iota + 1

	// VolumeReset: the device was reset or switched on, or lost our commands in
	// some other way. It was found to be the same, and the commands were sent
	// again. Writes that were answered but not flushed may be lost if its
	// cache is volatile.
	VolumeReset

	// VolumeReplaced: there is another device at the logical unit number; Err
	// is an *IdentityError. All operations fail from now on.
	VolumeReplaced

	// VolumeLUNsChanged: the target has other logical units than before. All
	// volumes of a session may report it, each once.
	VolumeLUNsChanged

	// VolumeSpaceLow: a thinly provisioned device reached its threshold.
	VolumeSpaceLow

	// VolumeModeChanged: ReadOnly or Features changed.
	VolumeModeChanged

	// VolumeDataLost: the device lost writes that it had answered; Err has the
	// sense data. The next flush fails with Err, too.
	VolumeDataLost
)

// String returns a short name.
func (t VolumeEventType) String() string {
	switch t {
	case VolumeResized:
		return "resized"
	case VolumeReset:
		return "reset"
	case VolumeReplaced:
		return "replaced"
	case VolumeLUNsChanged:
		return "logical units changed"
	case VolumeSpaceLow:
		return "space low"
	case VolumeModeChanged:
		return "mode changed"
	case VolumeDataLost:
		return "data lost"
	}
	return fmt.Sprintf("event %d", uint8(t))
}

// A VolumeEvent is something that happened to a volume. Fields that the type
// does not mention are zero.
type VolumeEvent struct {
	Type          VolumeEventType
	Volume        *Volume
	OldSize, Size int64 // bytes
	Err           error
}

// attendance is what waits for the attendant, the goroutine that deals with
// what sense data tell about the device. It is started when there is something
// and ends when nothing is left; wakeAttendant starts it, Close waits for it.
// Volume.mu protects it.
type attendance struct {
	bits    attention
	lost    scsi.Sense // of the last deferred error
	running bool

	// identified is closed when the device is known to be the same or the
	// volume is of no more use. Nil if nobody waits.
	identified chan struct{}
}

// release wakes those who wait in awaitIdentified.
func (a *attendance) release() {
	if a.identified != nil {
		close(a.identified)
		a.identified = nil
	}
}

// attend is note for callers without v.mu.
func (v *Volume) attend(bits attention, sense scsi.Sense) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if bits&attnDeferred != 0 && v.queue.deferred == nil {
		v.queue.deferred = v.prober.fail("write", v.lun, ErrDevice, &scsi.StatusError{Status: scsi.StatusCheckCondition, Sense: sense})
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

// Revalidate makes the volume ask the device again who it is, how large and
// whether it may be written. I/O waits until the answer is there, and fails if
// it is another device. It is for callers who have reason to think that
// something changed, such as a session that had to log in again; Revalidate
// itself does not wait.
func (v *Volume) Revalidate() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note(attnReplaced, scsi.Sense{})
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

// awaitIdentified waits until the device is known to be the same.
func (v *Volume) awaitIdentified(ctx context.Context) error {
	v.mu.Lock()
	for v.queue.held && !v.closed && v.broken == nil {
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
	}
	defer v.mu.Unlock()
	if v.closed {
		return ErrVolumeClosed
	}
	return v.broken
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

// handle deals with a set of attentions. It returns false if it could not and
// nothing is to be done until the next request comes.
func (v *Volume) handle(bits attention, lost scsi.Sense) bool {
	// What our own commands report about what we are looking at is no news.
	p := v.prober
	p.hold = nil
	looking := bits
	if bits&attnIdentify != 0 {
		looking |= attnIdentify | attnCapacity | attnMode
	}
	p.attend = func(more attention, sense scsi.Sense) {
		if more &^= looking; more != 0 {
			v.attend(more, sense)
		}
	}
	if bits&attnDeferred != 0 {
		err := v.prober.fail("write", v.lun, ErrDevice, &scsi.StatusError{Status: scsi.StatusCheckCondition, Sense: lost})
		v.log.Error("the device lost writes that it had answered", "target", p.target, "lun", v.lun, "sense", lost)
		v.emit(VolumeEvent{Type: VolumeDataLost, Err: err})
	}
	if bits&attnIdentify != 0 {
		if !v.reidentify(&p, bits) {
			return false
		}
	}
	if looking&attnCapacity != 0 {
		v.resize(&p)
	}
	if looking&attnMode != 0 {
		v.remode(&p)
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

// emit calls the owner. Only the attendant does, so there is one call at a
// time.
func (v *Volume) emit(e VolumeEvent) {
	if v.onEvent != nil {
		e.Volume = v
		v.onEvent(e)
	}
}
