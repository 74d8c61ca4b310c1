// Command iscsi-target serves files, memory or nothing at all as iSCSI
// targets, for tests, demonstrations and measurements.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/goiscsi/goiscsi/cmd/internal/targetcmd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := targetcmd.Main(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
