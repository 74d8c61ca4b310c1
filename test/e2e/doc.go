// Package e2e holds the tests of the built programs, end to end, against tgt
// and our own target on loopback: discovery, records, login with and without
// CHAP, the exit codes of the common failures, and the LUNs' NBD exports as
// other people's clients see them. They carry the build tag integration, need
// the packages that test/deps installs, and run in temporary prefixes: nothing
// of the machine's own configuration is read or written.
package e2e
