package iscsiadm_test

import (
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// FuzzRun gives arbitrary command lines to a command that has records and no
// daemon. It must end with a code that there is, say something on standard
// error whenever it fails (but for the empty list of discoveries), and never
// pass on what could take over a terminal.
func FuzzRun(f *testing.F) {
	for _, s := range []string{
		"-m\nnode", "-m\nnode\n-P1", "-mnode\n-T\niqn.a\n-o\nupdate\n-n\nnode.startup\n-v\nautomatic",
		"-m\ndiscovery\n-t\nst\n-p\n127.0.0.1", "-m\ndiscoverydb\n-t\nst\n-p\n[::1]:3260,1\n-D\n-o\nnew",
		"-m\nsession\n-r\nsession1\n-P\n3", "-m\niface\n-I\nx\n-o\nnew\n-n\niface.mtu\n-v\n1", "-m\nhost\n-P4", "-m\nfw\n-l\n-W",
		"-m\nnode\n-T\n\x1b[31m\n-p\na\n-o\nnew", "--log", "-k\n0", "-h", "-V", "-m\nnode\n-L\nall\n--json",
		"-m\nnode\n-o\nupdate\n-n\nnode.session.auth.password\n-v\n-",
	} {
		f.Add(s)
	}
	l := newLabWithoutDaemon(f)
	l.add("iqn.a", "127.0.0.1")
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "@/") || strings.Contains(line, "@.") {
			return // would read whatever file that is
		}
		l.t = t // one input at a time in each process
		r := l.run(strings.Split(line, "\n")...)
		if r.code < 0 || r.code > int(errcode.ReqTimedOut) {
			t.Errorf("code %d", r.code)
		}
		if r.code != 0 && r.err == "" && r.out == "" && !strings.Contains(line, "discovery") {
			t.Errorf("code %d without a word", r.code)
		}
		if strings.Contains(r.err+r.out, "\x1b") {
			t.Errorf("an escape was passed on: %q %q", r.out, r.err)
		}
	})
}
