package compatsysfs

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files")

// snapshot is a session with one unit of each sort: a disk that is nbd0, one on a
// socket, and a controller.
func snapshot() []control.Session {
	return []control.Session{{
		SID: 3, Host: 7, Target: "iqn.2016-01-com.example.tg1", TPGT: 1,
		Portal: control.Portal{Address: "192.0.2.2", Port: 3260}, Persistent: control.Portal{Address: "192.0.2.1", Port: 3260},
		LocalAddress: "192.0.2.9", Iface: control.Iface{Name: "default", Transport: "tcp", InitiatorName: "iqn.2024-01.com.example:host"},
		ConnState: control.ConnLoggedIn, SessionState: control.SessionLoggedIn, InternalState: control.InternalNoChange,
		Timeouts: control.Timeouts{Recovery: 120, TargetReset: 30, LUNReset: 30, Abort: 15},
		CHAP:     &control.CHAP{Username: "usuario", PasswordSet: true},
		Negotiated: &control.Negotiated{
			HeaderDigest: "CRC32C", DataDigest: "None", MaxRecvDataSegmentLength: 262144,
			MaxXmitDataSegmentLength: 8192, FirstBurstLength: 65536, MaxBurstLength: 262144, ImmediateData: true, MaxOutstandingR2T: 1,
		},
		Devices: []control.Device{
			{LUN: 0, Type: "storage array controller", Vendor: "IET", Model: "Controller", Revision: "0001", State: "running"},
			{
				LUN: 1, Type: "disk", Vendor: "IET", Model: "VIRTUAL-DISK", Revision: "0001", WWID: "360000000000000000e00000000010001",
				Serial: "beaf11", Name: "nbd0", Path: "/dev/nbd0", State: "running", Attach: control.AttachNBD,
			},
			{
				LUN: 2, Type: "disk", Vendor: "IET", Model: "VIRTUAL-DISK", WWID: "1IET_00010002", State: "blocked",
				Path: "/run/iscsid/luns/3-2.sock", Attach: control.AttachSocket,
			},
		},
	}}
}

// dump writes a tree as text, a node a line.
func dump(t *tree) string {
	var b strings.Builder
	var walk func(p string, n *node)
	walk = func(p string, n *node) {
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			c, at := n.children[name], path.Join(p, name)
			switch c.kind {
			case kindDir:
				if c.graft != "" {
					fmt.Fprintf(&b, "%s/ is %s\n", at, c.graft)
				} else if len(c.children) == 0 {
					fmt.Fprintf(&b, "%s/\n", at)
				}
				walk(at, c)
			case kindLink:
				fmt.Fprintf(&b, "%s -> %s\n", at, c.text)
			case kindFile:
				fmt.Fprintf(&b, "%s %o", at, c.perm)
				if c.text != "" {
					fmt.Fprintf(&b, " %q", c.text)
				}
				if c.secret.name != "" {
					fmt.Fprintf(&b, " %+v", c.secret)
				}
				if c.act.verb != verbNone {
					fmt.Fprintf(&b, " %+v", c.act)
				}
				b.WriteByte('\n')
			}
		}
	}
	walk("", t.root)
	return b.String()
}

func TestTreeOfASnapshot(t *testing.T) {
	got := dump(build(snapshot()))
	const golden = "testdata/tree.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("tree (-want +got), -update writes it:\n%s", d)
	}
}

// Every link of the tree leads to something of the tree, and each class has what
// consumers glob for.
func TestLinksLeadSomewhere(t *testing.T) {
	tr := build(snapshot())
	var walk func(p string, n *node)
	walk = func(p string, n *node) {
		for name, c := range n.children {
			at := path.Join(p, name)
			if c.kind == kindLink {
				to := path.Join(p, c.text)
				if n, _ := tr.find(to); n == nil && to != "class/block" {
					t.Errorf("%s -> %s: nothing at %s", at, c.text, to)
				}
			}
			walk(at, c)
		}
	}
	walk("", tr.root)
}

func TestEmptyTreeHasItsClasses(t *testing.T) {
	tr := build(nil)
	for _, p := range []string{"class/iscsi_session", "class/iscsi_host", "class/scsi_host", "bus/scsi/devices"} {
		if n, _ := tr.find(p); n == nil || n.kind != kindDir || len(n.children) != 0 {
			t.Errorf("%s: %+v", p, n)
		}
	}
}

// A session without a host number or negotiated values, with every name that
// a target can make strange, is shown all the same and gives no path to it.
func TestHostileSnapshot(t *testing.T) {
	s := []control.Session{
		{SID: 1, Host: -1, Target: "pending"},
		{SID: 2, Host: 4, Target: "../../evil\nname", Timeouts: control.Timeouts{Recovery: -1}, Devices: []control.Device{
			{LUN: 1 << 63, Type: "disk", Vendor: "a\nb\x00éééééééééééé", Model: strings.Repeat("x", 99), Name: "../nbd0", WWID: "3zz", Serial: strings.Repeat("s", 999)},
			{LUN: 5, Type: "no such type", Name: "nbd-1", WWID: "3"},
		}},
	}
	text := dump(build(s))
	if strings.Contains(text, "host-1") || strings.Contains(text, "evil/") || strings.Contains(text, " is ") {
		t.Errorf("%s", text)
	}
	for _, want := range []string{"4:0:0:9223372036854775808/type 444 \"0\\n\"", "4:0:0:5/type 444 \"31\\n\"", "recovery_tmo 444 \"off\\n\"", "vendor 444 \"ab      \\n\""} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q", want)
		}
	}
}

func TestFindFollowsGrafts(t *testing.T) {
	tr := build(snapshot())
	const unit = "devices/platform/host7/session3/target7:0:0/7:0:0:1"
	for _, tc := range []struct {
		path, real string
		ours       bool
	}{
		{".", ".", true},
		{"kernel/mm", "kernel/mm", false},
		{"class", "class", true},
		{"class/net", "class/net", false},
		{unit + "/block/nbd0", "devices/virtual/block/nbd0", true},
		{unit + "/block/nbd0/queue/io_timeout", "devices/virtual/block/nbd0/queue/io_timeout", false},
		{unit + "/block/nbd0/device", "devices/virtual/block/nbd0/device", true},
		{unit + "/vendor/x", unit + "/vendor/x", false},
	} {
		n, real := tr.find(tc.path)
		if real != tc.real || (n != nil) != tc.ours {
			t.Errorf("find(%s) = %v, %s", tc.path, n, real)
		}
	}
	for real, want := range map[string]string{
		"devices/virtual/block/nbd0":         unit + "/block/nbd0",
		"devices/virtual/block/nbd0/nbd0p1":  unit + "/block/nbd0/nbd0p1",
		"devices/virtual/block/nbd01":        "devices/virtual/block/nbd01",
		"devices/virtual/bdi/43:0":           "devices/virtual/bdi/43:0",
		"devices/platform/host7/session3/xx": "devices/platform/host7/session3/xx",
	} {
		if got := tr.shown(real); got != want {
			t.Errorf("shown(%s) = %s, want %s", real, got, want)
		}
	}
}

func TestRelativeLinks(t *testing.T) {
	for _, tc := range [][3]string{
		{"class/block", "devices/x/nbd0", "../../devices/x/nbd0"},
		{".", "devices", "devices"},
		{"block", "devices/x", "../devices/x"},
		{"a/b/c", "a/b", "../../b"},
		{"a/b", "a/b/c", "c"},
		{"a/b", "a/bc/d", "../bc/d"},
	} {
		if got := relative(tc[0], tc[1]); got != tc[2] {
			t.Errorf("relative(%s, %s) = %s, want %s", tc[0], tc[1], got, tc[2])
		}
		if back := path.Join(tc[0], tc[2]); back != tc[1] {
			t.Errorf("%s in %s leads to %s", tc[2], tc[0], back)
		}
	}
}

func TestDeviceIdentifiers(t *testing.T) {
	for _, tc := range []struct{ wwid, words, page string }{
		{"360014050000000aa", "naa.60014050000000aa", "\x00\x83\x00\x0c\x01\x03\x00\x08\x60\x01\x40\x50\x00\x00\x00\xaa"},
		{"20011223344556677", "eui.0011223344556677", "\x00\x83\x00\x0c\x01\x02\x00\x08\x00\x11\x22\x33\x44\x55\x66\x77"},
		{"1IET_0001", "t10.IET_0001", "\x00\x83\x00\x0c\x02\x01\x00\x08IET_0001"},
		{"SIET_DISK_beaf", "", ""},
		{"3xyz", "", ""},
		{"", "", ""},
		{"3", "", ""},
	} {
		words, page, ok := deviceID(0, tc.wwid)
		if words != tc.words || string(page) != tc.page || ok != (tc.words != "") {
			t.Errorf("deviceID(%s) = %q, %q, %v", tc.wwid, words, page, ok)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	s := snapshot()
	for len(s[0].Devices) < 512 {
		d := s[0].Devices[1]
		d.LUN, d.Name = uint64(len(s[0].Devices)), fmt.Sprint("nbd", len(s[0].Devices))
		s[0].Devices = append(s[0].Devices, d)
	}
	b.ReportAllocs()
	for b.Loop() {
		build(s)
	}
}
