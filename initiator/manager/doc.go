// Package manager gives programs the disks of iSCSI targets as devices of this
// machine: Connect with a Target, and a Disk with its path comes back. A Client has
// the daemon iscsid do it, so that sessions and devices outlive the program; a Local
// (Linux only) does it in the process. Watch tells what changes.
//
// Client has all of the daemon's control API, too, and the types that travel. It
// is HTTP with JSON over a unix socket; package control in cmd/internal describes
// it. Login takes a node record with open-iscsi's names, which package nodedb keeps
// and checks.
package manager
