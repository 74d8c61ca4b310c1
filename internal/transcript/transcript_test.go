package transcript_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/transcript"
	"github.com/goiscsi/goiscsi/internal/version"
)

func TestRead(t *testing.T) {
	const text = "$ iscsiadm -m x\nout| \ta b\nout| \nerr| iscsiadm: no\nrc=7\n\n$ y | grep z\nrc=0\n"
	got, err := transcript.Read(strings.NewReader(text))
	want := []transcript.Command{
		{Line: "iscsiadm -m x", Out: []string{"\ta b", ""}, Err: []string{"iscsiadm: no"}, Code: 7},
		{Line: "y | grep z"},
	}
	if err != nil || !slices.EqualFunc(got, want, transcript.Command.Equal) {
		t.Errorf("Read() = %+v, %v", got, err)
	}
	var b strings.Builder
	for i, c := range got {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(c.String())
	}
	if b.String() != text {
		t.Errorf("written again: %q, want %q", b.String(), text)
	}
}

func TestReadRejects(t *testing.T) {
	for _, text := range []string{"out| x\n", "$ x\nfoo\n", "$ x\nrc=x\n", "$ x\nx\n"} {
		if _, err := transcript.Read(strings.NewReader(text)); err == nil {
			t.Errorf("Read(%q) succeeded", text)
		}
	}
}

func TestCompare(t *testing.T) {
	for _, tc := range []struct {
		name        string
		want, got   transcript.Command
		same, stale bool
	}{
		{"equal", transcript.Command{Line: "x", Out: []string{"a"}}, transcript.Command{Line: "x", Out: []string{"a"}}, true, false},
		{"other line", transcript.Command{Line: "x", Out: []string{"a"}}, transcript.Command{Line: "x", Out: []string{"b"}}, false, false},
		{"other stream", transcript.Command{Line: "x", Out: []string{"a"}}, transcript.Command{Line: "x", Err: []string{"a"}}, false, false},
		{"other code", transcript.Command{Line: "x"}, transcript.Command{Line: "x", Code: 1}, false, false},
		{"version", transcript.Command{Line: "x", Out: []string{"# BEGIN RECORD 2.1.8"}}, transcript.Command{Line: "x", Out: []string{"# BEGIN RECORD " + version.Version}}, true, false},
		{"counters", transcript.Command{Line: "x", Out: []string{"\tscsicmd_pdus: 64"}}, transcript.Command{Line: "x", Out: []string{"\tscsicmd_pdus: 1"}}, true, false},
		{"counter of another name", transcript.Command{Line: "x", Out: []string{"\tscsicmd_pdus: 64"}}, transcript.Command{Line: "x", Out: []string{"\tscsirsp_pdus: 64"}}, false, false},
		{"disk", transcript.Command{Line: "x", Out: []string{"\t\t\tAttached scsi disk sdc\t\tState: running"}}, transcript.Command{Line: "x", Out: []string{"\t\t\tAttached scsi disk nbd2\t\tState: running"}}, true, false},
		{"host number", transcript.Command{Line: "x", Out: []string{"\t\tHost Number: 0\tState: running", "\t\tscsi0 Channel 00 Id 0 Lun: 1"}}, transcript.Command{Line: "x", Out: []string{"\t\tHost Number: 4\tState: running", "\t\tscsi4 Channel 00 Id 0 Lun: 1"}}, true, false},
		{"host in a list", transcript.Command{Line: "x", Out: []string{"tcp: [0] 127.0.0.1,[<empty>],<empty> <empty>"}}, transcript.Command{Line: "x", Out: []string{"tcp: [3] 127.0.0.1,[<empty>],<empty> <empty>"}}, true, false},
		{"session in a list", transcript.Command{Line: "x", Out: []string{"tcp: [1] 127.0.0.1:3260,1 iqn.x (non-flash)"}}, transcript.Command{Line: "x", Out: []string{"tcp: [2] 127.0.0.1:3260,1 iqn.x (non-flash)"}}, false, false},
		{"hint", transcript.Command{Line: "x"}, transcript.Command{Line: "x", Err: []string{"iscsiadm: hint: y"}}, true, false},
		{"deviation", transcript.Command{Line: "iscsiadm -k 0", Err: []string{"Terminated"}, Code: 143}, transcript.Command{Line: "iscsiadm -k 0"}, true, false},
		{"deviation that is none any more", transcript.Command{Line: "iscsiadm -k 0"}, transcript.Command{Line: "iscsiadm -k 0"}, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if r := transcript.Compare(tc.want, tc.got); r.Same != tc.same || r.Stale != tc.stale {
				t.Errorf("Compare() = %+v, want same %v, stale %v", r, tc.same, tc.stale)
			}
		})
	}
}

func TestEveryEntryHasAReason(t *testing.T) {
	for i, n := range transcript.Normalizations {
		if n.Reason == "" {
			t.Errorf("normalization %d has no reason", i)
		}
	}
	for _, d := range transcript.Deviations {
		if d.Reason == "" {
			t.Errorf("deviation of %q has no reason", d.Command)
		}
	}
}
