package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/goiscsi/goiscsi/internal/version"
)

// write prints the result as Markdown and says what misses its goal.
func (o *options) write(ctx context.Context, programs []program, commands []*command) error {
	theirVersion, _, err := programs[0].do(ctx, []string{"-V"})
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Records: iscsiadm beside open-iscsi's

With %d node records: all listed, one of them shown, one of them updated. Each figure is the time of a whole process, from
fork to exit, in milliseconds: the median of %d rounds, and the fastest and the slowest. Both programs have the same
records, print the same text (which is compared), and take turns in one run; everything is in the page cache.
An update of ours is on the disk when the command ends (two fsyncs); open-iscsi leaves that to the kernel.

| command | open-iscsi | range | goiscsi | range | times faster | goal |
|---|---|---|---|---|---|---|
`, o.records, o.rounds)
	var missed []string
	for _, c := range commands {
		a, z := c.took["open-iscsi"], c.took["goiscsi"]
		ratio := float64(median(a)) / float64(median(z))
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %.1f | %.0f |\n", c.what, ms(median(a)), span(a), ms(median(z)), span(z), ratio, c.goal)
		if ratio < c.goal {
			missed = append(missed, fmt.Sprintf("%s is %.1f times faster, not %.0f", c.what, ratio, c.goal))
		}
	}
	fmt.Fprintf(&b, `
Why: open-iscsi reads every file of its database whatever is asked for; ours keeps the keys of the records in order in one
file, so a list reads keys only, and one record is one page (docs/records.md).

Machine: %s, %d processors, Linux %s, records on %s. Versions: open-iscsi %s, goiscsi %s (%s). The
commands, as root:

`, cpu(), runtime.NumCPU(), release(), filesystem(o.dir), strings.TrimPrefix(strings.TrimSpace(string(theirVersion)), "iscsiadm version "), version.Version, runtime.Version())
	for _, c := range commands {
		fmt.Fprintf(&b, "    iscsiadm %s\n", strings.Join(c.args(1), " "))
	}
	fmt.Fprintf(&b, "\nMeasured on %s. To measure again: `make bench-records`.\n", time.Now().UTC().Format("2 January 2006"))
	if _, err := io.WriteString(os.Stdout, b.String()); err != nil {
		return err
	}
	if o.report != "" {
		if err := os.WriteFile(o.report, []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	if missed != nil {
		return fmt.Errorf("goals missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

func span(d []time.Duration) string { return ms(slices.Min(d)) + "–" + ms(slices.Max(d)) }

// cpu names the processor.
func cpu() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, value, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// release is that of the kernel.
func release() string {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return "?"
	}
	var b []byte
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

// filesystem names the type of a directory's file system.
func filesystem(dir string) string {
	out, err := exec.Command("stat", "-f", "-c", "%T", dir).Output()
	if err != nil {
		return "an unknown file system"
	}
	return strings.TrimSpace(string(out))
}
