package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// newLab returns a daemon and a real target for it: the whole path but for the
// kernel.
func newLab(t *testing.T, target iscsitest.Target) (*bench, *iscsitest.Server) {
	t.Helper()
	// The target outlives the daemon, whose end logs out.
	target.Name = testTarget
	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{target}, UnitAttention: true})
	t.Cleanup(srv.Close)
	b := newBench(t, newFakeTarget())
	b.halt()
	b.opt.dial = nil
	b.start()
	return b, srv
}

func recordFor(t *testing.T, portal string, set ...string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(portal)
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{
		"node.conn[0].address", host, "node.conn[0].port", port,
		"node.session.iscsi.DefaultTime2Wait", "0", "node.session.initial_login_retry_max", "0",
	}, set...)
}

func memDisk(size int64) *iscsitest.LUN {
	return &iscsitest.LUN{Store: iscsitest.NewMemStore(size), WriteCache: true, Thin: true}
}

func TestDiskOfARealTarget(t *testing.T) {
	b, srv := newLab(t, iscsitest.Target{Controller: true, LUNs: map[uint64]*iscsitest.LUN{1: memDisk(8 << 20), 2: {Store: iscsitest.NewMemStore(1 << 20), ReadOnly: true, BlockSize: 4096}}})
	s := b.login(recordFor(t, srv.Portal())...)
	if len(s.Devices) != 3 || s.Devices[0].Type != "storage array controller" || s.Devices[0].Attach != control.AttachNone {
		t.Fatalf("devices %+v", s.Devices)
	}
	if d := s.Devices[1]; d.Size != 8<<20 || d.BlockSize != 512 || d.ReadOnly || d.WWID == "" || d.Vendor == "" {
		t.Errorf("disk %+v", d)
	}
	if d := s.Devices[2]; !d.ReadOnly || d.BlockSize != 4096 {
		t.Errorf("disk %+v", d)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)
	if _, err := b.kern.io(0, nbd.CmdWrite, 4096, data); err != nil {
		t.Fatal(err)
	}
	if got, err := b.kern.io(0, nbd.CmdRead, 4096, make([]byte, len(data))); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back: %v", err)
	}
	if _, err := b.kern.io(1, nbd.CmdWrite, 0, make([]byte, 4096)); err == nil {
		t.Error("a write to the read-only disk succeeded")
	}
	st, err := b.svc.Stats(t.Context(), s.SID)
	if err != nil || st.SCSICmd == 0 || st.TxDataOctets < uint64(len(data)) {
		t.Errorf("stats %+v, %v", st, err)
	}
	b.logout(s.SID)
	if n := len(srv.Sessions()); n != 0 {
		t.Errorf("%d sessions are left at the target", n)
	}
	if v := srv.Violations(); len(v) != 0 {
		t.Errorf("violations %v", v)
	}
}

func TestSocketServesADiskOfARealTarget(t *testing.T) {
	b, srv := newLab(t, iscsitest.Target{LUNs: map[uint64]*iscsitest.LUN{0: memDisk(8 << 20)}})
	s := b.login(recordFor(t, srv.Portal(), "node.session.attach", "socket")...)
	d := s.Devices[0]
	if d.Attach != control.AttachSocket || d.Name != "" || filepath.Dir(d.Path) != b.opt.Paths.LUNDir() {
		t.Fatalf("device %+v", d)
	}
	for _, path := range []string{d.Path, d.ByPath} {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c, err := nbdtest.NewClient(nc, 3)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := c.Go("")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Write(bytes.Repeat([]byte("z"), 4096), 0, nbd.CmdFlagFUA); err != nil {
			t.Error(err)
		}
		if got, err := p.Read(0, 4096); err != nil || got[17] != 'z' {
			t.Errorf("read: %v", err)
		}
	}
	b.logout(s.SID)
	if _, err := net.Dial("unix", d.Path); err == nil {
		t.Error("the socket is still there")
	}
}

func TestUnitsOfARealTargetComeGoAndChange(t *testing.T) {
	first, second := memDisk(1<<20), memDisk(1<<20)
	b, srv := newLab(t, iscsitest.Target{Controller: true, LUNs: map[uint64]*iscsitest.LUN{1: first}})
	sid := b.login(recordFor(t, srv.Portal())...).SID
	set := func(n uint64, l *iscsitest.LUN) {
		t.Helper()
		if err := srv.SetLUN(testTarget, n, l); err != nil {
			t.Fatal(err)
		}
	}
	// The unit attention of the target starts a scan, too; which of the two
	// finds the change first is open, so only the outcome counts.
	set(2, second)
	if r := b.rescan(sid); len(r.Devices) != 3 || len(b.kern.indexes()) != 2 {
		t.Errorf("after a new unit: %+v", r)
	}
	other := memDisk(2 << 20)
	other.Serial, other.NAA = "other", []byte{0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	set(1, other)
	if r := b.rescan(sid); r.Devices[1].Size != 2<<20 || r.Devices[1].Name == "nbd0" || r.Devices[1].State != "running" {
		t.Errorf("after a replacement: %+v", r)
	}
	set(2, nil)
	if r := b.rescan(sid); len(r.Devices) != 2 || len(b.kern.indexes()) != 1 {
		t.Errorf("after a removal: %+v", r)
	}
}

func TestSessionComesBackAndIOGoesOn(t *testing.T) {
	b, srv := newLab(t, iscsitest.Target{LUNs: map[uint64]*iscsitest.LUN{0: memDisk(1 << 20)}})
	sid := b.login(recordFor(t, srv.Portal())...).SID
	for i := range 5 {
		srv.ResetConnections()
		if _, err := b.kern.io(0, nbd.CmdWrite, int64(i)*512, bytes.Repeat([]byte{byte(i)}, 512)); err != nil {
			t.Fatalf("write after reset %d: %v", i, err)
		}
	}
	s, err := b.svc.Session(t.Context(), sid, control.SessionQuery{})
	if err != nil || s.Recoveries == 0 || s.SessionState != control.SessionLoggedIn {
		t.Errorf("session %+v, %v", s, err)
	}
}

func TestLogoutWhileTheTargetHangs(t *testing.T) {
	b, srv := newLab(t, iscsitest.Target{LUNs: map[uint64]*iscsitest.LUN{0: memDisk(1 << 20)}})
	sid := b.login(recordFor(t, srv.Portal(), "node.conn[0].timeo.logout_timeout", "1")...).SID
	resume := srv.Pause()
	defer resume()
	io := make(chan error, 1)
	go func() {
		_, err := b.kern.io(0, nbd.CmdWrite, 0, make([]byte, 512))
		io <- err
	}()
	start := time.Now()
	b.logout(sid)
	if d := time.Since(start); d > time.Minute {
		t.Errorf("logout took %v", d)
	}
	if err := <-io; err == nil {
		t.Error("the write that hung succeeded")
	}
}

func TestRefusedLogins(t *testing.T) {
	b, srv := newLab(t, iscsitest.Target{LUNs: map[uint64]*iscsitest.LUN{0: memDisk(1 << 20)}, CHAP: iscsitest.CHAP{Username: "user", Password: "password1234"}})
	for _, tc := range []struct {
		name string
		set  []string
		want errcode.Code
	}{
		{"no credentials", nil, errcode.LoginAuthFailed},
		{"wrong password", []string{"node.session.auth.username", "user", "node.session.auth.password", "wrong1234567"}, errcode.LoginAuthFailed},
		{"unknown target", []string{"node.name", "iqn.2016-01.com.example:nothing", "node.session.auth.username", "user", "node.session.auth.password", "password1234"}, errcode.FatalLogin},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord(recordFor(t, srv.Portal(), tc.set...)...)})
			wantCode(t, err, tc.want)
		})
	}
	b.login(recordFor(t, srv.Portal(), "node.session.auth.username", "user", "node.session.auth.password", "password1234")...)
}

func TestRestartAgainstARealTarget(t *testing.T) {
	b, srv := newLab(t, iscsitest.Target{LUNs: map[uint64]*iscsitest.LUN{0: memDisk(1 << 20)}})
	was := b.login(recordFor(t, srv.Portal())...)
	data := bytes.Repeat([]byte("k"), 512)
	if _, err := b.kern.io(0, nbd.CmdWrite, 0, data); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.halt()
		b.start()
		is := b.up(was.SID)
		if d := is.Devices[0]; d.Name != "nbd0" || d.WWID != was.Devices[0].WWID || d.State != "running" {
			t.Fatalf("device %+v", d)
		}
		if got, err := b.kern.io(0, nbd.CmdRead, 0, make([]byte, 512)); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read: %v", err)
		}
	}
	if n := len(srv.Sessions()); n != 1 {
		t.Errorf("%d sessions at the target", n)
	}
}

func TestControlAPIOverItsSocket(t *testing.T) {
	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{Name: testTarget, LUNs: map[uint64]*iscsitest.LUN{0: memDisk(1 << 20)}}}})
	t.Cleanup(srv.Close)
	b := newBench(t, newFakeTarget())
	b.halt()
	o := b.opt
	o.dial = nil
	o.Paths.PIDFile = filepath.Join(o.Paths.Run, "pid")
	o.uevents = func() (ueventSource, error) { return newFakeUevents(), nil }
	o.Logger = slog.New(newLineHandler(b.logs, slog.LevelDebug))
	ready := make(chan struct{})
	o.Ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	if err := Run(t.Context(), o); err == nil {
		t.Error("a second daemon runs in the same directory")
	}

	c := control.NewClient(o.Paths.ControlSocket(), control.ClientOptions{})
	defer c.Close()
	s, err := c.Login(t.Context(), &control.LoginRequest{Record: testRecord(recordFor(t, srv.Portal())...)})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := c.Sessions(t.Context(), control.SessionQuery{}); err != nil || len(list) != 1 || list[0].SID != s.SID {
		t.Errorf("sessions %+v, %v", list, err)
	}
	if err := c.Logout(t.Context(), s.SID, false); err != nil {
		t.Error(err)
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestManySessionsRecover(t *testing.T) {
	const n = 64
	units := make(map[uint64]*iscsitest.LUN)
	units[0] = memDisk(1 << 20)
	b, srv := newLab(t, iscsitest.Target{LUNs: units})
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			set := recordFor(t, srv.Portal(), "iface.iscsi_ifacename", "iface"+strconv.Itoa(i))
			if _, err := b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord(set...)}); err != nil {
				t.Errorf("login %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	srv.ResetConnections()
	for _, i := range b.kern.indexes() {
		if _, err := b.kern.io(i, nbd.CmdWrite, 0, make([]byte, 512)); err != nil {
			t.Errorf("nbd%d: %v", i, err)
		}
	}
	if got := len(b.kern.indexes()); got != n {
		t.Errorf("%d devices", got)
	}
}
