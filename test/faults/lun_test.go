//go:build integration

package faults

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/test/faults/checker"
)

// exportSize asks for the size as a new client sees it.
func (r *rig) exportSize() int64 {
	r.t.Helper()
	e, err := checker.OpenExport(r.Socket())
	if err != nil {
		r.t.Fatal(err)
	}
	defer e.Close()
	return e.Size()
}

// TestPowerFailure has the target lose its write cache: nothing that was
// flushed is lost, so flushes reach the target and are not answered early.
func TestPowerFailure(t *testing.T) {
	tgt := newInProcess(t, nil)
	r := newRig(t)
	r.record(tgt.addr)
	r.login(tgt.addr)
	c := r.export(checker.Config{Blocks: 512, Flushes: 20})
	for range times(20, 200) {
		pauseBetween()
		c.PowerFails(func() {
			tgt.stop()
			tgt.disk.powerFails()
		})
		tgt.start()
		await(t, c)
	}
	verdict(t, c)
	tgt.violations()
}

// TestLUNResized grows and shrinks a disk under load: new clients see the new
// size, and I/O in what is left goes on.
func TestLUNResized(t *testing.T) {
	tgt := newInProcess(t, nil)
	r := newRig(t)
	r.record(tgt.addr)
	r.login(tgt.addr)
	c := r.export(checker.Config{Blocks: 1024})
	for range times(3, 20) {
		for _, size := range []int{2 * diskSize, diskSize / 2, diskSize} {
			tgt.disk.resize(size)
			tgt.srv.Resized(tgt.lun)
			eventually(t, "the new size", func() bool { return r.exportSize() == int64(size) })
			await(t, c)
		}
	}
	verdict(t, c)
	tgt.violations()
}

// TestLUNVanishes takes the disk away: I/O fails, a rescan takes the device
// away, and a disk that comes back is served again.
func TestLUNVanishes(t *testing.T) {
	tgt := newInProcess(t, nil)
	r := newRig(t)
	r.record(tgt.addr)
	r.login(tgt.addr)
	for range times(3, 50) {
		e, err := checker.OpenExport(r.Socket())
		if err != nil {
			t.Fatal(err)
		}
		c := start(t, e, checker.Config{})
		c.Tolerate(true)
		if err := tgt.srv.SetLUN(targetName, 1, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "I/O to a LUN that is gone fails", func() bool { return c.Failures() > 0 })
		r.Must("-m", "session", "--rescan")
		if all := r.Sockets(); len(all) != 0 {
			t.Errorf("sockets after the rescan: %q", all)
		}
		e.Close()
		if err := tgt.srv.SetLUN(targetName, 1, tgt.lun); err != nil {
			t.Fatal(err)
		}
		r.Must("-m", "session", "--rescan")
		e, err = checker.OpenExport(r.Socket())
		if err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
	tgt.violations()
}

// TestAnotherDisk puts another disk under a known number, with and without a
// word of the target, in a live session and while the session is down: what is
// written to the old disk never reaches the new one.
func TestAnotherDisk(t *testing.T) {
	for _, tc := range []struct {
		name      string
		attention bool // the target reports a unit attention after a login
		live      bool // the session is up at the time
	}{
		{"in a live session", false, true},
		{"while the target is away", true, false},
		{"while the target is away, without unit attention", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range times(3, 100) {
				// Each gives back its disks before the next begins.
				t.Run(strconv.Itoa(i), func(t *testing.T) { anotherDisk(t, tc.attention, tc.live) })
			}
		})
	}
}

func anotherDisk(t *testing.T, attention, live bool) {
	tgt := newInProcess(t, func(c *iscsitest.Config) { c.UnitAttention = attention })
	r := newRig(t)
	r.record(tgt.addr)
	r.login(tgt.addr)
	e, err := checker.OpenExport(r.Socket())
	if err != nil {
		t.Fatal(err)
	}
	cfg := checker.Config{Flushes: 1}
	if live {
		// A target reports the change to one command; what else is in
		// flight at that moment is in its hands.
		cfg.Workers = 1
	}
	c := start(t, e, cfg)
	between(0, 50*time.Millisecond)
	c.Tolerate(true)
	other := newDisk(diskSize)
	replace := func() {
		if err := tgt.srv.SetLUN(targetName, 1, &iscsitest.LUN{Store: other, WriteCache: true, Serial: "second", NAA: []byte{0x30, 0, 0, 0, 0, 0, 0, 2}}); err != nil {
			t.Error(err)
		}
	}
	if live {
		replace()
	} else {
		tgt.stop()
		replace()
		tgt.start()
	}
	eventually(t, "I/O to a disk that is gone fails", func() bool { return c.Failures() > 0 })
	// The daemon finds the new disk by itself or is told to look.
	r.Must("-m", "session", "--rescan")
	if !other.unwritten() {
		t.Errorf("the other disk was written to %d times", other.written())
	}
	if err := c.Findings(); err != nil {
		t.Errorf("the other disk was read: %v", err)
	}
	if _, err := os.Stat(r.Socket()); err != nil {
		t.Errorf("the other disk is not served: %v", err)
	}
	if !strings.Contains(r.Must("-m", "session", "-P", "3"), "Lun: 1\n") {
		t.Error("the other disk is not listed")
	}
}
