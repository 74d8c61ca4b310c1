// Package compatsysfs shows the sessions of iscsid as the kernel's SCSI and
// iSCSI tree in sysfs, for programs that look there: `iscsid compat-sysfs`.
// docs/sysfs.md describes what is where, what writing does and the rules.
//
// A tree is made of a snapshot of the sessions, without any I/O; a view lays
// it over the real /sys; a source keeps the newest tree; the nodes of go-fuse
// at the end know nothing but their path.
package compatsysfs
