package pdu

import "fmt"

// An Opcode says what kind of PDU a header begins (RFC 7143 section
// 11.2.1.2). It is 6 bits wide.
type Opcode uint8

// Initiator opcodes: only an initiator sends them.
const (
	OpNOPOut                Opcode = 0x00
	OpSCSICommand           Opcode = 0x01
	OpTaskManagementRequest Opcode = 0x02
	OpLoginRequest          Opcode = 0x03
	OpTextRequest           Opcode = 0x04
	OpDataOut               Opcode = 0x05
	OpLogoutRequest         Opcode = 0x06
	OpSNACK                 Opcode = 0x10
)

// Target opcodes: only a target sends them.
const (
	OpNOPIn                  Opcode = 0x20
	OpSCSIResponse           Opcode = 0x21
	OpTaskManagementResponse Opcode = 0x22
	OpLoginResponse          Opcode = 0x23
	OpTextResponse           Opcode = 0x24
	OpDataIn                 Opcode = 0x25
	OpLogoutResponse         Opcode = 0x26
	OpR2T                    Opcode = 0x31
	OpAsyncMessage           Opcode = 0x32
	OpReject                 Opcode = 0x3f
)

const opcodeMask = 0x3f

// FromTarget reports whether only a target may send the opcode.
func (o Opcode) FromTarget() bool { return o&0x20 != 0 }

// Known reports whether RFC 7143 assigns the opcode and this package has a
// type for it.
func (o Opcode) Known() bool { return o <= OpReject && opcodeNames[o] != "" }

// String returns the name of the PDU type in lower case.
func (o Opcode) String() string {
	if o.Known() {
		return opcodeNames[o]
	}
	return fmt.Sprintf("opcode %#02x", uint8(o))
}

// opcodeNames is a table, never written.
var opcodeNames = [OpReject + 1]string{
	OpNOPOut:                 "nop-out",
	OpSCSICommand:            "scsi command",
	OpTaskManagementRequest:  "task management request",
	OpLoginRequest:           "login request",
	OpTextRequest:            "text request",
	OpDataOut:                "data-out",
	OpLogoutRequest:          "logout request",
	OpSNACK:                  "snack",
	OpNOPIn:                  "nop-in",
	OpSCSIResponse:           "scsi response",
	OpTaskManagementResponse: "task management response",
	OpLoginResponse:          "login response",
	OpTextResponse:           "text response",
	OpDataIn:                 "data-in",
	OpLogoutResponse:         "logout response",
	OpR2T:                    "r2t",
	OpAsyncMessage:           "async message",
	OpReject:                 "reject",
}
