package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A uevent is an announcement of the kernel about a block device or one of
// its partitions.
type uevent struct {
	action string // "add", "change", "remove", …
	disk   string // "nbd0"
	name   string // "nbd0", or "nbd0p1"
	lost   bool   // announcements were lost; everything may have changed
}

// A ueventSource hands out announcements. receive returns an error after
// Close.
type ueventSource interface {
	receive() (uevent, error)
	Close() error
}

// kernelEvents receives from the kernel's uevent group itself, not from
// udev's: it works without udev, too.
type kernelEvents struct {
	f   *os.File
	rc  syscall.RawConn
	buf []byte
}

// ueventGroup is the multicast group of the kernel's own messages.
const ueventGroup = 1

// listenUevents opens the socket. It needs no privilege, but hears nothing in
// a network namespace that does not belong to the initial user namespace.
func listenUevents() (*kernelEvents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: ueventGroup}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	// A login of many LUNs makes many announcements at once. Refusal leaves
	// the default size, and an overflow is handled.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	f := os.NewFile(uintptr(fd), "uevent")
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	return &kernelEvents{f: f, rc: rc, buf: make([]byte, 8192)}, nil
}

func (k *kernelEvents) Close() error { return k.f.Close() }

func (k *kernelEvents) receive() (uevent, error) {
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		err := k.rc.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), k.buf, 0)
			return rerr != unix.EAGAIN
		})
		if err != nil {
			return uevent{}, err
		}
		if errors.Is(rerr, unix.ENOBUFS) {
			return uevent{lost: true}, nil
		}
		if errors.Is(rerr, unix.EINTR) {
			continue
		}
		if rerr != nil {
			return uevent{}, os.NewSyscallError("recvfrom", rerr)
		}
		// Port 0 is the kernel; a process may send to the group, too.
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		if ev, ok := parseUevent(k.buf[:n]); ok {
			return ev, nil
		}
	}
}

// parseUevent reads "ACTION@DEVPATH\0KEY=VALUE\0…". It reports false for what
// is not about an nbd disk or its partitions.
func parseUevent(msg []byte) (uevent, bool) {
	var ev uevent
	var subsystem, devpath string
	for i, field := range bytes.Split(msg, []byte{0}) {
		if i == 0 {
			continue // the same again, in short
		}
		key, value, ok := strings.Cut(string(field), "=")
		if !ok {
			continue
		}
		switch key {
		case "ACTION":
			ev.action = value
		case "SUBSYSTEM":
			subsystem = value
		case "DEVPATH":
			devpath = value
		}
	}
	// /devices/virtual/block/nbd0 or /devices/virtual/block/nbd0/nbd0p1
	_, rest, ok := strings.Cut(devpath, "/block/")
	if !ok || subsystem != "block" || ev.action == "" {
		return uevent{}, false
	}
	disk, part, _ := strings.Cut(rest, "/")
	if !strings.HasPrefix(disk, "nbd") || strings.Contains(part, "/") {
		return uevent{}, false
	}
	ev.disk, ev.name = disk, disk
	if part != "" {
		ev.name = part
	}
	return ev, true
}
