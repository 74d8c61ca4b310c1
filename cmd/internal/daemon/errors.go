package daemon

import (
	"errors"
	"fmt"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// A requestError is the outcome of a request that the daemon itself refuses
// or gives up, with the exit code that iscsiadm ends with. Errors of the
// session carry their own code and pass through unchanged.
type requestError struct {
	code errcode.Code
	msg  string
	err  error
}

func refuse(code errcode.Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &requestError{code: code, msg: err.Error(), err: errors.Unwrap(err)}
}

func (e *requestError) Error() string           { return e.msg }
func (e *requestError) Unwrap() error           { return e.err }
func (e *requestError) ISCSICode() errcode.Code { return e.code }

// errStopping is the cause of every context that ends because the daemon
// stops; what it interrupts leaves its devices and state to the next daemon.
var errStopping = &requestError{code: errcode.ISCSIDComm, msg: "the daemon is stopping"}

// errLogout is the cause of every context that a logout ends.
var errLogout = &requestError{code: errcode.SessionNotConnected, msg: "the session is being logged out"}
