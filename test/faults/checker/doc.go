// Package checker writes to a disk, keeps a log of what the disk has
// acknowledged, and finds out whether any of it was lost.
//
// Every block on the disk says which block it is, which write it was (a
// sequence number), of which run, and carries a checksum over all of its
// bytes. Several workers, each with blocks of its own, write, read and flush
// at random. A read must find, for each block:
//
//   - a whole block: its checksum is right, so no write was torn within it;
//   - the right one: of this run and this address, so nothing went elsewhere;
//   - the last write that was acknowledged, or a later one that failed, of
//     which nobody knows whether it happened. An earlier one means that an
//     acknowledged write was lost or that an old one was carried out late.
//
// A disk with a volatile cache may lose what was not flushed when its power
// fails. The checker is told of such moments (PowerFails) and then asks for no
// more than what a flush had made durable before: both the write and the flush
// must have begun and ended between the same two failures.
//
// Errors count as failures of the disk unless the caller expects them
// (Tolerate).
//
// Concurrency: a worker's blocks and their log belong to that worker's
// goroutine; Check's last pass runs after the workers have ended. What callers
// ask while they run is kept in atomics and behind one mutex, which is never
// held during I/O.
package checker
