package daemon

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

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
	notify string        // address of NOTIFY_SOCKET, "" without systemd
	ours   chan struct{} // closed when the service manager has dropped its copies

	mu     sync.Mutex
	passed map[string]*os.File // by fdName
}

// newSystemdStore takes charge of the sockets among the passed descriptors
// and closes no others. It has the service manager drop its copies at once, which
// takes as long as the login that has to come before they are served; close waits
// for the goroutine.
func newSystemdStore(passed []*os.File, log *slog.Logger) *systemdStore {
	s := &systemdStore{log: log, notify: os.Getenv("NOTIFY_SOCKET"), ours: make(chan struct{}), passed: make(map[string]*os.File)}
	var names []string
	for _, f := range passed {
		if strings.HasPrefix(f.Name(), fdPrefix) {
			s.passed[f.Name()] = f
			names = append(names, f.Name())
		}
	}
	go func() {
		defer close(s.ours)
		s.forget(names)
	}()
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
	name := fdName(backend)
	s.mu.Lock()
	f := s.passed[name]
	delete(s.passed, name)
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	<-s.ours
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

// forget makes the service manager drop its copies, and waits until it has
// (sd_notify_barrier(3)). It must not have one while we serve the socket: should we
// die then, the copy would keep the socket alive, the kernel would not notice, and the
// requests that we had read would never be sent again.
func (s *systemdStore) forget(names []string) {
	if s.notify == "" || len(names) == 0 {
		return
	}
	var err error
	for _, name := range names {
		err = errors.Join(err, s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil))
	}
	if err == nil {
		err = s.barrier()
	}
	if err != nil {
		s.log.Warn("the service manager may still keep sockets of devices", "names", names, "err", err)
	}
}

// barrierTime bounds the wait for the service manager.
const barrierTime = 5 * time.Second

// barrier returns when the service manager has handled what was sent before: it
// closes the descriptor that it is given then.
func (s *systemdStore) barrier() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = s.send("BARRIER=1", unix.UnixRights(int(w.Fd())))
	w.Close()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(barrierTime)); err != nil {
		return err
	}
	var b [1]byte
	if _, err := r.Read(b[:]); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (s *systemdStore) close() {
	<-s.ours
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.passed {
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
