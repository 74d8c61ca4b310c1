package daemon

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// An fdStore keeps sockets over a planned restart: what is kept by one daemon
// is taken by the next, and the kernel, or the client of a unix socket, notices
// nothing. Several may be kept under one name.
type fdStore interface {
	// keep hands a socket on and reports whether that was possible. The
	// caller closes its own copy in any case.
	keep(name string, s fileSocket) bool
	// take returns what was kept under a name. The caller closes it.
	take(name string) []*os.File
	// close drops what nobody has taken.
	close()
}

// A fileSocket is a connection or a listener that can be given to another process.
type fileSocket interface {
	// File returns a copy of the descriptor.
	File() (*os.File, error)
}

// keepConn hands a connection on, if it is of a kind that can be.
func keepConn(s fdStore, name string, conn net.Conn) bool {
	f, ok := conn.(fileSocket)
	return ok && s.keep(name, f)
}

// takeConns returns the connections kept under a name whose other end is still there.
func takeConns(s fdStore, name string) []net.Conn {
	var conns []net.Conn
	for _, f := range s.take(name) {
		conn, err := net.FileConn(f)
		f.Close()
		switch {
		case err != nil: // not a socket: nobody of ours has kept it
		case hungUp(conn):
			conn.Close()
		default:
			conns = append(conns, conn)
		}
	}
	return conns
}

// takeListener returns the listener kept under a name, or nil.
func takeListener(s fdStore, name string) net.Listener {
	var l net.Listener
	for _, f := range s.take(name) {
		if l == nil {
			l, _ = net.FileListener(f) // an error means that nobody of ours has kept it
		}
		f.Close()
	}
	return l
}

// systemdStore keeps sockets in the service manager (FDSTORE=1 of
// sd_notify(3)), which needs FileDescriptorStoreMax= in the unit.
type systemdStore struct {
	log    *slog.Logger
	notify string        // address of NOTIFY_SOCKET, "" without systemd
	ours   chan struct{} // closed when the service manager has dropped its copies

	mu     sync.Mutex
	passed map[string][]*os.File // by fdName
}

// newSystemdStore takes charge of the sockets among the passed descriptors
// and closes no others. It has the service manager drop its copies at once, which
// takes as long as the login that has to come before they are served; close waits
// for the goroutine.
func newSystemdStore(passed []*os.File, log *slog.Logger) *systemdStore {
	s := &systemdStore{log: log, notify: os.Getenv("NOTIFY_SOCKET"), ours: make(chan struct{}), passed: make(map[string][]*os.File)}
	for _, f := range passed {
		if strings.HasPrefix(f.Name(), fdPrefix) {
			s.passed[f.Name()] = append(s.passed[f.Name()], f)
		}
	}
	names := slices.Collect(maps.Keys(s.passed))
	go func() {
		defer close(s.ours)
		s.forget(names)
	}()
	return s
}

const fdPrefix = "nbd-"

// fdName is the name under which a socket is kept by the service manager; a colon
// cannot be part of it (sd_pid_notify_with_fds(3)).
func fdName(name string) string { return fdPrefix + strings.ReplaceAll(name, ":", "-") }

func (s *systemdStore) keep(name string, socket fileSocket) bool {
	if s.notify == "" {
		return false
	}
	f, err := socket.File()
	if err != nil {
		return false
	}
	defer f.Close()
	// FDPOLL=0: a hang-up of the kernel's end does not drop it unseen.
	if err := s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+fdName(name), unix.UnixRights(int(f.Fd()))); err != nil {
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

func (s *systemdStore) take(name string) []*os.File {
	name = fdName(name)
	s.mu.Lock()
	files := s.passed[name]
	delete(s.passed, name)
	s.mu.Unlock()
	if len(files) > 0 {
		<-s.ours
	}
	return files
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
	for _, files := range s.passed {
		for _, f := range files {
			f.Close()
		}
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
