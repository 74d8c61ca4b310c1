package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/pdu"
)

func TestRescanFindsNewUnit(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.target.set(5, fakeDisk("naa.5", 2<<20))
	r := b.rescan(sid)
	if !slices.Equal(r.Added, []uint64{5}) || len(r.Devices) != 2 {
		t.Errorf("rescan %+v", r)
	}
	if to := b.linkTo(linkName("5")); to != "../../nbd1" {
		t.Errorf("link leads to %q", to)
	}
}

func TestRescanRemovesVanishedUnit(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20), fakeDisk("naa.2", 1<<20)))
	sid := b.login().SID
	b.target.set(0, nil)
	r := b.rescan(sid)
	if !slices.Equal(r.Removed, []uint64{0}) || len(r.Devices) != 1 {
		t.Errorf("rescan %+v", r)
	}
	if n := b.kern.indexes(); !slices.Equal(n, []int{1}) || b.linkTo(linkName("0")) != "" {
		t.Errorf("kernel devices %v, link %q", n, b.linkTo(linkName("0")))
	}
}

func TestRescanResizesLive(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.target.grow(0, 4<<20)
	r := b.rescan(sid)
	if !slices.Equal(r.Resized, []uint64{0}) || r.Devices[0].Size != 4<<20 || r.Devices[0].Name != "nbd0" {
		t.Errorf("rescan %+v", r)
	}
	if n := b.kern.size(0); n != 4<<20 {
		t.Errorf("kernel device has %d bytes", n)
	}
	if _, err := b.kern.io(0, nbd.CmdWrite, 3<<20, make([]byte, 512)); err != nil {
		t.Errorf("write to the new part: %v", err)
	}
}

// Who rescans because the target has grown a unit learns that the device has,
// also if the volume was faster. It is told once.
func TestRescanTellsOfSizesThatAreKnownAlready(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20), fakeDisk("naa.2", 1<<20)))
	sid := b.login().SID
	b.target.grow(0, 4<<20)
	resized := b.logs.expect("size of a logical unit has changed")
	b.target.learn()
	<-resized
	if r := b.rescan(sid); !slices.Equal(r.Resized, []uint64{0}) {
		t.Errorf("rescan %+v", r)
	}
	if r := b.rescan(sid); len(r.Resized) != 0 {
		t.Errorf("the next rescan %+v", r)
	}
}

func TestRescanReplacesUnitOfAnotherIdentity(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.target.set(0, fakeDisk("naa.2", 1<<20))
	r := b.rescan(sid)
	if !slices.Equal(r.Replaced, []uint64{0}) || r.Devices[0].WWID != "naa.2" || r.Devices[0].Name != "nbd1" {
		t.Errorf("rescan %+v", r)
	}
	if n := b.kern.indexes(); !slices.Equal(n, []int{1}) {
		t.Errorf("kernel devices %v: the old one must not stay", n)
	}
	if to := b.linkTo(linkName("0")); to != "../../nbd1" {
		t.Errorf("link leads to %q", to)
	}
}

func TestRescanReattachesUnitOfAnotherBlockSize(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	u := fakeDisk("naa.1", 1<<20)
	u.geo.blockSize = 4096
	b.target.mu.Lock()
	b.target.units[0].geo = u.geo
	b.target.mu.Unlock()
	r := b.rescan(sid)
	if r.Devices[0].BlockSize != 4096 || r.Devices[0].Name != "nbd1" {
		t.Errorf("rescan %+v", r)
	}
}

func TestRescanRetriesUnitThatFailed(t *testing.T) {
	u := fakeDisk("naa.1", 1<<20)
	u.err = errors.New("not ready")
	b := newBench(t, newFakeTarget(u))
	s := b.login()
	if d := s.Devices[0]; d.State != "offline" || d.Error == "" || d.Name != "" {
		t.Fatalf("device %+v", d)
	}
	b.target.mu.Lock()
	u.err = nil
	b.target.mu.Unlock()
	r := b.rescan(s.SID)
	if !slices.Equal(r.Added, []uint64{0}) || r.Devices[0].State != "running" {
		t.Errorf("rescan %+v", r)
	}
}

func TestFailedReportLUNsTakesNothingAway(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.target.mu.Lock()
	b.target.reportErr = errors.New("check condition")
	b.target.mu.Unlock()
	if _, err := b.svc.Rescan(t.Context(), sid); err == nil {
		t.Error("rescan succeeded")
	}
	if n := b.kern.indexes(); len(n) != 1 {
		t.Errorf("kernel devices %v", n)
	}
}

func TestTargetCannotClaimAnyNumberOfUnits(t *testing.T) {
	target := newFakeTarget()
	for i := range maxUnits + 10 {
		target.set(uint64(i), fakeController())
	}
	b := newBench(t, target)
	if s := b.login(); len(s.Devices) != maxUnits {
		t.Errorf("%d units, want %d", len(s.Devices), maxUnits)
	}
}

func TestEventsOfTheSessionBringUnitsUpToDate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*fakeTarget, *supervisor)
		done   func(*bench) bool
	}{
		{"inventory changed", func(f *fakeTarget, s *supervisor) {
			f.set(1, fakeDisk("naa.2", 1<<20))
			s.set.config.OnEvent(initiator.Event{Type: initiator.EventAsync, Async: &initiator.AsyncEvent{Event: pdu.AsyncSCSIEvent}})
		}, func(b *bench) bool { return len(b.kern.indexes()) == 2 }},
		{"a volume has another size", func(f *fakeTarget, _ *supervisor) {
			f.grow(0, 2<<20)
			f.learn()
		}, func(b *bench) bool { return b.kern.size(0) == 2<<20 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
			s := b.supervisor(b.login().SID)
			tc.change(b.target, s)
			// What run does after the event is in order with a request.
			s.settle(t)
			if !tc.done(b) {
				t.Error("nothing happened")
			}
		})
	}
}

// settle waits until run has handled the events that were noted before.
func (s *supervisor) settle(t *testing.T) {
	t.Helper()
	for first := true; first || s.events.Load() != 0 || len(s.wake) != 0; first = false {
		if _, err := s.rescan(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeviceDisconnectedByOthersIsTakenAway(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	detached := b.logs.expect("logical unit is detached")
	if err := b.kern.disconnect(0); err != nil { // nbd-client -d
		t.Fatal(err)
	}
	<-detached
	if to := b.linkTo(linkName("0")); to != "" {
		t.Errorf("link to %q is left", to)
	}
	if r := b.rescan(sid); r.Devices[0].State != "running" {
		t.Errorf("the next scan did not attach it: %+v", r.Devices[0])
	}
}

func TestLostConnectionOfADeviceIsMadeAnew(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	b.login()
	anew := b.logs.expect("connection of a device was lost and is made anew")
	b.kern.mu.Lock()
	b.kern.disks[0].sock.Close() // as the kernel does after a protocol error
	b.kern.mu.Unlock()
	<-anew
	if _, err := b.kern.io(0, nbd.CmdWrite, 0, make([]byte, 512)); err != nil {
		t.Errorf("write: %v", err)
	}
	if to := b.linkTo(linkName("0")); to != "../../nbd0" {
		t.Errorf("link leads to %q", to)
	}
}

func TestPartitionsGetLinks(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	b.login()
	part := filepath.Join(b.kern.sys, "block", "nbd0", "nbd0p1")
	if err := errors.Join(os.MkdirAll(part, 0o755), os.WriteFile(filepath.Join(part, "partition"), []byte("1\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	b.events.c <- uevent{action: "add", disk: "nbd0", name: "nbd0p1"}
	b.events.c <- uevent{action: "change", disk: "nbd9", name: "nbd9"} // the first has been handled
	if to := b.linkTo(linkName("0") + "-part1"); to != "../../nbd0p1" {
		t.Errorf("link leads to %q", to)
	}
	if err := os.RemoveAll(part); err != nil {
		t.Fatal(err)
	}
	b.events.c <- uevent{lost: true}
	b.events.c <- uevent{action: "change", disk: "nbd9", name: "nbd9"}
	if to := b.linkTo(linkName("0") + "-part1"); to != "" {
		t.Errorf("link to %q is left", to)
	}
}
