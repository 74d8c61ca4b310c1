package transcript

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// WriteReport writes a Markdown document with a row for each result.
func WriteReport(w io.Writer, results []Result) error {
	var b strings.Builder
	b.WriteString(`# What iscsiadm does like open-iscsi 2.1.8, and what not

Generated from a replay of a transcript of the real program; do not edit. To make it anew:

    go test ./cmd/internal/iscsiadm -run TestTranscript -update
    make guest-test PKG=./test/replay

The second command has the commands done on a real machine, and compares this document with what it found.

"same" means the same lines on the same streams and the same exit code, but for what is normalized in all commands:

`)
	for _, n := range Normalizations {
		fmt.Fprintf(&b, "- %s.\n", n.Reason)
	}
	b.WriteString("\n| command | exit code | compared | why |\n|---|---|---|---|\n")
	for _, r := range results {
		verdict, why := "same", ""
		if r.Deviation != nil {
			verdict, why = "differs", r.Deviation.Reason
		}
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s |\n", strings.ReplaceAll(r.Got.Line, "|", `\|`), r.Got.Code, verdict, why)
	}
	b.WriteString("\n## Further commands\n\nThese are given to the real program and to ours by a test that runs both (test/replay).\n" +
		"The second half of them with a target there; SID is the id of a session.\n\n" +
		"| command | compared | why |\n|---|---|---|\n")
	seen := map[string]bool{}
	for _, line := range slices.Concat(Beside, Live) {
		if seen[line] {
			continue
		}
		seen[line] = true
		verdict, why := "same", ""
		if d := deviation("iscsiadm " + line); d != nil {
			verdict, why = "differs", d.Reason
		}
		fmt.Fprintf(&b, "| `iscsiadm %s` | %s | %s |\n", strings.ReplaceAll(line, "|", `\|`), verdict, why)
	}
	b.WriteString("\n## Differences that no command above shows\n\n")
	for _, o := range Others {
		fmt.Fprintf(&b, "- %s\n", o)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
