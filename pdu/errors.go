package pdu

import "fmt"

// A FormatError reports a PDU or a text that does not have the form RFC 7143
// prescribes. When it comes from a Reader the stream cannot be followed any
// further; when it comes from a decoder only the one PDU is lost.
type FormatError struct {
	// Opcode is the opcode of the PDU, or NoOpcode when the error concerns
	// text, a name or a value outside of any PDU.
	Opcode Opcode
	// Field names the offending field as the RFC does.
	Field string
	// Reason says what is wrong with it.
	Reason string
}

// NoOpcode is the Opcode of a FormatError that belongs to no PDU. It is not a
// value that fits the 6 bits of the wire.
const NoOpcode Opcode = 0xff

// Error implements the error interface.
func (e *FormatError) Error() string {
	if e.Opcode == NoOpcode {
		return fmt.Sprintf("iscsi: %s: %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("iscsi: %s pdu: %s: %s", e.Opcode, e.Field, e.Reason)
}

// A DigestError reports a header or data digest that does not match what it
// covers (RFC 7143 sections 7.7 and 7.8). A header digest error loses the
// framing of the stream. After a data digest error the Reader stands at the
// next PDU.
type DigestError struct {
	// Header is true for the header digest, false for the data digest.
	Header bool
	// Want is the digest that was received.
	Want uint32
	// Got is the digest computed over the bytes received.
	Got uint32
}

// Error implements the error interface.
func (e *DigestError) Error() string {
	kind := "data"
	if e.Header {
		kind = "header"
	}
	return fmt.Sprintf("iscsi: %s digest: received %#08x, computed %#08x", kind, e.Want, e.Got)
}

// formatErr returns a FormatError for a field of a PDU.
func formatErr(op Opcode, field, reason string) *FormatError {
	return &FormatError{Opcode: op, Field: field, Reason: reason}
}

// textErr returns a FormatError for a text or a value.
func textErr(field, reason string) *FormatError {
	return &FormatError{Opcode: NoOpcode, Field: field, Reason: reason}
}
