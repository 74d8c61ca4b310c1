package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"
)

// NBDFamily implements System.
func (Machine) NBDFamily() error {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.GetFamily("nbd"); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return errors.New("there is no netlink family nbd")
		}
		return err
	}
	return nil
}

// ModuleAvailable implements System. It looks where modprobe does.
func (Machine) ModuleAvailable(name string) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	dir := filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]))
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		b, err := os.ReadFile(filepath.Join(dir, list))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			base, _, ok := strings.Cut(filepath.Base(file), ".ko")
			if ok && base == name {
				return true
			}
		}
	}
	return false
}

// ClockSynchronised implements System.
func (Machine) ClockSynchronised() (bool, error) {
	var t unix.Timex // no modes: only a look
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, os.NewSyscallError("adjtimex", err)
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, nil
}

// Probe implements System.
func (Machine) Probe(ctx context.Context, address string) (Path, error) {
	var d net.Dialer
	start := time.Now()
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		if ctx.Err() != nil {
			return Path{}, context.Cause(ctx)
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Err != nil {
			err = op.Err // without the address, which the caller has
		}
		return Path{}, err
	}
	p := Path{Connect: time.Since(start)}
	defer c.Close()
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return p, nil
	}
	if a, ok := tcp.LocalAddr().(*net.TCPAddr); ok {
		p.Local = a.AddrPort().Addr().Unmap()
	}
	rc, err := tcp.SyscallConn()
	if err != nil {
		return p, fmt.Errorf("socket: %w", err)
	}
	// What an option does not tell stays unknown.
	_ = rc.Control(func(fd uintptr) {
		level, option := unix.IPPROTO_IP, unix.IP_MTU
		if p.Local.Is6() {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
		}
		p.PathMTU, _ = unix.GetsockoptInt(int(fd), level, option)
		p.MSS, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, syscall.TCP_MAXSEG)
	})
	p.Iface, p.IfaceMTU = ifaceOf(p)
	return p, nil
}

// ifaceOf returns the interface that has the local address.
func ifaceOf(p Path) (name string, mtu int) {
	list, err := net.Interfaces()
	if err != nil {
		return "", 0
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(p.Local.WithZone("").AsSlice()) {
				return i.Name, i.MTU
			}
		}
	}
	return "", 0
}
