//go:build linux

package manager_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/attach"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/manager"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
	"github.com/goiscsi/goiscsi/pdu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const localTarget = "iqn.2026-01.com.example:disk"

// newLocal returns a Local, the target's server, and what leads to its LUN 1.
func newLocal(t *testing.T, o manager.LocalOptions) (*manager.Local, *iscsitest.Server, initiator.Target) {
	t.Helper()
	srv := iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: localTarget,
		LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(1 << 20)}, 2: {Store: iscsitest.NewMemStore(2 << 20)}},
	}}})
	t.Cleanup(srv.Close)
	portal, err := initiator.ParsePortal(srv.Portal())
	if err != nil {
		t.Fatal(err)
	}
	if o.Dir, err = os.MkdirTemp("", "local"); err != nil { // short, as a socket's path must be
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(o.Dir) })
	m := manager.NewLocal(o)
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m, srv, initiator.Target{
		Name: localTarget, Portals: []initiator.Portal{portal}, LUN: 1, InitiatorName: "iqn.2026-01.com.example:client",
	}
}

func fakeKernel(t *testing.T) attach.Options {
	t.Helper()
	kernel, err := nbdtest.NewKernel(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := kernel.Options()
	ctl, err := nbd.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctl.Close()
		kernel.Close()
	})
	return attach.Options{Controller: ctl, Sys: o.Sys}
}

func TestLocalSharesOneSessionForTheDisksOfATarget(t *testing.T) {
	m, srv, target := newLocal(t, manager.LocalOptions{Attach: manager.AttachNBD, Device: fakeKernel(t)})
	ctx := t.Context()
	second := target
	second.LUN = 2

	disks := make([]*manager.Disk, 8)
	var wg sync.WaitGroup
	for i := range disks {
		wg.Go(func() {
			tgt := []initiator.Target{target, second}[i%2]
			d, err := m.Connect(ctx, tgt)
			if err != nil {
				t.Error(err)
			}
			disks[i] = d
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, d := range disks {
		if want := disks[i%2]; d.Path != want.Path || d.SID != 1 || d.Attach != manager.AttachNBD || d.Size != int64(i%2+1)<<20 {
			t.Errorf("disk %d: %+v, want %+v", i, d, want)
		}
	}
	if n := len(srv.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
	for _, tc := range []struct {
		target initiator.Target
		disks  int
	}{{target, 1}, {target, 1}, {second, 0}, {second, 0}} {
		if err := m.Disconnect(ctx, tc.target); err != nil {
			t.Fatal(err)
		}
		list, err := m.Sessions(ctx, manager.SessionQuery{})
		if n := slices.IndexFunc(list, func(s manager.Session) bool { return len(s.Devices) == tc.disks }); err != nil || (n < 0) != (tc.disks == 0) {
			t.Errorf("after Disconnect of LUN %d: %+v, %v", tc.target.LUN, list, err)
		}
	}
	if n := srv.Received(pdu.OpLogoutRequest); n != 1 {
		t.Errorf("%d logouts", n)
	}
}

func TestLocalServesSockets(t *testing.T) {
	m, _, target := newLocal(t, manager.LocalOptions{Attach: manager.AttachSocket})
	d, err := m.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(d.Path) != "1-1.sock" || d.Attach != manager.AttachSocket || d.Name != "" {
		t.Errorf("%+v", d)
	}
}

func TestLocalWithoutTheDiskLogsOutAgain(t *testing.T) {
	m, srv, target := newLocal(t, manager.LocalOptions{Attach: manager.AttachNone})
	target.LUN = 7
	if _, err := m.Connect(t.Context(), target); !errors.Is(err, manager.ErrNoLUN) {
		t.Errorf("%v", err)
	}
	if n := srv.Received(pdu.OpLogoutRequest); n != 1 {
		t.Errorf("%d logouts", n)
	}
	if _, err := m.Rescan(t.Context(), 1); !errors.Is(err, manager.ErrNotFound) {
		t.Errorf("rescan: %v", err)
	}
}

func TestLocalRescanReportsChanges(t *testing.T) {
	m, srv, target := newLocal(t, manager.LocalOptions{Attach: manager.AttachNone})
	ctx := t.Context()
	if _, err := m.Connect(ctx, target); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Rescan(ctx, 1); err != nil || !slices.Equal(r.Added, []uint64{2}) || len(r.Devices) != 1 {
		t.Fatalf("first rescan: %+v, %v", r, err)
	}
	if err := srv.SetLUN(localTarget, 2, nil); err != nil {
		t.Fatal(err)
	}
	if err := srv.SetLUN(localTarget, 3, &iscsitest.LUN{Store: iscsitest.NewMemStore(1 << 20)}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Rescan(ctx, 1)
	if err != nil || !slices.Equal(r.Added, []uint64{3}) || !slices.Equal(r.Removed, []uint64{2}) {
		t.Errorf("second rescan: %+v, %v", r, err)
	}
}

func TestLocalReplacesASessionThatHasEnded(t *testing.T) {
	m, srv, target := newLocal(t, manager.LocalOptions{Attach: manager.AttachNone})
	target.Session.ReopenMax = 1
	target.Session.Params.DefaultTime2Wait = initiator.Immediately
	ended := make(chan struct{})
	target.Session.OnEvent = func(e initiator.Event) {
		if e.Type == initiator.EventClosed {
			close(ended)
		}
	}
	ctx := t.Context()
	if _, err := m.Connect(ctx, target); err != nil {
		t.Fatal(err)
	}
	srv.RejectLogins(2, 3, 1) // target not found
	srv.DropConnections()
	<-ended
	target.Session.OnEvent = nil
	if _, err := m.Connect(ctx, target); err != nil {
		t.Fatal(err)
	}
	if list, err := m.Sessions(ctx, manager.SessionQuery{}); err != nil || len(list) != 1 || list[0].ConnState != manager.ConnLoggedIn || len(list[0].Devices) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestLocalWaitsForItsTurnNoLongerThanTheContext(t *testing.T) {
	m, srv, target := newLocal(t, manager.LocalOptions{Attach: manager.AttachNone})
	resume := srv.Pause()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { // ends when resumed
		_, err := m.Connect(t.Context(), target)
		first <- err
	}()
	cancel()
	if _, err := m.Connect(ctx, target); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	resume()
	if err := <-first; err != nil {
		t.Error(err)
	}
}
