// Package matrix moves the same data to and from targets that others have
// written, by every combination of what a login negotiates about them: digests,
// immediate data, InitialR2T, and burst lengths, FirstBurstLength above
// MaxBurstLength included.
//
// Each combination is a session of its own. It first reads what the one before
// it wrote, then writes its own pattern in pieces of all sizes at once, reads it
// back, and where the target's backing file is at hand, that is compared as
// well: a mistake that writing and reading have in common does not stay hidden.
//
//   - tgt and istgt on loopback: tag integration, with the library, and a choice
//     of combinations through iscsid's export with fio's verification;
//   - LIO: tag guest.
package matrix
