package isns

import (
	"fmt"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// A ProtocolError says that the server sent what RFC 4171 does not allow, or
// more than this package takes.
type ProtocolError struct{ Reason string }

// Error implements error.
func (e *ProtocolError) Error() string { return "protocol violation by the iSNS server: " + e.Reason }

// ISCSICode returns the code for a failed query.
func (e *ProtocolError) ISCSICode() errcode.Code { return errcode.ISNSQuery }

// A StatusError is a refusal by the server (RFC 4171 section 5.4).
type StatusError struct{ Status uint32 }

var statusText = map[uint32]string{
	1:  "unknown error",
	2:  "message format error",
	3:  "invalid registration",
	5:  "invalid query",
	6:  "source unknown",
	7:  "source absent",
	8:  "source unauthorized",
	9:  "no such entry",
	10: "version not supported",
	11: "internal error",
	12: "busy",
	14: "option not understood",
	17: "message not supported",
}

// Error implements error.
func (e *StatusError) Error() string {
	text := statusText[e.Status]
	if text == "" {
		text = "refused"
	}
	return fmt.Sprintf("iSNS server: %s (status %d)", text, e.Status)
}

// ISCSICode returns the code for a failed query.
func (e *StatusError) ISCSICode() errcode.Code { return errcode.ISNSQuery }
