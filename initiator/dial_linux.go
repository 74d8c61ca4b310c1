package initiator

import (
	"fmt"
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
	if t.WindowSize <= 0 {
		return nil
	}
	// The kernel brings the sizes into its limits (net.core.rmem_max).
	opts := []int{syscall.SO_SNDBUF}
	if t.WindowSize > maxAutoReceive() {
		opts = append(opts, syscall.SO_RCVBUF)
	}
	for _, opt := range opts {
		if err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, opt, t.WindowSize); err != nil {
			return os.NewSyscallError("set window size", err)
		}
	}
	return nil
}

// maxAutoReceive returns up to how many bytes the kernel lets a receive buffer
// grow by itself, as long as SO_RCVBUF has not been set (tcp(7), tcp_rmem); 0 if
// that is unknown.
func maxAutoReceive() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_rmem")
	if err != nil {
		return 0
	}
	var least, initial, most int
	if _, err := fmt.Sscan(string(text), &least, &initial, &most); err != nil {
		return 0
	}
	return most
}
