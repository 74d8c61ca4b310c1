package manager

import (
	"errors"
	"fmt"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// Error is a refusal or failure as the daemon reports it. Message is one
// line; Detail and Hint are for people: what exactly went wrong, and the next
// thing to try.
type Error struct {
	Code    int    `json:"code"` // errcode.Code
	Name    string `json:"name"` // "ERR_LOGIN_AUTH_FAILED"
	Message string `json:"message"`
	Detail  string `json:"detail,omitempty"`
	Hint    string `json:"hint,omitempty"`
	Target  string `json:"target,omitempty"` // name of the target, where there is one
	Portal  string `json:"portal,omitempty"` // where it was tried
}

// Error returns the message and, if there is one, the detail.
func (e *Error) Error() string {
	if e.Detail == "" || e.Detail == e.Message {
		return e.Message
	}
	return e.Message + ": " + e.Detail
}

// ISCSICode returns the exit code that the error stands for.
func (e *Error) ISCSICode() errcode.Code { return errcode.Code(e.Code) }

// Is makes errors.Is match two Errors by their code, and the sentinels of this
// package and of package initiator that stand for it.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return isCode(e.ISCSICode(), target) || ok && t.Code == e.Code && t.Detail == "" && t.Target == "" && t.Portal == ""
}

// ConnError is a failure to talk to the daemon, as opposed to one that the
// daemon reports. Its code is 20 when nobody listens, 13 when the socket may
// not be opened, 16 for another protocol version, 33 when the daemon does not
// answer and 18 for everything else.
type ConnError struct {
	Op     string // "login", "list sessions", …
	Socket string // path of the socket
	Code   errcode.Code
	Err    error
}

// Error implements error.
func (e *ConnError) Error() string {
	return fmt.Sprintf("%s: iscsid at %s: %v", e.Op, e.Socket, e.Err)
}

// Unwrap returns the cause.
func (e *ConnError) Unwrap() error { return e.Err }

// Is makes errors.Is find ErrNotRunning, and initiator.ErrTimeout for a daemon
// that does not answer.
func (e *ConnError) Is(target error) bool { return isCode(e.Code, target) }

// ISCSICode returns Code.
func (e *ConnError) ISCSICode() errcode.Code { return e.Code }

// IsNotRunning reports whether err says that no daemon listens on the socket.
func IsNotRunning(err error) bool {
	var ce *ConnError
	return errors.As(err, &ce) && ce.Code == errcode.ISCSIDNotConn
}

// VersionError says that the two ends have no protocol version in common.
type VersionError struct {
	Server             string // release of the server, empty if it did not say
	ServerMin          int    // oldest version it speaks
	ServerMax          int    // newest
	Client             string // release of the client
	ClientMin          int    // oldest version it speaks
	ClientMax          int    // newest
	program            string
	serverSaidNoRanges bool
}

// Error implements error.
func (e *VersionError) Error() string {
	if e.serverSaidNoRanges {
		return fmt.Sprintf("what listens there is not iscsid or is too old to say its version; this is %s with control protocol %s",
			e.Client, VersionRange(e.ClientMin, e.ClientMax))
	}
	return fmt.Sprintf("iscsid %s speaks control protocol %s, this is %s with %s: restart iscsid, or use the %s that came with it",
		e.Server, VersionRange(e.ServerMin, e.ServerMax), e.Client, VersionRange(e.ClientMin, e.ClientMax), e.program)
}

// ISCSICode returns 16, open-iscsi's code for a mismatch of the two programs.
func (e *VersionError) ISCSICode() errcode.Code { return errcode.InvalidMgmtReq }

// VersionRange names a range of protocol versions: "version 1", "versions 1 to 3".
func VersionRange(lo, hi int) string {
	if lo == hi {
		return fmt.Sprintf("version %d", lo)
	}
	return fmt.Sprintf("versions %d to %d", lo, hi)
}
