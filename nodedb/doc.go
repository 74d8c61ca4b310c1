// Package nodedb keeps the records of an iSCSI initiator: which nodes (a
// target at a portal through an interface) it knows, where they were
// discovered, and with which settings they are to be logged in to.
//
// # Records
//
// A record is a list of named fields in a fixed order. One table per kind of
// record (see [NodeFields], [DiscoveryFields] and [IfaceFields]) gives each
// field's name, type, default, range of values and whether it may be changed;
// reading, checking, printing, storing and exporting all go by that table, so
// that a field is declared once. Names, defaults, order and texts are those
// of open-iscsi 2.1, because scripts match them.
//
// Values are kept as text. Numbers are read as open-iscsi reads them (C's
// strtoul without a check, so "abc" is 0), enumerations must match exactly.
//
// # Database
//
// [DB] is a bbolt file that is opened for one transaction at a time and closed
// again, so that any number of short-lived processes and a daemon share it. A
// transaction that reads holds a shared lock on the file, one that writes an
// exclusive one; waiting for the lock ends with the context or after
// [Options].Timeout. A transaction is durable when [DB.Update] returns, and a
// process killed at any moment leaves the database as it was before or after
// its transaction.
//
// # Concurrency
//
// A DB has no state of its own besides its options and may be used by any
// number of goroutines. A [Tx] and what it hands out belong to the function it
// was given to; records are copies and stay valid after it. Records, [Config]
// and the rest are plain values: safe for concurrent reading, not for
// concurrent writing.
package nodedb
