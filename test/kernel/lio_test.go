//go:build guest

package kernel

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

const lioTarget = "iqn.2003-01.org.linux-iscsi.lab:t1"

var (
	lioPortals  = []targets.PortalAddr{{Host: "127.0.0.1", Port: 3260}}
	lioIncoming = &targets.CHAP{Username: "usuario", Password: "password1234"}
	lioOutgoing = &targets.CHAP{Username: "outuser", Password: "outpassword12"}
)

// lio serves one target by the kernel, discovers it and returns a host with a
// daemon.
func lio(t *testing.T, tgt targets.Target) (*lab.Host, *targets.LIO) {
	t.Helper()
	tgt.Name = lioTarget
	if tgt.LUNs == nil {
		// LIO's LUNs count from 0, and that is a disk.
		tgt.LUNs = []targets.LUN{{Number: 0, Path: targets.SparseFile(t, 64<<20)}, {Number: 1, Path: targets.SparseFile(t, 32<<20)}}
	}
	l := targets.StartLIO(t, lioPortals, tgt)
	h := lab.NewMachine(t)
	h.StartDaemon()
	h.Check(lab.Expect{Stdout: "127.0.0.1:3260,1 " + lioTarget + "\n"}, "-m", "discovery", "-t", "sendtargets", "-p", "127.0.0.1")
	return h, l
}

func lioUpdate(h *lab.Host, kvs ...string) {
	for i := 0; i < len(kvs); i += 2 {
		h.Must("-m", "node", "-T", lioTarget, "-p", "127.0.0.1", "-o", "update", "-n", kvs[i], "-v", kvs[i+1])
	}
}

// TestLIO keeps a file system on the kernel's target across a logout, with
// digests and without.
func TestLIO(t *testing.T) {
	h, _ := lio(t, targets.Target{})
	h.Must("-m", "node", "-l")
	disk := h.Disk(lioTarget, "0")
	checkDevice(t, h, disk, device{size: 64 << 20, blockSize: 512})
	checkDevice(t, h, h.Disk(lioTarget, "1"), device{size: 32 << 20, blockSize: 512})
	checkLink(t, byPath("127.0.0.1:3260", lioTarget, 0), disk)
	h.Shell("mkfs.ext4 -q -F " + disk)
	sum := writeFiles(t, h, disk)
	h.Must("-m", "node", "-u")

	lioUpdate(h, "node.conn[0].iscsi.HeaderDigest", "CRC32C", "node.conn[0].iscsi.DataDigest", "CRC32C")
	h.Must("-m", "node", "-l")
	out := h.Must("-m", "session", "-P", "3")
	for _, line := range []string{"HeaderDigest: CRC32C", "DataDigest: CRC32C"} {
		if !strings.Contains(out, line) {
			t.Errorf("-P 3 lacks %q:\n%s", line, out)
		}
	}
	disk = h.Disk(lioTarget, "0")
	verifyFiles(t, h, disk, sum)
	sum = writeFiles(t, h, disk)
	verifyFiles(t, h, disk, sum)
	h.Must("-m", "node", "-u")
}

// TestLIOCHAP authenticates with each algorithm, the target being the
// kernel's, which none of ours has written.
func TestLIOCHAP(t *testing.T) {
	for _, m := range []string{"md5", "sha1_generic", "sha256_generic", "sha3_generic"} {
		_ = exec.Command("modprobe", m).Run() // built in, where there is no such module
	}
	for _, mutual := range []bool{false, true} {
		tgt := targets.Target{Incoming: lioIncoming}
		name := "one-way"
		if mutual {
			name, tgt.Outgoing = "mutual", lioOutgoing
		}
		t.Run(name, func(t *testing.T) {
			h, _ := lio(t, tgt)
			lioUpdate(h, "node.session.auth.authmethod", "CHAP",
				"node.session.auth.username", lioIncoming.Username, "node.session.auth.password", lioIncoming.Password)
			if mutual {
				lioUpdate(h, "node.session.auth.username_in", lioOutgoing.Username, "node.session.auth.password_in", lioOutgoing.Password)
			}
			for _, algorithm := range []string{"MD5", "SHA1", "SHA256", "SHA3-256"} {
				lioUpdate(h, "node.session.auth.chap_algs", algorithm)
				if r := h.Iscsiadm("-m", "node", "-l"); r.Code != 0 {
					t.Errorf("%s: exit status %d\n%s", algorithm, r.Code, r)
					continue
				}
				h.Must("-m", "node", "-u")
			}
			if mutual { // a target that cannot prove itself is not believed
				lioUpdate(h, "node.session.auth.password_in", "not-the-target")
				if r := h.Iscsiadm("-m", "node", "-l"); r.Code != 19 {
					t.Errorf("target with another secret: exit status %d, want 19\n%s", r.Code, r)
				}
			}
			lioUpdate(h, "node.session.auth.password", "not-the-password")
			if r := h.Iscsiadm("-m", "node", "-l"); r.Code != 24 {
				t.Errorf("wrong password: exit status %d, want 24\n%s", r.Code, r)
			}
		})
	}
}
