//go:build guest

package kernel

import (
	"os"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

const (
	tutorialTarget = "iqn.2016-01-com.example.tg1" // not a name by the RFC, and used all the same
	tutorialIP     = "192.168.100.1"
	tutorialVolume = "/dev/vg1/ejem"
	tutorialSize   = 512 << 20
)

// tutorialMachine is the tutorial's network and logical volume, and its
// target without authentication.
func tutorialMachine(t *testing.T) (*lab.Host, *targets.TGT, targets.Target) {
	t.Helper()
	h := lab.NewMachine(t)
	h.Shell("ip address add " + tutorialIP + "/24 dev lo")
	t.Cleanup(func() { h.Shell("ip address del " + tutorialIP + "/24 dev lo") })
	if err := os.MkdirAll("/dev/vg1", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tutorialVolume, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll("/dev/vg1") })
	if err := os.Truncate(tutorialVolume, tutorialSize); err != nil {
		t.Fatal(err)
	}
	tgt := targets.Target{
		Name: tutorialTarget,
		LUNs: []targets.LUN{{Number: 1, Path: tutorialVolume}},
	}
	return h, targets.StartTGT(t, 3260, []string{tutorialIP}, tgt), tgt
}

// TestTutorial types the tutorial as it stands, from the discovery to the
// login with CHAP, and puts a file system on the disk on the way.
func TestTutorial(t *testing.T) {
	h, tgt, target := tutorialMachine(t)
	h.StartDaemon()
	const at = "[iface: default, target: iqn.2016-01-com.example.tg1, portal: 192.168.100.1,3260]"

	h.Check(lab.Expect{Stdout: "192.168.100.1:3260,1 iqn.2016-01-com.example.tg1\n"},
		"-m", "discovery", "-t", "sendtargets", "-p", "192.168.100.1")
	record := h.Must("-m", "node", "--targetname", tutorialTarget, "--portal", "192.168.100.1")
	for _, line := range []string{
		"node.name = iqn.2016-01-com.example.tg1", "node.tpgt = 1", "node.startup = manual",
		"iface.iscsi_ifacename = default", "iface.transport_name = tcp",
		"node.discovery_address = 192.168.100.1", "node.discovery_port = 3260",
		"node.session.auth.username = <empty>", "node.conn[0].address = 192.168.100.1",
	} {
		if !strings.Contains(record, "\n"+line+"\n") {
			t.Errorf("the record lacks %q:\n%s", line, record)
		}
	}
	if !strings.HasPrefix(record, "# BEGIN RECORD ") || !strings.HasSuffix(record, "\n# END RECORD\n") {
		t.Errorf("not a record:\n%s", record)
	}

	login := []string{"-m", "node", "--targetname", tutorialTarget, "--portal", "192.168.100.1", "--login"}
	logout := []string{"-m", "node", "--targetname", tutorialTarget, "--portal", "192.168.100.1", "--logout"}
	loggedIn := lab.Expect{Stdout: "Logging in to " + at + "\nLogin to " + at + " successful.\n"}
	h.Check(loggedIn, login...)
	h.Check(lab.Expect{Code: 15, Stderr: "iscsiadm: default: 1 session requested, but 1 already present.\n" +
		"iscsiadm: Could not log into all portals\n"}, login...)
	// The reference's ids are the kernel's, which counts on from test to test.
	sid := h.SID(tutorialTarget)
	h.Check(lab.Expect{Stdout: "tcp: [" + sid + "] 192.168.100.1:3260,1 iqn.2016-01-com.example.tg1 (non-flash)\n"}, "-m", "session")
	checkSession(t, h, sid)

	disk := h.Disk(tutorialTarget, "1")
	if out := h.Shell("fdisk -l " + disk + " | head -n 1"); out != "Disk "+disk+": 512 MiB, 536870912 bytes, 1048576 sectors" {
		t.Errorf("fdisk shows %q", out)
	}
	checkDevice(t, h, disk, device{size: tutorialSize, blockSize: 512})
	byPath := "/dev/disk/by-path/ip-192.168.100.1:3260-iscsi-" + tutorialTarget + "-lun-1"
	checkLink(t, byPath, disk)

	h.Shell("mkfs.ext4 -q -F " + disk)
	sum := writeFiles(t, h, disk)

	// The tutorial changes the target's configuration and restarts it while
	// the session is up; the session comes back to a target that now wants
	// CHAP, which its record knows nothing of. The logout must work in
	// whatever state that leaves it.
	target.Incoming = &targets.CHAP{Username: "usuario", Password: "password"}
	tgt.Restart(target)
	h.Check(lab.Expect{Stdout: "Logging out of session [sid: " + sid + ", target: iqn.2016-01-com.example.tg1, portal: 192.168.100.1,3260]\n" +
		"Logout of [sid: " + sid + ", target: iqn.2016-01-com.example.tg1, portal: 192.168.100.1,3260] successful.\n"}, logout...)
	checkGone(t, disk, byPath)

	h.Check(lab.Expect{
		Code:   24,
		Stdout: "Logging in to " + at + "\n",
		Stderr: "iscsiadm: Could not login to " + at + ".\n" +
			"iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)\n" +
			"iscsiadm: Could not log into all portals\n",
	}, login...)
	for _, kv := range [][2]string{{"username", "usuario"}, {"password", "password"}} {
		h.Check(lab.Expect{}, "-m", "node", "--targetname", tutorialTarget, "-p", "192.168.100.1",
			"-o", "update", "-n", "node.session.auth."+kv[0], "-v", kv[1])
	}
	h.Check(loggedIn, login...)
	disk = h.Disk(tutorialTarget, "1")
	checkLink(t, byPath, disk)
	verifyFiles(t, h, disk, sum)
	h.Must(logout...)
	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No active sessions.\n"}, "-m", "session")
	checkGone(t, disk, byPath)
}

// checkSession compares "-m session -P 3" with the tutorial, line by line.
func checkSession(t *testing.T, h *lab.Host, sid string) {
	t.Helper()
	want, err := os.ReadFile("testdata/session-P3.txt")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(h.Must("-m", "session", "-P", "3"), "\n")
	for i, w := range strings.Split(strings.TrimSuffix(string(want), "\n"), "\n") {
		if i >= len(got) {
			t.Fatalf("-P 3 ends before line %d %q", i+1, w)
		}
		g := got[i]
		switch {
		case strings.Contains(w, "SID: "):
			w = strings.Replace(w, "SID: 1", "SID: "+sid, 1)
		case strings.HasPrefix(w, "version "):
			w, g = "version", strings.Fields(g + " ?")[0]
		case strings.Contains(w, "Attached scsi disk "):
			// The one name that differs: nbdN for sdX.
			w, g = deviceName.ReplaceAllString(w, "DISK"), deviceName.ReplaceAllString(g, "DISK")
		case strings.Contains(w, "Host Number: "), strings.Contains(w, "scsi0 Channel"):
			w, g = hostNumber.ReplaceAllString(w, "N"), hostNumber.ReplaceAllString(g, "N")
		}
		if g != w {
			t.Errorf("-P 3, line %d: got %q, want %q", i+1, g, w)
		}
	}
}
