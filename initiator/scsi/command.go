package scsi

import (
	"encoding/binary"
	"errors"
)

// ErrUnknownCommand is returned by ParseCommand for an operation code or
// service action it does not know. A target answers with
// ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE (5/20/00).
var ErrUnknownCommand = errors.New("unknown SCSI command")

// A Command is a parsed CDB, the target's view of it. Which fields count
// depends on Op; the others are zero.
type Command struct {
	Op            Opcode
	ServiceAction uint8 // OpServiceActionIn16, OpMaintenanceIn, the reservation commands

	LBA    uint64 // logical block address
	Blocks uint32 // number of logical blocks; for COMPARE AND WRITE of one half

	// Length is the allocation length of commands that read parameters and
	// the parameter list length of those that send some.
	Length uint32

	FUA, DPO bool  // READ, WRITE, COMPARE AND WRITE
	Protect  uint8 // RDPROTECT, WRPROTECT or VRPROTECT, 3 bits
	Immed    bool  // SYNCHRONIZE CACHE, START STOP UNIT

	ByteCheck uint8 // BYTCHK of VERIFY and WRITE AND VERIFY, 2 bits

	NDOB   bool // WRITE SAME(16)
	Unmap  bool // WRITE SAME
	Anchor bool // WRITE SAME, UNMAP

	EVPD       bool  // INQUIRY
	Descriptor bool  // DESC of REQUEST SENSE
	Page       uint8 // INQUIRY, MODE SENSE
	SubPage    uint8 // MODE SENSE
	PageValues uint8 // PC of MODE SENSE: 0 current, 1 changeable, 2 default, 3 saved
	DBD        bool  // MODE SENSE: no block descriptors

	SelectReport SelectReport // REPORT LUNS

	Start, LoadEject bool  // START STOP UNIT
	PowerCondition   uint8 // START STOP UNIT

	ReportingOptions uint8  // REPORT SUPPORTED OPERATION CODES: 0 all, 1 one without, 2 one with service action
	RequestedOp      Opcode // REPORT SUPPORTED OPERATION CODES
	RequestedAction  uint16 // REPORT SUPPORTED OPERATION CODES

	Scope uint8           // PERSISTENT RESERVE OUT
	Type  ReservationType // PERSISTENT RESERVE OUT
}

// Name is the standard's name of the command, service action included.
func (c Command) Name() string { return CommandName([]byte{byte(c.Op), c.ServiceAction}) }

// ParseCommand parses a CDB of the commands that this package builds. cdb may
// be longer than the command, as it is in an iSCSI PDU, where 16 bytes are
// always there. The error is ErrUnknownCommand or a *FormatError for a CDB
// that is too short.
func ParseCommand(cdb []byte) (Command, error) {
	if len(cdb) == 0 {
		return Command{}, short("CDB", 0, 6)
	}
	c := Command{Op: Opcode(cdb[0])}
	n := CDBLength(c.Op)
	if n == 0 {
		return c, ErrUnknownCommand
	}
	if len(cdb) < n {
		return c, short("CDB of "+c.Op.String(), len(cdb), n)
	}
	ok := false
	switch cdb = cdb[:n]; n {
	case 6:
		ok = c.parse6(cdb)
	case 10:
		ok = c.parse10(cdb)
	case 12:
		ok = c.parse12(cdb)
	case 16:
		ok = c.parse16(cdb)
	}
	if !ok {
		return c, ErrUnknownCommand
	}
	return c, nil
}

func (c *Command) parse6(b []byte) bool {
	switch c.Op {
	case OpTestUnitReady, OpReserve6, OpRelease6, OpPreventAllow:
	case OpRequestSense:
		c.Descriptor = b[1]&1 != 0
		c.Length = uint32(b[4])
	case OpRead6, OpWrite6:
		c.LBA = uint64(b[1]&0x1f)<<16 | uint64(b[2])<<8 | uint64(b[3])
		if c.Blocks = uint32(b[4]); c.Blocks == 0 {
			c.Blocks = 256
		}
	case OpInquiry:
		c.EVPD = b[1]&1 != 0
		c.Page = b[2]
		c.Length = uint32(binary.BigEndian.Uint16(b[3:]))
	case OpModeSense6:
		c.modeSense(b)
		c.Length = uint32(b[4])
	case OpModeSelect6:
		c.Length = uint32(b[4])
	case OpStartStopUnit:
		c.Immed = b[1]&1 != 0
		c.Start, c.LoadEject = b[4]&1 != 0, b[4]&2 != 0
		c.PowerCondition = b[4] >> 4
	default:
		return false
	}
	return true
}

func (c *Command) modeSense(b []byte) {
	c.DBD = b[1]&0x08 != 0
	c.Page, c.PageValues, c.SubPage = b[2]&0x3f, b[2]>>6, b[3]
}

// access takes over the bits of byte 1 that READ and WRITE share.
func (c *Command) access(b1 byte) {
	c.Protect, c.DPO, c.FUA = b1>>5, b1&0x10 != 0, b1&0x08 != 0
}

// verify takes over the bits of byte 1 of VERIFY and WRITE AND VERIFY.
func (c *Command) verify(b1 byte) {
	c.Protect, c.DPO, c.ByteCheck = b1>>5, b1&0x10 != 0, b1>>1&3
}

// same takes over the bits of byte 1 of WRITE SAME.
func (c *Command) same(b1 byte) {
	c.Protect, c.Anchor, c.Unmap = b1>>5, b1&0x10 != 0, b1&0x08 != 0
}

func (c *Command) parse10(b []byte) bool {
	n := binary.BigEndian.Uint16(b[7:])
	switch c.Op {
	case OpReadCapacity10:
		return true
	case OpUnmap:
		c.Anchor = b[1]&1 != 0
		c.Length = uint32(n)
		return true
	case OpModeSense10:
		c.modeSense(b)
		c.Length = uint32(n)
		return true
	case OpModeSelect10, OpLogSense:
		c.Length = uint32(n)
		return true
	case OpPersistentReserveIn:
		c.ServiceAction = b[1] & 0x1f
		c.Length = uint32(n)
		return true
	case OpPersistentReserveOut:
		c.ServiceAction = b[1] & 0x1f
		c.Scope, c.Type = b[2]>>4, ReservationType(b[2]&0xf)
		c.Length = binary.BigEndian.Uint32(b[5:])
		return true
	case OpRead10, OpWrite10:
		c.access(b[1])
	case OpVerify10, OpWriteAndVerify10:
		c.verify(b[1])
	case OpSynchronizeCache10:
		c.Immed = b[1]&2 != 0
	case OpWriteSame10:
		c.same(b[1])
	default:
		return false
	}
	c.LBA, c.Blocks = uint64(binary.BigEndian.Uint32(b[2:])), uint32(n)
	return true
}

func (c *Command) parse12(b []byte) bool {
	n := binary.BigEndian.Uint32(b[6:])
	switch c.Op {
	case OpRead12, OpWrite12:
		c.access(b[1])
		c.LBA, c.Blocks = uint64(binary.BigEndian.Uint32(b[2:])), n
	case OpReportLUNs:
		c.SelectReport, c.Length = SelectReport(b[2]), n
	case OpMaintenanceIn:
		c.ServiceAction, c.Length = b[1]&0x1f, n
		c.requestedOpcode(b)
		return c.ServiceAction == SAReportTargetPortGroups || c.ServiceAction == SAReportSupportedOpcodes
	default:
		return false
	}
	return true
}

func (c *Command) parse16(b []byte) bool {
	c.LBA = binary.BigEndian.Uint64(b[2:])
	n := binary.BigEndian.Uint32(b[10:])
	switch c.Op {
	case OpRead16, OpWrite16:
		c.access(b[1])
	case OpVerify16, OpWriteAndVerify16:
		c.verify(b[1])
	case OpSynchronizeCache16:
		c.Immed = b[1]&2 != 0
	case OpWriteSame16:
		c.same(b[1])
		c.NDOB = b[1]&1 != 0
	case OpCompareAndWrite:
		c.access(b[1])
		n = uint32(b[13])
	case OpServiceActionIn16:
		c.ServiceAction, c.Length = b[1]&0x1f, n
		switch c.ServiceAction {
		case SAReadCapacity16:
			c.LBA = 0
			return true
		case SAGetLBAStatus:
			return true
		}
		return false
	default:
		c.LBA = 0
		return false
	}
	c.Blocks = n
	return true
}
