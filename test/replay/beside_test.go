//go:build guest

package replay

import (
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/internal/transcript"
	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// TestBesideOpenISCSI types the commands of transcript.Beside at open-iscsi's
// own iscsiadm, on its own records, and at ours, one after the other, and
// compares as TestTranscript does. They need no target.
func TestBesideOpenISCSI(t *testing.T) {
	besides(t, lab.NewMachine(t), nil, transcript.Beside) // both have no records
}

// TestBesideOpenISCSILive does the same with the commands of transcript.Live:
// both programs discover and log in to one target.
func TestBesideOpenISCSILive(t *testing.T) {
	h := lab.NewMachine(t)
	h.WriteFile(h.Paths.InitiatorName, "InitiatorName="+initiatorName+"\n")
	lun := func() []targets.LUN { return []targets.LUN{{Number: 1, Path: targets.SparseFile(t, 16<<20)}} }
	targets.StartTGT(t, 3260, []string{"127.0.0.1"},
		targets.Target{Name: "iqn.2016-01-com.example.tg1", LUNs: lun()},
		targets.Target{Name: "iqn.2016-01.com.example:chap", LUNs: lun(), Incoming: &targets.CHAP{Username: "usuario", Password: "password"}})
	h.StartDaemon()
	besides(t, h, nil, transcript.Live)
}

// besides gives commands to both programs and compares what tidy, which may be
// nil, leaves of it.
func besides(t *testing.T, h *lab.Host, tidy func(*transcript.Command), commands []string) {
	theirDaemon(t)
	t.Cleanup(func() {
		h.Shell("rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets /etc/iscsi/isns /etc/iscsi/static /etc/iscsi/ifaces")
	})
	ours, theirs := paths()
	us, them := side{path: ours}, side{path: theirs}
	for _, line := range commands {
		line = "iscsiadm " + line
		want, got := them.typed(t, line), us.typed(t, line)
		if tidy != nil {
			tidy(&want)
			tidy(&got)
		}
		res := transcript.Compare(want, got)
		if res.Stale {
			t.Errorf("$ %s\ndoes not differ any more: %s", line, res.Deviation.Reason)
		}
		if !res.Same {
			t.Errorf("$ %s (-open-iscsi +ours)\n%s", strings.TrimSpace(line),
				cmp.Diff(transcript.Lines(res.Want.String()), transcript.Lines(res.Got.String())))
		}
	}
	t.Logf("%d commands: %v for open-iscsi, %v for ours", len(commands), them.took, us.took)
}

// paths are where a shell finds our iscsiadm, and open-iscsi's.
func paths() (ours, theirs string) {
	return "PATH=" + os.Getenv("GOISCSI_BIN") + ":" + os.Getenv("PATH"), "PATH=/usr/sbin:/sbin:/usr/bin:/bin"
}

// A side is one of the two programs.
type side struct {
	path string
	ids  []string      // of sessions, in the order in which they were seen
	took time.Duration // by all commands
}

var sessionID = regexp.MustCompile(`(^tcp: \[|SID: |\[sid: )(\d+)(\] \S+:\d+,|,|$)`)

// typed runs a line in which SID stands for the session seen last. In the
// output sessions are numbered as they are seen: which of two logins at once
// gets which id is up to chance.
func (s *side) typed(t *testing.T, line string) transcript.Command {
	actual := line
	if len(s.ids) > 0 {
		actual = strings.ReplaceAll(line, "SID", s.ids[len(s.ids)-1])
	}
	start := time.Now()
	c := typed(t, actual, s.path)
	s.took += time.Since(start)
	c.Line = line
	for _, lines := range [][]string{c.Out, c.Err} {
		for i := range lines {
			if m := sessionID.FindStringSubmatchIndex(lines[i]); m != nil {
				id := lines[i][m[4]:m[5]]
				rank := slices.Index(s.ids, id)
				if rank < 0 {
					rank = len(s.ids)
					s.ids = append(s.ids, id)
				}
				lines[i] = lines[i][:m[4]] + strconv.Itoa(rank+1) + lines[i][m[5]:]
			}
		}
	}
	return c
}

// theirDaemon runs open-iscsi's iscsid, which is asked whenever a record is
// made, for the time of the test.
func theirDaemon(t *testing.T) {
	for _, m := range []string{"iscsi_tcp", "sd_mod"} {
		_ = exec.Command("modprobe", m).Run()
	}
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
			return
		}
		select {
		case <-deadline:
			t.Fatal("open-iscsi's iscsid does not answer")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
