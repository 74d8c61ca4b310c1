package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/pdu"
)

func TestByPathName(t *testing.T) {
	for _, tc := range []struct {
		address string
		port    int
		target  string
		lun     uint64
		want    string
	}{
		{"10.0.0.1", 3260, testTarget, 1, "ip-10.0.0.1:3260-iscsi-" + testTarget + "-lun-1"},
		{"fd00::1", 3260, testTarget, 0, "ip-fd00::1:3260-iscsi-" + testTarget + "-lun-0"},
		{"[fd00::1]", 3261, testTarget, 255, "ip-fd00::1:3261-iscsi-" + testTarget + "-lun-255"},
		{"fe80::1%eth0", 3260, testTarget, 1, "ip-fe80::1%eth0:3260-iscsi-" + testTarget + "-lun-1"},
		{"san.example.com", 3260, testTarget, 1, "ip-san.example.com:3260-iscsi-" + testTarget + "-lun-1"},
		{"10.0.0.1", 3260, testTarget, 256, "ip-10.0.0.1:3260-iscsi-" + testTarget + "-lun-0x4100000000000000"},
		{"10.0.0.1/..", 3260, testTarget, 1, ""},
		{"fe80::1%../x", 3260, testTarget, 1, ""},
		{"", 3260, testTarget, 1, ""},
		{"-x", 3260, testTarget, 1, ""},
		{"10.0.0.1", 0, testTarget, 1, ""},
		{"10.0.0.1", 3260, "iqn.x/../../etc/passwd", 1, ""},
		{"10.0.0.1", 3260, "iqn.x\ny", 1, ""},
		{strings.Repeat("a", 200), 3260, "iqn.2016-01." + strings.Repeat("b", 150), 1, ""},
	} {
		got, err := byPathName(tc.address, tc.port, tc.target, pdu.LUNFromNumber(tc.lun))
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("byPathName(%q, %d, %q, %d) = %q, %v, want %q", tc.address, tc.port, tc.target, tc.lun, got, err, tc.want)
		}
	}
}

func FuzzByPathName(f *testing.F) {
	f.Add("10.0.0.1", testTarget, uint64(1))
	f.Fuzz(func(t *testing.T, address, target string, lun uint64) {
		name, err := byPathName(address, 3260, target, pdu.LUN(lun))
		if err == nil && (strings.ContainsAny(name, "/\x00\n ") || len(name) > maxLinkName || !strings.HasPrefix(name, "ip-")) {
			t.Errorf("name %q", name)
		}
	})
}

// readLink returns where a link leads, "" where there is none.
func readLink(t *testing.T, path string) string {
	t.Helper()
	to, err := os.Readlink(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return to
}

func TestLinker(t *testing.T) {
	dev := t.TempDir()
	dir := filepath.Join(dev, "disk", "by-path")
	dead := filepath.Join(dev, "nbd9")
	l := newLinker(dir, func(node string) bool { return node != dead })
	link, n0, n1 := filepath.Join(dir, "a"), filepath.Join(dev, "nbd0"), filepath.Join(dev, "nbd1")
	step := func(what string, err error, want string) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := readLink(t, link); got != want {
			t.Errorf("%s: link leads to %q, want %q", what, got, want)
		}
	}
	step("first", l.add("a", n0), "../../nbd0")
	step("again", l.add("a", n0), "../../nbd0")
	step("second session's", l.add("a", n1), "../../nbd0")
	step("holder leaves", l.remove("a", n0), "../../nbd1")
	step("not a holder any more", l.remove("a", n0), "../../nbd1")
	step("last leaves", l.remove("a", n1), "")

	if err := os.Symlink("../../sda", link); err != nil {
		t.Fatal(err)
	}
	if err := l.add("a", n0); !errors.Is(err, errForeignLink) {
		t.Errorf("foreign link: %v", err)
	}
	step("a foreign link is not removed", l.drop("a", n0), "../../sda")
	os.Remove(link)
	if err := os.Symlink("../../nbd9", link); err != nil {
		t.Fatal(err)
	}
	step("link to a dead device is replaced", l.add("a", n0), "../../nbd0")
	os.Remove(link)
	if err := os.Symlink("../../nbd1", link); err != nil { // udev has changed it
		t.Fatal(err)
	}
	step("a link that leads elsewhere by now is left", l.remove("a", n0), "../../nbd1")
	step("left by a daemon that died", l.drop("a", n1), "")

	if err := os.WriteFile(link, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l.add("a", n0) == nil {
		t.Error("a file was taken for a link")
	}
}

func TestParseUevent(t *testing.T) {
	for _, tc := range []struct {
		name, msg string
		want      uevent
		ok        bool
	}{
		{
			"partition", "add@/devices/virtual/block/nbd0/nbd0p1\x00ACTION=add\x00DEVPATH=/devices/virtual/block/nbd0/nbd0p1\x00SUBSYSTEM=block\x00DEVTYPE=partition\x00",
			uevent{action: "add", disk: "nbd0", name: "nbd0p1"},
			true,
		},
		{"disk", "change@x\x00ACTION=change\x00DEVPATH=/devices/virtual/block/nbd12\x00SUBSYSTEM=block\x00", uevent{action: "change", disk: "nbd12", name: "nbd12"}, true},
		{"another driver's", "add@x\x00ACTION=add\x00DEVPATH=/devices/pci/block/sda\x00SUBSYSTEM=block\x00", uevent{}, false},
		{"queue", "add@x\x00ACTION=add\x00DEVPATH=/devices/virtual/block/nbd0/mq/0\x00SUBSYSTEM=block\x00", uevent{}, false},
		{"udev's own", "libudev\x00\xfe\xed\xca\xfe", uevent{}, false},
		{"empty", "", uevent{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, ok := parseUevent([]byte(tc.msg)); got != tc.want || ok != tc.ok {
				t.Errorf("%+v, %v, want %+v, %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("add@x\x00ACTION=add\x00DEVPATH=/devices/virtual/block/nbd0/nbd0p1\x00SUBSYSTEM=block\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if ev, ok := parseUevent(msg); ok && (strings.Contains(ev.disk, "/") || strings.Contains(ev.name, "/")) {
			t.Errorf("%+v", ev)
		}
	})
}

func TestKernelEventsCanBeClosed(t *testing.T) {
	k, err := listenUevents()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := k.receive(); err != nil {
				done <- err
				return
			}
		}
	}()
	k.Close()
	if err := <-done; err == nil {
		t.Error("no error after Close")
	}
}
