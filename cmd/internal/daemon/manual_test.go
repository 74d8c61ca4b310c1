package daemon

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestManualHasEveryOption holds iscsid(8) against what -help prints, both
// ways.
func TestManualHasEveryOption(t *testing.T) {
	page, err := os.ReadFile("../../../docs/man/iscsid.8")
	if err != nil {
		t.Fatal(err)
	}
	var help bytes.Buffer
	if code := Main([]string{"iscsid", "--help"}, &help, &help, nil); code != 0 {
		t.Fatalf("--help: exit status %d\n%s", code, &help)
	}
	type option struct{ long, short, arg string }
	inHelp := map[option]bool{}
	for _, m := range regexp.MustCompile(`(?m)^ +--([a-z-]+)(?: [A-Z]+)?, -(\w)( [A-Z]+)? `).FindAllStringSubmatch(help.String(), -1) {
		inHelp[option{m[1], m[2], strings.TrimSpace(m[3])}] = true
	}
	if len(inHelp) < 9 {
		t.Fatalf("only %v found in:\n%s", inHelp, &help)
	}
	inPage := map[option]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\.It Fl (\w) , Fl Fl ([a-z-]+)(?: Ar (\w+))?$`).FindAllSubmatch(page, -1) {
		inPage[option{string(m[2]), string(m[1]), strings.ToUpper(string(m[3]))}] = true
	}
	for o := range inHelp {
		if !inPage[o] {
			t.Errorf("the page does not have %+v", o)
		}
	}
	for o := range inPage {
		if !inHelp[o] {
			t.Errorf("the page has %+v, which the program does not", o)
		}
	}
}
