// Package kernel holds the tests that end in a block device: they need root
// and a kernel with the NBD driver, and change the machine they run on, so
// they carry the build tag guest and run in one (make guest-test
// PKG=./test/kernel). With GOISCSI_REFERENCE=1 those that describe what
// open-iscsi does run against open-iscsi and the kernel's own initiator: that
// is how the tests themselves are checked.
package kernel
