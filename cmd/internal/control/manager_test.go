package control_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/control/controltest"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/manager"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// What package manager does with a daemon is tested here, because the daemon is
// internal to the commands.

func targetAt(portals ...string) initiator.Target {
	t := initiator.Target{Name: "iqn.2016-01.com.example:disk", LUN: 1, CHAP: initiator.CHAP{Username: "u", Password: "hush"}}
	for _, p := range portals {
		t.Portals = append(t.Portals, initiator.Portal{Host: p})
	}
	return t
}

// disks has a daemon find LUN 1 at every target.
func disks(_ context.Context, s *control.Session, _ map[string]string) error {
	s.Devices = []control.Device{{LUN: 1, Path: "/dev/nbd0", Name: "nbd0", Attach: control.AttachNBD, Size: 1 << 20}}
	return nil
}

func newManager(t *testing.T, d *controltest.Daemon) *manager.Client {
	t.Helper()
	c := manager.NewClient(controltest.Serve(t, d, control.Options{}), manager.ClientOptions{})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestManagerConnectIsIdempotent(t *testing.T) {
	var record map[string]string
	d := &controltest.Daemon{Connect: func(ctx context.Context, s *control.Session, r map[string]string) error {
		record = r
		return disks(ctx, s, r)
	}}
	c := newManager(t, d)
	ctx := t.Context()
	first, err := c.Connect(ctx, targetAt("192.0.2.1"))
	if err != nil || first.Path != "/dev/nbd0" || first.SID != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	if record["node.session.auth.password"] != "hush" || record["node.conn[0].port"] != "3260" {
		t.Errorf("record %v", record)
	}
	second, err := c.Connect(ctx, targetAt("192.0.2.9", "192.0.2.1"))
	if err != nil || second.Path != first.Path || second.SID != first.SID {
		t.Errorf("second Connect: %+v, %v", second, err)
	}
	for range 2 {
		if err := c.Disconnect(ctx, targetAt("192.0.2.1")); err != nil {
			t.Error(err)
		}
	}
	if l, err := c.Sessions(ctx, manager.SessionQuery{Pending: true}); err != nil || len(l) != 0 {
		t.Errorf("%d sessions, %v", len(l), err)
	}
}

func TestManagerConnectTriesThePortals(t *testing.T) {
	c := newManager(t, &controltest.Daemon{Connect: func(ctx context.Context, s *control.Session, r map[string]string) error {
		if s.Persistent.Address == "192.0.2.1" {
			return control.NewError(errcode.TransTimeout, "")
		}
		return disks(ctx, s, r)
	}})
	disk, err := c.Connect(t.Context(), targetAt("192.0.2.1", "2001:db8::1"))
	if err != nil || disk.Target != "iqn.2016-01.com.example:disk" {
		t.Fatalf("%+v, %v", disk, err)
	}
	_, err = c.Connect(t.Context(), initiator.Target{Name: "iqn.2016-01.com.example:other", Portals: []initiator.Portal{{Host: "192.0.2.1"}}})
	if !errors.Is(err, initiator.ErrTransport) || initiator.ErrorCode(err) != initiator.CodeTransportTimeout {
		t.Errorf("%v", err)
	}
}

func TestManagerConnectWaitsForSomebodyElsesLogin(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	c := newManager(t, &controltest.Daemon{Connect: func(ctx context.Context, s *control.Session, r map[string]string) error {
		close(begun)
		<-goOn
		return disks(ctx, s, r)
	}})
	var wg sync.WaitGroup
	var sids [2]int
	connect := func(i int) {
		disk, err := c.Connect(t.Context(), targetAt("192.0.2.1"))
		if err != nil {
			t.Error(err)
			return
		}
		sids[i] = disk.SID
	}
	wg.Go(func() { connect(0) })
	<-begun
	wg.Go(func() { connect(1) })
	close(goOn)
	wg.Wait()
	if sids != [2]int{1, 1} {
		t.Errorf("sessions %v, want one and the same", sids)
	}
}

func TestManagerRescansForANewLUN(t *testing.T) {
	scans := 0
	c := newManager(t, &controltest.Daemon{
		Connect: disks,
		Scan: func(s *control.Session, _ int64) error {
			scans++
			s.Devices = append(s.Devices, control.Device{LUN: 2, Path: "/dev/nbd1"})
			return nil
		},
	})
	target := targetAt("192.0.2.1")
	target.LUN = 2
	disk, err := c.Connect(t.Context(), target)
	if err != nil || disk.Path != "/dev/nbd1" || scans != 1 {
		t.Fatalf("%+v, %v, %d scans", disk, err, scans)
	}
	target.LUN = 3
	if _, err := c.Connect(t.Context(), target); !errors.Is(err, manager.ErrNoLUN) {
		t.Errorf("LUN 3: %v", err)
	}
}

func TestManagerErrorsAreSentinels(t *testing.T) {
	for code, want := range map[errcode.Code]error{
		errcode.SessExists: manager.ErrSessionExists, errcode.SessNotFound: manager.ErrNotFound, errcode.Busy: manager.ErrInUse,
		errcode.LoginAuthFailed: initiator.ErrAuth, errcode.Trans: initiator.ErrTransport, errcode.TransTimeout: initiator.ErrTimeout,
		errcode.Inval: initiator.ErrInvalid,
	} {
		err := fmt.Errorf("x: %w", control.NewError(code, ""))
		if !errors.Is(err, want) || initiator.ErrorCode(err) != code {
			t.Errorf("code %d is not %v", code, want)
		}
	}
	c := manager.NewClient(t.TempDir()+"/control.sock", manager.ClientOptions{})
	if _, err := c.Connect(t.Context(), targetAt("192.0.2.1")); !errors.Is(err, manager.ErrNotRunning) {
		t.Errorf("no daemon: %v", err)
	}
}

// A scripted Manager answers Sessions with one list after the other; ctx ends
// with the last.
type scripted struct {
	manager.Manager
	lists [][]manager.Session
	errs  map[int]error
	n     int
	end   context.CancelFunc
}

func (s *scripted) Sessions(context.Context, manager.SessionQuery) ([]manager.Session, error) {
	if s.n == len(s.lists) {
		s.end()
		return nil, context.Canceled
	}
	s.n++
	return s.lists[s.n-1], s.errs[s.n-1]
}

func TestWatchReportsEveryChange(t *testing.T) {
	session := func(state string, disks ...manager.Device) manager.Session {
		return manager.Session{SID: 1, Target: "iqn.a", ConnState: state, Devices: disks}
	}
	disk := func(lun uint64, size int64, wwid string) manager.Device {
		return manager.Device{LUN: lun, Size: size, WWID: wwid}
	}
	up := manager.ConnLoggedIn
	other := manager.Session{SID: 2, Target: "iqn.b", ConnState: up}
	ctx, cancel := context.WithCancel(t.Context())
	m := &scripted{end: cancel, errs: map[int]error{6: errors.New("restarted")}, lists: [][]manager.Session{
		{session(up, disk(1, 10, "a"))},
		{session(up, disk(1, 20, "a"), disk(2, 5, "b"))},
		{other, session("TRANSPORT WAIT", disk(1, 20, "a"), disk(2, 5, "b"))},
		{session("TRANSPORT WAIT", disk(1, 20, "a"), disk(2, 5, "b")), other},
		{session(up, disk(2, 5, "c")), other},
		{other},
		nil,
		{other},
		{},
	}}
	var got []string
	err := manager.Watch(ctx, m, time.Millisecond, func(e manager.Event) {
		text := e.Type.String()
		if e.Session.SID != 0 {
			text += fmt.Sprintf(" %d", e.Session.SID)
		}
		if e.Disk.Size != 0 {
			text += fmt.Sprintf(":%d", e.Disk.LUN)
		}
		got = append(got, text)
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	want := []string{
		"session up 1", "disk added 1:1",
		"disk resized 1:1", "disk added 1:2",
		"session lost 1", "session up 2",
		"disk removed 1:1", "session restored 1", "disk replaced 1:2",
		"disk removed 1:2", "session down 1",
		"manager lost", "manager restored",
		"session down 2",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestWatchFailsWhenThereIsNothingToWatch(t *testing.T) {
	c := manager.NewClient(t.TempDir()+"/control.sock", manager.ClientOptions{})
	if err := manager.Watch(t.Context(), c, 0, func(manager.Event) {}); !errors.Is(err, manager.ErrNotRunning) {
		t.Error(err)
	}
}
