package iscsitest

import (
	"slices"
	"sync"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// A result is how a command ends, other than well.
type result struct {
	status scsi.Status
	sense  []byte // encoded
}

// sense returns a CHECK CONDITION.
func sense(key scsi.SenseKey, asc, ascq uint8) result {
	return result{scsi.StatusCheckCondition, scsi.NewSense(key, asc, ascq).Append(nil)}
}

// Results that never change. The conditions of iSCSI are those of RFC 7143
// section 11.4.7.2.
var (
	scsiNoLUN           = sense(scsi.KeyIllegalRequest, 0x25, 0x00)
	scsiInvalidOpcode   = sense(scsi.KeyIllegalRequest, 0x20, 0x00)
	scsiInvalidField    = sense(scsi.KeyIllegalRequest, 0x24, 0x00)
	scsiOutOfRange      = sense(scsi.KeyIllegalRequest, 0x21, 0x00)
	scsiParameterLength = sense(scsi.KeyIllegalRequest, 0x1a, 0x00)
	scsiInvalidList     = sense(scsi.KeyIllegalRequest, 0x26, 0x00)
	scsiReleaseInvalid  = sense(scsi.KeyIllegalRequest, 0x26, 0x04)
	scsiWriteProtected  = sense(scsi.KeyDataProtect, 0x27, 0x00)
	scsiReadError       = sense(scsi.KeyMediumError, 0x11, 0x00)
	scsiWriteError      = sense(scsi.KeyMediumError, 0x0c, 0x00)
	scsiNoSpace         = sense(scsi.KeyDataProtect, 0x27, 0x07)
	scsiUnexpectedData  = sense(scsi.KeyAbortedCommand, 0x0c, 0x0c)
	scsiDataAmount      = sense(scsi.KeyAbortedCommand, 0x0c, 0x0d)
	scsiCRCError        = sense(scsi.KeyAbortedCommand, 0x47, 0x05)
)

// Codes of unit attentions, ASC and ASCQ.
const (
	ascPowerOn                = 0x2900
	ascBusReset               = 0x2902
	ascUnitReset              = 0x2903
	ascCapacityChanged        = 0x2a09
	ascReservationsPreempted  = 0x2a03
	ascReservationsReleased   = 0x2a04
	ascRegistrationsPreempted = 0x2a05
	ascCommandsCleared        = 0x2f00
	ascClearedByEvent         = 0x477f // some commands cleared by iSCSI protocol event
	ascLUNsChanged            = 0x3f0e
)

// attentions are the unit attention conditions that a session has to be told
// of. They have a lock of their own, taken last, so that one session's command
// can leave conditions with other sessions before it is answered.
type attentions struct {
	mu   sync.Mutex
	list map[pdu.LUN][]uint16
}

// add establishes a condition, once for each code.
func (a *attentions) add(lun pdu.LUN, code uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.list[lun], code) {
		return
	}
	if a.list == nil {
		a.list = map[pdu.LUN][]uint16{}
	}
	a.list[lun] = append(a.list[lun], code)
}

// take returns a condition of the unit and clears it.
func (a *attentions) take(lun pdu.LUN) (uint16, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.list[lun]
	if len(list) == 0 {
		return 0, false
	}
	a.list[lun] = list[1:]
	return list[0], true
}

// drop clears a condition of all units: REPORT LUNS is the answer to "reported
// LUNs data has changed".
func (a *attentions) drop(code uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for lun, list := range a.list {
		a.list[lun] = slices.DeleteFunc(list, func(c uint16) bool { return c == code })
	}
}

// attentionAll establishes a condition for all units of the session.
func (c *Conn) attentionAll(code uint16) {
	c.target.mu.RLock()
	defer c.target.mu.RUnlock()
	for n := range c.target.LUNs {
		c.uas.add(pdu.LUNFromNumber(n), code)
	}
}

// attentionUnit establishes a condition for a unit, whatever its LUN is in
// this session.
func (c *Conn) attentionUnit(l *LUN, code uint16) {
	for _, field := range c.target.fieldsOf(l) {
		c.uas.add(field, code)
	}
}

// fieldsOf returns the LUN fields by which a target has the unit.
func (t *target) fieldsOf(l *LUN) []pdu.LUN {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var fields []pdu.LUN
	for n, have := range t.LUNs {
		if have == l {
			fields = append(fields, pdu.LUNFromNumber(n))
		}
	}
	return fields
}
