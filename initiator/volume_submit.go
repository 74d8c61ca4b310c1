package initiator

import (
	"errors"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// Submit queues a request. It never blocks; errors come through RequestDone.
// Requests need a Kick to be sent: one for any number of them.
func (v *Volume) Submit(r *Request) {
	v.mu.Lock()
	v.asOf = v.together.of(v.clock)
	v.enqueue(r)
	v.asOf = 0
	v.mu.Unlock()
}

// Kick sends what Submit queued, and gives back requests that needed no
// command: those that are invalid or have nothing to do.
func (v *Volume) Kick() {
	v.mu.Lock()
	kick := v.queue.unsent
	v.queue.unsent = false
	v.together.forget()
	if v.queue.done.empty() {
		v.mu.Unlock()
		if kick {
			v.port.Kick()
		}
		return
	}
	v.queue.takeDelivery()
	done := v.queue.takeDone()
	v.mu.Unlock()
	if kick {
		v.port.Kick()
	}
	v.deliver(done)
	v.flush()
}

// present returns what time it is, on the clock. v.mu is held.
func (v *Volume) present() time.Duration {
	if v.asOf != 0 {
		return v.asOf
	}
	return v.clock.now()
}

// enqueue takes a request over. v.mu is held.
func (v *Volume) enqueue(r *Request) {
	r.Err, r.failure = nil, nil
	r.next, r.prev, r.queue = nil, nil, nil
	r.issued, r.pending = 0, 0
	r.active, r.stopped, r.needSync, r.syncing = true, false, false, false
	r.size = 0
	r.began = v.present()
	v.counters.begin()
	switch r.Op {
	case OpRead, OpWrite:
		if r.size = int64(len(r.Data)); r.late() {
			r.size = r.Length
		}
	case OpDiscard, OpWriteZeroes:
		r.size = r.Length
	case OpFlush:
		r.syncing = true
	}
	r.good = max(r.size, 0)
	if err := v.check(r); err != nil {
		r.good = 0
		r.failure = v.requestError(r, err)
		v.queue.finish(r)
		return
	}
	if v.nothingToDo(r) {
		v.queue.finish(r)
		return
	}
	if isBulk(r) {
		v.queue.bulk.pushBack(r)
	} else {
		v.queue.data.pushBack(r)
	}
	if v.queue.held {
		v.wakeAttendant() // the last attempt to identify the device may have failed
	}
	v.queue.dispatch()
}

// check returns why a request cannot be carried out, nil if it can.
func (v *Volume) check(r *Request) error {
	switch {
	case v.closed:
		return ErrVolumeClosed
	case v.broken != nil:
		return v.broken
	case r.Op < OpRead || r.Op > OpWriteZeroes || r.size < 0:
		return ErrInvalidRequest
	case r.Op == OpFlush:
		return nil
	case r.Offset < 0 || r.size > v.state.size || r.Offset > v.state.size-r.size:
		return ErrOutOfRange
	case (r.Offset|r.size)&int64(v.blockSize-1) != 0:
		return ErrUnaligned
	case r.Op != OpRead && v.state.writeProtect:
		return ErrReadOnly
	case r.Op == OpDiscard && v.split.discard == pieceNone:
		return ErrUnsupported
	}
	return nil
}

// nothingToDo reports whether a request needs no command.
func (v *Volume) nothingToDo(r *Request) bool {
	if r.Op != OpFlush {
		return r.size == 0
	}
	if v.state.writeCache {
		return false
	}
	r.failure, v.queue.deferred = v.queue.deferred, nil
	return true
}

// requestError makes the error of a request as a whole.
func (v *Volume) requestError(r *Request, err error) error {
	var ve *VolumeError
	if errors.As(err, &ve) {
		return err
	}
	e := v.wrap(r.Op.String(), err)
	e.Offset, e.Length = r.Offset, r.size
	return e
}

// wrap makes a *VolumeError of an error that has no range.
func (v *Volume) wrap(op string, err error) *VolumeError {
	var ve *VolumeError
	if errors.As(err, &ve) {
		return ve
	}
	return &VolumeError{Op: op, Target: v.prober.target, LUN: v.lun, Kind: kindOf(err), Err: err}
}

// kindOf returns the sentinel that sums up an error, or nil.
func kindOf(err error) error {
	var s *ioSentinel
	var id *IdentityError
	var se *scsi.StatusError
	switch {
	case errors.As(err, &id):
		return ErrIdentity
	case errors.As(err, &s):
		return s
	case errors.As(err, &se):
		return judgeSense(se.Sense).kind
	}
	return nil
}
