// Command bench measures this initiator against its peers and writes what it
// finds into docs/benchmarks.md.
//
//	go run ./test/bench [-quick] [-parts limit,export,library,scale,guest] [-rounds N] [-seconds N]
//
// make bench builds everything, installs the peers and runs it; BENCH=quick
// makes it a matter of a few minutes. The parts are:
//
//   - limit: the same bytes in messages of the same sizes over a bare TCP
//     connection and a bare unix socket, in Go, with nothing behind it;
//   - export: a LUN as an NBD export on a unix socket, driven by fio's nbd
//     engine: iscsid against qemu-nbd with QEMU's iSCSI driver (libiscsi);
//   - library: package initiator alone (test/bench/iscsiperf) against
//     libiscsi's iscsi-perf;
//   - scale: what idle sessions and large node databases cost;
//   - builds: two builds of ours, -bin and -base, or one with other settings of
//     the record (-variant), for whoever changes the code; builds-tgt on tgt;
//   - guest: block devices in a guest with its own kernel: ours and
//     qemu-nbd's as /dev/nbdN, the kernel's own initiator as /dev/sdX.
//
// # Method
//
// The contenders of a comparison run at the same time and take turns: A B A B
// …, so that what else happens on the machine hits all of them. A result is
// the median of the rounds, a ratio the median of the ratios of neighbours.
// CPU time is that of the initiator's process alone, by /proc/PID/stat or
// wait4(2), per I/O.
//
// Targets are processes of their own: tgt with a store that forgets (null) and
// one in memory (a file in a tmpfs), and our iscsi-target with a store that
// forgets, which is the fastest of the three and so measures the initiator
// most.
package main
