package iscsitest

import (
	"maps"
	"slices"

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
	ascLUNsChanged            = 0x3f0e
)

// attention establishes a unit attention condition, once for each code. c.mu
// is held.
func (c *Conn) attention(lun pdu.LUN, code uint16) {
	if c.phase != phaseFull || c.discovery || slices.Contains(c.uas[lun], code) {
		return
	}
	c.uas[lun] = append(c.uas[lun], code)
}

// attentionAll does so for all units.
func (c *Conn) attentionAll(code uint16) {
	c.target.mu.RLock()
	defer c.target.mu.RUnlock()
	for n := range maps.Keys(c.target.LUNs) {
		c.attention(pdu.LUNFromNumber(n), code)
	}
}

// takeAttention returns a unit attention condition of the unit and clears it.
func (c *Conn) takeAttention(lun pdu.LUN) (uint16, bool) {
	if len(c.uas) == 0 {
		return 0, false
	}
	list := c.uas[lun]
	if len(list) == 0 {
		return 0, false
	}
	if len(list) == 1 {
		delete(c.uas, lun)
	} else {
		c.uas[lun] = list[1:]
	}
	return list[0], true
}

// others calls f for all other normal sessions in full feature phase, each
// with its connection's lock held. Since it takes the locks of other
// connections it has its own goroutine.
func (c *Conn) others(f func(o *Conn)) {
	c.srv.spawn(func() {
		for _, o := range c.srv.Conns() {
			if o == c {
				continue
			}
			o.mu.Lock()
			if o.phase == phaseFull && !o.discovery {
				f(o)
			}
			o.mu.Unlock()
		}
	})
}

// attentionUnit establishes a unit attention condition for a unit, whatever
// its LUN is in this session.
func (c *Conn) attentionUnit(l *LUN, code uint16) {
	for _, field := range c.target.fieldsOf(l) {
		c.attention(field, code)
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
