//go:build guest

package migrate

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

const (
	target1 = "iqn.2016-01-com.example.tg1"
	target2 = "iqn.2016-01.com.example:chap"
	tree    = "/etc/iscsi" // where Debian's open-iscsi has its files
)

// portal starts two targets on iSCSI's port.
func portal(t *testing.T) {
	t.Helper()
	lun := func() []targets.LUN { return []targets.LUN{{Number: 1, Path: targets.SparseFile(t, 16<<20)}} }
	targets.StartTGT(t, 3260, nil, targets.Target{Name: target1, LUNs: lun()}, targets.Target{Name: target2, LUNs: lun()})
}

// theirs runs open-iscsi's iscsiadm, which must succeed, and returns what it
// prints.
func theirs(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/sbin/iscsiadm", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("open-iscsi's iscsiadm %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// theirDaemon starts open-iscsi's iscsid, which its discovery needs. The
// returned function ends it.
func theirDaemon(t *testing.T) (stop func()) {
	t.Helper()
	for _, m := range []string{"iscsi_tcp", "crc32c_generic"} {
		_ = exec.Command("modprobe", m).Run()
	}
	var output bytes.Buffer
	cmd := exec.Command("/sbin/iscsid", "-f")
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}) // closed when the process has ended
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	stop = func() {
		_ = cmd.Process.Kill()
		<-done
	}
	t.Cleanup(stop)
	deadline := time.After(20 * time.Second)
	for {
		if c, err := net.Dial("unix", "@ISCSIADM_ABSTRACT_NAMESPACE"); err == nil {
			c.Close()
			return stop
		}
		select {
		case <-done:
			t.Fatalf("open-iscsi's iscsid ended: %s", output.String())
		case <-deadline:
			t.Fatal("open-iscsi's iscsid does not answer")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

var recordVersion = regexp.MustCompile(`(?m)^# BEGIN RECORD .*$`)

// compare runs a command with both programs and compares what they print: line
// by line, or where open-iscsi goes by the order of directory entries, as sets
// of lines.
func compare(t *testing.T, h *lab.Host, ordered bool, args ...string) {
	t.Helper()
	lines := func(s string) []string {
		l := strings.Split(recordVersion.ReplaceAllString(s, "# BEGIN RECORD"), "\n")
		if !ordered {
			slices.Sort(l)
		}
		return l
	}
	if d := cmp.Diff(lines(theirs(t, args...)), lines(h.Must(args...))); d != "" {
		t.Errorf("$ iscsiadm %s (-open-iscsi +ours)\n%s", strings.Join(args, " "), d)
	}
}

// compareAll compares everything that records can tell.
func compareAll(t *testing.T, h *lab.Host) {
	t.Helper()
	compare(t, h, true, "-m", "node")
	compare(t, h, true, "-m", "node", "-P", "1")
	compare(t, h, true, "-m", "node", "-T", target1, "-S")
	compare(t, h, true, "-m", "node", "-T", target2, "-S")
	compare(t, h, true, "-m", "iface")
	compare(t, h, true, "-m", "iface", "-P", "1")
	compare(t, h, false, "-m", "discovery")
	compare(t, h, false, "-m", "discovery", "-P", "1")
	compare(t, h, true, "-m", "discoverydb", "-t", "st", "-p", "127.0.0.1", "-S")
}

// TestMovingIn lets open-iscsi make records of each sort, imports its files
// and finds everything as it was.
func TestMovingIn(t *testing.T) {
	portal(t)
	h := lab.NewMachine(t)
	stop := theirDaemon(t)
	theirs(t, "-m", "iface", "-I", "lan", "-o", "new")
	theirs(t, "-m", "iface", "-I", "lan", "-o", "update", "-n", "iface.net_ifacename", "-v", "lo")
	theirs(t, "-m", "discovery", "-t", "st", "-p", "127.0.0.1", "-I", "default", "-I", "lan")
	theirs(t, "-m", "discoverydb", "-t", "st", "-p", "127.0.0.9", "-o", "new")
	theirs(t, "-m", "discoverydb", "-t", "st", "-p", "127.0.0.9", "-o", "update", "-n", "discovery.sendtargets.auth.password", "-v", "discovery secret")
	theirs(t, "-m", "node", "-T", "iqn.static", "-p", "192.0.2.1:3261,2", "-o", "new")
	theirs(t, "-m", "node", "-T", "iqn.old", "-p", "192.0.2.1", "-o", "new") // a file of the older form
	theirs(t, "-m", "node", "-T", target2, "-o", "update", "-n", "node.session.auth.authmethod", "-v", "CHAP",
		"-n", "node.session.auth.username", "-v", "user", "-n", "node.session.auth.password", "-v", "secret = word",
		"-n", "node.startup", "-v", "automatic", "-n", "node.conn[0].iscsi.HeaderDigest", "-v", "CRC32C,None")
	stop()

	h.Check(lab.Expect{Code: 21, Stderr: "iscsiadm: No records found\n"}, "-m", "node")
	h.Check(lab.Expect{Stdout: "Imported 6 nodes, 2 discovery records and 1 iface from /etc/iscsi.\n"}, "-m", "nodedb", "-o", "import", tree)
	compareAll(t, h)
	for _, name := range []string{"iqn.static", "iqn.old"} {
		compare(t, h, true, "-m", "node", "-T", name)
	}
	compare(t, h, true, "-m", "iface", "-I", "lan")
	compare(t, h, true, "-m", "discoverydb", "-t", "st", "-p", "127.0.0.9", "-S")

	// The records work.
	h.StartDaemon()
	h.Must("-m", "node", "-T", target1, "-I", "default", "-l")
	h.Must("-m", "node", "-u")
}

// TestMovingOut exports our records; open-iscsi lists, shows, changes and
// deletes them, and what it changed comes back by another import.
func TestMovingOut(t *testing.T) {
	portal(t)
	h := lab.NewMachine(t)
	h.Must("-m", "discovery", "-t", "st", "-p", "127.0.0.1")
	h.Must("-m", "iface", "-I", "lan", "-o", "new")
	h.Must("-m", "node", "-T", target1, "-I", "lan", "-o", "new")
	h.Must("-m", "node", "-T", target2, "-o", "update", "-n", "node.session.auth.password", "-v", "secret",
		"-n", "node.session.attach", "-v", "socket") // a field that open-iscsi does not have
	h.Check(lab.Expect{Stdout: "Exported 3 nodes, 1 discovery record and 1 iface to /etc/iscsi.\n"}, "-m", "nodedb", "-o", "export", tree)

	compare(t, h, true, "-m", "node")
	compare(t, h, true, "-m", "node", "-P", "1")
	compare(t, h, true, "-m", "node", "-T", target1, "-S")
	compare(t, h, true, "-m", "iface")
	compare(t, h, true, "-m", "iface", "-P", "1")
	compare(t, h, false, "-m", "discovery", "-P", "1")
	if out := theirs(t, "-m", "node", "-T", target2, "-S"); !strings.Contains(out, "\nnode.session.auth.password = secret\n") {
		t.Errorf("open-iscsi shows\n%s", out)
	}

	theirs(t, "-m", "node", "-T", target1, "-I", "default", "-o", "update", "-n", "node.startup", "-v", "automatic")
	theirs(t, "-m", "node", "-T", target2, "-o", "delete")
	h.Check(lab.Expect{Stdout: "Imported 2 nodes, 1 discovery record and 1 iface from /etc/iscsi.\n"}, "-m", "nodedb", "-o", "import", "-o", "update", tree)
	compare(t, h, true, "-m", "node", "-T", target1)
	if out := h.Must("-m", "node", "-T", target2); !strings.Contains(out, "\nnode.session.attach = socket\n") {
		t.Errorf("the import has touched a record that was not among the files:\n%s", out)
	}
	theirs(t, "-m", "discoverydb", "-t", "st", "-p", "127.0.0.1", "-o", "delete")
	if err := exec.Command("/sbin/iscsiadm", "-m", "discovery").Run(); err == nil {
		t.Error("open-iscsi has not deleted the discovery record")
	}
}

// TestMirror changes records with ours while open-iscsi's iscsiadm looks at
// the files of the mirror after each command.
func TestMirror(t *testing.T) {
	portal(t)
	h := lab.NewMachine(t, "nodedb.mirror = "+tree)
	h.StartDaemon()
	h.Must("-m", "discovery", "-t", "st", "-p", "127.0.0.1")
	compareAll(t, h)
	h.Must("-m", "node", "-T", target2, "-o", "update", "-n", "node.startup", "-v", "automatic", "-n", "node.session.auth.password", "-v", "secret")
	compareAll(t, h)
	h.Must("-m", "iface", "-I", "lan", "-o", "new")
	h.Must("-m", "iface", "-I", "lan", "-o", "update", "-n", "iface.net_ifacename", "-v", "lo")
	h.Must("-m", "discovery", "-t", "st", "-p", "127.0.0.1", "-I", "default", "-I", "lan", "-o", "new")
	compareAll(t, h)
	h.Must("-m", "iface", "-I", "lan", "-o", "delete")
	compareAll(t, h)
	h.Must("-m", "discovery", "-p", "127.0.0.1", "-o", "delete")
	for _, args := range [][]string{{"-m", "node"}, {"-m", "discovery"}} {
		if err := exec.Command("/sbin/iscsiadm", args...).Run(); err == nil {
			t.Errorf("open-iscsi's iscsiadm %v finds something", args)
		}
	}
	if left, err := os.ReadDir(tree + "/nodes"); err == nil && len(left) > 0 {
		t.Errorf("%d directories are left in %s/nodes", len(left), tree)
	}
}
