package initiator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// A sentinel is an error to compare with errors.Is. It knows the code that
// iscsiadm exits with.
type sentinel struct {
	text string
	code errcode.Code
}

func (e *sentinel) Error() string           { return e.text }
func (e *sentinel) ISCSICode() errcode.Code { return e.code }

// Errors to be found with errors.Is in what this package returns.
var (
	// ErrAuth: the target refused our credentials or our name, or could not
	// prove its own.
	ErrAuth error = &sentinel{"authorization failure", errcode.LoginAuthFailed}

	// ErrTargetNotFound: the portal does not know the target.
	ErrTargetNotFound error = &sentinel{"target not found", errcode.FatalLogin}

	// ErrTimeout: an answer or a connection did not come in time. For a task:
	// it was aborted because its time was over.
	ErrTimeout error = &sentinel{"timed out", errcode.PDUTimeout}

	// ErrRedirect: the target redirected the login too often or to nowhere.
	ErrRedirect error = &sentinel{"redirected in vain", errcode.Login}

	// ErrProtocol: the target did what RFC 7143 forbids.
	ErrProtocol error = &sentinel{"protocol violation by the target", errcode.FatalLogin}

	// ErrClosed: the session was closed or logged out, or is being so.
	ErrClosed error = &sentinel{"session closed", errcode.SessNotFound}

	// ErrRecoveryTimeout: the connection was lost and did not come back within
	// the recovery timeout. The session goes on trying; new tasks fail at once
	// until it succeeds.
	ErrRecoveryTimeout error = &sentinel{"session recovery timed out", errcode.TransTimeout}

	// ErrTransport: the connection could not be made or was lost.
	ErrTransport error = &sentinel{"connection failure", errcode.Trans}

	// ErrHungUp: the target ended the connection in order, between two PDUs. Such
	// an error is an ErrTransport, too. It is no io.EOF: what was lost is not
	// the end of anything that was read.
	ErrHungUp error = &sentinel{"connection closed by the target", errcode.Trans}

	// ErrResolve: the host name of a portal did not resolve. Such an error is
	// an ErrTransport, too.
	ErrResolve error = &sentinel{"host name does not resolve", errcode.Trans}

	// ErrInterrupted: the connection was lost while the task was outstanding,
	// so the device may or may not have carried it out, and the task did not
	// allow to be sent again. Such an error is an ErrTransport, too.
	ErrInterrupted error = &sentinel{"connection lost while the command was outstanding: it may have been carried out", errcode.Trans}

	// ErrInvalid: a Config, portal or name that cannot be used; nothing was
	// tried. A *ConfigError or *PortalError says what is wrong.
	ErrInvalid error = &sentinel{"invalid parameter", errcode.Inval}

	// ErrAborted: the task was ended by a task management function.
	ErrAborted error = &sentinel{"task aborted", errcode.Err}
)

// tagged is an error that is also one of the sentinels: its text and its chain
// are those of err, and errors.Is finds kind as well.
type tagged struct {
	kind error
	err  error
}

// withKind marks err as an instance of kind.
func withKind(kind, err error) error { return &tagged{kind: kind, err: err} }

func (e *tagged) Error() string   { return e.err.Error() }
func (e *tagged) Unwrap() []error { return []error{e.err, e.kind} }

// protocolErrorf reports a violation of RFC 7143 by the target.
func protocolErrorf(format string, args ...any) error {
	return &protocolError{reason: fmt.Sprintf(format, args...)}
}

type protocolError struct{ reason string }

func (e *protocolError) Error() string           { return "protocol violation by the target: " + e.reason }
func (e *protocolError) Unwrap() error           { return ErrProtocol }
func (e *protocolError) ISCSICode() errcode.Code { return errcode.FatalLogin }

// A ConfigError is a Config that cannot be used.
type ConfigError struct {
	Field  string // name of the field
	Reason string // what is wrong with it
}

// Error implements error.
func (e *ConfigError) Error() string { return fmt.Sprintf("config: %s: %s", e.Field, e.Reason) }

// Is makes errors.Is find ErrInvalid.
func (e *ConfigError) Is(target error) bool { return target == ErrInvalid }

// ISCSICode returns the code for an invalid parameter.
func (e *ConfigError) ISCSICode() errcode.Code { return errcode.Inval }

// An OpError is a failed operation on a target, with what was tried where.
type OpError struct {
	Op     string // "dial", "login", "discover", "logout", "ping", "task management"
	Target string // empty for discovery
	Portal Portal // where it was tried last
	Err    error
}

// Error implements error.
func (e *OpError) Error() string {
	s := e.Op
	if e.Target != "" {
		s += " " + e.Target
	}
	if !e.Portal.IsZero() {
		s += " at " + e.Portal.Address()
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Timeout reports whether the operation failed because its time was over.
func (e *OpError) Timeout() bool {
	return errors.Is(e.Err, ErrTimeout) || errors.Is(e.Err, context.DeadlineExceeded)
}

// A LoginError is a login that the target refused with a status (RFC 7143
// section 11.13.5).
type LoginError struct {
	Class, Detail uint8
	Target        string
	Portal        Portal
}

// A PortalGroupError is a portal that belongs to another target portal group than
// the one it was taken for: the target was configured anew since its discovery.
type PortalGroupError struct {
	Want, Got int // target portal group tags
	Portal    Portal
}

// Error implements error.
func (e *PortalGroupError) Error() string {
	return fmt.Sprintf("portal belongs to target portal group %d, expected %d", e.Got, e.Want)
}

// ISCSICode returns the code for a login that is not worth a second try.
func (e *PortalGroupError) ISCSICode() errcode.Code { return errcode.FatalLogin }

var loginStatusText = map[[2]uint8]string{
	{1, 1}:    "target moved temporarily",
	{1, 2}:    "target moved permanently",
	{2, 0}:    "initiator error",
	{2, 1}:    "authentication failed",
	{2, 2}:    "initiator not authorized",
	{2, 3}:    "target not found",
	{2, 4}:    "target removed",
	{2, 5}:    "unsupported protocol version",
	{2, 6}:    "too many connections",
	{2, 7}:    "missing parameter",
	{2, 8}:    "cannot include in session",
	{2, 9}:    "session type not supported",
	{2, 0x0a}: "session does not exist",
	{2, 0x0b}: "invalid request during login",
	{3, 0}:    "target error",
	{3, 1}:    "service unavailable",
	{3, 2}:    "out of resources",
}

// Error implements error.
func (e *LoginError) Error() string {
	text := loginStatusText[[2]uint8{e.Class, e.Detail}]
	if text == "" {
		text = "unknown status"
	}
	return fmt.Sprintf("%s (login status 0x%02x%02x)", text, e.Class, e.Detail)
}

// Is makes errors.Is find ErrAuth, ErrTargetNotFound and ErrRedirect.
func (e *LoginError) Is(target error) bool {
	switch target {
	case ErrAuth:
		return e.Class == pdu.LoginInitiatorError && (e.Detail == 1 || e.Detail == 2)
	case ErrTargetNotFound:
		return e.Class == pdu.LoginInitiatorError && (e.Detail == 3 || e.Detail == 4)
	case ErrRedirect:
		return e.Class == pdu.LoginRedirection
	}
	return false
}

// ISCSICode returns 24 for a refused authentication, 19 for what is not worth a
// second try and 5 for the rest.
func (e *LoginError) ISCSICode() errcode.Code {
	switch {
	case e.Is(ErrAuth):
		return errcode.LoginAuthFailed
	case e.temporary():
		return errcode.Login
	}
	return errcode.FatalLogin
}

// temporary reports whether another attempt may succeed.
func (e *LoginError) temporary() bool {
	return e.Class == pdu.LoginTargetError || e.Class == pdu.LoginRedirection
}

// codedError gives an error another code than its chain would.
type codedError struct {
	err  error
	code errcode.Code
}

func withCode(code errcode.Code, err error) error { return &codedError{err: err, code: code} }

func (e *codedError) Error() string           { return e.err.Error() }
func (e *codedError) Unwrap() error           { return e.err }
func (e *codedError) ISCSICode() errcode.Code { return e.code }

// transportError marks an error of the network as ErrTransport, and a timeout as
// ErrTimeout.
func transportError(err error) error {
	if err == nil || errors.Is(err, ErrTransport) || errors.Is(err, ErrTimeout) {
		return err
	}
	var ne net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		return withKind(ErrTimeout, withKind(ErrTransport, err))
	}
	return withKind(ErrTransport, err)
}

// A TMFError is a task management function that the target did not carry out
// (RFC 7143 section 11.6.1).
type TMFError struct {
	Function pdu.TaskFunction
	Response pdu.TaskResponse // never pdu.TaskFunctionComplete
}

// Error implements error.
func (e *TMFError) Error() string {
	return e.Function.String() + ": " + e.Response.String()
}

// A RejectError is a request that the target rejected (RFC 7143 section
// 11.17.1).
type RejectError struct {
	Reason pdu.RejectReason
}

// Error implements error.
func (e *RejectError) Error() string { return "rejected by the target: " + e.Reason.String() }

// A ResponseError is a command that the target could not deliver to the device
// (RFC 7143 section 11.4.3); there is no SCSI status.
type ResponseError struct {
	Response uint8 // pdu.ResponseTargetFailure or a vendor's code; never 0
}

// Error implements error.
func (e *ResponseError) Error() string {
	if e.Response == pdu.ResponseTargetFailure {
		return "target failure"
	}
	return fmt.Sprintf("iscsi service response 0x%02x", e.Response)
}

// A gapError is a sequence number that is not the next one: something between
// target and initiator was lost.
type gapError struct {
	field     string
	want, got uint32
}

func (e *gapError) Error() string {
	return fmt.Sprintf("%s is %d where %d is next", e.field, e.got, e.want)
}

// A dropError is the end of a connection, or of a session, that the target
// announced or asked for.
type dropError struct {
	session bool          // of all connections
	closed  bool          // the target has closed it, and ended its tasks: it was logged out of
	wait    time.Duration // before recovery is attempted
	retain  time.Duration // for how long after that the target keeps tasks
	text    string
}

func (e *dropError) Error() string { return e.text }
func (e *dropError) Unwrap() error { return ErrTransport }

// SafeToRetry reports whether a task that failed with err was certainly not
// carried out, so that it may be submitted again whatever it does. A task that
// failed otherwise may be submitted again only if carrying it out twice does no
// harm.
func SafeToRetry(err error) bool {
	if err == nil || errors.Is(err, ErrInterrupted) {
		return false
	}
	var ns *notSentError
	return errors.As(err, &ns)
}

// notSentError is the failure of a task of which no byte was sent.
type notSentError struct{ err error }

func (e *notSentError) Error() string { return e.err.Error() }
func (e *notSentError) Unwrap() error { return e.err }

// notSent marks err as the failure of a task that was never sent.
func notSent(err error) error { return &notSentError{err} }
