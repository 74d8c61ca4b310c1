package initiator

import (
	"net"
	"syscall"
	"testing"
)

// A fixed receive buffer is one that no longer grows: it is set only when it is
// larger than what it could grow to.
func TestReceiveBufferIsNotMadeSmaller(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	buffers := func(window int) (receive, send int) {
		t.Helper()
		tcp := TCP{WindowSize: window}
		d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
			var err error
			if cerr := rc.Control(func(fd uintptr) { err = tcp.apply(fd) }); cerr != nil {
				return cerr
			}
			return err
		}}
		nc, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		rc, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := rc.Control(func(fd uintptr) {
			receive, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
			send, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
		}); err != nil {
			t.Fatal(err)
		}
		return receive, send
	}
	const window = 32 << 10 // far below what any system allows
	if maxAutoReceive() <= window {
		t.Fatalf("receive buffers grow to %d bytes here", maxAutoReceive())
	}
	auto, _ := buffers(0)
	receive, send := buffers(window)
	if receive != auto {
		t.Errorf("the receive buffer has %d bytes, without a window size %d", receive, auto)
	}
	if send != 2*window { // the kernel doubles it, for its own needs
		t.Errorf("the send buffer has %d bytes, want %d", send, 2*window)
	}
	// Larger than it could grow to, as far as the process may.
	if receive, _ = buffers(maxAutoReceive() + 1); receive == auto {
		t.Errorf("the receive buffer has %d bytes as without a window size", receive)
	}
}
