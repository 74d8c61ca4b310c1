package blockdev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// Bounds of what the kernel and udev do for a device.
const (
	NodeTime  = 10 * time.Second // until the node exists
	probeTime = 5 * time.Second  // until the partition table is read
)

// Offer makes a device that has just been connected, and is being served, usable
// under its path: it waits for the node, makes it by what sysfs (at sys) tells
// where nobody else does, and has the kernel look for partitions. A device that
// does not answer in five seconds is left to itself; spawn runs the goroutine
// that may be stuck with it then, which ends with the device.
func Offer(ctx context.Context, sys, path string, log *slog.Logger, spawn func(func())) error {
	bound, cancel := context.WithTimeout(ctx, NodeTime)
	defer cancel()
	if err := WaitNode(bound, path); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if merr := makeNode(sys, path); merr != nil {
			return fmt.Errorf("device node: %w", errors.Join(err, merr))
		}
	}
	probed := make(chan error, 1)
	spawn(func() { probed <- probePartitions(path) })
	bound, cancel = context.WithTimeout(ctx, probeTime)
	defer cancel()
	name := filepath.Base(path)
	select {
	case err := <-probed:
		if err != nil {
			log.Warn("partitions are not looked for", "device", name, "err", err)
		}
	case <-bound.Done():
		log.Warn("device does not answer yet", "device", name)
	}
	return nil
}
