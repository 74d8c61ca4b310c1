package initiator

import (
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// An EventType says what happened to a session.
type EventType uint8

// The events of a session.
const (
	// EventConnected: the first login succeeded.
	EventConnected EventType = iota + 1

	// EventDisconnected: the connection was lost or given up; Err says why.
	EventDisconnected

	// EventLoginFailed: an attempt to log in failed; Err says why, Attempts
	// counts them.
	EventLoginFailed

	// EventRecovered: the session logged in again after Attempts attempts,
	// Outage after it lost its connection.
	EventRecovered

	// EventRecoveryTimeout: the recovery timeout is over, tasks fail from here
	// on.
	EventRecoveryTimeout

	// EventRedirected: the target moved the login to Portal.
	EventRedirected

	// EventAsync: the target sent an asynchronous message; Async holds it.
	EventAsync

	// EventClosed: the session ended; Err says why and is ErrClosed after Close
	// and Logout.
	EventClosed

	// EventConnectionLost: one of several connections was lost, or left as the target
	// asked for it, Err says why; the session goes on with the others, of which there
	// are Connections.
	EventConnectionLost

	// EventConnectionAdded: a connection was made in the place of such a one;
	// there are Connections now.
	EventConnectionAdded
)

// String returns a short name.
func (t EventType) String() string {
	switch t {
	case EventConnected:
		return "connected"
	case EventDisconnected:
		return "disconnected"
	case EventLoginFailed:
		return "login failed"
	case EventRecovered:
		return "recovered"
	case EventRecoveryTimeout:
		return "recovery timeout"
	case EventRedirected:
		return "redirected"
	case EventAsync:
		return "asynchronous message"
	case EventConnectionLost:
		return "one connection lost"
	case EventConnectionAdded:
		return "one connection added"
	case EventClosed:
		return "closed"
	}
	return "unknown event"
}

// An Event is something that happened to a session. Fields that the type does
// not mention are zero.
type Event struct {
	Type     EventType
	Time     time.Time
	Portal   Portal        // where we were or are connected
	Err      error         // why
	Attempts int           // attempts to log in since the connection was lost
	Outage   time.Duration // time since the connection was lost
	Async    *AsyncEvent

	// Connections is how many connections the session has.
	Connections int
}

// An AsyncEvent is an asynchronous message of the target (RFC 7143 section
// 11.9).
type AsyncEvent struct {
	Event      pdu.AsyncEvent
	VendorCode uint8   // AsyncVCode
	LUN        pdu.LUN // valid for pdu.AsyncSCSIEvent
	// The parameters depend on Event, see pdu.AsyncMessage.
	Parameter1 uint16
	Parameter2 uint16
	Parameter3 uint16
	Sense      []byte // sense data of pdu.AsyncSCSIEvent; a copy
}
