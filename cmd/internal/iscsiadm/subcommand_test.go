package iscsiadm_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDoctor runs the doctor in the lab, whose target is at a port where nobody
// listens.
func TestDoctor(t *testing.T) {
	l := newLab(t)
	l.mustRun("-m", "node", "-T", tg1, "-p", "127.0.0.1:1", "-o", "new")
	r := l.run("doctor", "--timeout", "2")
	if r.code != 1 || r.err != "" {
		t.Errorf("code %d, stderr %q", r.code, r.err)
	}
	for _, want := range []string{"\nPROBLEM  portal ", "127.0.0.1:1: ", " -> check that the target's service runs", "\nok       iscsid ", "\n1 problem, "} {
		if !strings.Contains("\n"+r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}

	r = l.run("doctor", "--json")
	var findings []map[string]string
	if err := json.Unmarshal([]byte(r.out), &findings); err != nil || r.code != 1 {
		t.Fatalf("%v, code %d in %s", err, r.code, r.out)
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	members, always := documented(t, string(doc), "Doctor")
	for _, f := range findings {
		for name := range f {
			if !slices.Contains(members, name) {
				t.Errorf("member %q is not documented", name)
			}
		}
		for _, name := range always {
			if f[name] == "" {
				t.Errorf("%v has no %s", f, name)
			}
		}
	}
}

func TestLogLevel(t *testing.T) {
	l := newLab(t)
	l.expect(result{"info\n", "", 0}, "log")
	l.expect(result{"", "", 0}, "log", "debug")
	l.expect(result{"debug\n", "", 0}, "log")
	if r := l.run("log", "loud"); r.code != 7 || !strings.Contains(r.err, "loud") {
		t.Errorf("%+v", r)
	}
}

func TestSubcommandsAreStrict(t *testing.T) {
	l := newLab(t)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"doctor", "who"}, "doctor: unexpected argument who"},
		{[]string{"log", "info", "debug"}, "log: one level at most"},
		{[]string{"doctor", "--timeout", "0"}, "doctor: a timeout of at least 1 second is needed"},
		{[]string{"doctor", "--bones"}, "doctor: flag provided but not defined: -bones"},
	} {
		l.expect(result{"", "iscsiadm: " + tt.want + "\n", 7}, tt.args...)
	}
}

func TestSubcommandsHaveHelp(t *testing.T) {
	l := newLab(t)
	if out := l.mustRun("doctor", "--help"); !strings.Contains(out, "iscsiadm doctor") || !strings.Contains(out, "--timeout SECONDS") {
		t.Errorf("help is\n%s", out)
	}
}
