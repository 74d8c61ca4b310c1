package docs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/docshell"
)

// tree is the top of the repository.
const tree = "../.."

// TestEveryCommandIsLookedAfter fails for a command of the pages that no test
// runs and that has no reason in exceptions.
func TestEveryCommandIsLookedAfter(t *testing.T) {
	used := make(map[string]bool)
	for _, c := range blocks(t) {
		reason, excepted := exceptions[c.Text]
		program := docshell.Program(c.Text)
		switch {
		case excepted:
			used[c.Text] = true
			checkException(t, c, reason)
		case program == "make":
			checkMake(t, c)
		case program == "go":
			checkGo(t, c)
		case slices.Contains(inGuest, program):
		default:
			t.Errorf("%s:%d: nothing runs %q: let a guest test do so (inGuest), or say in exceptions why not", c.File, c.Line, c.Text)
		}
	}
	for text := range exceptions {
		if !used[text] {
			t.Errorf("exceptions has %q, which no page shows any more", text)
		}
	}
}

// checkException looks for what a command that is not run must at least have: the
// package, the test or the script that it names.
func checkException(t *testing.T, c docshell.Command, reason string) {
	t.Helper()
	if file, ok := strings.CutPrefix(reason, "file:"); ok {
		b, err := os.ReadFile(filepath.Join(tree, file))
		if err != nil || !strings.Contains(string(b), strings.Join(strings.Fields(c.Text)[:2], " ")) {
			t.Errorf("%s:%d: %s does not run %q (%v)", c.File, c.Line, file, c.Text, err)
		}
		return
	}
	paths(t, c)
}

// paths returns the files and directories of the tree that a command names, which
// must exist.
func paths(t *testing.T, c docshell.Command) (found []string) {
	t.Helper()
	for word := range strings.FieldsSeq(c.Text) {
		path, ok := strings.CutPrefix(word, "./")
		if !ok && !strings.HasPrefix(word, "test/") {
			continue
		}
		path = filepath.Join(tree, strings.TrimSuffix(path, "..."))
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s:%d: %q: %v", c.File, c.Line, c.Text, err)
		}
		found = append(found, path)
	}
	return found
}

// checkGo looks at a call of go test: the suite runs all packages, so what is left
// is that the package is there, and has the test that -run names.
func checkGo(t *testing.T, c docshell.Command) {
	t.Helper()
	dirs := paths(t, c)
	words := strings.Fields(c.Text)
	i := slices.Index(words, "-run")
	if i < 0 {
		return
	}
	name := strings.Trim(words[i+1], "'^$")
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "\nfunc "+name) || strings.Contains(string(b), "\nfunc Test"+name) {
				return
			}
		}
	}
	t.Errorf("%s:%d: %q: there is no such test", c.File, c.Line, c.Text)
}

// checkMake sees to it that a make target exists.
func checkMake(t *testing.T, c docshell.Command) {
	t.Helper()
	var b []byte
	// The benchmarks' script takes its variables from make, which exports them.
	for _, file := range []string{"Makefile", "test/bench/run"} {
		text, err := os.ReadFile(filepath.Join(tree, file))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, text...)
	}
	for i, word := range strings.Fields(c.Text) {
		if i == 0 {
			continue
		}
		if name, _, ok := strings.Cut(word, "="); ok {
			if !strings.Contains(string(b), "$("+name+")") && !strings.Contains(string(b), "${"+name) {
				t.Errorf("%s:%d: make knows no variable %s", c.File, c.Line, name)
			}
		} else if !strings.Contains(string(b), "\n## "+word+":") {
			t.Errorf("%s:%d: the Makefile has no target %s", c.File, c.Line, word)
		}
	}
}

// TestExceptionsHaveReasons keeps the table honest.
func TestExceptionsHaveReasons(t *testing.T) {
	for text, reason := range exceptions {
		if len(strings.Fields(reason)) < 3 && !strings.HasPrefix(reason, "file:") {
			t.Errorf("%q: %q is no reason", text, reason)
		}
	}
}
