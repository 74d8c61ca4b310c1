package blockdev

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

// WaitNode returns when path exists, or with the context's cause. It listens
// to the directory, so that it wakes up when the node is made.
func WaitNode(ctx context.Context, path string) error {
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
