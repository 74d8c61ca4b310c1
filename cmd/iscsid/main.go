// Iscsid holds iSCSI sessions and serves their disks as block devices.
package main

import (
	"os"

	"github.com/goiscsi/goiscsi/cmd/internal/daemon"
)

func main() {
	// This must come first: it may execute the program again.
	flusher := daemon.MarkIOFlusher()
	os.Exit(daemon.Main(os.Args, os.Stdout, os.Stderr, flusher))
}
