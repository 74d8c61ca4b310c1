package iscsiadm_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/transcript"
)

// TestJSON runs every command that takes --json and checks that the members
// of what it prints are those that docs/json.md lists for it, no more and no
// fewer than it says are always there.
func TestJSON(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	l.ibft()
	l.mustRun(discovery...)
	l.set(chap, "node.session.auth.username", "usuario")
	l.set(chap, "node.session.auth.password", "password")
	l.mustRun("-m", "node", "-T", chap, "-l")
	for _, tc := range []struct {
		section string // heading in the document
		args    []string
	}{
		{"Node records", []string{"-m", "node"}},
		{"Node records", append(slices.Clone(discovery), "-o", "nonpersistent")},
		{"Node records", []string{"-m", "discovery", "-t", "fw", "-o", "nonpersistent"}},
		{"Discovery records", []string{"-m", "discovery"}},
		{"Discovery records", []string{"-m", "discovery", "-P", "1"}},
		{"Interfaces", []string{"-m", "iface", "-P", "1"}},
		{"Sessions", []string{"-m", "session"}},
		{"Sessions", []string{"-m", "session", "-P", "3"}},
		{"Sessions", []string{"-m", "session", "-r", "1"}},
		{"Statistics", []string{"-m", "session", "-s"}},
		{"Statistics", []string{"-m", "node", "-T", chap, "-s"}},
		{"Hosts", []string{"-m", "host"}},
		{"Firmware", []string{"-m", "fw"}},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			out := l.mustRun(append(tc.args, "--json")...)
			var list []map[string]any
			if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) == 0 {
				t.Fatalf("%v in %s", err, out)
			}
			members, always := documented(t, string(doc), tc.section)
			for name := range list[0] {
				if !slices.Contains(members, name) {
					t.Errorf("member %q is not documented under %q", name, tc.section)
				}
			}
			for _, name := range always {
				if _, ok := list[0][name]; !ok {
					t.Errorf("member %q is missing", name)
				}
			}
			if strings.Contains(out, "bootsecret") || strings.Contains(out, `"password"`+`: "password"`) {
				t.Error("a password is shown")
			}
		})
	}
}

// documented returns the members that a section's table lists, and those that
// are always there (not marked as optional).
func documented(t *testing.T, doc, section string) (all, always []string) {
	t.Helper()
	_, text, ok := strings.Cut(doc, "\n## "+section+"\n")
	if !ok {
		t.Fatalf("docs/json.md has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_0-9]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
		if !strings.Contains(m[2], "optional") {
			always = append(always, m[1])
		}
	}
	return all, always
}

func TestJSONRecordsHaveTheirFieldsInOrder(t *testing.T) {
	l := newLab(t)
	l.add(chap, "127.0.0.1")
	l.set(chap, "node.session.auth.password", "password")
	text := transcript.Lines(l.mustRun("-m", "node", "-T", chap))
	out := l.mustRun("-m", "node", "-T", chap, "--json")
	var printed []string
	for _, line := range transcript.Lines(out) {
		if m := regexp.MustCompile(`^    "([^"]+)": "(.*)",?$`).FindStringSubmatch(line); m != nil {
			if m[2] == "" {
				m[2] = "<empty>"
			}
			printed = append(printed, m[1]+" = "+m[2])
		}
	}
	if want := text[1 : len(text)-1]; !slices.Equal(printed, want) {
		t.Errorf("JSON fields %q, want %q", printed, want)
	}
	if out := l.mustRun("-m", "node", "-T", chap, "--json", "-S"); !strings.Contains(out, `"node.session.auth.password": "password"`) {
		t.Error("-S does not show the password")
	}
	for _, args := range [][]string{{"-m", "iface", "-I", "default"}, {"-m", "iface"}} {
		if out := l.mustRun(append(args, "--json")...); !strings.Contains(out, `"iface.transport_name": "tcp"`) {
			t.Errorf("%v: %s", args, out)
		}
	}
}

func TestJSONWithNothingToShow(t *testing.T) {
	l := newLab(t)
	l.expect(result{"", "iscsiadm: No active sessions.\n", 21}, "-m", "session", "--json")
	l.expect(result{"", "iscsiadm: No records found\n", 21}, "-m", "node", "--json")
	l.expect(result{"", "iscsiadm: --json is for lists, records, statistics and trees only\n", 7}, "-m", "node", "-o", "delete", "--json")
	l.expect(result{"", "iscsiadm: --json is for lists, records, statistics and trees only\n", 7}, "-m", "node", "-l", "--json")
}
