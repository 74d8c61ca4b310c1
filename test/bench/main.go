package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	rounds  int
	seconds float64
	quick   bool
	only    *regexp.Regexp
	load    *regexp.Regexp
	bin     string   // our programs
	base    string   // those of another build; empty for none
	variant []string // settings of the record, "name=value", that base does not have
	tools   string   // programs of the measurements
}

// A bench is one run.
type bench struct {
	options
	ctx context.Context
	dir string // temporary
	out *report
}

// A part is one group of measurements.
type part struct {
	name string
	run  func(*bench) error
}

func parts() []part {
	return []part{
		{"limit", (*bench).limit},
		{"export", (*bench).export},
		{"units", (*bench).units},
		{"digests", (*bench).digests},
		{"export-tgt", (*bench).exportTgt},
		{"export-tgt-memory", (*bench).exportTgtMemory},
		{"library", (*bench).library},
		{"library-tgt", (*bench).libraryTgt},
		{"scale", (*bench).scale},
		{"guest", (*bench).guestUML},
		{"guest-qemu", (*bench).guestQEMU},
		{buildsPart, (*bench).builds},
		{buildsTgtPart, (*bench).buildsTgt},
	}
}

// Parts that compare two builds of ours. They are for whoever changes the code, have
// no table in the file, and run only if they are asked for.
const (
	buildsPart    = "builds"
	buildsTgtPart = "builds-tgt"
)

func ofBuilds(name string) bool { return name == buildsPart || name == buildsTgtPart }

// quickParts are those that tell most.
const quickParts = "limit,export,units,digests,library,scale,guest"

func main() {
	if len(os.Args) > 1 && os.Args[1] == echoArg {
		if err := serveEcho(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var o options
	var names, all []string
	for _, p := range parts() {
		names = append(names, p.name)
		if !ofBuilds(p.name) {
			all = append(all, p.name)
		}
	}
	which := flag.String("parts", "", "`list` of parts: "+strings.Join(names, ", ")+" (default all but builds and builds-tgt, quick "+quickParts+")")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of each comparison (default 5, quick 3)")
	flag.Float64Var(&o.seconds, "seconds", 0, "length of one measurement in `seconds` (default 3, quick 1)")
	flag.BoolVar(&o.quick, "quick", false, "fewer workloads and targets")
	only := flag.String("run", "", "only measurements whose title matches this `regexp`")
	load := flag.String("workload", "", "only workloads whose name in the tables matches this `regexp`")
	flag.StringVar(&o.base, "base", "", "`directory` of iscsid and iscsiadm of another build, for builds; default -bin")
	variant := flag.String("variant", "", "for builds: settings of the record that the other build does not get, a `list` of name=value")
	out := flag.String("out", "docs/benchmarks.md", "`file` to write the results into; empty for none")
	flag.StringVar(&o.bin, "bin", "bin", "`directory` of iscsid, iscsiadm and iscsi-target")
	flag.StringVar(&o.tools, "tools", "dist/tools", "`directory` of iscsiperf")
	flag.Parse()
	if o.rounds == 0 {
		o.rounds = pick(o.quick, 3, 5)
	}
	if o.seconds == 0 {
		o.seconds = pick(o.quick, 1.0, 3.0)
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if o.load, err = regexp.Compile(*load); err != nil {
		return err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if o.base == "" {
		o.base = o.bin
	}
	if o.base, err = filepath.Abs(o.base); err != nil {
		return err
	}
	if *variant != "" {
		o.variant = strings.Split(*variant, ",")
	}
	if o.tools, err = filepath.Abs(o.tools); err != nil {
		return err
	}
	if *which == "" {
		*which = pick(o.quick, quickParts, strings.Join(all, ","))
	}
	wanted := strings.Split(*which, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return fmt.Errorf("no part %q: have %s", w, strings.Join(names, ", "))
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Short, as the path of a unix socket has to be.
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, ctx: ctx, dir: dir, out: &report{w: os.Stdout}}
	start := time.Now()
	for _, p := range parts() {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		b.out.begin(p.name)
		if err := p.run(b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		b.out.conditions(b)
	}
	fmt.Printf("\n%v in all.\n", time.Since(start).Round(time.Second))
	if *out == "" || slices.ContainsFunc(wanted, ofBuilds) {
		return nil
	}
	b.out.machine(b)
	return b.out.update(*out)
}

func pick[T any](cond bool, yes, no T) T {
	if cond {
		return yes
	}
	return no
}
