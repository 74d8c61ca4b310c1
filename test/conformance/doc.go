// Package conformance holds the suites that the University of New Hampshire
// InterOperability Laboratory published for iSCSI initiators, as tests of
// package initiator: Login Phase v3.0, Full Feature Phase v3.1 and CHAP v3.1, with
// what lies beyond them. Each test is named after the number that its subject has
// in the suite; what it demands is RFC 7143's.
//
// # The station
//
// Most tests play the test station themselves: a target that says, PDU by PDU,
// what the test wants, and reads every PDU of the initiator (station_test.go). It
// runs in the test's goroutine, the initiator in others. What a whole target is
// needed for runs against package iscsitest.
//
// Whatever a test is about, the station checks the sequence numbers of every PDU
// that it reads, and that nothing malformed comes.
//
// # The register
//
// The files register_*_test.go list every number of the suites with its test, or
// with the reason why it does not apply. docs/conformance.md is made from it:
//
//	go test ./test/conformance -run TestRegister -update
package conformance
