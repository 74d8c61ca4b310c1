// Package faults proves that the disk survives failures of the network, the
// target, the daemon and the memory: each test repeats one fault while the
// checker (package checker) reads and writes, and wants no error and nothing
// lost. docs/operations.md has the table of what an administrator sees.
//
// Tests with the build tag integration use a disk on a unix socket; those with
// the tag guest use /dev/nbdN of a kernel of their own. FAULTS=full repeats
// the faults as often as a release wants it, which takes hours; otherwise the
// counts fit a continuous integration run.
package faults
