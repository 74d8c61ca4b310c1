//go:build integration

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// ownTarget serves one target by our iscsi-target, discovers it and returns a
// host with a daemon.
func ownTarget(t *testing.T, tgt targets.Target, flags ...string) (*lab.Host, *targets.Own) {
	t.Helper()
	h := lab.NewPrefix(t)
	command := func(args ...string) *exec.Cmd { return h.Command("iscsi-target", args...) }
	tgt.Name = openTarget
	tgt.LUNs = []targets.LUN{{Path: targets.SparseFile(t, diskSize)}}
	own := targets.StartOwn(t, command, tgt, append([]string{"--verbose"}, flags...)...)
	h.StartDaemon()
	h.Check(lab.Expect{Stdout: own.Portal().String() + ",1 " + openTarget + "\n"},
		"-m", "discovery", "-t", "sendtargets", "-p", own.Portal().String())
	return h, own
}

func set(h *lab.Host, kvs ...string) {
	for i := 0; i < len(kvs); i += 2 {
		h.Must("-m", "node", "-o", "update", "-n", kvs[i], "-v", kvs[i+1])
	}
}

// TestOwnTargetCHAP authenticates both ways with each algorithm.
func TestOwnTargetCHAP(t *testing.T) {
	h, _ := ownTarget(t, targets.Target{Incoming: incoming, Outgoing: outgoing})
	set(h, "node.session.auth.authmethod", "CHAP",
		"node.session.auth.username", incoming.Username, "node.session.auth.password", incoming.Password,
		"node.session.auth.username_in", outgoing.Username, "node.session.auth.password_in", outgoing.Password)
	for _, algorithm := range []string{"MD5", "SHA1", "SHA256", "SHA3-256", "SHA3-256,SHA256,SHA1,MD5"} {
		set(h, "node.session.auth.chap_algs", algorithm)
		if r := h.Iscsiadm("-m", "node", "-l"); r.Code != 0 {
			t.Errorf("%s: exit status %d\n%s", algorithm, r.Code, r)
			continue
		}
		h.Must("-m", "node", "-u")
	}
}

// TestOwnTargetParameters moves data through a session with each of the ways
// to send it that the two can agree upon, and compares every byte.
func TestOwnTargetParameters(t *testing.T) {
	for _, tc := range []struct {
		name    string
		flags   []string // of the target
		digests string   // in the record
	}{
		{"defaults", nil, "None"},
		{"digests", nil, "CRC32C"},
		{"no immediate data", []string{"--no-immediate-data"}, "None"},
		{"initial R2T", []string{"--initial-r2t"}, "CRC32C"},
		{"all by R2T", []string{"--no-immediate-data", "--initial-r2t"}, "None"},
		{"small bursts", []string{"--initial-r2t", "--first-burst", "4096", "--max-burst", "16384", "--max-recv", "8192"}, "CRC32C"},
		{"narrow window", []string{"--window", "2"}, "None"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, _ := ownTarget(t, targets.Target{}, append(tc.flags, "--strict")...)
			set(h, "node.conn[0].iscsi.HeaderDigest", tc.digests, "node.conn[0].iscsi.DataDigest", tc.digests)
			h.Must("-m", "node", "-l")
			if out := h.Must("-m", "session", "-P", "3"); !strings.Contains(out, "DataDigest: "+tc.digests+"\n") {
				t.Errorf("-P 3 shows\n%s", out)
			}
			uri := "nbd+unix:///?socket=" + h.Socket()
			file := randomFile(t, h, diskSize)
			h.Shell("nbdcopy --flush " + file + " '" + uri + "' && nbdcopy '" + uri + "' " + h.Dir + "/back && cmp " + file + " " + h.Dir + "/back")
		})
	}
}

// TestTargetRestart loses the target in the middle of a copy: the copy waits,
// goes on when the target is back, and what it wrote is what is read.
func TestTargetRestart(t *testing.T) {
	h, own := ownTarget(t, targets.Target{})
	set(h, "node.session.iscsi.DefaultTime2Wait", "0")
	h.Must("-m", "node", "-l")
	uri := "nbd+unix:///?socket=" + h.Socket()
	file := randomFile(t, h, diskSize)
	for range 3 {
		cmd := exec.Command("nbdcopy", "--flush", file, uri)
		out := new(strings.Builder)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		own.Stop()
		own.Start()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("nbdcopy: %v\n%s", err, out)
		}
	}
	h.Shell("nbdcopy '" + uri + "' " + h.Dir + "/back && cmp " + file + " " + h.Dir + "/back")
}
