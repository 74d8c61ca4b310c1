package initiator

import (
	"net"
	"time"
)

// A SessionState is the state of a session; docs/session.md has the events that
// lead from one to the other.
type SessionState uint8

// The states of a session.
const (
	// StateLoggingIn: the first login goes on.
	StateLoggingIn SessionState = iota
	// StateLoggedIn: a connection is live and tasks are sent.
	StateLoggedIn
	// StateReconnecting: the connection is lost, tasks wait for the next.
	StateReconnecting
	// StateFailed: the recovery timeout is over, tasks fail at once; attempts
	// to log in go on.
	StateFailed
	// StateLoggingOut: Logout was called.
	StateLoggingOut
	// StateClosed: the session has ended.
	StateClosed
)

// String returns the state in words.
func (s SessionState) String() string {
	switch s {
	case StateLoggingIn:
		return "logging in"
	case StateLoggedIn:
		return "logged in"
	case StateReconnecting:
		return "reconnecting"
	case StateFailed:
		return "failed"
	case StateLoggingOut:
		return "logging out"
	case StateClosed:
		return "closed"
	}
	return "unknown state"
}

// A ConnState is the state of a session's connection.
type ConnState uint8

// The states of a connection.
const (
	// ConnFree: there is none.
	ConnFree ConnState = iota
	// ConnWait: waiting until the next attempt to connect is due.
	ConnWait
	// ConnConnecting: a TCP connection is being made.
	ConnConnecting
	// ConnLoggingIn: the login goes on.
	ConnLoggingIn
	// ConnLoggedIn: full feature phase.
	ConnLoggedIn
	// ConnLogoutRequested: the target wants us to log out.
	ConnLogoutRequested
	// ConnLoggingOut: a Logout request was sent.
	ConnLoggingOut
)

// String returns the state in words.
func (s ConnState) String() string {
	switch s {
	case ConnFree:
		return "free"
	case ConnWait:
		return "waiting"
	case ConnConnecting:
		return "connecting"
	case ConnLoggingIn:
		return "logging in"
	case ConnLoggedIn:
		return "logged in"
	case ConnLogoutRequested:
		return "logout requested"
	case ConnLoggingOut:
		return "logging out"
	}
	return "unknown state"
}

// Info describes a session at one moment.
type Info struct {
	InitiatorName string // of the Config
	Target        string // of the Config
	TargetAlias   string // as the target gave it; may be empty
	ISID          ISID
	TSIH          uint16 // the target's part of the session identifier
	State         SessionState
	ConnState     ConnState

	// Portal is where we are, or were last, connected; Persistent is the
	// portal of the Config, where recovery starts. They differ after a
	// redirection.
	Portal, Persistent Portal

	// TPGT is the portal group tag that the target reported, or the one in
	// Config.Portal.
	TPGT int

	// Connections is how many connections there are at the moment.
	Connections int

	// LocalAddr and RemoteAddr are those of the leading connection; nil when
	// there is none.
	LocalAddr, RemoteAddr net.Addr

	// Negotiated are the parameters of the present or last connection.
	Negotiated Params

	// Timeouts are the timeouts in force.
	Timeouts Timeouts

	// CHAP is what the Config gave.
	CHAP CHAP

	Created        time.Time // when Dial succeeded
	ConnectedSince time.Time // zero when not connected

	// Recoveries counts successful recoveries. LastError is why a
	// connection was lost last, LastRecovery when the last recovery
	// succeeded, Attempts how many attempts failed in the present outage.
	// Outage is how long the present outage has lasted, or the last one did.
	Recoveries   uint64
	LastError    error
	LastRecovery time.Time
	Attempts     int
	Outage       time.Duration

	// ConnectionRecoveries counts the connections that were lost and made good
	// without a new login of the session.
	ConnectionRecoveries uint64

	// Queued and InFlight count tasks.
	Queued, InFlight int
}
