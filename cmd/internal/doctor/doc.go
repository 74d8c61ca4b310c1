// Package doctor looks whether this machine is fit to be an initiator, and says
// what to do where it is not. It changes nothing. All that it knows of the machine
// comes through a [System], and of the daemon through a [Daemon], so that each
// finding can be tested.
package doctor
