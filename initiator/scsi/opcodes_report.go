package scsi

import "encoding/binary"

// ReportSupportedOpcode builds REPORT SUPPORTED OPERATION CODES for one
// operation code without service actions (SPC-5 §6.35, reporting options 001b).
func ReportSupportedOpcode(cdb *CDB, op Opcode, alloc uint32) int {
	put(cdb, OpMaintenanceIn, SAReportSupportedOpcodes)
	cdb[2], cdb[3] = 1, byte(op)
	binary.BigEndian.PutUint32(cdb[6:], alloc)
	return 12
}

// OpcodeSupport is the answer for one operation code.
type OpcodeSupport struct {
	// Supported says that the device has the command, by the standard or in
	// its own way; Known, that it gave an answer at all.
	Known, Supported bool

	// Usage has a bit set for each bit of the CDB that the device looks at.
	// Its first byte is the operation code. It aliases the parsed data.
	Usage []byte
}

// ParseOpcodeSupport decodes the answer to REPORT SUPPORTED OPERATION CODES
// for one operation code.
func ParseOpcodeSupport(b []byte) (OpcodeSupport, error) {
	if len(b) < 4 {
		return OpcodeSupport{}, short("REPORT SUPPORTED OPERATION CODES data", len(b), 4)
	}
	var s OpcodeSupport
	switch b[1] & 7 {
	case 1:
		s.Known = true
	case 3, 5:
		s.Known, s.Supported = true, true
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if b = b[4:]; len(b) > n {
		b = b[:n]
	}
	if s.Supported {
		s.Usage = b
	}
	return s, nil
}

// Append adds the answer to dst.
func (s OpcodeSupport) Append(dst []byte) []byte {
	var support byte
	switch {
	case s.Supported:
		support = 3
	case s.Known:
		support = 1
	}
	dst = append(dst, 0, support)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s.Usage)))
	return append(dst, s.Usage...)
}

// requestedOpcode fills in what ParseCommand keeps of the command's CDB.
func (c *Command) requestedOpcode(b []byte) {
	if c.ServiceAction == SAReportSupportedOpcodes {
		c.ReportingOptions, c.RequestedOp = b[2]&7, Opcode(b[3])
		c.RequestedAction = binary.BigEndian.Uint16(b[4:])
	}
}
