package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/pdu"
)

// up waits until the session has been taken up.
func (b *bench) up(sid int) *control.Session {
	b.t.Helper()
	s := b.supervisor(sid)
	select {
	case <-s.ready:
	case <-s.done:
		b.t.Fatalf("session %d ended: %v", sid, s.failure)
	}
	return new(s.view(control.SessionQuery{}))
}

func TestRestartTakesUpTheSameDevice(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeController(), fakeDisk("naa.1", 1<<20)))
	b.login("node.conn[0].port", "3261")
	was := b.login()
	data := bytes.Repeat([]byte("y"), 512)
	if _, err := b.kern.io(1, nbd.CmdWrite, 0, data); err != nil {
		t.Fatal(err)
	}
	b.halt()
	if to := b.linkTo(linkName("1")); to != "../../nbd1" {
		t.Errorf("link leads to %q while no daemon runs", to)
	}
	b.start()
	is := b.up(was.SID)
	if is.Host != was.Host || is.Devices[1].Name != was.Devices[1].Name || is.Devices[1].ByPath != was.Devices[1].ByPath {
		t.Errorf("session %+v, was %+v", is, was)
	}
	if !is.Created.Equal(was.Created) {
		t.Errorf("created %v, was %v", is.Created, was.Created)
	}
	if got, err := b.kern.io(1, nbd.CmdRead, 0, make([]byte, 512)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %q, %v", got, err)
	}
	if b.kern.connects != 2 {
		t.Errorf("%d devices were made, want 2", b.kern.connects)
	}
	ids := b.target.isids
	if !slices.Contains(ids[2:], initiator.OpenISCSIISID(uint32(was.SID))) {
		t.Errorf("the session was not reinstated by its ISID: %v", ids)
	}
	b.logout(was.SID)
	if n := b.kern.indexes(); !slices.Equal(n, []int{0}) {
		t.Errorf("kernel devices %v", n)
	}
	if s := b.login("node.conn[0].port", "3262"); s.SID != 3 {
		t.Errorf("sid %d after the restart, want 3", s.SID)
	}
}

func TestRestartWaitsForTheTarget(t *testing.T) {
	target := newFakeTarget(fakeDisk("naa.1", 1<<20))
	b := newBench(t, target)
	sid := b.login().SID
	b.halt()
	begun, release := blockingLogin(target)
	b.start()
	<-begun
	release <- &initiator.LoginError{Class: 2, Detail: 3} // not even this is final
	<-begun
	s, err := b.svc.Session(t.Context(), sid, control.SessionQuery{})
	if err != nil || s.InternalState != "REOPEN" || s.Devices[0].State != "blocked" || s.FailedLogins != 1 || s.LastError == "" || s.Outage <= 0 {
		t.Errorf("session %+v, %v", s, err)
	}
	_, err = b.svc.Login(t.Context(), &control.LoginRequest{Record: testRecord()})
	wantCode(t, err, errcode.SessExists)
	release <- nil
	b.up(sid)
	if _, err := b.kern.io(0, nbd.CmdWrite, 0, make([]byte, 512)); err != nil {
		t.Errorf("write: %v", err)
	}
}

func TestLogoutOfSessionThatWaitsForItsTarget(t *testing.T) {
	target := newFakeTarget(fakeDisk("naa.1", 1<<20))
	b := newBench(t, target)
	sid := b.login().SID
	b.halt()
	begun, _ := blockingLogin(target)
	b.start()
	<-begun
	b.logout(sid)
	if n := b.kern.indexes(); len(n) != 0 {
		t.Errorf("kernel devices %v are left", n)
	}
	if to := b.linkTo(linkName("0")); to != "" {
		t.Errorf("link to %q is left", to)
	}
	if files, _ := filepath.Glob(filepath.Join(b.opt.Paths.StateDir(), "session-*")); len(files) != 0 {
		t.Errorf("state files %v are left", files)
	}
}

func TestRestartDoesNotServeAnotherDiskUnderTheOldName(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.halt()
	b.target.set(0, fakeDisk("naa.2", 1<<20))
	b.start()
	s := b.up(sid)
	if d := s.Devices[0]; d.Name != "nbd1" || d.WWID != "naa.2" {
		t.Errorf("device %+v", d)
	}
	if n := b.kern.indexes(); !slices.Equal(n, []int{1}) {
		t.Errorf("kernel devices %v", n)
	}
	if to := b.linkTo(linkName("0")); to != "../../nbd1" {
		t.Errorf("link leads to %q", to)
	}
}

func TestRestartRemovesDeviceOfVanishedUnit(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20), fakeDisk("naa.2", 1<<20)))
	sid := b.login().SID
	b.halt()
	b.target.set(1, nil)
	b.start()
	if s := b.up(sid); len(s.Devices) != 1 {
		t.Errorf("devices %+v", s.Devices)
	}
	if n := b.kern.indexes(); !slices.Equal(n, []int{0}) || b.linkTo(linkName("1")) != "" {
		t.Errorf("kernel devices %v, link %q", n, b.linkTo(linkName("1")))
	}
}

func TestRestartAttachesAfreshWhenTheBlockSizeHasChanged(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.halt()
	other := fakeDisk("naa.1", 1<<20)
	other.geo.blockSize = 4096
	b.target.set(0, other)
	b.start()
	if d := b.up(sid).Devices[0]; d.Name != "nbd1" || d.BlockSize != 4096 {
		t.Errorf("device %+v", d)
	}
	if n := b.kern.indexes(); !slices.Equal(n, []int{1}) {
		t.Errorf("kernel devices %v", n)
	}
}

// TestRestartServesAllDevicesAtOnce has no unit answer before all of them were
// asked, and the target not list its units before all devices are served again.
func TestRestartServesAllDevicesAtOnce(t *testing.T) {
	const n = atOnce
	var disks []*fakeUnit
	for i := range n {
		disks = append(disks, fakeDisk(fmt.Sprintf("naa.%d", i), 1<<20))
	}
	target := newFakeTarget(disks...)
	b := newBench(t, target)
	b.halt()
	b.fds = newMemStore()
	b.start()
	sid := b.login().SID
	b.halt()
	var asked sync.WaitGroup
	asked.Add(n)
	target.opening = func(pdu.LUN) { asked.Done(); asked.Wait() }
	listing := make(chan struct{})
	target.listing = func() { <-listing }
	list := sync.OnceFunc(func() { close(listing) })
	t.Cleanup(list) // before the end of the daemon
	b.start()
	for i := range n {
		if _, err := b.kern.io(i, nbd.CmdWrite, 0, make([]byte, 512)); err != nil {
			t.Fatalf("nbd%d: %v", i, err)
		}
	}
	if list, err := b.svc.Sessions(t.Context(), control.SessionQuery{}); err != nil || len(list) != 1 || list[0].Pending {
		t.Errorf("while the units are being looked for the session is listed as %+v (%v)", list, err)
	}
	list()
	s := b.up(sid)
	for i, d := range s.Devices {
		if d.State != "running" || b.linkTo(linkName(strconv.Itoa(i))) != "../../"+d.Name {
			t.Errorf("device %+v, link to %q", d, b.linkTo(linkName(strconv.Itoa(i))))
		}
	}
	if len(s.Devices) != n || b.kern.connects != n {
		t.Errorf("%d devices, %d made, want %d", len(s.Devices), b.kern.connects, n)
	}
}

func TestRestartAttachesAfreshWhenDeviceIsGone(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.halt()
	if err := b.kern.disconnect(0); err != nil {
		t.Fatal(err)
	}
	b.start()
	if d := b.up(sid).Devices[0]; d.Name != "nbd1" || d.State != "running" {
		t.Errorf("device %+v", d)
	}
	if to := b.linkTo(linkName("0")); to != "../../nbd1" {
		t.Errorf("link leads to %q", to)
	}
}

func TestRestartNoticesNewSize(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.halt()
	b.target.grow(0, 2<<20)
	b.start()
	if d := b.up(sid).Devices[0]; d.Size != 2<<20 || b.kern.size(0) != 2<<20 {
		t.Errorf("device %+v, kernel's size %d", d, b.kern.size(0))
	}
}

func TestStartRemovesOrphanDevices(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.halt()
	// The daemon died before it wrote the file; and someone else has a device.
	if err := os.Remove(filepath.Join(b.opt.Paths.StateDir(), sessionFile(sid))); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"iscsid:other:1:0", ""} {
		_, conn, err := b.kern.connect(t.Context(), nbd.DeviceConfig{Export: &nbd.Export{Size: 512}, BackendID: id})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	b.start()
	if n := b.kern.indexes(); !slices.Equal(n, []int{1, 2}) {
		t.Errorf("kernel devices %v, want those of others only", n)
	}
}

func TestLogoutThatWasKilledIsFinishedByTheNextDaemon(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	store := b.m.store
	b.halt()
	states, err := store.load()
	if err != nil || len(states) != 1 {
		t.Fatal(err, len(states))
	}
	states[0].Ending = true
	if err := store.put(states[0]); err != nil {
		t.Fatal(err)
	}
	logins := len(b.target.isids)
	b.start()
	if s, err := b.m.reg.get(sid); err == nil {
		<-s.done
	}
	if n := b.kern.indexes(); len(n) != 0 || b.linkTo(linkName("0")) != "" || len(b.target.isids) != logins {
		t.Errorf("kernel devices %v, link %q, %d logins", n, b.linkTo(linkName("0")), len(b.target.isids)-logins)
	}
	b.login()
}

func TestCrashBetweenDeviceAndItsNumberOnFile(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	s := b.supervisor(sid)
	backend := b.kern.disks[0].backend
	b.halt()
	st := &sessionState{
		SID: sid, Host: s.host, Created: s.created, Name: s.name, Record: s.rec,
		Units: []unitState{{Attach: attachNBD, Backend: backend, Index: -1, WWID: "naa.1", Size: 1 << 20, BlockSize: 512}},
	}
	if err := s.m.store.put(st); err != nil {
		t.Fatal(err)
	}
	b.start()
	if d := b.up(sid).Devices[0]; d.Name != "nbd0" || d.State != "running" {
		t.Errorf("device %+v", d)
	}
}

func TestRestartAttachesNothingNewWhereScansAreManual(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login("node.session.scan", "manual").SID
	b.rescan(sid)
	b.halt()
	b.target.set(1, fakeDisk("naa.2", 1<<20))
	b.start()
	if s := b.up(sid); len(s.Devices) != 1 || s.Devices[0].State != "running" {
		t.Errorf("devices %+v", s.Devices)
	}
}

func TestRestartTakesUpSockets(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	was := b.login("node.session.attach", "socket")
	b.halt()
	b.start()
	is := b.up(was.SID)
	if is.Devices[0].Path != was.Devices[0].Path || is.Devices[0].Attach != control.AttachSocket {
		t.Errorf("device %+v, was %+v", is.Devices[0], was.Devices[0])
	}
	if _, err := os.Stat(is.Devices[0].Path); err != nil {
		t.Error(err)
	}
}

func TestReopenMaxBoundsTheRestart(t *testing.T) {
	target := newFakeTarget(fakeDisk("naa.1", 1<<20))
	b := newBench(t, target)
	sid := b.login("node.session.reopen_max", "3").SID
	b.halt()
	tries := 0
	target.login = func(context.Context, initiator.Config) error {
		tries++
		return errors.New("connection refused")
	}
	b.start()
	s, err := b.m.reg.get(sid)
	if err == nil {
		<-s.done
	}
	b.svc.wg.Wait()
	if tries != 3 || len(b.kern.indexes()) != 0 {
		t.Errorf("%d tries, kernel devices %v", tries, b.kern.indexes())
	}
}
