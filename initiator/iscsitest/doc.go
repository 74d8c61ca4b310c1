// Package iscsitest is an iSCSI target in the process, for tests of programs
// that use package initiator, in the way net/http/httptest has servers for
// tests of HTTP clients:
//
//	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
//		Name: "iqn.2001-04.com.example:disk",
//		LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(64 << 20)}},
//	}}})
//	defer srv.Close()
//	// log in to srv.Portal() …
//
// It is a whole target of RFC 7143, with several connections a session and error
// recovery level 1 where Params.MaxConnections and Params.ErrorRecoveryLevel allow
// them: login with CHAP, all negotiations, discovery, commands with
// immediate, unsolicited and solicited data, task management, persistent
// reservations, unit attentions. It serves real initiators too; the program
// iscsi-target is this package with flags.
//
// # A strict peer
//
// The server checks what initiators send against the RFC, also where a
// target could do without. Every rule broken is recorded and can be had
// from Server.Violations, so that the tests of an initiator can demand that
// there are none.
//
// # Faults
//
// Server.Handle installs a handler for an opcode, of requests as they arrive
// and of responses before they are sent. Its Action lets the PDU pass, drops,
// delays, replaces or corrupts it, or ends the connection. Other methods of
// Server refuse and redirect logins, cut connections, stop answering, close
// the command window and send asynchronous messages; LUN.FailNext makes
// commands end with a status and sense data of the test's choice.
//
// # Concurrency
//
// One goroutine serves a connection: it reads PDUs, executes commands at once
// and collects the replies, which it sends when there is nothing more to
// read in memory. A lock of the session lets methods of Server, and
// handlers' delays, in between two PDUs; no lock is held while reading. The
// goroutines of a server end with Close, which waits for them. All methods of
// Server and LUN may be called by any goroutine.
//
// Stores are called by the goroutines of all connections at the same time.
package iscsitest
