package iscsitest

import (
	"encoding/hex"
	"slices"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// reservations is the persistent reservation state of a unit (SPC-5 section
// 5.14). LUN.mu guards it.
type reservations struct {
	generation uint32
	keys       []registration
	held       bool
	holder     nexus // means nothing for the all-registrants types
	typ        scsi.ReservationType
}

type registration struct {
	nexus nexus
	key   uint64
}

func (r *reservations) find(n nexus) int {
	return slices.IndexFunc(r.keys, func(k registration) bool { return k.nexus == n })
}

func (r *reservations) allRegistrants() bool {
	return r.typ == scsi.WriteExclusiveAllRegistrants || r.typ == scsi.ExclusiveAccessAllRegistrants
}

// holds reports whether the nexus holds the reservation.
func (r *reservations) holds(n nexus) bool {
	return r.held && (r.allRegistrants() && r.find(n) >= 0 || !r.allRegistrants() && r.holder == n)
}

// allows reports whether a reservation lets the nexus do this (SPC-5 table
// 65, reduced to reading and writing).
func (r *reservations) allows(l *LUN, n nexus, a access) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !r.held || r.holds(n) {
		return true
	}
	registered := r.find(n) >= 0
	switch r.typ {
	case scsi.WriteExclusive:
		return a == accessRead
	case scsi.ExclusiveAccess:
		return false
	case scsi.WriteExclusiveRegistrantsOnly, scsi.WriteExclusiveAllRegistrants:
		return registered || a == accessRead
	}
	return registered
}

func reserveIn(c *Conn, q *request, _ []byte) error {
	l := q.lun
	l.mu.Lock()
	r := &l.pr
	b := c.scratch[:0]
	switch scsi.PRInAction(q.ServiceAction) {
	case scsi.PRInReadKeys:
		keys := make([]uint64, 0, len(r.keys))
		for _, k := range r.keys {
			keys = append(keys, k.key)
		}
		b = scsi.PRKeys{Generation: r.generation, Keys: keys}.Append(b)
	case scsi.PRInReadReservation:
		b = r.reservation().Append(b)
	case scsi.PRInReportCapabilities:
		b = scsi.PRCapabilities{TypeMaskValid: true, Types: []scsi.ReservationType{
			scsi.WriteExclusive, scsi.ExclusiveAccess, scsi.WriteExclusiveRegistrantsOnly,
			scsi.ExclusiveAccessRegistrants, scsi.WriteExclusiveAllRegistrants, scsi.ExclusiveAccessAllRegistrants,
		}}.Append(b)
	case scsi.PRInReadFullStatus:
		b = r.fullStatus().Append(b)
	default:
		l.mu.Unlock()
		return c.respond(q, &scsiInvalidField, 0)
	}
	l.mu.Unlock()
	c.scratch = b
	return c.sendData(q, q.cut(b))
}

func (r *reservations) reservation() scsi.PRReservation {
	p := scsi.PRReservation{Generation: r.generation, Held: r.held, Type: r.typ}
	if i := r.find(r.holder); r.held && !r.allRegistrants() && i >= 0 {
		p.Key = r.keys[i].key
	}
	return p
}

func (r *reservations) fullStatus() scsi.PRFullStatus {
	s := scsi.PRFullStatus{Generation: r.generation}
	for _, k := range r.keys {
		s.Registrants = append(s.Registrants, scsi.PRRegistrant{
			Key: k.key, Holder: r.holds(k.nexus), Type: r.typ, RelativePort: 1,
			TransportID: scsi.ISCSITransportID(k.nexus.initiator, hex.EncodeToString(k.nexus.isid[:])),
		})
	}
	return s
}

// A notice is a unit attention that a change of reservations leaves with
// other sessions.
type notice struct {
	code uint16
	who  []nexus
}

func reserveOut(c *Conn, q *request, data []byte) error {
	list, err := scsi.ParsePROutList(data)
	if err != nil {
		return c.respond(q, &scsiParameterLength, 0)
	}
	if list.SpecInitiator || list.AllPorts || len(data) != scsi.PROutLength {
		return c.respond(q, &scsiInvalidList, 0)
	}
	l := q.lun
	l.mu.Lock()
	res, notes := l.pr.out(q, c.nexus, list)
	l.mu.Unlock()
	if res != nil {
		return c.respond(q, res, 0)
	}
	abort := scsi.PROutAction(q.ServiceAction) == scsi.PROutPreemptAndAbort
	for _, n := range notes {
		for _, o := range c.srv.normalSessions(c) {
			if !slices.Contains(n.who, o.nexus) {
				continue
			}
			o.attentionUnit(l, n.code)
			if abort && n.code == ascRegistrationsPreempted {
				o.abortLater(l)
			}
		}
	}
	return c.respond(q, nil, int64(len(data)))
}

var reservationConflict = &result{status: scsi.StatusReservationConflict}

// out executes PERSISTENT RESERVE OUT. LUN.mu is held.
func (r *reservations) out(q *request, n nexus, list scsi.PROutList) (*result, []notice) {
	i := r.find(n)
	action := scsi.PROutAction(q.ServiceAction)
	if action == scsi.PROutRegister || action == scsi.PROutRegisterAndIgnore {
		return r.register(n, i, list, action == scsi.PROutRegisterAndIgnore)
	}
	if i < 0 || r.keys[i].key != list.Key {
		return reservationConflict, nil
	}
	switch action {
	case scsi.PROutReserve:
		return r.reserve(q, n), nil
	case scsi.PROutRelease:
		return r.release(q, n)
	case scsi.PROutClear:
		var others []nexus
		for _, k := range r.keys {
			if k.nexus != n {
				others = append(others, k.nexus)
			}
		}
		r.keys, r.held = nil, false
		r.generation++
		return nil, []notice{{ascReservationsPreempted, others}}
	case scsi.PROutPreempt, scsi.PROutPreemptAndAbort:
		return r.preempt(q, n, list)
	}
	return &scsiInvalidField, nil
}

func validType(t scsi.ReservationType) bool {
	switch t {
	case scsi.WriteExclusive, scsi.ExclusiveAccess, scsi.WriteExclusiveRegistrantsOnly,
		scsi.ExclusiveAccessRegistrants, scsi.WriteExclusiveAllRegistrants, scsi.ExclusiveAccessAllRegistrants:
		return true
	}
	return false
}

func (r *reservations) register(n nexus, i int, list scsi.PROutList, ignore bool) (*result, []notice) {
	switch {
	case i < 0:
		if !ignore && list.Key != 0 {
			return reservationConflict, nil
		}
		if list.ServiceKey != 0 {
			r.keys = append(r.keys, registration{n, list.ServiceKey})
		}
		r.generation++
		return nil, nil
	case !ignore && r.keys[i].key != list.Key:
		return reservationConflict, nil
	case list.ServiceKey != 0:
		r.keys[i].key = list.ServiceKey
		r.generation++
		return nil, nil
	}
	return nil, r.unregister(n, i)
}

// unregister removes a registration, and with it a reservation it holds.
func (r *reservations) unregister(n nexus, i int) []notice {
	held := r.held && (!r.allRegistrants() && r.holder == n || r.allRegistrants() && len(r.keys) == 1)
	r.keys = append(r.keys[:i:i], r.keys[i+1:]...)
	r.generation++
	if !held {
		return nil
	}
	r.held = false
	if r.typ == scsi.WriteExclusive || r.typ == scsi.ExclusiveAccess {
		return nil
	}
	return []notice{{ascReservationsReleased, r.nexuses(n)}}
}

// nexuses returns all registered nexuses but one.
func (r *reservations) nexuses(but nexus) []nexus {
	var list []nexus
	for _, k := range r.keys {
		if k.nexus != but {
			list = append(list, k.nexus)
		}
	}
	return list
}

func (r *reservations) reserve(q *request, n nexus) *result {
	if !validType(q.Type) || q.Scope != 0 {
		return &scsiInvalidField
	}
	if r.held {
		if !r.holds(n) || r.typ != q.Type {
			return reservationConflict
		}
		return nil
	}
	r.held, r.holder, r.typ = true, n, q.Type
	return nil
}

func (r *reservations) release(q *request, n nexus) (*result, []notice) {
	if !r.holds(n) {
		return nil, nil // not an error (SPC-5 section 5.14.11.2.2)
	}
	if r.typ != q.Type || q.Scope != 0 {
		return &scsiReleaseInvalid, nil
	}
	r.held = false
	if r.typ == scsi.WriteExclusive || r.typ == scsi.ExclusiveAccess {
		return nil, nil
	}
	return nil, []notice{{ascReservationsReleased, r.nexuses(n)}}
}

// preempt removes registrations by their key and takes over the reservation if
// they held it (SPC-5 section 5.14.11.4).
func (r *reservations) preempt(q *request, n nexus, list scsi.PROutList) (*result, []notice) {
	takeAll := r.held && r.allRegistrants() && list.ServiceKey == 0
	if list.ServiceKey == 0 && !takeAll {
		return &scsiInvalidList, nil
	}
	h := r.find(r.holder)
	takeOver := takeAll || r.held && !r.allRegistrants() && h >= 0 && r.keys[h].key == list.ServiceKey
	if takeOver && (!validType(q.Type) || q.Scope != 0) {
		return &scsiInvalidField, nil
	}
	var gone []nexus
	found := false
	r.keys = slices.DeleteFunc(r.keys, func(k registration) bool {
		if !takeAll && k.key != list.ServiceKey {
			return false
		}
		found = true
		if k.nexus == n {
			return false
		}
		gone = append(gone, k.nexus)
		return true
	})
	if !found {
		return reservationConflict, nil
	}
	r.generation++
	notes := []notice{{ascRegistrationsPreempted, gone}}
	if takeOver {
		if r.typ != q.Type {
			notes = append(notes, notice{ascReservationsReleased, r.nexuses(n)})
		}
		r.held, r.holder, r.typ = true, n, q.Type
	}
	return nil, notes
}
