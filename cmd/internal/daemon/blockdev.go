package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// waitNode returns when path exists, or with the context's cause. It listens
// to the directory, so that it wakes up when the node is made.
func waitNode(ctx context.Context, path string) error {
	in, err := watchDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	// The watch is in place before the look, so nothing is missed between.
	stop := context.AfterFunc(ctx, func() { in.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		in.Close()
	}()
	buf := make([]byte, 4096)
	for {
		_, err := os.Lstat(path)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := in.Read(buf); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("wait for %s: %w", path, err)
		}
	}
}

// watchDir returns a descriptor that becomes readable whenever an entry of
// the directory appears.
func watchDir(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "inotify_add_watch", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// makeNode makes the device node of a block device by the numbers that sysfs
// tells, for machines (containers, early boot) whose /dev is not kept by the
// kernel.
func makeNode(sys, path string) error {
	b, err := os.ReadFile(filepath.Join(sys, "class/block", filepath.Base(path), "dev"))
	if err != nil {
		return err
	}
	ma, mi, ok := strings.Cut(strings.TrimSpace(string(b)), ":")
	major, err1 := strconv.ParseUint(ma, 10, 32)
	minor, err2 := strconv.ParseUint(mi, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("device number %q of %s: not MAJOR:MINOR", b, path)
	}
	err = unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(uint32(major), uint32(minor))))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &fs.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}

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

// probePartitions opens the node once, which makes the kernel read the
// partition table of a fresh device, where no udev does so. The open
// waits for the disk, so the caller gives it a goroutine.
func probePartitions(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

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
