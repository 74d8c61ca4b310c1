package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

func (b *bench) remove(sid int, lun uint64) {
	b.t.Helper()
	if err := b.svc.RemoveLUN(b.t.Context(), sid, lun, false); err != nil {
		b.t.Fatalf("removal of lun %d: %v", lun, err)
	}
}

// settled waits until the supervisor has done what it was woken for. It takes up
// events and jobs, of which a rescan is one, in any order.
func (b *bench) settled(sid int) {
	b.t.Helper()
	for woken := true; woken; {
		woken = b.supervisor(sid).events.Load() != 0 // else it has begun, and a job comes after it
		if _, err := b.svc.RescanLUN(b.t.Context(), sid, 0); err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestRemovedUnitLeavesNothing(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20), fakeDisk("naa.2", 1<<20)))
	sid := b.login().SID
	b.remove(sid, 1)
	s := b.up(sid)
	if len(s.Devices) != 1 || s.Devices[0].LUN != 0 {
		t.Errorf("devices %+v", s.Devices)
	}
	if n := b.kern.indexes(); !slices.Equal(n, []int{0}) || b.linkTo(linkName("1")) != "" {
		t.Errorf("kernel devices %v, link %q", n, b.linkTo(linkName("1")))
	}
	if b.kern.flushes != 1 {
		t.Errorf("dirty pages were written %d times, want once", b.kern.flushes)
	}
	wantCode(t, b.svc.RemoveLUN(t.Context(), sid, 1, false), errcode.NoObjsFound)
	wantCode(t, b.svc.RemoveLUN(t.Context(), 99, 1, false), errcode.SessNotFound)
}

func TestRemovedUnitStaysAwayUntilAskedFor(t *testing.T) {
	for _, tc := range []struct {
		name string
		back func(b *bench, sid int)
	}{
		{"rescan of the session", func(b *bench, sid int) { b.rescan(sid) }},
		{"rescan of the unit", func(b *bench, sid int) {
			r, err := b.svc.RescanLUN(b.t.Context(), sid, 1)
			if err != nil || !slices.Equal(r.Added, []uint64{1}) {
				b.t.Errorf("rescan %+v, %v", r, err)
			}
		}},
		{"another unit under its number", func(b *bench, sid int) {
			b.target.set(1, nil)
			b.supervisor(sid).notify(eventInventory)
			b.settled(sid)
			b.target.set(1, fakeDisk("naa.3", 1<<20))
			b.supervisor(sid).notify(eventInventory)
			b.settled(sid)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20), fakeDisk("naa.2", 1<<20)))
			b.t = t
			sid := b.login().SID
			b.remove(sid, 1)
			b.supervisor(sid).notify(eventInventory)
			b.settled(sid)
			b.halt()
			b.start()
			if s := b.up(sid); len(s.Devices) != 1 {
				t.Fatalf("without being asked for: %+v", s.Devices)
			}
			tc.back(b, sid)
			if s := b.up(sid); len(s.Devices) != 2 || s.Devices[1].Name == "" {
				t.Errorf("devices %+v", s.Devices)
			}
		})
	}
}

// A daemon that was killed between the state file and the going of the device
// leaves the rest to the next one.
func TestRemovalIsFinishedAfterAKill(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20), fakeDisk("naa.2", 1<<20)))
	sid := b.login().SID
	b.halt()
	states, err := mustStore(b).load()
	if err != nil || len(states) != 1 {
		t.Fatalf("states %v, %v", states, err)
	}
	states[0].Removed = []uint64{uint64(pdu.LUNFromNumber(1))}
	if err := mustStore(b).put(states[0]); err != nil {
		t.Fatal(err)
	}
	b.start()
	if s := b.up(sid); len(s.Devices) != 1 {
		t.Errorf("devices %+v", s.Devices)
	}
	if n := b.kern.indexes(); !slices.Equal(n, []int{0}) {
		t.Errorf("kernel devices %v", n)
	}
	if b.linkTo(linkName("1")) != "" {
		t.Error("the link is left")
	}
}

// mustStore opens the state directory while no daemon runs.
func mustStore(b *bench) *store {
	b.t.Helper()
	boot, err := bootID()
	if err != nil {
		b.t.Fatal(err)
	}
	st, err := openStore(b.opt.Paths.StateDir(), boot, "", 0, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

func TestRescanOfOneUnitLeavesTheOthers(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	b.target.grow(0, 2<<20)
	b.target.set(4, fakeDisk("naa.5", 1<<20))
	b.target.set(5, fakeDisk("naa.6", 1<<20))
	r, err := b.svc.RescanLUN(t.Context(), sid, 5)
	if err != nil || !slices.Equal(r.Added, []uint64{5}) || len(r.Resized) != 0 || len(r.Devices) != 2 {
		t.Errorf("rescan of 5: %+v, %v", r, err)
	}
	if r, err = b.svc.RescanLUN(t.Context(), sid, 0); err != nil || !slices.Equal(r.Resized, []uint64{0}) || b.kern.size(0) != 2<<20 {
		t.Errorf("rescan of 0: %+v, %v", r, err)
	}
	if r, err = b.svc.RescanLUN(t.Context(), sid, 77); err != nil || len(r.Added) != 0 {
		t.Errorf("rescan of a unit that is not there: %+v, %v", r, err)
	}
	b.target.set(5, nil)
	if r, err = b.svc.RescanLUN(t.Context(), sid, 5); err != nil || !slices.Equal(r.Removed, []uint64{5}) {
		t.Errorf("rescan of one that has gone: %+v, %v", r, err)
	}
}

func TestRescanOfOneUnitKeepsToTheBound(t *testing.T) {
	target := newFakeTarget(fakeDisk("naa.1", 1<<20))
	for n := range uint64(maxUnits) {
		target.set(n+1, fakeController())
	}
	b := newBench(t, target)
	sid := b.login().SID
	_, err := b.svc.RescanLUN(t.Context(), sid, kernelLUN(pdu.LUNFromNumber(maxUnits)))
	wantCode(t, err, errcode.Inval)
}

// What is in use takes a real device to show: test/kernel has it.
func TestSafeRemovalOfWhatCannotBeOpened(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk("naa.1", 1<<20)))
	sid := b.login().SID
	node := filepath.Join(b.kern.dev, "nbd0")
	if err := os.Remove(node); err != nil {
		t.Fatal(err)
	}
	if err := b.svc.RemoveLUN(t.Context(), sid, 0, true); err != nil {
		t.Errorf("a device that cannot be opened counts as in use: %v", err)
	}
}

func TestLUNNumbersOfTheKernelAreReversible(t *testing.T) {
	for _, n := range []uint64{0, 1, 255, 256, 16383, 16384, 1 << 23, 1 << 39} {
		lun := pdu.LUNFromNumber(n)
		if got := lunFromKernel(kernelLUN(lun)); got != lun {
			t.Errorf("lun %v becomes %v by way of %d", lun, got, kernelLUN(lun))
		}
	}
}
