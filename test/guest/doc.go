// Package guest runs a script or a Go test binary as root under a Linux
// kernel of its own, in a few seconds and without virtualisation hardware.
//
// The machine that develops or tests this project often has a kernel without
// the NBD driver, or a user who may not load modules. Debian's user-mode
// Linux is an ordinary program that is a kernel: it boots on the host's own
// file system, and its modules include nbd, the kernel's iSCSI initiator and
// the LIO target. A second kind boots Debian's kernel in QEMU by software
// emulation; it is slower to start and newer.
//
// What the guest sees and where it may write:
//
//   - its root is an overlay over the host's root, so whatever is installed
//     on the host is there, and nothing that the guest writes reaches the
//     host or survives the guest;
//   - /lab is the one directory that both sides see. A job's files are put
//     there before the boot, and what the job leaves there can be read
//     afterwards;
//   - /tmp, /run, /dev and /dev/shm are the guest's own and empty: a host
//     path below one of these is not visible in the guest, which is why files
//     travel through /lab;
//   - its network is a loopback device, 127.0.0.1 and ::1, and nothing else.
//
// The job's output goes over a serial line of the guest to the caller as it
// is written; the kernel's console is kept apart and belongs in the report of
// a failure. A Run owns the guest: when it returns, by whatever way, no
// process of the guest is left and its temporary directory is gone.
//
// Concurrency: Run may be called from several goroutines at once, each call
// boots its own guest with its own memory.
package guest
