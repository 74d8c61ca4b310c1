package docshell_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/internal/docshell"
)

func TestParse(t *testing.T) {
	const page = `# Page

Ask with ` + "`iscsiadm -m session -r SID -R` or `iscsid`, see `--help`" + `.

    # iscsiadm -m session
    tcp: [1] 10.0.0.1:3260,1 iqn.a (non-flash)
    # make demo     # all of it

    $ curl -s \
        http://x

iscsiadm is a command.

` + "```sh\nFOO=1 bin/iscsid -f  # here\n```\n\n```go\nmake(x)\n```\n\n```\n  iscsiadm ─► iscsid\n```\n"
	got := docshell.Parse("p", page)
	want := []docshell.Command{
		{File: "p", Line: 3, Text: "iscsiadm -m session -r SID -R", Inline: true},
		{File: "p", Line: 5, Text: "iscsiadm -m session", Output: []string{"tcp: [1] 10.0.0.1:3260,1 iqn.a (non-flash)"}},
		{File: "p", Line: 7, Text: "make demo"},
		{File: "p", Line: 10, Text: "curl -s http://x"},
		{File: "p", Line: 15, Text: "FOO=1 bin/iscsid -f"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
