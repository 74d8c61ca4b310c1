//go:build integration

package compatsysfs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/control/controltest"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// A mounted view of a directory like /sys, with a daemon that has the session of
// snapshot.
type mounted struct {
	dir    string
	daemon *controltest.Daemon
	stop   func() error
}

func mount(t *testing.T) *mounted {
	t.Helper()
	m := &mounted{dir: t.TempDir()}
	m.daemon = &controltest.Daemon{
		SID: func(map[string]string) int { return 3 },
		Connect: func(_ context.Context, s *control.Session, _ map[string]string) error {
			s.Devices = snapshot()[0].Devices
			return nil
		},
	}
	client := control.NewClient(controltest.Serve(t, m.daemon, control.Options{}), control.ClientOptions{})
	t.Cleanup(func() { client.Close() })
	if _, err := client.Login(t.Context(), &control.LoginRequest{Record: map[string]string{
		"node.name": "iqn.2016-01-com.example.tg1", "node.conn[0].address": "192.0.2.1",
		"node.session.auth.username": "usuario", "node.session.auth.password": "hush",
	}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { // ended by cancel, waited for by stop
		done <- Run(ctx, Options{Dir: m.dir, Sys: realSys(t), Daemon: client, Ready: func() { close(ready) }})
	}()
	var ended bool
	m.stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		ended = true
		t.Fatalf("not mounted: %v", err)
	}
	return m
}

// Host 0: controltest gives the lowest number.
const mountedUnit = "devices/platform/host0/session3/target0:0:0/0:0:0:1"

func (m *mounted) read(t *testing.T, p string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, p))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func (m *mounted) write(p, text string) error {
	f, err := os.OpenFile(filepath.Join(m.dir, p), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func TestMountedFilesRead(t *testing.T) {
	m := mount(t)
	for p, want := range map[string]string{
		"class/iscsi_session/session3/targetname":                                  "iqn.2016-01-com.example.tg1\n",
		"class/iscsi_session/session3/password":                                    "hush\n",
		"class/iscsi_host/host0/device/session3/iscsi_session/session3/targetname": "iqn.2016-01-com.example.tg1\n",
		"block/nbd0/device/vendor":                                                 "IET     \n",
		"block/nbd0/dev":                                                           "43:0\n",
		"dev/block/43:1/dev":                                                       "43:1\n",
		"kernel/uevent_seqnum":                                                     "7\n",
		mountedUnit + "/block/nbd0/bdi/read_ahead_kb":                              "128\n",
	} {
		if got := m.read(t, p); got != want {
			t.Errorf("%s has %q, want %q", p, got, want)
		}
	}
	if p, err := filepath.EvalSymlinks(filepath.Join(m.dir, "block/nbd0")); p != filepath.Join(m.dir, mountedUnit, "block/nbd0") || err != nil {
		t.Errorf("block/nbd0 is %s, %v", p, err)
	}
}

func TestMountedFilesAct(t *testing.T) {
	m := mount(t)
	var mu sync.Mutex // the kernel is between the daemon and the test, which the race detector cannot see
	var scans []int64
	m.daemon.Scan = func(s *control.Session, lun int64) error {
		mu.Lock()
		defer mu.Unlock()
		scans = append(scans, lun)
		if lun == 9 {
			return control.NewError(errcode.SessionNotConnected, "")
		}
		s.Devices = snapshot()[0].Devices
		return nil
	}
	unit := filepath.Join(m.dir, "class/scsi_device/0:0:0:1/device")
	if err := m.write("block/nbd0/device/delete", "1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(unit); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unit is there after its removal: %v", err)
	}
	if p, err := os.Readlink(filepath.Join(m.dir, "block/nbd0")); p != "../devices/virtual/block/nbd0" || err != nil {
		t.Errorf("block/nbd0 leads to %s, %v", p, err)
	}
	if err := m.write("class/scsi_host/host0/scan", "0 0 1\n"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(unit); err != nil {
		t.Errorf("the unit is not back after the scan: %v", err)
	}
	if err := m.write("class/scsi_host/host0/scan", "- - -\n"); err != nil {
		t.Error(err)
	}
	if err := m.write(mountedUnit+"/rescan", "1\n"); err != nil {
		t.Error(err)
	}
	mu.Lock()
	if len(scans) != 3 || scans[0] != 1 || scans[1] != -1 || scans[2] != 1 {
		t.Errorf("scans of %v", scans)
	}
	mu.Unlock()
	for _, tc := range []struct {
		file, text string
		want       syscall.Errno
	}{
		{"class/scsi_host/host0/scan", "nonsense\n", syscall.EINVAL},
		{"class/scsi_host/host0/scan", "0 0 9\n", syscall.ENOTCONN},
		{mountedUnit + "/state", "sleeping\n", syscall.EINVAL},
		{mountedUnit + "/vendor", "x", syscall.EACCES},
		{"class/scsi_host/host9/scan", "- - -", syscall.ENOENT},
	} {
		if err := m.write(tc.file, tc.text); !errors.Is(err, tc.want) {
			t.Errorf("%q to %s: %v, want %v", tc.text, tc.file, err, tc.want)
		}
	}
	if err := m.write(mountedUnit+"/timeout", "60\n"); err != nil || m.read(t, "block/nbd0/device/timeout") != "60\n" {
		t.Errorf("timeout: %v", err)
	}
	if _, err := os.ReadFile(filepath.Join(m.dir, mountedUnit, "delete")); !errors.Is(err, syscall.EACCES) {
		t.Errorf("delete can be read: %v", err)
	}
	// Through to the real file.
	if err := m.write("block/nbd0/queue/nr", "128\n"); err != nil || m.read(t, "devices/virtual/block/nbd0/queue/nr") != "128\n" {
		t.Errorf("a real file: %v", err)
	}
}

// TestMountedFilesAreNotForEverybody reads and writes as nobody.
func TestMountedFilesAreNotForEverybody(t *testing.T) {
	m := mount(t)
	if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil { // the test's directory
		t.Fatal(err)
	}
	for p := filepath.Dir(m.dir); p != "/" && p != "/tmp"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(m.dir, "block/nbd0/queue/nr"), 0o666); !errors.Is(err, syscall.EPERM) {
		t.Errorf("chmod through the view: %v", err)
	}
	as := func(line string) error {
		// Not cmd.Dir: the child would enter it before it executes anything, while
		// this process, which serves it, waits for the child.
		cmd := exec.Command("/bin/sh", "-c", "cd "+m.dir+" && "+line)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil && !strings.Contains(string(out), "denied") {
			t.Errorf("%s: %v %s", line, err, out)
		}
		return err
	}
	for line, allowed := range map[string]bool{
		"cat class/iscsi_session/session3/targetname": true,
		"cat class/iscsi_session/session3/password":   false,
		"echo 1 >block/nbd0/device/delete":            false,
		"echo - - - >class/scsi_host/host0/scan":      false,
		"echo 1 >block/nbd0/queue/nr":                 false,
	} {
		if err := as(line); (err == nil) != allowed {
			t.Errorf("nobody may do %q: %v", line, err == nil)
		}
	}
}

// A logout and a login are seen at once: os-brick and libvirt look right after
// iscsiadm has returned.
func TestMountedTreeFollowsTheSessions(t *testing.T) {
	m := mount(t)
	link := filepath.Join(m.dir, "class/iscsi_session/session3")
	for range 50 {
		if _, err := os.Stat(link); err != nil {
			t.Fatal(err)
		}
		if err := m.daemon.Logout(t.Context(), 3, false); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(time.Second)
		for {
			_, err := os.Stat(link)
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("a second after its logout the session is there: %v", err)
			}
		}
		if _, err := m.daemon.Login(t.Context(), &control.LoginRequest{Record: map[string]string{"node.name": "iqn.2016-01-com.example.tg1"}}); err != nil {
			t.Fatal(err)
		}
		for deadline = time.Now().Add(time.Second); ; {
			_, err := os.Stat(link)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("a second after its login the session is not there: %v", err)
			}
		}
	}
}

// While something is open or mounted once more, the end is not held up, and
// nothing of the process is left (goleak).
func TestMountEndsUnderItsUsers(t *testing.T) {
	m := mount(t)
	f, err := os.Open(filepath.Join(m.dir, "class/iscsi_session/session3/targetname"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.stop() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the end waits for an open file")
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(m.dir, "class")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still mounted: %v", err)
	}
}

func TestMountOnNothingFails(t *testing.T) {
	err := Run(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "none"), Sys: realSys(t), Daemon: new(calls)})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	err = Run(t.Context(), Options{Dir: t.TempDir(), Sys: filepath.Join(t.TempDir(), "none"), Daemon: new(calls)})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
