// Package nbdtest helps to test NBD servers and users of the kernel's nbd driver
// without a kernel: Peer plays the driver's end of a socket, Kernel plays the
// driver's netlink family and its part of sysfs, Client does the newstyle
// handshake as a network client does, and Memory is a backend to serve.
package nbdtest
