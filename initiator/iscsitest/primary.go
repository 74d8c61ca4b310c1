package iscsitest

import (
	"encoding/binary"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// Commands of SPC.

func testUnitReady(c *Conn, q *request, _ []byte) error { return c.respond(q, nil, 0) }

// startStop pretends.
func startStop(c *Conn, q *request, _ []byte) error { return c.respond(q, nil, 0) }

// requestSense returns a unit attention, if there is one, or nothing.
func requestSense(c *Conn, q *request, _ []byte) error {
	s := scsi.NewSense(scsi.KeyNoSense, 0, 0)
	if q.lun == nil {
		s = scsi.NewSense(scsi.KeyIllegalRequest, 0x25, 0)
	} else if code, ok := c.uas.take(q.field); ok {
		s = scsi.NewSense(scsi.KeyUnitAttention, byte(code>>8), byte(code))
	}
	if q.Descriptor {
		s.ResponseCode = scsi.SenseDescriptor
	}
	c.scratch = s.Append(c.scratch[:0])
	return c.sendData(q, q.cut(c.scratch))
}

// reportLUNs lists the target's units.
func reportLUNs(c *Conn, q *request, _ []byte) error {
	if q.Length < 16 {
		return c.respond(q, &scsiInvalidField, 0)
	}
	var fields []uint64
	if q.SelectReport != scsi.SelectWellKnown {
		c.target.mu.RLock()
		for _, n := range c.target.numbers {
			fields = append(fields, uint64(pdu.LUNFromNumber(n)))
		}
		c.target.mu.RUnlock()
	}
	c.uas.drop(ascLUNsChanged)
	c.scratch = scsi.AppendReportLUNs(c.scratch[:0], fields...)
	return c.sendData(q, q.cut(c.scratch))
}

func inquiry(c *Conn, q *request, _ []byte) error {
	l := q.lun
	qualifier, typ := scsi.QualifierConnected, scsi.TypeUnknown
	if l == nil {
		qualifier = scsi.QualifierUnsupported
	} else {
		typ = l.Type
	}
	if !q.EVPD {
		if q.Page != 0 {
			return c.respond(q, &scsiInvalidField, 0)
		}
		d := scsi.InquiryData{Qualifier: qualifier, Type: typ, Version: 6, CmdQueue: true}
		if l != nil {
			d.Vendor, d.Product, d.Revision = l.Vendor, l.Product, l.Revision
		}
		c.scratch = appendVersions(d.Append(c.scratch[:0]))
		return c.sendData(q, q.cut(c.scratch))
	}
	if l == nil {
		return c.respond(q, &scsiInvalidField, 0)
	}
	body, ok := l.vpd(scsi.VPDPage(q.Page), c.nexus)
	if !ok {
		return c.respond(q, &scsiInvalidField, 0)
	}
	c.scratch = scsi.AppendVPD(c.scratch[:0], qualifier, typ, scsi.VPDPage(q.Page), body)
	return c.sendData(q, q.cut(c.scratch))
}

// appendVersions makes standard INQUIRY data long enough to name the standards
// that the unit claims: SAM-5, iSCSI, SPC-4 and SBC-3 (SPC-4 table 142).
func appendVersions(b []byte) []byte {
	const descriptors, length = 58, 96
	for len(b) < length {
		b = append(b, 0)
	}
	for i, v := range []uint16{0x00a0, 0x0960, 0x0460, 0x04c0} {
		binary.BigEndian.PutUint16(b[descriptors+2*i:], v)
	}
	b[4] = length - 5
	return b
}

// vpd returns the body of a vital product data page.
func (l *LUN) vpd(page scsi.VPDPage, n nexus) ([]byte, bool) {
	switch page {
	case scsi.VPDSupportedPages:
		var pages scsi.VPDPages
		for _, p := range []scsi.VPDPage{scsi.VPDSupportedPages, scsi.VPDUnitSerial, scsi.VPDDeviceID} {
			pages.Add(p)
		}
		if l.isDisk() {
			for _, p := range []scsi.VPDPage{scsi.VPDBlockLimits, scsi.VPDCharacteristics, scsi.VPDLogicalProvisioning} {
				pages.Add(p)
			}
		}
		return pages.Append(nil), true
	case scsi.VPDUnitSerial:
		return []byte(l.Serial), true
	case scsi.VPDDeviceID:
		return scsi.AppendDesignators(nil,
			scsi.Designator{Type: scsi.DesignatorNAA, CodeSet: scsi.CodeSetBinary, ID: l.NAA},
			scsi.Designator{Type: scsi.DesignatorT10Vendor, CodeSet: scsi.CodeSetASCII, ID: append(padded(l.Vendor, 8), l.Serial...)},
			scsi.Designator{
				Type: scsi.DesignatorRelPort, CodeSet: scsi.CodeSetBinary, Association: scsi.AssocPort,
				Protocol: scsi.ProtocolISCSI, PIV: true, ID: []byte{0, 0, 0, 1},
			},
			scsi.Designator{
				Type: scsi.DesignatorPortGroup, CodeSet: scsi.CodeSetBinary, Association: scsi.AssocPort,
				Protocol: scsi.ProtocolISCSI, PIV: true, ID: binary.BigEndian.AppendUint16([]byte{0, 0}, n.tpgt),
			},
		), true
	}
	if !l.isDisk() {
		return nil, false
	}
	switch page {
	case scsi.VPDBlockLimits:
		return l.limits().Append(nil), true
	case scsi.VPDCharacteristics:
		rate := uint16(1)
		if l.Rotational {
			rate = 7200
		}
		return scsi.Characteristics{RotationRate: rate}.Append(nil), true
	case scsi.VPDLogicalProvisioning:
		p := scsi.Provisioning{Type: scsi.ProvisioningFull}
		if l.Thin {
			p = scsi.Provisioning{Unmap: true, WriteSame16: true, WriteSame10: true, ReadZeros: 1, Type: scsi.ProvisioningThin}
		}
		return p.Append(nil), true
	}
	return nil, false
}

// padded returns s filled up with blanks.
func padded(s string, n int) []byte {
	b := append(make([]byte, 0, n+32), s...)
	for len(b) < n {
		b = append(b, ' ')
	}
	return b
}

func modeSense(c *Conn, q *request, _ []byte) error {
	l := q.lun
	if q.PageValues == 3 { // saved values: there are none
		r := sense(scsi.KeyIllegalRequest, 0x39, 0)
		return c.respond(q, &r, 0)
	}
	var pages [][]byte
	page := scsi.ModePage(q.Page)
	changeable := q.PageValues == 1 // nothing is
	if l.isDisk() && (page == scsi.ModeCaching || page == scsi.ModeAll) {
		p := scsi.CachingPage{WriteCache: l.WriteCache}
		if changeable {
			p = scsi.CachingPage{}
		}
		pages = append(pages, p.Append(nil))
	}
	if page == scsi.ModeControl || page == scsi.ModeAll {
		pages = append(pages, scsi.ControlPage{}.Append(nil))
	}
	if len(pages) == 0 || q.SubPage != 0 && q.SubPage != 0xff {
		return c.respond(q, &scsiInvalidField, 0)
	}
	h := scsi.ModeHeader{WriteProtect: l.ReadOnly, DPOFUA: l.isDisk()}
	if q.Op == scsi.OpModeSense6 {
		c.scratch = h.AppendModeSense6(c.scratch[:0], pages...)
	} else {
		c.scratch = h.AppendModeSense10(c.scratch[:0], pages...)
	}
	return c.sendData(q, q.cut(c.scratch))
}

func maintenanceIn(c *Conn, q *request, _ []byte) error {
	if q.ServiceAction != scsi.SAReportSupportedOpcodes {
		return c.respond(q, &scsiInvalidField, 0)
	}
	return reportOpcodes(c, q)
}

// reportOpcodes answers REPORT SUPPORTED OPERATION CODES (SPC-5 section 6.34)
// from the table of handlers. Byte 2 has RCTD and the reporting options, byte
// 3 the requested code, bytes 4 and 5 its service action.
func reportOpcodes(c *Conn, q *request) error {
	timeouts := q.cdb[2]&0x80 != 0
	op, action := q.cdb[3], binary.BigEndian.Uint16(q.cdb[4:])
	b := c.scratch[:0]
	switch q.cdb[2] & 7 {
	case 0:
		b = append(b, 0, 0, 0, 0)
		for i := range c.srv.ops {
			if c.supports(q, byte(i)) {
				b = c.appendOpcode(b, byte(i), timeouts)
			}
		}
		binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	case 1, 3: // one code without, or with whatever, service action
		if q.cdb[2]&7 == 1 && len(serviceActions(op)) > 0 {
			return c.respond(q, &scsiInvalidField, 0)
		}
		b = c.appendUsage(b, q, op, action, timeouts)
	case 2: // one code with a service action
		if len(serviceActions(op)) == 0 {
			return c.respond(q, &scsiInvalidField, 0)
		}
		b = c.appendUsage(b, q, op, action, timeouts)
	default:
		return c.respond(q, &scsiInvalidField, 0)
	}
	c.scratch = b
	return c.sendData(q, q.cut(b))
}

// supports reports whether the unit has the command.
func (c *Conn) supports(q *request, op byte) bool {
	h := &c.srv.ops[op]
	return (h.run != nil || h.sink != nil) && (!h.disk || q.lun.isDisk())
}

// serviceActions returns the service actions of operation codes that have
// some.
func serviceActions(op byte) []byte {
	switch scsi.Opcode(op) {
	case scsi.OpServiceActionIn16:
		return []byte{scsi.SAReadCapacity16, scsi.SAGetLBAStatus}
	case scsi.OpMaintenanceIn:
		return []byte{scsi.SAReportSupportedOpcodes}
	case scsi.OpPersistentReserveIn:
		return []byte{0, 1, 2, 3}
	case scsi.OpPersistentReserveOut:
		return []byte{0, 1, 2, 3, 4, 5, 6}
	}
	return nil
}

// appendOpcode appends the descriptors of an operation code in the list of
// all.
func (c *Conn) appendOpcode(b []byte, op byte, timeouts bool) []byte {
	actions, flags := serviceActions(op), byte(0)
	if len(actions) > 0 {
		flags |= 1 // SERVACTV
	} else {
		actions = []byte{0}
	}
	if timeouts {
		flags |= 2 // CTDP
	}
	for _, a := range actions {
		b = append(b, op, 0, 0, a, 0, flags, 0, byte(len(c.srv.ops[op].usage)))
		if timeouts {
			b = append(b, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}
	}
	return b
}

// appendUsage appends the description of one command.
func (c *Conn) appendUsage(b []byte, q *request, op byte, action uint16, timeouts bool) []byte {
	ok := c.supports(q, op)
	if actions := serviceActions(op); len(actions) > 0 {
		found := false
		for _, a := range actions {
			found = found || uint16(a) == action
		}
		ok = ok && found
	}
	if !ok {
		return append(b, 0, 1, 0, 0) // not supported
	}
	u := c.srv.ops[op].usage
	support := byte(3)
	if timeouts {
		support |= 0x80
	}
	b = append(b, 0, support, 0, byte(len(u)))
	b = append(b, op)
	b = append(b, u[1:]...)
	if len(serviceActions(op)) > 0 {
		b[len(b)-len(u)+1] = u[1]&^0x1f | byte(action)
	}
	if timeouts {
		b = append(b, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	return b
}
