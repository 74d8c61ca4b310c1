package initiator

import (
	"context"
	"errors"
	"fmt"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// CompareAndWrite writes data at off if what is there equals compare, as one
// step that no other command of any initiator comes between (SBC-4 section
// 5.3). It fails with ErrMiscompare, in a *MiscompareError, if it does not, and
// with ErrUnsupported where the device cannot. Offset and lengths are multiples
// of the block size, the lengths equal and at most Features.MaxCompareAndWrite.
//
// If the connection was lost while the command was outstanding, nobody knows
// whether it was carried out; the error is then ErrInterrupted.
func (v *Volume) CompareAndWrite(ctx context.Context, off int64, compare, data []byte) error {
	const op = "compare and write"
	n := int64(len(data))
	fail := func(err error) error {
		e := v.wrap(op, err)
		e.Offset, e.Length = off, n
		return e
	}
	if len(compare) != len(data) {
		return fail(fmt.Errorf("%w: %d bytes to compare with, %d to write", ErrInvalidRequest, len(compare), len(data)))
	}
	most := v.Features().MaxCompareAndWrite
	v.mu.Lock()
	err := v.check(&Request{Op: OpWrite, Offset: off, size: n})
	v.mu.Unlock()
	switch {
	case err != nil:
		return fail(err)
	case n == 0:
		return nil
	case most == 0:
		return fail(ErrUnsupported)
	case n > most:
		return fail(fmt.Errorf("%w: %d bytes, at most %d", ErrInvalidRequest, n, most))
	}
	t := &Task{LUN: v.lun, DataOut: append(append(make([]byte, 0, 2*n), compare...), data...)}
	scsi.CompareAndWrite(&t.CDB, uint64(off)>>v.shift, uint8(n>>v.shift), 0)
	err = v.prober.run(ctx, op, t)
	var ve *VolumeError
	if !errors.As(err, &ve) {
		return err
	}
	ve.Offset, ve.Length = off, n
	if ve.Kind == ErrUnsupported {
		// Some devices name a limit in VPD B0 and do not have the command.
		v.mu.Lock()
		v.state.compare = supportNo
		v.mu.Unlock()
	}
	if ve.Kind == ErrMiscompare {
		m := &MiscompareError{Err: ve.Err}
		if s, ok := Sense(err); ok && s.InformationValid && int64(s.Information) < n {
			m.Offset, m.Known = off+int64(s.Information), true
		}
		ve.Err = m
	}
	return err
}

// A ReservationKey identifies an initiator, or a group of them, to the device
// (SPC-5 section 5.14). It is chosen by whoever registers; 0 stands for none.
type ReservationKey uint64

// Reservations are the persistent reservations of a volume. Its methods are
// commands to the device; they keep no state here. A conflict with another's
// reservation is ErrReservationConflict.
//
// Registrations belong to the pair of our initiator name and ISID and the
// target's port. A session that recovers keeps its ISID and thereby its
// registration.
type Reservations struct{ v *Volume }

// Reservations returns the persistent reservations of the volume.
func (v *Volume) Reservations() *Reservations { return &Reservations{v} }

// RegisterOptions change how Register works.
type RegisterOptions struct {
	// Force replaces our registration without knowing its key (REGISTER AND
	// IGNORE EXISTING KEY).
	Force bool
	// AllPorts registers through all ports of the target.
	AllPorts bool
	// PersistPower keeps registrations and reservation over a loss of power.
	PersistPower bool
}

// Register replaces our key old, 0 if we have none, by key; with key 0 it ends
// our registration.
func (r *Reservations) Register(ctx context.Context, old, key ReservationKey, o RegisterOptions) error {
	action := scsi.PROutRegister
	if o.Force {
		action = scsi.PROutRegisterAndIgnore
	}
	return r.out(ctx, "register", action, 0, scsi.PROutList{
		Key: uint64(old), ServiceKey: uint64(key), AllPorts: o.AllPorts, PersistPower: o.PersistPower,
	})
}

// Reserve makes a reservation for our key.
func (r *Reservations) Reserve(ctx context.Context, key ReservationKey, typ scsi.ReservationType) error {
	return r.out(ctx, "reserve", scsi.PROutReserve, typ, scsi.PROutList{Key: uint64(key)})
}

// Release ends our reservation, whose type it must name.
func (r *Reservations) Release(ctx context.Context, key ReservationKey, typ scsi.ReservationType) error {
	return r.out(ctx, "release", scsi.PROutRelease, typ, scsi.PROutList{Key: uint64(key)})
}

// Clear ends the reservation and all registrations.
func (r *Reservations) Clear(ctx context.Context, key ReservationKey) error {
	return r.out(ctx, "clear", scsi.PROutClear, 0, scsi.PROutList{Key: uint64(key)})
}

// Preempt ends the registrations with the key victim and takes over the
// reservation if one of them held it. With abort the commands of the victim
// are aborted as well, which fences it off.
func (r *Reservations) Preempt(ctx context.Context, key, victim ReservationKey, typ scsi.ReservationType, abort bool) error {
	action := scsi.PROutPreempt
	if abort {
		action = scsi.PROutPreemptAndAbort
	}
	return r.out(ctx, "preempt", action, typ, scsi.PROutList{Key: uint64(key), ServiceKey: uint64(victim)})
}

func (r *Reservations) out(ctx context.Context, op string, action scsi.PROutAction, typ scsi.ReservationType, list scsi.PROutList) error {
	t := &Task{LUN: r.v.lun, DataOut: list.Append(nil)}
	scsi.PersistentReserveOut(&t.CDB, action, typ, uint32(len(t.DataOut)))
	return r.v.prober.run(ctx, op, t)
}

// Bounds of the answers of PERSISTENT RESERVE IN. The length has 16 bits.
const (
	prInFirst = 8 + 8*64
	prInMost  = 0xffff
)

func (r *Reservations) in(ctx context.Context, op string, action scsi.PRInAction, total func([]byte) uint64) ([]byte, error) {
	return r.v.prober.readAll(ctx, op, r.v.lun, prInFirst, prInMost,
		func(cdb *scsi.CDB, n int) int { return scsi.PersistentReserveIn(cdb, action, uint16(n)) }, total)
}

// Keys returns the registered keys, one for each registration, so that doubles
// occur.
func (r *Reservations) Keys(ctx context.Context) ([]ReservationKey, error) {
	const op = "read keys"
	b, err := r.in(ctx, op, scsi.PRInReadKeys, scsi.PRInLength)
	if err != nil {
		return nil, err
	}
	k, err := scsi.ParsePRKeys(b)
	if err != nil {
		return nil, r.v.wrap(op, err)
	}
	keys := make([]ReservationKey, len(k.Keys))
	for i, key := range k.Keys {
		keys[i] = ReservationKey(key)
	}
	return keys, nil
}

// Holder returns the reservation; its Held is false if there is none.
func (r *Reservations) Holder(ctx context.Context) (scsi.PRReservation, error) {
	const op = "read reservation"
	b, err := r.in(ctx, op, scsi.PRInReadReservation, scsi.PRInLength)
	if err != nil {
		return scsi.PRReservation{}, err
	}
	res, err := scsi.ParsePRReservation(b)
	if err != nil {
		return res, r.v.wrap(op, err)
	}
	return res, nil
}

// Capabilities returns which reservations the device knows.
func (r *Reservations) Capabilities(ctx context.Context) (scsi.PRCapabilities, error) {
	const op = "report capabilities"
	b, err := r.in(ctx, op, scsi.PRInReportCapabilities, func([]byte) uint64 { return 0 })
	if err != nil {
		return scsi.PRCapabilities{}, err
	}
	c, err := scsi.ParsePRCapabilities(b)
	if err != nil {
		return c, r.v.wrap(op, err)
	}
	return c, nil
}

// Registrants returns who is registered with what, the initiators' names
// included, where the device has READ FULL STATUS.
func (r *Reservations) Registrants(ctx context.Context) ([]scsi.PRRegistrant, error) {
	const op = "read full status"
	b, err := r.in(ctx, op, scsi.PRInReadFullStatus, scsi.PRInLength)
	if err != nil {
		return nil, err
	}
	s, err := scsi.ParsePRFullStatus(b)
	if err != nil {
		return nil, r.v.wrap(op, err)
	}
	return s.Registrants, nil
}
