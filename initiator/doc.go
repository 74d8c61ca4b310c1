// Package initiator is an iSCSI initiator in user space (RFC 7143): discovery,
// login, a session that recovers by itself, raw SCSI tasks, and logical units as
// block devices. It needs neither root nor a kernel driver nor a daemon.
//
// # Layers
//
// Connect is the short way to a disk: it logs in and opens a logical unit as a
// Volume, with ReadAt, WriteAt, Sync and the like. Dial gives a Session, which
// carries any number of volumes and raw SCSI commands. Discover asks a portal for
// its targets. Package scsi has command descriptor blocks, sense data and the
// pages that a device describes itself with; package iscsitest is a target in
// the same process, for tests.
//
// # Sessions
//
// Dial returns when the session is in full feature phase. From then on the
// session looks after itself: it pings a silent target, logs in again when the
// connection is lost, sends again what may be sent again, follows redirections
// and obeys a target that wants it to leave. Callers see a pause, or, when the
// recovery timeout is over, errors that end when the target is back. Config.OnEvent
// and Session.Info tell what is going on; Done and Err, that it is over.
//
// # Tasks
//
// Submit and Kick are the asynchronous core: a caller hands over any number of
// Tasks with Submit and has them sent with one Kick; a Completer gets them back. Do
// is the same for one task and a context. The path of a task allocates nothing
// and starts no goroutine. Neither Submit nor Kick ever waits for the network.
//
// # Concurrency
//
// All methods of a Session may be called from any goroutine at any time. Close and
// Logout return when every goroutine of the session has ended. docs/session.md in
// the repository has the state machines, the goroutines and the locks.
//
// # Errors
//
// Errors tell with errors.Is what went wrong (ErrAuth, ErrTargetNotFound,
// ErrTimeout, …) and with errors.As how exactly (*LoginError, *OpError, …). Those
// that iscsiadm would report have its exit code in a method ISCSICode.
package initiator
