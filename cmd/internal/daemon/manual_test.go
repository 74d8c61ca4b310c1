package daemon

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestManualHasEveryOption holds iscsid(8) against what --help prints, of the daemon
// and of each command, both ways.
func TestManualHasEveryOption(t *testing.T) {
	text, err := os.ReadFile("../../../docs/man/iscsid.8")
	if err != nil {
		t.Fatal(err)
	}
	page, command, ok := strings.Cut(string(text), "\n.Ss The kernel's SCSI tree in sysfs\n")
	if !ok || !strings.HasPrefix(command, ".Nm Cm compat-sysfs Ar dir\n") {
		t.Fatal("the page has no section of compat-sysfs")
	}
	for _, tc := range []struct {
		args []string
		page string
		want int
	}{
		{[]string{"iscsid", "--help"}, page, 9},
		{[]string{"iscsid", "compat-sysfs", "--help"}, command, 3},
	} {
		var help bytes.Buffer
		if code := Main(tc.args, &help, &help, nil); code != 0 {
			t.Fatalf("%q: exit status %d\n%s", tc.args, code, &help)
		}
		type option struct{ long, short, arg string }
		inHelp := map[option]bool{}
		for _, m := range regexp.MustCompile(`(?m)^ +--([a-z-]+)(?: [A-Z]+)?, -(\w)( [A-Z]+)? `).FindAllStringSubmatch(help.String(), -1) {
			inHelp[option{m[1], m[2], strings.TrimSpace(m[3])}] = true
		}
		if len(inHelp) < tc.want {
			t.Fatalf("%q: only %v found in:\n%s", tc.args, inHelp, &help)
		}
		inPage := map[option]bool{}
		for _, m := range regexp.MustCompile(`(?m)^\.It Fl (\w) , Fl Fl ([a-z-]+)(?: Ar (\w+))?$`).FindAllStringSubmatch(tc.page, -1) {
			inPage[option{m[2], m[1], strings.ToUpper(m[3])}] = true
		}
		for o := range inHelp {
			if !inPage[o] {
				t.Errorf("%q: the page does not have %+v", tc.args, o)
			}
		}
		for o := range inPage {
			if !inHelp[o] {
				t.Errorf("%q: the page has %+v, which the program does not", tc.args, o)
			}
		}
	}
}
