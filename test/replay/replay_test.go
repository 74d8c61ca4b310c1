//go:build guest

package replay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/internal/transcript"
	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// initiatorName is that of the transcript's machine.
const initiatorName = "iqn.1993-08.org.debian:01:81cc55237ed9"

// machine is the transcript's: its initiator name, no settings but those that
// are shipped, its targets, and a daemon.
func machine(t *testing.T) (*lab.Host, *lab.Daemon) {
	t.Helper()
	h := lab.NewMachine(t)
	h.WriteFile(h.Paths.InitiatorName, "InitiatorName="+initiatorName+"\n")
	if err := os.Remove(h.Paths.Config); err != nil {
		t.Fatal(err)
	}
	lun := func() []targets.LUN { return []targets.LUN{{Number: 1, Path: targets.SparseFile(t, 64<<20)}} }
	incoming := &targets.CHAP{Username: "usuario", Password: "password"}
	targets.StartTGT(t, 3260, []string{"127.0.0.1", "::1"},
		targets.Target{Name: "iqn.2016-01-com.example.tg1", LUNs: lun()},
		targets.Target{Name: "iqn.2016-01.com.example:chap", LUNs: lun(), Incoming: incoming},
		targets.Target{
			Name: "iqn.2016-01.com.example:mutual", LUNs: lun(), Incoming: incoming,
			Outgoing: &targets.CHAP{Username: "outuser", Password: "outpassword12"},
		})
	return h, h.StartDaemon()
}

// TestTranscript replays the whole transcript and compares.
func TestTranscript(t *testing.T) {
	f, err := os.Open("testdata/open-iscsi-2.1.8.transcript")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	commands, err := transcript.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	h, daemon := machine(t)
	ids := &sids{t: t, host: h, attempts: map[string]int{}, theirs: map[string]string{}}
	var results []transcript.Result
	for _, want := range commands {
		got := typed(t, want.Line, "PATH="+os.Getenv("GOISCSI_BIN")+":"+os.Getenv("PATH"))
		res := transcript.Compare(want, ids.rename(got))
		if res.Stale {
			t.Errorf("$ %s\ndoes not differ any more: %s", want.Line, res.Deviation.Reason)
		}
		if !res.Same {
			t.Errorf("$ %s (-open-iscsi +ours)\n%s", want.Line, cmp.Diff(transcript.Lines(res.Want.String()), transcript.Lines(res.Got.String())))
		}
		if strings.HasPrefix(want.Line, "iscsiadm") {
			results = append(results, res)
		}
	}
	if len(results) < 110 {
		t.Errorf("only %d commands were replayed", len(results))
	}
	if !daemon.Ended() {
		t.Error("-k 0 has not stopped the daemon")
	}
	var report bytes.Buffer
	if err := transcript.WriteReport(&report, results); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("testdata/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	if !t.Failed() && !bytes.Equal(doc, report.Bytes()) {
		t.Errorf("docs/compatibility.md does not say what was found:\n%s", cmp.Diff(string(doc), report.String()))
	}
}

// typed runs a line as typed to a shell, with a search path.
func typed(t *testing.T, line, path string) transcript.Command {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Env = append(os.Environ(), path)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return transcript.Command{
		Line: line, Out: transcript.Lines(stdout.String()), Err: transcript.Lines(stderr.String()), Code: cmd.ProcessState.ExitCode(),
	}
}

// sids gives sessions the ids that the transcript has. Which of several logins
// that are sent at once gets which id is up to chance, there and here.
type sids struct {
	t        *testing.T
	host     *lab.Host
	attempts map[string]int    // logins so far, by what is logged in to
	theirs   map[string]string // the transcript's id, by ours
}

var (
	loggingIn = regexp.MustCompile(`^Logging in to \[iface: (\S+), target: (\S+), portal: (\S+),\d+\]`)
	sidText   = regexp.MustCompile(`(^tcp: \[|SID: |\[sid: )(\d+)`)
)

// rename looks at what the command has changed and replaces ids in its output.
func (s *sids) rename(c transcript.Command) transcript.Command {
	for _, line := range c.Out {
		if m := loggingIn.FindStringSubmatch(line); m != nil {
			s.attempts[m[2]+" "+m[3]+" "+m[1]]++
		}
	}
	var sessions []struct {
		SID        int
		Target     string
		Persistent struct{ Address string } `json:"persistent_portal"`
		Iface      struct{ Name string }
	}
	if r := s.host.Iscsiadm("-m", "session", "--json"); r.Stdout != "" {
		if err := json.Unmarshal([]byte(r.Stdout), &sessions); err != nil {
			s.t.Fatalf("%v\n%s", err, r)
		}
	}
	for _, ses := range sessions {
		ours := strconv.Itoa(ses.SID)
		if s.theirs[ours] != "" {
			continue
		}
		key := fmt.Sprintf("%s %s %s", ses.Target, ses.Persistent.Address, ses.Iface.Name)
		ids := transcript.SIDs[key]
		n := s.attempts[key]
		if n < 1 || n > len(ids) {
			s.t.Errorf("$ %s\nsession %s with %s after %d logins, of which the transcript has %d", c.Line, ours, key, n, len(ids))
			continue
		}
		s.theirs[ours] = strconv.Itoa(ids[n-1])
	}
	c = c.Clone()
	for _, lines := range [][]string{c.Out, c.Err} {
		for i, line := range lines {
			lines[i] = sidText.ReplaceAllStringFunc(line, func(m string) string {
				digits := m[strings.LastIndexAny(m, " [")+1:]
				if theirs := s.theirs[digits]; theirs != "" {
					return strings.TrimSuffix(m, digits) + theirs
				}
				return m
			})
		}
	}
	return c
}
