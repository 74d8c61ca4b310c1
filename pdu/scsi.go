package pdu

import "encoding/binary"

// A TaskAttribute is the queueing attribute of a SCSI task (RFC 7143 section
// 11.3.1, SAM-2).
type TaskAttribute uint8

// Task attributes.
const (
	AttrUntagged    TaskAttribute = 0
	AttrSimple      TaskAttribute = 1
	AttrOrdered     TaskAttribute = 2
	AttrHeadOfQueue TaskAttribute = 3
	AttrACA         TaskAttribute = 4
)

const (
	flagRead  = 0x40
	flagWrite = 0x20
	attrMask  = 0x07

	// Residual flags of SCSI Response, byte 1. Data-In has the lower two
	// bits as well.
	flagBidiOverflow  = 0x10
	flagBidiUnderflow = 0x08
	flagOverflow      = 0x04
	flagUnderflow     = 0x02

	ahsExtendedCDB = 1
	ahsBidiRead    = 2
	ahsCodeMask    = 0x3f

	// maxExtendedCDB leaves room for the bidirectional read length.
	maxExtendedCDB = MaxAHSLen - 8 - 4
)

// A SCSICommand carries a SCSI command descriptor block to a logical unit
// (RFC 7143 section 11.3).
type SCSICommand struct {
	// Immediate is the I bit: the command does not wait for its turn and
	// does not advance CmdSN.
	Immediate bool
	// Final is the F bit: no unsolicited Data-Out follows.
	Final bool
	// Read and Write say that the command is expected to input or output
	// data. Both are set for a bidirectional command.
	Read, Write bool
	// Attr is the task attribute.
	Attr TaskAttribute
	LUN  LUN
	// InitiatorTaskTag identifies the task in the session.
	InitiatorTaskTag uint32
	// ExpectedDataTransferLength is the number of bytes to be transferred;
	// for a bidirectional command, of those written.
	ExpectedDataTransferLength uint32
	CmdSN                      uint32
	ExpStatSN                  uint32
	// CDB is the command descriptor block, or its first 16 bytes.
	CDB [16]byte
	// ExtendedCDB is what follows the first 16 bytes of a longer CDB.
	ExtendedCDB []byte
	// Bidi says that the additional header segment with BidiReadLength is
	// present.
	Bidi bool
	// BidiReadLength is the number of bytes a bidirectional command is
	// expected to read.
	BidiReadLength uint32
	// Data is the immediate data.
	Data []byte
}

var _ PDU = (*SCSICommand)(nil)

// Opcode returns OpSCSICommand.
func (*SCSICommand) Opcode() Opcode { return OpSCSICommand }

// Payload returns Data.
func (p *SCSICommand) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *SCSICommand) AppendHeader(dst []byte) ([]byte, error) {
	if len(p.ExtendedCDB) > maxExtendedCDB {
		return dst, formatErr(OpSCSICommand, "ExtendedCDB", "is too long")
	}
	start := len(dst)
	dst, b, err := appendBHS(dst, OpSCSICommand, p.Data)
	if err != nil {
		return dst, err
	}
	b[0] |= bit(p.Immediate, flagImmediate)
	b[1] = bit(p.Final, flagFinal) | bit(p.Read, flagRead) | bit(p.Write, flagWrite) | byte(p.Attr)&attrMask
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.ExpectedDataTransferLength)
	binary.BigEndian.PutUint32(b[24:], p.CmdSN)
	binary.BigEndian.PutUint32(b[28:], p.ExpStatSN)
	copy(b[32:48], p.CDB[:])
	if n := len(p.ExtendedCDB); n > 0 {
		// AHSLength counts the reserved byte 3 too (section 11.2.2.3).
		dst = append(dst, byte((n+1)>>8), byte(n+1), ahsExtendedCDB, 0)
		dst = append(dst, p.ExtendedCDB...)
		dst = append(dst, padding[:pad(n)]...)
	}
	if p.Bidi {
		dst = append(dst, 0, 5, ahsBidiRead, 0)
		dst = binary.BigEndian.AppendUint32(dst, p.BidiReadLength)
	}
	dst[start+4] = byte((len(dst) - start - BHSLen) / 4)
	return dst, nil
}

// Decode implements PDU. ExtendedCDB aliases h.AHS.
func (p *SCSICommand) Decode(h *Header, data []byte) error {
	if err := h.check(OpSCSICommand, data); err != nil {
		return err
	}
	*p = SCSICommand{
		Immediate:                  h.Immediate(),
		Final:                      h.Final(),
		Read:                       h.BHS[1]&flagRead != 0,
		Write:                      h.BHS[1]&flagWrite != 0,
		Attr:                       TaskAttribute(h.BHS[1] & attrMask),
		LUN:                        h.LUN(),
		InitiatorTaskTag:           h.InitiatorTaskTag(),
		ExpectedDataTransferLength: h.u32(20),
		CmdSN:                      h.CmdSN(),
		ExpStatSN:                  h.ExpStatSN(),
		CDB:                        [16]byte(h.BHS[32:48]),
		Data:                       data,
	}
	switch {
	case p.Attr > AttrACA:
		return formatErr(OpSCSICommand, "ATTR", "reserved value")
	case !p.Final && !p.Write:
		return formatErr(OpSCSICommand, "F", "neither F nor W is set")
	case len(h.AHS) != h.TotalAHSLength():
		return formatErr(OpSCSICommand, "TotalAHSLength", "does not match the additional header segments")
	}
	return p.decodeAHS(h.AHS)
}

func (p *SCSICommand) decodeAHS(b []byte) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return formatErr(OpSCSICommand, "AHS", "is cut short")
		}
		// AHSLength leaves out itself and AHSType.
		n := int(binary.BigEndian.Uint16(b))
		size := 3 + n
		size += pad(size)
		if size > len(b) {
			return formatErr(OpSCSICommand, "AHSLength", "exceeds TotalAHSLength")
		}
		switch b[2] & ahsCodeMask {
		case ahsExtendedCDB:
			if n < 2 || p.ExtendedCDB != nil {
				return formatErr(OpSCSICommand, "ExtendedCDB", "is empty or repeated")
			}
			p.ExtendedCDB = b[4 : 3+n]
			if len(p.ExtendedCDB) > maxExtendedCDB {
				return formatErr(OpSCSICommand, "ExtendedCDB", "is too long")
			}
		case ahsBidiRead:
			if n != 5 || p.Bidi {
				return formatErr(OpSCSICommand, "BidirectionalReadLength", "has a wrong length or is repeated")
			}
			p.Bidi, p.BidiReadLength = true, binary.BigEndian.Uint32(b[4:])
		default:
			return formatErr(OpSCSICommand, "AHSType", "reserved value")
		}
		b = b[size:]
	}
	return nil
}

func (*SCSICommand) sealed() {}

// Service responses of a SCSIResponse (RFC 7143 section 11.4.3). Values from
// 0x80 are vendor specific.
const (
	ResponseCompleted     uint8 = 0x00 // Status is valid
	ResponseTargetFailure uint8 = 0x01
)

// A SCSIResponse ends a SCSI task with a status (RFC 7143 section 11.4).
type SCSIResponse struct {
	// BidiOverflow, BidiUnderflow, Overflow and Underflow are the flags
	// o, u, O and U: they say what the residual counts mean.
	BidiOverflow, BidiUnderflow, Overflow, Underflow bool
	// Response is the iSCSI service response. If it is not
	// ResponseCompleted, Status and the flags mean nothing.
	Response uint8
	// Status is the SCSI status.
	Status           uint8
	InitiatorTaskTag uint32
	SNACKTag         uint32
	StatSN           uint32
	ExpCmdSN         uint32
	MaxCmdSN         uint32
	// ExpDataSN is the number of Data-In (and, for a bidirectional command,
	// R2T) PDUs sent for the command.
	ExpDataSN uint32
	// BidiResidualCount and ResidualCount are in bytes.
	BidiResidualCount uint32
	ResidualCount     uint32
	// Data is the data segment: a 2-byte length, sense data of that length,
	// response data. See Sense.
	Data []byte
}

var _ PDU = (*SCSIResponse)(nil)

// Opcode returns OpSCSIResponse.
func (*SCSIResponse) Opcode() Opcode { return OpSCSIResponse }

// Payload returns Data.
func (p *SCSIResponse) Payload() []byte { return p.Data }

// Sense returns the sense data in Data, nil if there is none. A SenseLength
// beyond the segment is cut to it.
func (p *SCSIResponse) Sense() []byte { return senseOf(p.Data) }

// AppendHeader implements PDU.
func (p *SCSIResponse) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpSCSIResponse, p.Data)
	if err != nil {
		return dst, err
	}
	b[1] = flagFinal | bit(p.BidiOverflow, flagBidiOverflow) | bit(p.BidiUnderflow, flagBidiUnderflow) |
		bit(p.Overflow, flagOverflow) | bit(p.Underflow, flagUnderflow)
	b[2] = p.Response
	b[3] = p.Status
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.SNACKTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	binary.BigEndian.PutUint32(b[36:], p.ExpDataSN)
	binary.BigEndian.PutUint32(b[40:], p.BidiResidualCount)
	binary.BigEndian.PutUint32(b[44:], p.ResidualCount)
	return dst, nil
}

// Decode implements PDU.
func (p *SCSIResponse) Decode(h *Header, data []byte) error {
	if err := h.check(OpSCSIResponse, data); err != nil {
		return err
	}
	f := h.BHS[1]
	*p = SCSIResponse{
		BidiOverflow:      f&flagBidiOverflow != 0,
		BidiUnderflow:     f&flagBidiUnderflow != 0,
		Overflow:          f&flagOverflow != 0,
		Underflow:         f&flagUnderflow != 0,
		Response:          h.BHS[2],
		Status:            h.BHS[3],
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		SNACKTag:          h.u32(20),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		ExpDataSN:         h.u32(36),
		BidiResidualCount: h.u32(40),
		ResidualCount:     h.u32(44),
		Data:              data,
	}
	if p.Response == ResponseCompleted && (p.Overflow && p.Underflow || p.BidiOverflow && p.BidiUnderflow) {
		return formatErr(OpSCSIResponse, "O, U", "both are set")
	}
	return nil
}

func (*SCSIResponse) sealed() {}

// AppendSense appends sense data in the form in which the data segment of a
// SCSIResponse or an AsyncMessage has it: behind a 2-byte length. Sense data
// longer than 65535 bytes is cut.
func AppendSense(dst, sense []byte) []byte {
	sense = sense[:min(len(sense), 1<<16-1)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(sense)))
	return append(dst, sense...)
}

// senseOf returns the sense data of a data segment (sections 11.4.7, 11.9.4).
func senseOf(data []byte) []byte {
	if len(data) < 2 {
		return nil
	}
	n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
	if n == 0 {
		return nil
	}
	return data[2 : 2+n : 2+n]
}

// padding is a source of zeroes, never written.
var padding [4]byte
