// Package attach offers disks of package initiator to other programs: as a block
// device of this machine, through the kernel's nbd driver, or on a unix socket,
// to everything that speaks NBD (qemu, nbdcopy, fio). It is Linux only.
//
// Kernel and Socket take an open Volume and return a Device. The process serves
// the device from then on: it lasts until Detach, or until the process ends.
// Detach comes before Volume.Disconnect; a disk that is closed under its device
// fails all I/O.
//
// # After a restart
//
// A kernel device can outlive the process that serves it, for as long as
// Options.DeadConnTimeout says: the kernel holds its requests back meanwhile. A
// program that wants that stores Device.Handle (JSON), and the next one connects
// to Handle.Target, which asks for the same session and the same disk, and calls
// Reattach. Device.Leave ends the service in order, for a planned restart; after
// a crash the kernel notices by itself.
//
// # Memory
//
// A process that writes out the kernel's dirty pages must not itself wait for
// memory that only such a write can free. A program with file systems on its
// devices sets PR_SET_IO_FLUSHER and locks its memory, as iscsid does, or leaves
// the disks to iscsid (package manager).
//
// # Concurrency
//
// All methods may be called from any goroutine. Each Device has one goroutine
// that serves it, and one for each client of a socket. They end with the device;
// Device.Done tells.
package attach
