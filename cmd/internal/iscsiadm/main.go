package iscsiadm

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/doctor"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/isns"
	"github.com/goiscsi/goiscsi/internal/paths"
)

// Main runs the command of this process and returns its exit code.
func Main() int {
	// What is created is for root's eyes only, as with open-iscsi.
	syscall.Umask(0o077)
	ctx, stop := interruptible(context.Background())
	defer stop()
	return New(Env{
		Args:         os.Args,
		Stdin:        os.Stdin,
		Stdout:       os.Stdout,
		Stderr:       os.Stderr,
		Paths:        paths.FromEnv(),
		Getenv:       os.Getenv,
		Control:      func(socket string) control.Service { return control.NewClient(socket, control.ClientOptions{}) },
		Start:        shell,
		Discover:     initiator.Discover,
		DiscoverISNS: queryISNS,
		System:       doctor.Machine{},
		Resolver:     net.DefaultResolver,
		Terminal:     terminalWidth,
		Sleep:        sleep,
	}).Run(ctx)
}

// interruptible returns a context that ends at SIGINT with ErrInterrupted, and
// at SIGTERM with ErrTerminated. A second signal ends the process at once.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with ctx
		select {
		case s := <-signals:
			signal.Stop(signals)
			if s == os.Interrupt {
				cancel(ErrInterrupted)
			} else {
				cancel(ErrTerminated)
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// queryISNS asks an iSNS server.
func queryISNS(ctx context.Context, cfg ISNSConfig) ([]initiator.DiscoveredPortal, error) {
	portals, err := isns.Query(ctx, isns.Config{Server: cfg.Server.Address(), InitiatorName: cfg.InitiatorName})
	if err != nil {
		return nil, err
	}
	out := make([]initiator.DiscoveredPortal, len(portals))
	for i, p := range portals {
		out[i] = initiator.DiscoveredPortal{
			Target: p.Target,
			Portal: initiator.Portal{Host: p.Addr.Addr().String(), Port: p.Addr.Port(), TPGT: p.TPGT},
		}
	}
	return out, nil
}

// shell runs a command of iscsid.conf as system(3) does. Its output goes to
// our standard error.
func shell(ctx context.Context, command string, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	return cmd.Run()
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
