// Package daemon is what iscsid is: sessions with their supervisors, the devices
// that their disks are attached as, the state that lets a new process take both
// up, and the control API's service. docs/daemon.md has the states and goroutines.
package daemon
