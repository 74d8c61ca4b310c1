package iscsiadm_test

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTraceWritesAFileForItsOwner(t *testing.T) {
	l := newLab(t)
	l.daemon.PDUs = "PDUs"
	l.mustRun(discovery...)
	l.mustRun("-m", "node", "-T", tg1, "-l")
	file := filepath.Join(t.TempDir(), "s.pcapng")
	if err := os.WriteFile(file, []byte("something longer that was there"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := l.mustRun("-m", "session", "-r", "1", "--trace", file, "--duration", "1")
	if want := "4 PDUs of session 1 written to " + file + ", 3 dropped because they came too fast\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	b, err := os.ReadFile(file)
	if err != nil || string(b) != "PDUs" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want mode 0600", st.Mode(), err)
	}
	r := l.run("-m", "session", "-r", "1", "--trace", "-", "--duration", "1")
	if r.out != "PDUs" || r.code != 0 {
		t.Errorf("standard output %q, code %d", r.out, r.code)
	}
}

func TestLooksThatMeanNothing(t *testing.T) {
	l := newLab(t)
	l.mustRun(discovery...)
	l.mustRun("-m", "node", "-T", tg1, "-l")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-m", "session", "--trace", "f"}, "--trace needs a session: -r SID"},
		{[]string{"-m", "session", "-r", "1", "--trace", ""}, "--trace needs the name of a file, or - for standard output"},
		{[]string{"-m", "session", "-r", "1", "--trace", "f", "-u"}, "--trace goes with -r and --duration only"},
		{[]string{"-m", "session", "-r", "1", "--duration", "3"}, "--duration is for --trace"},
		{[]string{"-m", "session", "-r", "1", "--trace", "f", "--duration", "0"}, "Invalid duration '0'. Must be a number from 1."},
		{[]string{"-m", "session", "--watch"}, "--watch is for statistics: -s"},
		{[]string{"-m", "session", "-s", "--watch", "--json"}, "--watch does not print JSON"},
		{[]string{"-m", "session", "-s", "--watch", "-i", "x"}, "Invalid interval 'x'. Must be a number from 1."},
		{[]string{"-m", "node", "--trace", "f"}, "node mode: option '--trace' is not allowed/supported"},
		{[]string{"-m", "iface", "--watch"}, "iface mode: option '--watch' is not allowed/supported"},
	} {
		r := l.run(tt.args...)
		if r.code != 7 || r.err != "iscsiadm: "+tt.want+"\n" || r.out != "" {
			t.Errorf("%q: code %d, %q %q; want %q", tt.args, r.code, r.out, r.err, tt.want)
		}
	}
}
