package iscsiadm_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/docshell"
)

// refusedInDocs are the command lines that the pages show because they are
// refused.
var refusedInDocs = map[string]string{}

// grammarErrors are what iscsiadm says of a command line that it does not take.
var grammarErrors = regexp.MustCompile(`not allowed/supported|unrecognized|invalid option|requires an argument|can not recognize|is not yet supported|` +
	`Invalid (info|debug) level|Invalid log(in|out)all|is an invalid session ID|invalid portal|Try .iscsiadm --help`)

// placeholders are the words that stand for what the reader fills in.
var placeholders = strings.NewReplacer("SID", "1", "LUN", "1", "PORTAL", "127.0.0.1", "ADDRESS", "127.0.0.1", "HOST", "127.0.0.1",
	"TARGET", tg1, "-r N", "-r 1", "-p A", "-p 127.0.0.1", "-P N", "-P 1", "…", "", "...", "")

// TestCommandsOfTheDocsAreUnderstood gives every iscsiadm command line of
// README.md and docs/ to the command itself, in a lab without a daemon: it may
// find nothing to do, but it must understand the words. The table of
// docs/compatibility.md is not looked at: it is the transcript, whose commands
// are run by TestTranscript, many to show how they are refused.
func TestCommandsOfTheDocsAreUnderstood(t *testing.T) {
	const root = "../../.."
	pages, err := docshell.Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, page := range pages {
		commands, err := docshell.Read(root, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range commands {
			if docshell.Program(c.Text) != "iscsiadm" || page == "docs/compatibility.md" && c.Inline {
				continue
			}
			n++
			args, ok := words(c.Text)
			if !ok {
				t.Errorf("%s:%d: %q is not one command with plain words", c.File, c.Line, c.Text)
				continue
			}
			l := newLabWithoutDaemon(t)
			stderr := l.run(args...).err
			refused := grammarErrors.MatchString(stderr)
			if _, wanted := refusedInDocs[c.Text]; refused != wanted {
				t.Errorf("%s:%d: iscsiadm does not understand %q:\n%s", c.File, c.Line, c.Text, stderr)
			}
		}
	}
	if n < 15 {
		t.Errorf("%d commands found: the test does not find the pages", n)
	}
	t.Logf("%d command lines", n)
}

// words splits a command as a shell does, up to a pipe, and fills in
// placeholders.
func words(text string) ([]string, bool) {
	text, _, _ = strings.Cut(text, " | ")
	text, _, _ = strings.Cut(text, " && ")
	text, _, _ = strings.Cut(text, "; ")
	if strings.ContainsAny(text, "$*`\"") {
		return nil, false
	}
	var out []string
	for i, word := range strings.Fields(placeholders.Replace(text)) {
		if i > 0 {
			out = append(out, strings.Trim(word, "'"))
		}
	}
	return out, true
}
