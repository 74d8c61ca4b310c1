package daemon

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestControlSocketIsForAllAndReplacesADeadOne(t *testing.T) {
	_, p := testRoot(t)
	if err := makeRunDir(p.Run); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds the first one's socket
		l, err := listen(p.ControlSocket(), nil)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		defer l.Close()
	}
	for path, want := range map[string]os.FileMode{p.Run: 0o711, p.ControlSocket(): 0o666} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, st.Mode(), err, want)
		}
	}
}

func TestSocketsOfTheServiceManager(t *testing.T) {
	dir, err := os.MkdirTemp("", "iscsid")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "control.sock")
	passed, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	f, err := passed.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	null, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	device := os.NewFile(uintptr(null), fdPrefix+"iscsid-x-1-0")
	defer device.Close()

	l, err := listen(filepath.Join(dir, "another"), []*os.File{device, f})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := l.Addr().String(); got != path {
		t.Errorf("listens on %s, want %s", got, path)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	s := newSystemdStore([]*os.File{device, f}, nil)
	if len(s.passed) != 1 {
		t.Errorf("%d sockets of devices, want 1", len(s.passed))
	}
}
