package control

import (
	"context"
	"io"
)

// Service is what iscsid does for its clients. Its methods are called
// concurrently. The context ends when the client goes away or the server
// stops; a method must return soon after that.
//
// An error reaches the client with the code that errcode.Of finds in it. A
// *Error in its tree is sent as it is.
type Service interface {
	// Login makes a session and returns it when its devices are usable. The
	// check for an existing session and the choice of the new sid are one
	// atomic step: a login in progress counts (code 15). Cancelling ctx
	// cancels the login, unless req.NoWait is set: then Login returns as soon
	// as the login has been started, with the pending session.
	Login(ctx context.Context, req *LoginRequest) (*Session, error)
	// Sessions returns the sessions in any order.
	Sessions(ctx context.Context, q SessionQuery) ([]Session, error)
	// Session returns one session, pending or not; code 2 if there is none.
	Session(ctx context.Context, sid int, q SessionQuery) (*Session, error)
	// Logout ends a session in whatever state it is and returns when its
	// devices are gone. A pending one is cancelled. With safe, one of whose
	// devices is in use is left as it is: code 28.
	Logout(ctx context.Context, sid int, safe bool) error
	// Rescan looks for new, vanished, resized and replaced logical units.
	Rescan(ctx context.Context, sid int) (*RescanResult, error)
	// RescanLUN does what Rescan does for one logical unit, and takes up one
	// that was removed. A unit that the target does not have is no error. lun is
	// the number as Device.LUN has it.
	RescanLUN(ctx context.Context, sid int, lun uint64) (*RescanResult, error)
	// RemoveLUN takes a logical unit's device away and returns when it is gone.
	// The unit stays away until a rescan. Code 21 if the session has no such unit;
	// with safe, 28 for a device in use, which is left as it is.
	RemoveLUN(ctx context.Context, sid int, lun uint64, safe bool) error
	// Stats returns the counters of a session.
	Stats(ctx context.Context, sid int) (*Stats, error)
	// Trace writes the session's PDUs to w in pcapng format until o.Duration is
	// over, EndTrace is called or the session ends. It writes something at once.
	// Code 28 if the session is being traced already.
	Trace(ctx context.Context, sid int, o TraceOptions, w io.Writer) (*TraceResult, error)
	// EndTrace ends the trace of a session; none is no error.
	EndTrace(ctx context.Context, sid int) error
	// LogLevel returns how much is logged: LevelError, LevelWarn, LevelInfo or
	// LevelDebug.
	LogLevel(ctx context.Context) (*LogLevel, error)
	// SetLogLevel changes it until iscsid ends.
	SetLogLevel(ctx context.Context, l LogLevel) error
	// Initiator returns the initiator's name.
	Initiator(ctx context.Context) (*Initiator, error)
	// Shutdown asks the process to end. It returns at once.
	Shutdown(ctx context.Context) error
}
