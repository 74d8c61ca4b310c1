// Package pdu is the wire codec of iSCSI, RFC 7143: one Go type for each PDU,
// the text format of login and text negotiations, names, LUNs and serial
// numbers, and a Reader and a Writer that frame PDUs on a byte stream.
//
// The package opens no sockets and keeps no protocol state: what a PDU means
// to a session is the business of its users. Both ends are covered, since the
// same types serve an initiator and a target.
//
// # PDU types
//
// Each PDU type encodes itself in append style and decodes in place, so that
// one value can be used again for every PDU of its kind and the steady state
// of a connection allocates nothing. Fields carry the names of RFC 7143
// section 11. Fields with one legal value, reserved bits and lengths are not
// represented: an encoder sets them and a decoder ignores them, as section 11
// asks for. A decoder does refuse a PDU that contradicts itself; the
// error is a *FormatError.
//
// Decoded values alias what they were decoded from: Data (and ExtendedCDB of
// a SCSICommand) are valid as long as the Header and the data segment are.
//
// # Framing
//
// A Reader parses as many PDUs as one read brought, and reads data segments
// straight into the caller's memory. A Writer collects headers in a
// slab, references the payloads and sends everything with one writev. Both
// compute and check the CRC32C digests of section 11.2.3 when told to.
//
// # Input is hostile
//
// No input makes a function of this package panic, and memory is bounded by
// what the caller allowed: SetMaxDataSegmentLength for a Reader, TextLimits
// for ParseText, the limit argument of ParseBinary.
//
// # Concurrency
//
// Nothing here starts goroutines or takes locks. Values belong to one
// goroutine at a time; a Reader and a Writer on the same connection may be
// used by two.
package pdu
