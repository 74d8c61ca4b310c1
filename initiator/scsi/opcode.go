package scsi

import "fmt"

// An Opcode is the first byte of a CDB. Some opcodes are refined by a service
// action.
type Opcode uint8

// The operation codes of SPC-5 and SBC-4 that occur on block devices.
const (
	OpTestUnitReady        Opcode = 0x00
	OpRequestSense         Opcode = 0x03
	OpFormatUnit           Opcode = 0x04
	OpRead6                Opcode = 0x08
	OpWrite6               Opcode = 0x0a
	OpInquiry              Opcode = 0x12
	OpModeSelect6          Opcode = 0x15
	OpReserve6             Opcode = 0x16
	OpRelease6             Opcode = 0x17
	OpModeSense6           Opcode = 0x1a
	OpStartStopUnit        Opcode = 0x1b
	OpPreventAllow         Opcode = 0x1e
	OpReadCapacity10       Opcode = 0x25
	OpRead10               Opcode = 0x28
	OpWrite10              Opcode = 0x2a
	OpWriteAndVerify10     Opcode = 0x2e
	OpVerify10             Opcode = 0x2f
	OpSynchronizeCache10   Opcode = 0x35
	OpWriteSame10          Opcode = 0x41
	OpUnmap                Opcode = 0x42
	OpLogSense             Opcode = 0x4d
	OpModeSelect10         Opcode = 0x55
	OpModeSense10          Opcode = 0x5a
	OpPersistentReserveIn  Opcode = 0x5e
	OpPersistentReserveOut Opcode = 0x5f
	OpVariableLength       Opcode = 0x7f
	OpRead16               Opcode = 0x88
	OpCompareAndWrite      Opcode = 0x89
	OpWrite16              Opcode = 0x8a
	OpWriteAndVerify16     Opcode = 0x8e
	OpVerify16             Opcode = 0x8f
	OpSynchronizeCache16   Opcode = 0x91
	OpWriteSame16          Opcode = 0x93
	OpServiceActionIn16    Opcode = 0x9e
	OpReportLUNs           Opcode = 0xa0
	OpMaintenanceIn        Opcode = 0xa3
	OpMaintenanceOut       Opcode = 0xa4
	OpRead12               Opcode = 0xa8
	OpWrite12              Opcode = 0xaa
)

// Service actions of OpServiceActionIn16 (SBC-4) and OpMaintenanceIn (SPC-5).
const (
	SAReadCapacity16         uint8 = 0x10
	SAGetLBAStatus           uint8 = 0x12
	SAReportTargetPortGroups uint8 = 0x0a
	SAReportSupportedOpcodes uint8 = 0x0c
)

var opcodeNames = map[Opcode]string{
	OpTestUnitReady:        "TEST UNIT READY",
	OpRequestSense:         "REQUEST SENSE",
	OpFormatUnit:           "FORMAT UNIT",
	OpRead6:                "READ(6)",
	OpWrite6:               "WRITE(6)",
	OpInquiry:              "INQUIRY",
	OpModeSelect6:          "MODE SELECT(6)",
	OpReserve6:             "RESERVE(6)",
	OpRelease6:             "RELEASE(6)",
	OpModeSense6:           "MODE SENSE(6)",
	OpStartStopUnit:        "START STOP UNIT",
	OpPreventAllow:         "PREVENT ALLOW MEDIUM REMOVAL",
	OpReadCapacity10:       "READ CAPACITY(10)",
	OpRead10:               "READ(10)",
	OpWrite10:              "WRITE(10)",
	OpWriteAndVerify10:     "WRITE AND VERIFY(10)",
	OpVerify10:             "VERIFY(10)",
	OpSynchronizeCache10:   "SYNCHRONIZE CACHE(10)",
	OpWriteSame10:          "WRITE SAME(10)",
	OpUnmap:                "UNMAP",
	OpLogSense:             "LOG SENSE",
	OpModeSelect10:         "MODE SELECT(10)",
	OpModeSense10:          "MODE SENSE(10)",
	OpPersistentReserveIn:  "PERSISTENT RESERVE IN",
	OpPersistentReserveOut: "PERSISTENT RESERVE OUT",
	OpVariableLength:       "VARIABLE LENGTH CDB",
	OpRead16:               "READ(16)",
	OpCompareAndWrite:      "COMPARE AND WRITE",
	OpWrite16:              "WRITE(16)",
	OpWriteAndVerify16:     "WRITE AND VERIFY(16)",
	OpVerify16:             "VERIFY(16)",
	OpSynchronizeCache16:   "SYNCHRONIZE CACHE(16)",
	OpWriteSame16:          "WRITE SAME(16)",
	OpServiceActionIn16:    "SERVICE ACTION IN(16)",
	OpReportLUNs:           "REPORT LUNS",
	OpMaintenanceIn:        "MAINTENANCE IN",
	OpMaintenanceOut:       "MAINTENANCE OUT",
	OpRead12:               "READ(12)",
	OpWrite12:              "WRITE(12)",
}

// String returns the standard's name of the operation code.
func (o Opcode) String() string {
	if s, ok := opcodeNames[o]; ok {
		return s
	}
	return fmt.Sprintf("opcode 0x%02x", uint8(o))
}

// CommandName names the command a CDB asks for, service action included:
// "READ CAPACITY(16)" rather than "SERVICE ACTION IN(16)". An empty CDB has the
// name "no command".
func CommandName(cdb []byte) string {
	if len(cdb) == 0 {
		return "no command"
	}
	op := Opcode(cdb[0])
	if len(cdb) > 1 {
		switch sa := cdb[1] & 0x1f; {
		case op == OpServiceActionIn16 && sa == SAReadCapacity16:
			return "READ CAPACITY(16)"
		case op == OpServiceActionIn16 && sa == SAGetLBAStatus:
			return "GET LBA STATUS"
		case op == OpMaintenanceIn && sa == SAReportTargetPortGroups:
			return "REPORT TARGET PORT GROUPS"
		case op == OpMaintenanceIn && sa == SAReportSupportedOpcodes:
			return "REPORT SUPPORTED OPERATION CODES"
		}
	}
	return op.String()
}

// CDBLength returns the length the standard gives a CDB that starts with op:
// 6, 10, 12 or 16, and 0 where the group code fixes none (variable length,
// reserved and vendor-specific groups; SPC-5 §4.2.5.1).
func CDBLength(op Opcode) int {
	if op == OpVariableLength {
		return 0
	}
	switch op >> 5 {
	case 0:
		return 6
	case 1, 2:
		return 10
	case 4:
		return 16
	case 5:
		return 12
	}
	return 0
}
