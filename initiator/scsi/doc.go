// Package scsi encodes and decodes what travels inside iSCSI: command
// descriptor blocks, sense data and the parameter lists of the primary and
// block commands (SPC-5, SBC-4).
//
// Both ends of every structure are here. An initiator builds CDBs and parses
// parameter data; a target parses CDBs with [ParseCommand] and builds
// parameter data with the Append methods. The round trip is what the tests
// hold on to.
//
// # Conventions
//
// CDB builders fill a caller's [CDB] completely, unused bytes included, and
// return the length that is valid: 6, 10, 12 or 16. They do not allocate.
//
// Parse functions take what came from the wire and trust none of it: they
// never panic, never allocate more than a small multiple of their input, and
// accept data that an allocation length cut short as long as the fields that
// give the structure its meaning are present. What is missing is reported as a
// [*FormatError].
//
// Append methods add the encoded form to a slice and return the extended
// slice, as the append functions of the standard library do.
//
// The package holds no state and does no input or output; its values may be
// used from any goroutine like any other value.
package scsi
