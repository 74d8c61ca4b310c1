// Package boot tests the Debian package on a machine that boots: Debian's own
// systemd and udev, in a guest of kind guest.Systemd (see test/guest).
//
// The tests have the build tag integration and run on the host, because what
// they look at last is what is left when the guest is gone: the file systems
// in the target's files. The target is our own, a unit of the guest that
// outlives the initiator, on its loopback device.
package boot
