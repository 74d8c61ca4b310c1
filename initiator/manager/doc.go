// Package manager is for programs that leave their iSCSI sessions to the daemon
// iscsid: a client of its control socket, and the types that travel.
//
// What is sent is described with package control in cmd/internal/control.
package manager
