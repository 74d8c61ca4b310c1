// Package control is the interface between iscsiadm and iscsid: the server that
// iscsid runs, and the types that travel and the client under the names of
// package manager, which has them for every program.
//
// # Protocol
//
// HTTP/1.1 with JSON bodies over a unix stream socket, so that
// curl --unix-socket is enough to look at it. Every path but /version and
// /metrics begins with the protocol version:
//
//	GET    /version                  VersionInfo
//	GET    /metrics                  the counters in Prometheus's format
//	GET    /v1/initiator             Initiator
//	GET    /v1/sessions              []Session, ordered by sid
//	POST   /v1/sessions              LoginRequest -> 201 Session (202 with no_wait)
//	GET    /v1/sessions/{sid}        Session
//	DELETE /v1/sessions/{sid}        logout, 204
//	POST   /v1/sessions/{sid}/rescan RescanResult
//	GET    /v1/sessions/{sid}/stats  Stats
//	POST   /v1/sessions/{sid}/luns/{lun}/rescan
//	                                 RescanResult, of one logical unit
//	DELETE /v1/sessions/{sid}/luns/{lun}
//	                                 removal of one unit's device, 204
//	GET    /v1/sessions/{sid}/trace  PDUs in pcapng format, ?duration=10s
//	DELETE /v1/sessions/{sid}/trace  ends the trace, 204
//	GET    /v1/log                   LogLevel
//	PUT    /v1/log                   LogLevel, 204
//	POST   /v1/shutdown              204; iscsid ends when it has answered
//
// An answer that is not 2xx carries an Error. Both lists and single sessions
// take the query parameters of SessionQuery.
//
// # Versions
//
// Every answer names the release and the range of protocol versions of the
// server in headers, whatever the outcome. A reader ignores fields of an
// answer that it does not know; a server refuses fields of a request that it
// does not know, by name, so that nothing asked for is silently left out.
// A new field is therefore compatible as long as it is left out when unused;
// a change of meaning needs a new version. A mismatch ends in an error that
// names both sides' releases and ranges.
//
// # Waiting
//
// A login, logout or rescan may take minutes. While the server works on a
// request it sends an interim answer (102 Processing) every few seconds; a
// client that hears nothing at all for [ClientOptions.Silence] gives up, so a stopped
// daemon never hangs a command, and a slow target is not mistaken for one.
// When a client goes away its request's context ends: a login that somebody
// waited for is cancelled by that, one sent with NoWait is not.
//
// # Who may
//
// The server reads the peer's credentials from the socket (SO_PEERCRED and
// SO_PEERGROUPS). Root, the user the server runs as, and members of one
// configured group may do everything; everybody else who can open the socket
// may read the sessions without records and secrets, and nothing more.
//
// # Concurrency
//
// A Client may be used by any number of goroutines. The Server calls its
// Service from one goroutine a request, concurrently.
package control
