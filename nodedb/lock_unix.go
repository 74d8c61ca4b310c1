//go:build unix && !solaris && !illumos && !aix

package nodedb

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

// First and longest pause between two attempts at a lock. The kernel can wait
// by itself, but then neither a context nor a timeout ends it.
const (
	lockPauseMin = 500 * time.Microsecond
	lockPauseMax = 10 * time.Millisecond
)

// lockFile takes an advisory lock on an open file, waiting until ctx ends. The
// lock belongs to the open file: bbolt, which locks the same one again, gets it
// at once.
func lockFile(ctx context.Context, f *os.File, exclusive bool) error {
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	pause := lockPauseMin
	var timer *time.Timer
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		// A random part keeps processes that wait together from trying
		// together.
		wait := pause/2 + rand.N(pause)
		if timer == nil {
			timer = time.NewTimer(wait)
			defer timer.Stop()
		} else {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		pause = min(2*pause, lockPauseMax)
	}
}

// unlockFile gives a lock up. Closing the file does so, too, but not while it is
// mapped into memory.
func unlockFile(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// lockDir takes an exclusive lock on a directory until unlock is called.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := lockFile(ctx, f, true); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // the file system does not know how, and need not
	}
	return err
}
