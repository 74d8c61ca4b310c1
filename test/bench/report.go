package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// A report is what is printed and, part by part, written into a file.
type report struct {
	w     io.Writer
	parts []reportPart
}

type reportPart struct {
	name string
	text bytes.Buffer
}

// begin starts a part.
func (r *report) begin(name string) {
	r.parts = append(r.parts, reportPart{name: name})
	fmt.Fprintf(r.w, "\n== %s\n", name)
}

func (r *report) printf(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	io.WriteString(r.w, s) //nolint:errcheck // the file is what counts
	r.parts[len(r.parts)-1].text.WriteString(s)
}

func (r *report) heading(title string)    { r.printf("\n### %s\n\n", capital(title)) }
func (r *report) row(cells ...string)     { r.printf("| %s |\n", strings.Join(cells, " | ")) }
func (r *report) rule(columns int)        { r.printf("|%s\n", strings.Repeat("---|", columns)) }
func (r *report) line(f string, a ...any) { r.printf(f+"\n", a...) }

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// conditions ends a part with how it was measured: parts are often measured at
// different times.
func (r *report) conditions(b *bench) {
	load, _, _ := strings.Cut(firstLine(os.ReadFile("/proc/loadavg")), " ")
	r.line("\n%s; %d rounds of %g s each; load %s at the end.", time.Now().UTC().Format("2006-01-02 15:04 UTC"), b.rounds, b.seconds, load)
}

// machine adds a part that says where and with what the others were measured.
func (r *report) machine(b *bench) {
	r.begin("machine")
	r.line("")
	r.row("what", "version")
	r.rule(2)
	r.row("processor", fmt.Sprintf("%d × %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name")))
	r.row("memory", field("/proc/meminfo", "MemTotal"))
	r.row("kernel", firstLine(os.ReadFile("/proc/sys/kernel/osrelease")))
	r.row("Go", runtime.Version())
	for _, v := range [][]string{
		{"qemu-nbd", "--version"},
		{"fio", "--version"},
		{"tgtd", "--version"},
		{"qemu-system-x86_64", "--version"},
		{"dpkg-query", "-W", "-f", "${Version}", "libiscsi7"},
		{"dpkg-query", "-W", "-f", "${Version}", "open-iscsi"},
		{"dpkg-query", "-W", "-f", "${Version}", "user-mode-linux"},
	} {
		out, err := output(b.command(v[0], v[1:]...))
		if err != nil {
			continue // not everything is everywhere
		}
		r.row(pickName(v), firstLine([]byte(out), nil))
	}
}

func pickName(v []string) string { return pick(v[0] == "dpkg-query", v[len(v)-1], v[0]) }

func firstLine(b []byte, err error) string {
	if err != nil {
		return "unknown"
	}
	s, _, _ := strings.Cut(string(b), "\n")
	return s
}

// field returns the value of the first "name : value" line of a file.
func field(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// update replaces the parts in a file, each between a pair of comments, and
// leaves the rest of it as it is.
func (r *report) update(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(b)
	for i := range r.parts {
		p := &r.parts[i]
		begin, end := "<!-- begin "+p.name+" -->\n", "<!-- end "+p.name+" -->"
		head, rest, ok := strings.Cut(text, begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			return fmt.Errorf("%s: no place for part %s", path, p.name)
		}
		text = head + begin + p.text.String() + "\n" + end + tail
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
