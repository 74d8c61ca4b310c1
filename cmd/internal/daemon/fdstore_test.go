package daemon

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goiscsi/goiscsi/nbd"
)

// A memStore keeps sockets as the service manager does, in memory.
type memStore struct {
	mu   sync.Mutex
	kept map[string][]*os.File
}

func newMemStore() *memStore { return &memStore{kept: make(map[string][]*os.File)} }

func (m *memStore) keep(name string, s fileSocket) bool {
	f, err := s.File()
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.kept[name] = append(m.kept[name], f)
	}
	return err == nil
}

func (m *memStore) take(name string) []*os.File {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := m.kept[name]
	delete(m.kept, name)
	return files
}

func (m *memStore) close() {}

func TestPlannedRestartHandsTheSocketOver(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	b.halt()
	b.fds = newMemStore()
	b.start()
	sid := b.login().SID
	data := bytes.Repeat([]byte("h"), 512)
	if _, err := b.kern.io(0, nbd.CmdWrite, 0, data); err != nil {
		t.Fatal(err)
	}
	b.kern.mu.Lock()
	dead := b.kern.disks[0].dead
	b.kern.mu.Unlock()
	b.halt()
	// A request that comes while no daemon runs waits in the socket.
	answer := make(chan error, 1)
	go func() {
		got, err := b.kern.io(0, nbd.CmdRead, 0, make([]byte, 512))
		if err == nil && !bytes.Equal(got, data) {
			err = errFakeIO
		}
		answer <- err
	}()
	b.start()
	b.up(sid)
	if err := <-answer; err != nil {
		t.Errorf("read over the restart: %v", err)
	}
	select {
	case <-dead:
		t.Error("the kernel has noticed the restart")
	default:
	}
}

func TestSystemdKeepsASocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	addr := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", addr)
	log := slog.New(newLineHandler(t.Output(), slog.LevelDebug))

	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	kernelEnd := os.NewFile(uintptr(fds[0]), "kernel")
	ours := os.NewFile(uintptr(fds[1]), "ours")
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	const backend = "iscsid:abc:1:0001000000000000"
	if !keepConn(newSystemdStore(nil, log), backend, conn) {
		t.Fatal("not kept")
	}
	conn.Close()

	text, oob := make([]byte, 512), make([]byte, 512)
	n, oobn, _, _, err := manager.ReadMsgUnix(text, oob)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text[:n]), "\n")
	if lines[0] != "FDSTORE=1" || lines[2] != "FDNAME=nbd-iscsid-abc-1-0001000000000000" {
		t.Errorf("message %q", text[:n])
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		t.Fatal(err, len(msgs))
	}
	rights, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(rights) != 1 {
		t.Fatal(err, rights)
	}

	next := newSystemdStore([]*os.File{os.NewFile(uintptr(rights[0]), fdName(backend))}, log)
	defer next.close()
	taken := make(chan []net.Conn, 1)
	go func() { taken <- takeConns(next, backend) }()
	if n, err := manager.Read(text); err != nil || !strings.HasPrefix(string(text[:n]), "FDSTOREREMOVE=1") {
		t.Errorf("the manager was not told to forget it: %q, %v", text[:n], err)
	}
	if n, oobn, _, _, err = manager.ReadMsgUnix(text, oob); err != nil || string(text[:n]) != "BARRIER=1" {
		t.Fatalf("no barrier: %q, %v", text[:n], err)
	}
	select {
	case <-taken:
		t.Error("the socket is in use before the manager has forgotten it")
	default:
	}
	if msgs, err = unix.ParseSocketControlMessage(oob[:oobn]); err != nil || len(msgs) != 1 {
		t.Fatal(err, len(msgs))
	}
	if rights, err = unix.ParseUnixRights(&msgs[0]); err != nil || len(rights) != 1 {
		t.Fatal(err, rights)
	}
	unix.Close(rights[0])
	conns := <-taken
	if len(conns) != 1 {
		t.Fatalf("%d connections found again, want one", len(conns))
	}
	got := conns[0]
	defer got.Close()
	if _, err := kernelEnd.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if _, err := got.Read(text[:1]); err != nil || text[0] != 'x' {
		t.Errorf("read %q, %v", text[0], err)
	}
	if next.take(backend) != nil {
		t.Error("taken twice")
	}
	if kernelEnd.Close(); !hungUp(got) {
		t.Error("a socket without a peer was not noticed")
	}
}
