package daemon

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
	"github.com/goiscsi/goiscsi/pdu"
)

// newSocketBench returns a daemon whose one session has a disk on a socket, and
// whose sockets are kept over a restart.
func newSocketBench(t *testing.T) (*bench, *control.Session) {
	t.Helper()
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	b.halt()
	b.fds = newMemStore()
	b.start()
	return b, b.login("node.session.attach", "socket")
}

// client connects to an export.
func client(t *testing.T, path string) *nbdtest.Peer {
	t.Helper()
	return negotiate(t, dialUnix(t, path))
}

func dialUnix(t *testing.T, path string) net.Conn {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

func negotiate(t *testing.T, nc net.Conn) *nbdtest.Peer {
	t.Helper()
	c, err := nbdtest.NewClient(nc, nbd.HandshakeFixedNewstyle|nbd.HandshakeNoZeroes)
	if err != nil {
		t.Fatal(err)
	}
	peer, _, err := c.Go("")
	if err != nil {
		t.Fatal(err)
	}
	return peer
}

func TestPlannedRestartKeepsClientsOfASocket(t *testing.T) {
	b, was := newSocketBench(t)
	path := was.Devices[0].Path
	first, second := client(t, path), client(t, path)
	data := bytes.Repeat([]byte("s"), 512)
	if err := first.Write(data, 0, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.halt()
		if to, err := os.Readlink(filepath.Join(filepath.Dir(path), socketLink(linkName("0")))); to != filepath.Base(path) {
			t.Errorf("link leads to %q while no daemon runs: %v", to, err)
		}
		// Who asks, or comes, while no daemon runs waits.
		cookie, err := second.Send(nbd.CmdRead, 0, 0, 512, nil)
		if err != nil {
			t.Fatal(err)
		}
		late := dialUnix(t, path)
		b.start()
		is := b.up(was.SID)
		if is.Devices[0].Path != path || is.Devices[0].Attach != "socket" {
			t.Errorf("device %+v, was %+v", is.Devices[0], was.Devices[0])
		}
		if r, err := second.Recv(); err != nil || r.Cookie != cookie {
			t.Errorf("reply over the restart: %+v, %v", r, err)
		}
		if got, err := first.Read(0, 512); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read after the restart: %.8q, %v", got, err)
		}
		if got, err := negotiate(t, late).Read(0, 512); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read by a client that came between: %.8q, %v", got, err)
		}
	}
	b.logout(was.SID)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("socket after the logout: %v", err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 0 {
		t.Errorf("left in the directory of sockets: %v", files)
	}
}

func TestRestartDropsClientsOfAnotherDisk(t *testing.T) {
	b, was := newSocketBench(t)
	peer := client(t, was.Devices[0].Path)
	b.halt()
	b.target.set(0, fakeDisk("naa.2", 1<<20))
	b.start()
	b.up(was.SID)
	if err := peer.Conn().SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Conn().Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("client of the old disk: %v, want EOF", err)
	}
	if _, err := client(t, was.Devices[0].Path).Read(0, 512); err != nil {
		t.Errorf("read of the new disk: %v", err)
	}
}

func TestLogoutDropsClientsThatWaitForTheirDisk(t *testing.T) {
	b, was := newSocketBench(t)
	peer := client(t, was.Devices[0].Path)
	b.halt()
	begun, _ := blockingLogin(b.target)
	b.start()
	<-begun
	b.logout(was.SID)
	if err := peer.Conn().SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Conn().Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("client after the logout: %v, want EOF", err)
	}
	if files, _ := os.ReadDir(filepath.Dir(was.Devices[0].Path)); len(files) != 0 {
		t.Errorf("left in the directory of sockets: %v", files)
	}
}

// TestCleanSparesWhatMayBeHandedOver: of what is in the directory, only the sockets of units
// on file, and links to them, are left to the sessions.
func TestCleanSparesWhatMayBeHandedOver(t *testing.T) {
	a := newSocketAttacher(t.TempDir(), &noStore{}, nil, nil)
	for _, name := range []string{"1-0.sock", "1-1.sock", "2-0.sock"} {
		if err := os.WriteFile(filepath.Join(a.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"kept.sock": "1-0.sock", "dead.sock": "2-0.sock", "nowhere.sock": "3-0.sock"} {
		if err := os.Symlink(to, filepath.Join(a.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.clean([]*sessionState{{SID: 1, Units: []unitState{
		{LUN: uint64(pdu.LUNFromNumber(0)), Attach: attachSocket},
		{LUN: uint64(pdu.LUNFromNumber(1)), Attach: attachNBD},
	}}}); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(a.dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"1-0.sock", "kept.sock"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v: %v", left, want, err)
	}
}
