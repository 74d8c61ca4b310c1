package conformance

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A suite is one of the suites, or what we test beyond them.
type suite struct {
	name   string // as published
	prefix string // of its tests' names
	// numbers are those that the suite has; rows with others are ours.
	numbers string
	rows    []row
}

// A row says what becomes of one number of a suite.
type row struct {
	number string
	title  string
	rfc    string // sections of RFC 7143
	// test is the name of the test in this package, or "package.Name" where
	// it lives elsewhere. A row that does not apply has one for what does.
	test string
	// why not empty: the number does not apply, and why.
	why string
}

var suites = []suite{
	{
		name: "Login Phase Test Suite for iSCSI Initiators v3.0", prefix: "Login", rows: loginRows,
		numbers: "1.1 2.1 2.2 2.3 3.1 3.2 4.1 4.2 5.1 6.1 6.2 6.3 7.1 7.2 7.3 7.4 7.5 7.6 8.1 9.1 9.2 9.3 10.1 11.1 12.1 " +
			"13.1 13.2 13.3 14.1 15.1 16.1 16.2 16.3 17.1 18.1 19.1 20.1 21.1 22.1",
	},
	{
		name: "Full Feature Phase Test Suite for iSCSI Initiators v3.1", prefix: "FFP", rows: ffpRows,
		numbers: "1.1 2.1 2.2 3.1 3.2 3.3 4.1 5.1 6.1 7.1 8.1 8.2 8.3 9.1 10.1 10.2 11.1.1 11.1.2 11.2.1 11.2.2 11.3 11.4 " +
			"12.1 12.2 12.3 12.4 13.1 13.2 14.1 14.2 15.1 15.2 15.3 16.1.1 16.1.2",
	},
	{
		name: "CHAP Test Suite for iSCSI Initiators v3.1", prefix: "CHAP", rows: chapRows,
		numbers: "1.1 1.2.1 1.2.2 1.3 2.1 2.2 2.3 2.4 2.5 2.6 3.1 3.2 3.3 3.4 3.5 3.6.1 3.6.2 3.6.3 3.6.4 3.7 3.8 " +
			"4.1 4.2 4.3 4.4 4.5 4.6 4.7 4.8 5.1 5.2 5.3",
	},
	{name: "Beyond the suites", prefix: "Beyond", rows: beyondRows},
}

// document is the page made from the register.
const document = "../../docs/conformance.md"

func TestRegister(t *testing.T) {
	tests := map[string]bool{}
	for pkg, dir := range map[string]string{"": ".", "initiator.": "../../initiator", "chap.": "../../initiator/internal/chap", "iscsitest.": "../../initiator/iscsitest"} {
		for _, name := range testsIn(t, dir) {
			tests[pkg+name] = true
		}
	}
	listed := map[string]bool{}
	for _, s := range suites {
		numbers := map[string]bool{}
		for _, r := range s.rows {
			if numbers[r.number] {
				t.Errorf("%s %s is there twice", s.prefix, r.number)
			}
			numbers[r.number] = true
			if !tests[r.test] {
				t.Errorf("%s %s: there is no test %s", s.prefix, r.number, r.test)
			}
			want := "Test" + s.prefix + "_" + strings.ReplaceAll(r.number, ".", "_") + "_"
			if !strings.Contains(r.test, ".") && !strings.HasPrefix(r.test, want) && r.why == "" {
				t.Errorf("%s %s: the test %s is not named after the number", s.prefix, r.number, r.test)
			}
			if r.title == "" || r.rfc == "" {
				t.Errorf("%s %s: no title, or no section", s.prefix, r.number)
			}
			listed[r.test] = true
		}
		for _, n := range strings.Fields(s.numbers) {
			if !numbers[n] {
				t.Errorf("%s %s is missing", s.prefix, n)
			}
		}
		for name := range tests {
			if strings.HasPrefix(name, "Test"+s.prefix+"_") && !listed[name] {
				t.Errorf("%s is not in the register", name)
			}
		}
	}
	page := render()
	if *update {
		if err := os.WriteFile(document, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(document); err != nil || !bytes.Equal(have, page) {
		t.Errorf("%s is not current: run go test ./test/conformance -run TestRegister -update (%v)", document, err)
	}
}

// testsIn returns the names of the tests and fuzz targets in a directory.
func testsIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", dir, files, err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && (strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
				names = append(names, fn.Name.Name)
			}
		}
	}
	return names
}

const preamble = `# Conformance

<!-- Made by go test ./test/conformance -run TestRegister -update. Do not edit. -->

The InterOperability Laboratory of the University of New Hampshire published test suites for iSCSI initiators. They are the yardstick here: every
number of theirs is a test of ` + "`test/conformance`" + `, named after it, that runs with ` + "`go test ./...`" + `. What each demands is RFC 7143's, in the section given.

- **pass**: the test passes; it runs with every change.
- **n. a.**: the number is about something that is not there. The reason is below the table; the test named covers what does apply.
- Numbers with **+** are ours: where a suite's list goes on without numbers, or has none for what RFC 7143 says.
- A test named ` + "`package.Test`" + ` stands with that package.

## Where we do otherwise on purpose

- An answer that is legal by itself but not a result of our offer (a number above it where the result is the minimum, Yes where we said No) is not
  refused: the result that the rule gives from both values is used, as open-iscsi does (Login 7.4). RFC 7143 section 6.2.2 calls the answer a protocol error.
- Algorithms for CHAP may be configured without MD5, which RFC 7143 section 12.1.3 wants offered always: whoever must not use MD5 needs that.
- While a task is aborted because its time is over, R2Ts for it are not answered any more, open-iscsi's FastAbort (FFP 20.12). Tasks that a function of
  the application ends are served until the answer is there (FFP 20.8).
- Data-Out PDUs that are not asked for carry the LUN of their command, where RFC 7143 section 11.7.4 has a reserved field: every initiator in the field
  sends it.
- Below error recovery level 2 the number of a command that the target never got is taken by a NOP-Out after the Logout of its connection, and the command
  is a new one (FFP 21.6). RFC 7143 section 7.14 speaks of missing commands that are reissued; LIO counts what it got and dropped as received, and would
  ignore them.

## What the tests do not have

Error recovery level 2 has no test against a real target. The one at hand, LIO, agrees to it; but Linux 6.1.176 panics ("Segfault with no mm" in
` + "`target_release_cmd_kref`" + `, called by ` + "`iscsit_discard_cr_cmds_by_expstatsn`" + `, ` + "`iscsi_login_post_auth_non_zero_tsih`" + `) at the login that takes the place of a lost
connection. Neither side has that level unless it is configured. Several connections at level 0, with losses of them, are tested against LIO (` + "`test/kernel`" + `).
`

// render returns the page.
func render() []byte {
	var b bytes.Buffer
	b.WriteString(preamble)
	fmt.Fprintf(&b, "\n| suite | tests | pass | n. a. |\n|---|---|---|---|\n")
	for _, s := range suites {
		na := 0
		for _, r := range s.rows {
			if r.why != "" {
				na++
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", s.name, len(s.rows), len(s.rows)-na, na)
	}
	for _, s := range suites {
		fmt.Fprintf(&b, "\n## %s\n\n| no. | what | RFC 7143 | test | |\n|---|---|---|---|---|\n", s.name)
		own := strings.Fields(s.numbers)
		var reasons []string
		for _, r := range s.rows {
			number, status := r.number, "pass"
			if len(own) > 0 && !slices.Contains(own, number) {
				number += " +"
			}
			if r.why != "" {
				status = "n. a."
				reasons = append(reasons, fmt.Sprintf("- **%s** %s", r.number, r.why))
			}
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` | %s |\n", number, r.title, r.rfc, r.test, status)
		}
		if len(reasons) > 0 {
			fmt.Fprintf(&b, "\nNot applicable:\n\n%s\n", strings.Join(reasons, "\n"))
		}
	}
	return b.Bytes()
}
