package daemon

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pidfd returns a descriptor that is readable when the process has ended.
func pidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func waitExit(t *testing.T, f *os.File) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, 15000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != 1 {
			t.Fatalf("the process has not ended: %v", err)
		}
		return
	}
}
