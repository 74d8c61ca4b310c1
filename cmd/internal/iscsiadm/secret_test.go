package iscsiadm_test

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretsNeedNotBeOnTheCommandLine(t *testing.T) {
	l := newLab(t)
	l.add(tg1, "127.0.0.1")
	file := filepath.Join(l.env.Paths.Run, "secret")
	write(t, file, "from the file\r\nsecond line\n")
	write(t, file+".empty", "\n")
	write(t, file+".long", strings.Repeat("x", 300))
	l.env.Getenv = func(name string) string { return map[string]string{"CHAP": "from the environment"}[name] }
	const password = "node.session.auth.password"

	for _, tc := range []struct{ value, want string }{
		{"plain", "plain"},
		{"@" + file, "from the file"},
		{"-", "from standard input"},
		{"env:CHAP", "from the environment"},
		{"literal:@" + file, "@" + file},
		{"literal:-", "-"},
		{"literal:literal:x", "literal:x"},
		{"", "<empty>"},
	} {
		t.Run(tc.value, func(t *testing.T) {
			l.env.Stdin = strings.NewReader("from standard input\nand more\n")
			l.set(tg1, password, tc.value)
			if out := l.mustRun("-m", "node", "-T", tg1, "-S"); !strings.Contains(out, password+" = "+tc.want+"\n") {
				t.Errorf("value %q: password is not %q", tc.value, tc.want)
			}
			if out := l.mustRun("-m", "node", "-T", tg1); strings.Contains(out, "from ") {
				t.Error("password is shown without -S")
			}
		})
	}

	l.env.Stdin = strings.NewReader("first\nsecond\n")
	l.mustRun("-m", "node", "-T", tg1, "-o", "update", "-n", password, "-v", "-", "-n", password+"_in", "-v", "-")
	if out := l.mustRun("-m", "node", "-T", tg1, "-S"); !strings.Contains(out, password+" = first\n") || !strings.Contains(out, password+"_in = second\n") {
		t.Error("two passwords from standard input are not two lines of it")
	}

	// All other fields take their value as it is.
	l.set(tg1, "node.session.auth.username", "@"+file)
	if out := l.mustRun("-m", "node", "-T", tg1); !strings.Contains(out, "node.session.auth.username = @"+file+"\n") {
		t.Error("user name with an @ was not taken as it is")
	}

	l.env.Stdin = strings.NewReader("")
	for _, value := range []string{"@" + file + ".nothere", "@" + file + ".empty", "@" + file + ".long", "@", "env:NOTHERE", "-"} {
		r := l.run("-m", "node", "-T", tg1, "-o", "update", "-n", password, "-v", value)
		if r.code != 7 || !strings.HasPrefix(r.err, "iscsiadm: cannot read the value of "+password) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("value %q: %+v", value, r)
		}
	}
	if out := l.mustRun("-m", "node", "-T", tg1, "-S"); !strings.Contains(out, password+" = first\n") {
		t.Error("a value that cannot be read changed the password")
	}
}

func TestDiscoverySecretFromAFile(t *testing.T) {
	l := newLab(t)
	file := filepath.Join(l.env.Paths.Run, "secret")
	write(t, file, "hush")
	db := []string{"-m", "discoverydb", "-t", "st", "-p", "127.0.0.1"}
	l.mustRun(append(db, "-o", "new")...)
	l.mustRun(append(db, "-o", "update", "-n", "discovery.sendtargets.auth.password", "-v", "@"+file)...)
	l.mustRun(append(db, "-D")...)
	if got := l.asked[0].CHAP.Password.Reveal(); got != "hush" {
		t.Errorf("discovered with password %q", got)
	}
}
