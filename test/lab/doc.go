// Package lab gives tests an initiator host: the commands iscsiadm and iscsid
// as they are built, run as a user runs them, with their streams and exit
// status kept apart.
//
// A host made by NewPrefix lives in a temporary directory that every file of
// the two programs is moved to by environment variables; it touches nothing
// of the machine, and any number of them run side by side. A host made by
// NewMachine is the machine itself with the standard paths, which only a
// guest may be. There the same tests can also run against the kernel's
// open-iscsi, as the reference: see Reference.
//
// The binaries are those in the directory that GOISCSI_BIN names, else in
// bin/ of the checkout.
package lab
