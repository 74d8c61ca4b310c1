package daemon

import (
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An fdStore keeps the sockets of devices over a planned restart: what is
// kept by one daemon is taken by the next, and the kernel notices nothing.
type fdStore interface {
	// keep hands a socket on and reports whether that was possible. The
	// caller closes its own copy in any case.
	keep(backend string, conn net.Conn) bool
	// take returns the socket kept for a device, or nil.
	take(backend string) net.Conn
	// close drops what nobody has taken.
	close()
}

// systemdStore keeps sockets in the service manager (FDSTORE=1 of
// sd_notify(3)), which needs FileDescriptorStoreMax= in the unit.
type systemdStore struct {
	log    *slog.Logger
	notify string // address of NOTIFY_SOCKET, "" without systemd

	mu     sync.Mutex
	passed map[string]*os.File // by fdName
}

// newSystemdStore takes charge of the sockets among the passed descriptors
// and closes no others.
func newSystemdStore(passed []*os.File, log *slog.Logger) *systemdStore {
	s := &systemdStore{log: log, notify: os.Getenv("NOTIFY_SOCKET"), passed: make(map[string]*os.File)}
	for _, f := range passed {
		if strings.HasPrefix(f.Name(), fdPrefix) {
			s.passed[f.Name()] = f
		}
	}
	return s
}

const fdPrefix = "nbd-"

// fdName is the name under which a device's socket is kept; a colon cannot
// be part of it (sd_pid_notify_with_fds(3)).
func fdName(backend string) string { return fdPrefix + strings.ReplaceAll(backend, ":", "-") }

func (s *systemdStore) keep(backend string, conn net.Conn) bool {
	if s.notify == "" {
		return false
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	f, err := uc.File()
	if err != nil {
		return false
	}
	defer f.Close()
	// FDPOLL=0: a hang-up of the kernel's end does not drop it unseen.
	if err := s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+fdName(backend), unix.UnixRights(int(f.Fd()))); err != nil {
		s.log.Warn("socket of a device is not kept by the service manager", "err", err)
		return false
	}
	return true
}

// send gives the service manager a message with descriptors.
func (s *systemdStore) send(msg string, rights []byte) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	// A name that begins with @ is an abstract one, here as in NOTIFY_SOCKET.
	return os.NewSyscallError("sendmsg", unix.Sendmsg(fd, []byte(msg), rights, &unix.SockaddrUnix{Name: s.notify}, 0))
}

func (s *systemdStore) take(backend string) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := fdName(backend)
	f := s.passed[name]
	if f == nil {
		return nil
	}
	delete(s.passed, name)
	s.forget(name)
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	if hungUp(conn) {
		conn.Close()
		return nil
	}
	return conn
}

// forget lets the service manager drop its copy: a socket that it kept after
// the device has gone would be taken for the next device's.
func (s *systemdStore) forget(name string) {
	if s.notify == "" {
		return
	}
	if err := s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
		s.log.Debug("the service manager keeps a socket in vain", "err", err)
	}
}

func (s *systemdStore) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.passed {
		s.forget(name)
		f.Close()
	}
	clear(s.passed)
}

// hungUp reports whether nobody has the other end of a socket pair.
func hungUp(c net.Conn) bool {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return true
	}
	rc, err := uc.SyscallConn()
	if err != nil {
		return true
	}
	gone := true
	err = rc.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		for {
			_, err := unix.Poll(p, 0)
			if err == nil {
				gone = p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
			}
			if err != unix.EINTR {
				return
			}
		}
	})
	return gone || err != nil
}
