// Package replay types the commands of the transcript of open-iscsi 2.1.8,
// one after the other, at our iscsiadm and iscsid on a machine like the one
// the transcript was made on: root on a kernel of its own, with three targets
// of tgt on port 3260, two of which want CHAP. Streams and exit codes must be
// the transcript's, but for what the lists in package internal/transcript
// allow, each entry with its reason; what the lists say is what
// docs/compatibility.md says.
//
// The test changes the machine, so it has the build tag guest:
//
//	make guest-test PKG=./test/replay
//
// Its testdata are links: to the transcript, which the test in process of
// cmd/internal/iscsiadm replays as well, and to docs/compatibility.md.
package replay
