//go:build integration

package faults

import (
	"slices"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/pdu"
	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/faults/proxy"
)

// TestRandomFaults mixes the faults of the network, of targets, of disks and of
// commands, for as long as FAULTS says. There are two disks: one of a target that
// is a process, and can be killed; one of a target in the test, which can be told what
// to do, and has a write cache to lose. When all is over and logged out, the
// daemon takes what it took before.
func TestRandomFaults(t *testing.T) {
	r := newRig(t)
	// What is made at the first request of its kind is not counted.
	r.Iscsiadm("-m", "host", "--json")
	r.metrics()
	idle := r.footprint()

	other := targetName + ":comes-and-goes"
	tgt := own(t, r.Host)
	told := newInProcess(t, func(c *iscsitest.Config) {
		c.Targets = append(c.Targets, iscsitest.Target{Name: other, LUNs: map[uint64]*iscsitest.LUN{
			1: {Store: newDisk(1 << 20), Serial: "comes", WriteCache: true}, 2: {Store: newDisk(1 << 20), Serial: "goes"},
		}})
	})
	p := proxy.Start(t, tgt.Portal().String())
	// Enough for each fault to hit requests in flight, and no more: the suite
	// does other things meanwhile.
	cfg := checker.Config{Pace: 5 * time.Millisecond, Blocks: 2048}
	var checkers []*checker.Checker
	var known []string
	for _, portal := range []string{p.Addr(), told.addr} {
		r.record(portal, digests...)
		r.login(portal)
		fresh := slices.DeleteFunc(r.Sockets(), func(s string) bool { return slices.Contains(known, s) })
		if len(fresh) != 1 {
			t.Fatalf("sockets %q after a login, had %q", fresh, known)
		}
		known = append(known, fresh...)
		e, err := checker.OpenExport(fresh[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		checkers = append(checkers, start(t, e, cfg))
	}
	r.Must("-m", "node", "-o", "new", "-T", other, "-p", told.addr)
	comesAndGoes := []string{"-m", "node", "-T", other, "-p", told.addr}

	faults := networkFaults(p)
	for name, f := range map[string]func(){
		"target killed": func() { tgt.Stop(); pauseBetween(); tgt.Start() },
		"power failure": func() {
			checkers[1].PowerFails(func() { told.stop(); told.disk.powerFails() })
			told.start()
		},
		"asks for a logout": told.logoutRequest,
		"drops the session": func() { told.srv.AsyncMessage(pdu.AsyncMessage{Event: pdu.AsyncSessionDrop}) },
		"refuses logins": func() {
			told.srv.RejectLogins(3, 1, 3)
			told.srv.DropConnections()
		},
		"resize": func() {
			for _, size := range []int{2 * diskSize, diskSize} {
				// No other than the disk's own may lose anything by it.
				told.disk.resize(size)
				told.srv.Resized(told.lun)
				await(t, checkers[1])
			}
		},
		"unit attention": func() { told.srv.UnitAttention(targetName, 1, 0x29, 0x00) },
		"rescan":         func() { r.Run("iscsiadm", "-m", "session", "--rescan") }, // of what is away, it fails
		"login and logout": func() {
			r.Must(append(comesAndGoes, "-l")...)
			r.Must(append(comesAndGoes, "-u")...)
		},
		"login, iscsiadm killed": func() {
			cmd := r.Command("iscsiadm", append(comesAndGoes, "-l")...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			between(0, 30*time.Millisecond)
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed, or done by then
			// It may have been killed before, in or after the login; or the login is
			// given up between the listing and the logout: 2.
			if res := r.Iscsiadm(append(comesAndGoes, "-u")...); res.Code != 0 && res.Code != 21 && res.Code != 2 {
				t.Errorf("logout after a login whose iscsiadm was killed: %s", res)
			}
		},
	} {
		faults[name] = f
	}
	r.soak(checkers, faults)
	told.violations()
	r.Must("-m", "session", "-u")
	r.backTo(idle)
}
