//go:build !unix || solaris || illumos || aix

package nodedb

import (
	"context"
	"os"
)

// lockFile leaves locking to bbolt, whose wait ends by its timeout only.
func lockFile(ctx context.Context, _ *os.File, _ bool) error { return ctx.Err() }

// unlockFile does nothing here.
func unlockFile(*os.File) {}

// lockDir does nothing here.
func lockDir(ctx context.Context, _ string) (unlock func(), err error) {
	return func() {}, ctx.Err()
}

// syncDir does nothing here: directories cannot be opened everywhere.
func syncDir(string) error { return nil }
