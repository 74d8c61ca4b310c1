//go:build guest

package consumers

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMustHave05 uses the by-path link as soon as the login has returned.
func TestMustHave05(t *testing.T) {
	h, p := newMachine(t)
	h.Must("-m", "node", "-o", "new", "-T", guestTarget, "-p", p.String())
	h.Must("-m", "node", "-T", guestTarget, "-p", p.String(), "-l")
	link := byPath(p)
	if size := h.Shell("blockdev --getsize64 " + link); size != "67108864" { // CloudStack
		t.Errorf("size %s", size)
	}
	h.Shell("mkfs.ext4 -q -F " + link)
	if fs := h.Shell("blkid -o value -s TYPE " + link); fs != "ext4" {
		t.Errorf("blkid says %q", fs)
	}
	dir := t.TempDir()
	h.Shell("mount " + link + " " + dir + "; echo text >" + dir + "/file; umount " + dir)
	// Without udev, which does not run here, the other names are iscsid's.
	names, err := filepath.Glob("/dev/disk/by-id/scsi-*")
	if err != nil || len(names) != 1 || h.Shell("readlink -f "+names[0]) != h.Shell("readlink -f "+link) {
		t.Errorf("by-id links %q, %v", names, err)
	}
	h.Must("-m", "node", "-T", guestTarget, "-p", p.String(), "-u")
	if _, err := os.Lstat(link); err == nil {
		t.Error("the by-path link is left")
	}
	if names, _ := filepath.Glob("/dev/disk/by-id/*"); len(names) != 0 {
		t.Errorf("by-id links %q are left", names)
	}
}

// TestMustHave14 reads the tree of sessions with the parsers that are known.
func TestMustHave14(t *testing.T) {
	h, p := newMachine(t)
	h.Must("-m", "node", "-o", "new", "-T", guestTarget, "-p", p.String())
	h.Must("-m", "node", "-T", guestTarget, "-p", p.String(), "-l")
	out := h.Must("-m", "session", "-P", "3")
	lines := strings.Split(out, "\n")
	if len(lines) < 3 || !strings.HasPrefix(lines[0], "iSCSI Transport Class version ") || !strings.HasPrefix(lines[1], "version ") {
		t.Fatalf("democratic-csi drops two lines:\n%s", out)
	}
	if !strings.Contains(out, "LOGGED IN") || !strings.Contains(out, "LOGGED_IN") { // gobrick
		t.Errorf("states in\n%s", out)
	}
	disk := filepath.Base(h.Shell("readlink -f " + byPath(p)))
	var found bool
	for i, line := range lines {
		switch {
		case !strings.Contains(line, " Lun: 1"):
		case !regexp.MustCompile(`^\t\tscsi\d+ Channel 00 Id 0 Lun: 1$`).MatchString(line):
			t.Errorf("democratic-csi counts blanks: %q", line)
		default: // longhorn: what is between these words, in the next line
			_, rest, ok1 := strings.Cut(lines[i+1], "Attached scsi disk ")
			name, _, ok2 := strings.Cut(rest, "State:")
			if found = ok1 && ok2 && strings.TrimSpace(name) == disk; !found {
				t.Errorf("the disk is %s, not in %q", disk, lines[i+1])
			}
			if name, _, _ := strings.Cut(rest, "\t"); name != disk { // democratic-csi
				t.Errorf("name up to the tab: %q", name)
			}
		}
	}
	if !found {
		t.Errorf("no disk in\n%s", out)
	}
	if m := regexp.MustCompile(`(?m)^\s*Host Number: (\d+)\tState: running$`).FindString(out); len(strings.Fields(m)) != 5 { // Infinidat: NF > 3
		t.Errorf("no host in\n%s", out)
	}
	for _, level := range []string{"1", "2"} {
		contains := h.Must("-m", "session", "-P", level)
		for _, word := range []string{"Target: " + guestTarget + " (non-flash)\n", "\tCurrent Portal: " + p.String() + ",1\n", "\tPersistent Portal: " + p.String() + ",1\n", "\tSID: "} {
			if !strings.Contains(contains, word) {
				t.Errorf("-P %s has no %q:\n%s", level, word, contains)
			}
		}
	}
}

// TestMustHave23 calls iscsiadm as containers do: in the machine's root, without
// an environment and without standard input. That it works in the machine's
// namespaces (nsenter), too, is TestBoot in test/boot: the root of this guest
// is not the root of its mount namespace.
func TestMustHave23(t *testing.T) {
	h, p := newMachine(t)
	h.Must("-m", "node", "-o", "new", "-T", guestTarget, "-p", p.String())
	host := t.TempDir()
	h.Shell("mount --rbind / " + host)
	t.Cleanup(func() { h.Shell("umount -l " + host) })
	call := "chroot " + host + " /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin iscsiadm "
	h.Shell(call + "-m node -T " + guestTarget + " -p " + p.String() + " --login <&- >/dev/null")
	if out := h.Shell(call + "-m session <&-"); !strings.Contains(out, guestTarget) {
		t.Errorf("sessions: %q", out)
	}
	h.Shell("test -b " + byPath(p))
	h.Shell(call + "-m node -T " + guestTarget + " -p " + p.String() + " --logout <&- >/dev/null")
	if out := h.Shell("ldd /usr/sbin/iscsiadm 2>&1 || true"); !strings.Contains(out, "not a dynamic executable") {
		t.Errorf("it needs libraries: %s", out)
	}
}
