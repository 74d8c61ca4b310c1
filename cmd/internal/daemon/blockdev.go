package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A claim is a block device held by an exclusive open: as long as it is held
// no one can mount it, use it as swap or build upon it.
type claim struct {
	name string // "nbd0"
	f    *os.File
}

// errInUse says that a block device is mounted, used as swap or part of
// another device, or that this is true of one of its partitions.
var errInUse = errors.New("device is in use")

// claimDevice opens the device exclusively. The kernel refuses that for a
// device with a mounted partition as well, and it knows of mounts in every
// namespace, which no list in /proc does.
func claimDevice(path string) (*claim, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s: %w", path, errInUse)
	case err != nil:
		return nil, err
	}
	return &claim{f: f}, nil
}

func (c *claim) release() { c.f.Close() }

// partitions returns the numbers of a disk's partitions by name, as sysfs has
// them: "nbd0p1" → 1.
func partitions(sys, disk string) (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(sys, "block", disk, disk+"p*", "partition"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]int, len(files))
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it went in the meantime
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || n < 1 {
			continue
		}
		out[filepath.Base(filepath.Dir(file))] = n
	}
	return out, nil
}
