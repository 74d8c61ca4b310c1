package initiator

import (
	"os"
	"syscall"
)

// apply sets the options on a socket before it connects: the buffer size
// decides about the window scale that the handshake announces.
func (t *TCP) apply(fd uintptr) error {
	if t.NetIface != "" {
		if err := syscall.BindToDevice(int(fd), t.NetIface); err != nil {
			return os.NewSyscallError("bind to interface "+t.NetIface, err)
		}
	}
	if t.WindowSize > 0 {
		// The kernel brings the size into its limits (net.core.rmem_max).
		for _, opt := range []int{syscall.SO_RCVBUF, syscall.SO_SNDBUF} {
			if err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, opt, t.WindowSize); err != nil {
				return os.NewSyscallError("set window size", err)
			}
		}
	}
	return nil
}
