package iscsiadm_test

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/internal/version"
)

// testdata/open-iscsi-2.1.8.transcript is what the real iscsiadm did with the
// kernel's initiator against three targets of tgt, command by command. This
// test gives the same commands to ours. What may differ stands in the two
// lists below and nowhere else, each with its reason.

// normalizations make the two sides comparable. They apply to the lines of
// all commands.
var normalizations = []struct {
	reason string
	golden func(line string) string // applied to open-iscsi's lines
	ours   func(line string) string // applied to ours; "\x00" drops a line
}{
	{
		reason: "the version is our own",
		golden: func(s string) string {
			return regexp.MustCompile(`(RECORD|^iscsiadm version|^version) 2\.1\.8$`).ReplaceAllString(s, "$1 "+version.Version)
		},
	},
	{
		reason: "a LUN is a block device of the nbd driver, not of the SCSI disk driver",
		golden: func(s string) string {
			return regexp.MustCompile(`Attached scsi disk sd([a-z])`).ReplaceAllStringFunc(s, func(m string) string {
				return "Attached scsi disk nbd" + strconv.Itoa(int(m[len(m)-1]-'a'))
			})
		},
	},
	{
		reason: "the kernel shows IPv6 addresses written out in full, we as everywhere else",
		golden: func(s string) string {
			return strings.ReplaceAll(s, "0000:0000:0000:0000:0000:0000:0000:0001", "::1")
		},
	},
	{
		reason: "counters depend on what else the machine did",
		golden: counter, ours: counter,
	},
	{
		reason: "we add what the target said and what to try next, behind the lines that scripts match",
		ours: func(s string) string {
			if strings.HasPrefix(s, "iscsiadm: hint: ") {
				return "\x00"
			}
			return s
		},
	},
}

func counter(s string) string {
	return regexp.MustCompile(`^(\t[a-z]+_[a-z_]+: )\d+$`).ReplaceAllString(s, "${1}N")
}

// deviations change what is expected of single commands. Each must apply, or
// the test fails: a list that is no longer true is worse than none.
var deviations = []struct {
	command string // as it stands in the transcript
	reason  string
	change  func(want *golden, got *golden)
}{
	{
		command: "iscsiadm -m node --loginall=all",
		reason:  "open-iscsi takes records in the order of directory entries, which is random; ours is sorted",
		change:  sortLines,
	},
	{
		command: "iscsiadm -m node -I testif -T " + tg1 + " -p 127.0.0.1 -o new",
		reason:  "one record a portal and interface, whatever the tag: the record exists with tag 1 and keeps it",
		change:  replace("3260,-1 ", "3260,1 "),
	},
	{
		command: "iscsiadm -m node -T " + tg1 + " -p 127.0.0.1 -I testif -l",
		reason:  "one record a portal and interface: there is no second one to fail with 15",
		change: func(want, _ *golden) {
			want.out = slices.Compact(want.out)
			want.err, want.code = nil, 0
		},
	},
	{
		command: "iscsiadm -m iface -I testif -o delete",
		reason:  "one record a portal and interface: one line about it",
		change:  func(want, _ *golden) { want.err = slices.Compact(want.err) },
	},
	{
		command: "iscsiadm -h",
		reason:  "below open-iscsi's synopsis stands what is ours",
		change: func(want, got *golden) {
			if len(got.out) > len(want.out) {
				got.out = got.out[:len(want.out)]
			}
		},
	},
	{
		command: "iscsiadm -k 0",
		reason:  "the lab's shell was killed with the daemon; the command itself succeeds silently",
		change:  func(want, _ *golden) { want.err, want.code = nil, 0 },
	},
}

func sortLines(want, got *golden) {
	for _, l := range [][]string{want.out, got.out, want.err, got.err} {
		slices.Sort(l)
	}
}

func replace(from, to string) func(want, got *golden) {
	return func(want, _ *golden) {
		for i := range want.out {
			want.out[i] = strings.ReplaceAll(want.out[i], from, to)
		}
	}
}

// golden is one command of the transcript and what it did.
type golden struct {
	command  string
	out, err []string
	code     int
}

func readTranscript(t *testing.T) []golden {
	t.Helper()
	f, err := os.Open("testdata/open-iscsi-2.1.8.transcript")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []golden
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		line := sc.Text()
		kind, text, _ := strings.Cut(line, "|")
		text = strings.TrimPrefix(text, " ")
		if cmd, ok := strings.CutPrefix(line, "$ "); ok {
			list = append(list, golden{command: cmd})
			continue
		}
		last := &list[len(list)-1]
		switch {
		case kind == "out":
			last.out = append(last.out, text)
		case kind == "err":
			last.err = append(last.err, text)
		case strings.HasPrefix(line, "rc="):
			if last.code, err = strconv.Atoi(line[3:]); err != nil {
				t.Fatal(err)
			}
		case line != "":
			t.Fatalf("line of the transcript that is not understood: %q", line)
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// sids are the session ids that the logins of the transcript got, by target,
// address and interface. Which of several logins that are sent at once gets
// which id is up to chance.
var sids = map[string][]int{
	chap + " 127.0.0.1 default":     {1, 2},
	mutual + " 127.0.0.1 default":   {3, 5},
	tg1 + " 127.0.0.1 default":      {4},
	mutual + " ::1 default":         {6},
	chap + " ::1 default":           {7},
	tg1 + " ::1 default":            {8},
	tg1 + " 127.0.0.1 testif":       {9},
	"iqn.static 127.0.0.1 default":  {10},
	"iqn.static 127.0.0.3 default":  {11},
	"iqn.unknown 127.0.0.1 default": {12},
}

func TestTranscript(t *testing.T) {
	l := newLab(t)
	l.daemon.SID = func(r map[string]string) int {
		key := r["node.name"] + " " + r["node.conn[0].address"] + " " + r["iface.iscsi_ifacename"]
		n := l.taken[key]
		l.taken[key]++
		return sids[key][n]
	}
	applied := map[string]bool{}
	replayed := 0
	for _, want := range readTranscript(t) {
		command, filter, piped := strings.Cut(want.command, " | ")
		args := strings.Fields(command)
		if args[0] != "iscsiadm" {
			continue // iscsi-iname has its own test
		}
		r := l.run(args[1:]...)
		got := golden{command: want.command, out: lines(r.out), err: lines(r.err), code: r.code}
		if piped {
			word := strings.TrimPrefix(filter, "grep ")
			got.out = slices.DeleteFunc(got.out, func(s string) bool { return !strings.Contains(s, word) })
			got.code = 0 // of grep
		}
		for _, n := range normalizations {
			want.out, want.err = each(n.golden, want.out), each(n.golden, want.err)
			got.out, got.err = each(n.ours, got.out), each(n.ours, got.err)
		}
		for _, d := range deviations {
			if d.command == want.command {
				applied[d.command] = true
				before := cmp.Diff(want, got, cmp.AllowUnexported(golden{}))
				d.change(&want, &got)
				if before == "" {
					t.Errorf("%s: does not differ any more: %s", d.command, d.reason)
				}
			}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(golden{})); diff != "" {
			t.Errorf("$ %s (-open-iscsi +ours)\n%s", want.command, diff)
		}
		replayed++
	}
	for _, d := range deviations {
		if !applied[d.command] {
			t.Errorf("the transcript has no command %q", d.command)
		}
	}
	if replayed < 110 {
		t.Errorf("only %d commands were replayed", replayed)
	}
	if !l.daemon.Stopped() {
		t.Error("-k 0 has not stopped the daemon")
	}
}

// each applies f to all lines.
func each(f func(string) string, l []string) []string {
	if f == nil {
		return l
	}
	var out []string
	for _, s := range l {
		if s = f(s); s != "\x00" {
			out = append(out, s)
		}
	}
	return out
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}
