//go:build guest

package replay

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/internal/transcript"
	"github.com/goiscsi/goiscsi/test/lab"
)

// TestBesideOpenISCSI types the commands of transcript.Beside at open-iscsi's
// own iscsiadm, on its own records, and at ours, one after the other, and
// compares as TestTranscript does. They need no target.
func TestBesideOpenISCSI(t *testing.T) {
	h := lab.NewMachine(t) // both have no records
	// Its daemon is asked whenever a record is made.
	_ = exec.Command("modprobe", "iscsi_tcp").Run()
	daemon := exec.Command("/sbin/iscsid", "-f")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	for deadline := time.After(20 * time.Second); ; {
		if c, err := net.Dial("unix", "@ISCSIADM_ABSTRACT_NAMESPACE"); err == nil {
			c.Close()
			break
		}
		select {
		case <-deadline:
			t.Fatal("open-iscsi's iscsid does not answer")
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Cleanup(func() {
		h.Shell("rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets /etc/iscsi/isns /etc/iscsi/static /etc/iscsi/ifaces")
	})
	ours := "PATH=" + os.Getenv("GOISCSI_BIN") + ":" + os.Getenv("PATH")
	theirs := "PATH=/usr/sbin:/sbin:/usr/bin:/bin"
	for _, line := range transcript.Beside {
		line = "iscsiadm " + line
		want, got := typed(t, line, theirs), typed(t, line, ours)
		res := transcript.Compare(want, got)
		if res.Stale {
			t.Errorf("$ %s\ndoes not differ any more: %s", line, res.Deviation.Reason)
		}
		if !res.Same {
			t.Errorf("$ %s (-open-iscsi +ours)\n%s", strings.TrimSpace(line),
				cmp.Diff(transcript.Lines(res.Want.String()), transcript.Lines(res.Got.String())))
		}
	}
}
