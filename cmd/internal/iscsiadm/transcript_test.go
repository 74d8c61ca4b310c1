package iscsiadm_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/internal/transcript"
)

var update = flag.Bool("update", false, "write docs/compatibility.md")

// TestTranscript gives the commands of testdata/open-iscsi-2.1.8.transcript,
// which the real iscsiadm did with the kernel's initiator against three
// targets of tgt, to ours, and compares streams and codes line by line.
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
	l := newLab(t)
	l.daemon.SID = func(r map[string]string) int {
		key := r["node.name"] + " " + r["node.conn[0].address"] + " " + r["iface.iscsi_ifacename"]
		n := l.taken[key]
		l.taken[key]++
		return transcript.SIDs[key][n]
	}
	applied := map[string]bool{}
	var results []transcript.Result
	for _, want := range commands {
		command, filter, piped := strings.Cut(want.Line, " | ")
		args := strings.Fields(command)
		if args[0] != "iscsiadm" {
			continue // iscsi-iname has its own test
		}
		r := l.run(args[1:]...)
		got := transcript.Command{Line: want.Line, Out: transcript.Lines(r.out), Err: transcript.Lines(r.err), Code: r.code}
		if piped {
			word := strings.TrimPrefix(filter, "grep ")
			got.Out = slices.DeleteFunc(got.Out, func(s string) bool { return !strings.Contains(s, word) })
			got.Code = 0 // of grep
		}
		res := transcript.Compare(want, got)
		if res.Deviation != nil {
			applied[res.Deviation.Command] = true
		}
		if res.Stale {
			t.Errorf("$ %s\ndoes not differ any more: %s", want.Line, res.Deviation.Reason)
		}
		if !res.Same {
			t.Errorf("$ %s (-open-iscsi +ours)\n%s", want.Line, cmp.Diff(res.Want, res.Got))
		}
		results = append(results, res)
	}
	for _, d := range transcript.Deviations {
		if !applied[d.Command] && !slices.Contains(slices.Concat(transcript.Beside, transcript.Live), strings.TrimPrefix(d.Command, "iscsiadm ")) {
			t.Errorf("no replay has the command %q", d.Command)
		}
	}
	if len(results) < 110 {
		t.Errorf("only %d commands were replayed", len(results))
	}
	if !l.daemon.Stopped() {
		t.Error("-k 0 has not stopped the daemon")
	}
	checkReport(t, results)
}

// checkReport compares docs/compatibility.md with the results.
func checkReport(t *testing.T, results []transcript.Result) {
	t.Helper()
	var b bytes.Buffer
	if err := transcript.WriteReport(&b, results); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "..", "docs", "compatibility.md")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(have, b.Bytes()) {
		t.Errorf("docs/compatibility.md is not what the replay says (%v); run go test ./cmd/internal/iscsiadm -run TestTranscript -update", err)
	}
}
