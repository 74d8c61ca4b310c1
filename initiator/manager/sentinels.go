package manager

import (
	"errors"

	"github.com/goiscsi/goiscsi/initiator"
)

// Errors to be found with errors.Is in what this package returns, whoever
// reports them, the daemon or the client. initiator.ErrorCode has the number. What the daemon failed at with the target is initiator.ErrAuth,
// ErrTransport, ErrTimeout or ErrInvalid.
var (
	// ErrSessionExists says that there is such a session already (code 15).
	ErrSessionExists = errors.New("session exists")

	// ErrNotFound says that there is no such session (codes 2 and 21).
	ErrNotFound = errors.New("no such session")

	// ErrInUse says that a device is mounted, swapped to, or part of another
	// one, and was left as it was (code 28).
	ErrInUse = errors.New("device in use")

	// ErrNotRunning says that no daemon listens on the socket (code 20).
	ErrNotRunning = errors.New("no iscsid")

	// ErrNoLUN says that the target has no disk at the LUN.
	ErrNoLUN = errors.New("no disk at the LUN")
)

// isCode reports whether an error with code c is, for errors.Is, target.
func isCode(c initiator.Code, target error) bool {
	switch target {
	case ErrSessionExists:
		return c == initiator.CodeSessionExists
	case ErrNotFound:
		return c == initiator.CodeSessionNotFound || c == initiator.CodeNotFound
	case ErrInUse:
		return c == initiator.CodeBusy
	case ErrNotRunning:
		return c == initiator.CodeNoDaemon
	case initiator.ErrAuth:
		return c == initiator.CodeAuth
	case initiator.ErrTransport:
		return c == initiator.CodeTransport || c == initiator.CodeTransportTimeout
	case initiator.ErrTimeout:
		return c == initiator.CodePDUTimeout || c == initiator.CodeTransportTimeout || c == initiator.CodeDaemonTimeout
	case initiator.ErrInvalid:
		return c == initiator.CodeInvalid
	}
	return false
}
