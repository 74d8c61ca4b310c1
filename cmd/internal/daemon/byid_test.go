package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestByIDNames(t *testing.T) {
	for _, tc := range []struct {
		name string
		info unitInfo
		want []string
	}{
		{"naa", unitInfo{wwid: "35000c500155c5d2b"}, []string{"scsi-35000c500155c5d2b", "wwn-0x5000c500155c5d2b"}},
		{"t10", unitInfo{wwid: "1ACME disk 1"}, []string{"scsi-1ACME_disk_1"}},
		{"serial number only", unitInfo{vendor: "ACME", model: "D", serial: "17"}, []string{"scsi-SACME_D_17"}},
		{"nothing", unitInfo{vendor: "ACME", model: "D"}, nil},
		{"hostile", unitInfo{wwid: "1/../../x"}, []string{"scsi-1_.._.._x"}},
		{"longer than a name", unitInfo{wwid: "1" + strings.Repeat("x", 250)}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := byIDNames(&tc.info); !slices.Equal(got, tc.want) {
				t.Errorf("names %q, want %q", got, tc.want)
			}
		})
	}
}

// byID returns where a by-id link of the bench leads, "" where there is none.
func (b *bench) byID(name string) string {
	b.t.Helper()
	return readLink(b.t, filepath.Join(b.kern.dev, "disk", "by-id", name))
}

const diskID = "35000c500155c5d2b"

func TestWithoutUdevDisksHaveTheirByIDLinks(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk(diskID, 1<<20)))
	s := b.login()
	part := filepath.Join(b.kern.sys, "block", "nbd0", "nbd0p1")
	if err := errors.Join(os.MkdirAll(part, 0o755), os.WriteFile(filepath.Join(part, "partition"), []byte("1\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	b.events.c <- uevent{action: "add", disk: "nbd0", name: "nbd0p1"}
	b.events.c <- uevent{action: "change", disk: "nbd9", name: "nbd9"} // the first has been handled
	links := map[string]string{"scsi-" + diskID: "../../nbd0", "wwn-0x" + diskID[1:]: "../../nbd0", "scsi-" + diskID + "-part1": "../../nbd0p1"}
	for name, want := range links {
		if to := b.byID(name); to != want {
			t.Errorf("%s leads to %q, want %q", name, to, want)
		}
	}
	b.logout(s.SID)
	for name := range links {
		if to := b.byID(name); to != "" {
			t.Errorf("%s still leads to %q", name, to)
		}
	}
}

func TestWithUdevByIDLinksAreItsOwnAffair(t *testing.T) {
	b := newBench(t, newFakeTarget(fakeDisk(diskID, 1<<20)))
	b.halt()
	b.opt.Paths.UdevControl = filepath.Join(b.opt.Paths.Run, "control")
	if err := os.WriteFile(b.opt.Paths.UdevControl, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	s := b.login()
	if to := b.byID("scsi-" + diskID); to != "" {
		t.Errorf("by-id link leads to %q", to)
	}
	if to := b.linkTo(linkName("0")); to != "../../nbd0" {
		t.Errorf("by-path link leads to %q", to)
	}
	b.logout(s.SID)
}

// TestByIDLinkGoesOverToTheOtherPath: whichever path to a disk is left has the
// disk's name, after a restart in any order, too.
func TestByIDLinkGoesOverToTheOtherPath(t *testing.T) {
	for _, restart := range []bool{false, true} {
		b := newBench(t, newFakeTarget(fakeDisk(diskID, 1<<20)))
		first := b.login()
		second := b.login("node.conn[0].port", "3261")
		if restart {
			b.halt()
			b.start()
			b.up(first.SID)
			b.up(second.SID)
		}
		if to := b.byID("scsi-" + diskID); to != "../../nbd0" {
			t.Errorf("restart %v: link leads to %q", restart, to)
		}
		b.logout(first.SID)
		if to := b.byID("scsi-" + diskID); to != "../../nbd1" {
			t.Errorf("restart %v: link leads to %q when the first path is gone", restart, to)
		}
		b.logout(second.SID)
		if to := b.byID("scsi-" + diskID); to != "" {
			t.Errorf("restart %v: link to %q is left", restart, to)
		}
	}
}

func TestSharedNameWaitsBehindALiveDeviceOfSomeoneElse(t *testing.T) {
	dev := t.TempDir()
	l := newLinker(filepath.Join(dev, "disk", "by-id"), func(string) bool { return true })
	l.shared = true
	link, n0 := filepath.Join(l.dir, "a"), filepath.Join(dev, "nbd0")
	if err := errors.Join(os.MkdirAll(l.dir, 0o755), os.Symlink("../../sda", link)); err != nil {
		t.Fatal(err)
	}
	if err := l.add("a", n0); err != nil {
		t.Errorf("add: %v", err)
	}
	if to := readLink(t, link); to != "../../sda" {
		t.Errorf("link leads to %q", to)
	}
	if err := errors.Join(l.remove("a", n0), l.dropAll([]string{n0})); err != nil {
		t.Error(err)
	}
	if to := readLink(t, link); to != "../../sda" {
		t.Errorf("link leads to %q when ours has left", to)
	}
}

func TestLinksOfAForgottenDiskAreFoundByWhereTheyLead(t *testing.T) {
	dev := t.TempDir()
	l := newLinker(filepath.Join(dev, "disk", "by-id"), func(string) bool { return true })
	l.shared = true
	if err := l.dropAll(nil); err != nil {
		t.Errorf("no directory: %v", err)
	}
	for name, to := range map[string]string{"dead": "../../nbd3", "dead-part1": "../../nbd3p1", "other": "../../nbd4"} {
		if err := errors.Join(os.MkdirAll(l.dir, 0o755), os.Symlink(to, filepath.Join(l.dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.dropAll([]string{filepath.Join(dev, "nbd3"), filepath.Join(dev, "nbd3p1")}); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(l.dir, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "other" {
		t.Errorf("left: %q, %v", left, err)
	}
}
