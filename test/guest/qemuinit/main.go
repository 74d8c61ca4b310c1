// Command qemuinit is the first process of a QEMU guest, in its initial RAM
// disk: a static program, so that the disk needs nothing else. It loads the
// modules that lead to the host's root, lays an overlay over that, mounts the
// exchange directory at /lab, and hands over to /lab/.init in the overlay.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	err := boot()
	// Not reached unless something failed: the guest ends, its console says why.
	fmt.Fprintln(os.Stderr, "guest:", err)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// plan9 are the mount options of the shares. The message size is what virtio's
// ring can carry at once.
const plan9 = "trans=virtio,version=9p2000.L,msize=524288"

func boot() error {
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		image, err := os.ReadFile("/modules/" + name)
		if err != nil {
			return err
		}
		if err := unix.InitModule(image, ""); err != nil && err != unix.EEXIST {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	const ro = unix.MS_RDONLY
	steps := []struct {
		source, target, kind string
		flags                uintptr
		options              string
	}{
		{"root", "/host", "9p", ro, plan9 + ",cache=loose"},
		{"tmpfs", "/memory", "tmpfs", 0, ""},
		{"overlay", "/new", "overlay", 0, "lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work"},
		// Cached, or each start of a program would read it through the share anew.
		{"lab", "/new/lab", "9p", 0, plan9 + ",cache=loose"},
		{"modules", "/new/lib/modules", "9p", ro, plan9 + ",cache=loose"},
		{"proc", "/new/proc", "proc", 0, ""},
		{"sysfs", "/new/sys", "sysfs", 0, ""},
		{"devtmpfs", "/new/dev", "devtmpfs", 0, ""},
		{"tmpfs", "/new/run", "tmpfs", 0, "mode=755"},
		{"tmpfs", "/new/tmp", "tmpfs", 0, "mode=1777"},
		{"devpts", "/new/dev/pts", "devpts", 0, ""},
		{"tmpfs", "/new/dev/shm", "tmpfs", 0, "mode=1777"},
	}
	for _, s := range steps {
		if s.kind == "overlay" {
			if err := mkdirs("/memory/upper", "/memory/work"); err != nil {
				return err
			}
		}
		if err := mkdirs(s.target); err != nil {
			return err
		}
		if err := unix.Mount(s.source, s.target, s.kind, s.flags, s.options); err != nil {
			return fmt.Errorf("mount %s at %s: %w", s.source, s.target, err)
		}
	}
	if err := mkdirs("/new/run/lock"); err != nil {
		return err
	}
	if err := os.WriteFile("/new/etc/fstab", nil, 0o644); err != nil {
		return err
	}
	if err := unix.Chroot("/new"); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return fmt.Errorf("/lab/.init: %w", unix.Exec("/bin/sh", []string{"sh", "/lab/.init"}, os.Environ()))
}

func mkdirs(paths ...string) error {
	for _, p := range paths {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
	}
	return nil
}
