package daemon

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/paths"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nodedb"
)

func TestMain(m *testing.M) {
	if os.Getenv(testAsDaemon) != "" {
		os.Exit(Main(os.Args, os.Stdout, os.Stderr, nil))
	}
	goleak.VerifyTestMain(m)
}

const testTarget = "iqn.2016-01-com.example.tg1"

// A bench is a daemon with a fake kernel and a fake target.
type bench struct {
	*daemon
	t      *testing.T
	opt    Options
	kern   *fakeKernel
	target *fakeTarget
	events *fakeUevents
	logs   *logBuffer
	fds    fdStore // keeps sockets from one daemon to the next
}

// A logBuffer keeps the log of a test for its failure.
type logBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	waits []logWait
}

type logWait struct {
	text string
	done chan struct{}
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = slices.DeleteFunc(l.waits, func(w logWait) bool {
		if !bytes.Contains(p, []byte(w.text)) {
			return false
		}
		close(w.done)
		return true
	})
	return l.b.Write(p)
}

// expect returns a channel that is closed by the next line with the text.
func (l *logBuffer) expect(text string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := logWait{text, make(chan struct{})}
	l.waits = append(l.waits, w)
	return w.done
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newBench(t *testing.T, target *fakeTarget) *bench {
	t.Helper()
	k := newFakeKernel(t)
	run := filepath.Join(filepath.Dir(k.dev), "run")
	name := filepath.Join(filepath.Dir(k.dev), "initiatorname.iscsi")
	if err := os.WriteFile(name, []byte("InitiatorName=iqn.2024-01.com.example:host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, kern: k, target: target, logs: new(logBuffer), fds: &noStore{}, opt: Options{
		Paths: paths.Paths{Run: run, Dev: k.dev, Sys: k.sys, InitiatorName: name, Config: filepath.Join(run, "none")},
		UID:   -1, GID: -1, kernel: k, dial: target.dial, retry: time.Millisecond,
	}}
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", b.logs)
		}
	})
	b.start()
	t.Cleanup(func() { b.halt() })
	return b
}

// start begins a daemon on what the earlier one left.
func (b *bench) start() {
	b.t.Helper()
	b.events = newFakeUevents()
	o := b.opt
	o.uevents = func() (ueventSource, error) { return b.events, nil }
	d, err := newDaemon(o, new(nodedb.Config), b.fds, slog.New(newLineHandler(b.logs, slog.LevelDebug)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.daemon = d
	states, err := d.m.store.load()
	if err != nil {
		b.t.Fatal(err)
	}
	orphans := d.orphans(states)
	surveyed := make(chan struct{})
	close(surveyed)
	d.svc.restore(states, surveyed)
	d.removeOrphans(orphans)
}

// halt stops the daemon as SIGTERM does.
func (b *bench) halt() {
	if b.daemon == nil {
		return
	}
	b.m.reg.stop(context.Background())
	b.svc.wg.Wait()
	b.close()
	b.daemon = nil
}

// noStore keeps no sockets.
type noStore struct{}

func (*noStore) keep(string, fileSocket) bool { return false }
func (*noStore) take(string) []*os.File       { return nil }
func (*noStore) close()                       {}

func testRecord(set ...string) map[string]string {
	rec := map[string]string{
		"node.name": testTarget, "node.tpgt": "1", "node.conn[0].address": "192.0.2.1", "node.conn[0].port": "3260",
		"iface.iscsi_ifacename": "default", "iface.transport_name": "tcp",
	}
	for i := 0; i < len(set); i += 2 {
		rec[set[i]] = set[i+1]
	}
	return rec
}

func (b *bench) login(set ...string) *control.Session {
	b.t.Helper()
	s, err := b.svc.Login(b.t.Context(), &control.LoginRequest{Record: testRecord(set...)})
	if err != nil {
		b.t.Fatalf("login: %v", err)
	}
	return s
}

func (b *bench) logout(sid int) {
	b.t.Helper()
	if err := b.svc.Logout(b.t.Context(), sid, false); err != nil {
		b.t.Fatalf("logout: %v", err)
	}
}

func (b *bench) rescan(sid int) *control.RescanResult {
	b.t.Helper()
	r, err := b.svc.Rescan(b.t.Context(), sid)
	if err != nil {
		b.t.Fatalf("rescan: %v", err)
	}
	return r
}

// linkTo returns where a by-path link leads, "" if there is none.
func (b *bench) linkTo(name string) string {
	b.t.Helper()
	to, err := os.Readlink(filepath.Join(b.opt.Paths.ByPath(), name))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return to
}

func linkName(lun string) string { return "ip-192.0.2.1:3260-iscsi-" + testTarget + "-lun-" + lun }

func wantCode(t *testing.T, err error, want errcode.Code) {
	t.Helper()
	if got := errcode.Of(err); got != want {
		t.Errorf("error %v has code %d, want %d", err, got, want)
	}
}

func TestLoginOffersEachDisk(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeController(), fakeDisk("naa.1", 1<<20)))
	s := b.login()
	if s.SID != 1 || len(s.Devices) != 2 {
		t.Fatalf("session %+v", s)
	}
	if d := s.Devices[0]; d.Attach != control.AttachNone || d.Name != "" || d.Type != "controller" {
		t.Errorf("controller: %+v", d)
	}
	d := s.Devices[1]
	if d.Name != "nbd0" || d.Path != filepath.Join(b.kern.dev, "nbd0") || d.State != "running" || d.Size != 1<<20 || d.BlockSize != 512 {
		t.Errorf("disk: %+v", d)
	}
	if to := b.linkTo(linkName("1")); to != "../../nbd0" {
		t.Errorf("by-path link leads to %q", to)
	}
	data := bytes.Repeat([]byte("x"), 512)
	if _, err := b.kern.io(0, nbd.CmdWrite, 1024, data); err != nil {
		t.Fatalf("write: %v", err)
	}
	got, err := b.kern.io(0, nbd.CmdRead, 1024, make([]byte, 512))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestLogoutRemovesEverything(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeController(), fakeDisk("naa.1", 1<<20)))
	s := b.login()
	b.logout(s.SID)
	if n := b.kern.indexes(); len(n) != 0 {
		t.Errorf("kernel devices %v are left", n)
	}
	if to := b.linkTo(linkName("1")); to != "" {
		t.Errorf("link to %q is left", to)
	}
	if files, _ := filepath.Glob(filepath.Join(b.opt.Paths.StateDir(), "session-*")); len(files) != 0 {
		t.Errorf("state files %v are left", files)
	}
	if !b.target.last().loggedOut {
		t.Error("the iSCSI session was not logged out")
	}
	wantCode(t, b.svc.Logout(t.Context(), s.SID, false), errcode.SessNotFound)
	if s := b.login(); s.SID != 2 {
		t.Errorf("sid %d was used again", s.SID)
	}
}

func TestSecondLoginIsRefused(t *testing.T) {
	b := newBench(t, newFakeTarget())
	b.login()
	_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord()})
	wantCode(t, err, errcode.SessExists)
	for _, other := range [][]string{
		{"node.name", "iqn.2016-01.com.example:other"},
		{"node.conn[0].address", "192.0.2.2"},
		{"node.conn[0].port", "3261"},
		{"iface.iscsi_ifacename", "iface0"},
	} {
		b.login(other...)
	}
}

func TestParallelLoginsMakeOneSession(t *testing.T) {
	b := newBench(t, newFakeTarget())
	var wg sync.WaitGroup
	results := make(chan error, 50)
	for range cap(results) {
		wg.Go(func() {
			_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord()})
			results <- err
		})
	}
	wg.Wait()
	close(results)
	good := 0
	for err := range results {
		switch errcode.Of(err) {
		case errcode.Success:
			good++
		case errcode.SessExists:
		default:
			t.Errorf("login: %v", err)
		}
	}
	if good != 1 {
		t.Errorf("%d logins succeeded, want 1", good)
	}
}

func TestParallelMultipleLoginsKeepToTheLimit(t *testing.T) {
	b := newBench(t, newFakeTarget())
	var wg sync.WaitGroup
	var mu sync.Mutex
	sids := make(map[int]bool)
	for range 20 {
		wg.Go(func() {
			s, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord(), Multiple: true, Limit: 4})
			if err != nil {
				wantCode(t, err, errcode.SessExists)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			sids[s.SID] = true
		})
	}
	wg.Wait()
	if len(sids) != 4 {
		t.Errorf("sessions %v, want 4", sids)
	}
	b.target.mu.Lock()
	defer b.target.mu.Unlock()
	isids := make(map[string]bool)
	for _, id := range b.target.isids {
		if !strings.HasPrefix(id.String(), "00023d") {
			t.Errorf("ISID %v is not of open-iscsi's form", id)
		}
		isids[id.String()] = true
	}
	if len(isids) != 4 {
		t.Errorf("ISIDs %v are not unique", maps.Keys(isids))
	}
}

func TestStateDirectoryIsPrivate(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	b.login("node.session.auth.password", "secretsecret")
	for name, want := range map[string]fs.FileMode{
		b.opt.Paths.StateDir(): 0o700, b.opt.Paths.LUNDir(): 0o700,
		filepath.Join(b.opt.Paths.StateDir(), "session-1.json"): 0o600,
	} {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, st.Mode().Perm(), want)
		}
	}
	if strings.Contains(b.logs.String(), "secretsecret") {
		t.Error("the password is in the log")
	}
}
