// Command suite runs everything that shows whether the tree is good, part by
// part, and closes with one honest line: "N passed, N failed, N skipped".
//
//	go run ./test/suite [-fuzztime 3s] [-soaktime 30s] [-v] [PART ...]
//
// A part that cannot run on this machine says why in one line and counts as
// skipped. With CI=true nothing may be skipped, except the parts that
// SUITE_MAY_SKIP names (comma separated), so a machine that lacks something
// is a failure and not a green light.
//
// It wants to be started in the root of the checkout; make test does so.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A part is one step of the suite.
type part struct {
	name    string
	summary string
	timeout time.Duration
	run     func(context.Context, *options) outcome
	needs   needs
}

// needs are what a part wants of the suite.
type needs uint8

const (
	// programs is for a part that runs what is in bin/, which is then built
	// first if the part build has not been.
	programs needs = 1 << iota
	// background is for a part that takes its time without needing much of
	// the machine: the parts after it do not wait for it.
	background
)

// options are what all parts share.
type options struct {
	fuzzTime time.Duration // for each fuzz target
	soakTime time.Duration // of random faults
	verbose  bool
	// built is set when bin/ is up to date.
	built bool
	// depsErr says why test/deps could not give us all programs; nil if it did.
	depsErr error
}

// An outcome is what a part found. A part that is one check counts as one.
type outcome struct {
	passed  int
	failed  int
	skipped []string // a reason each
	detail  string   // shown when something failed
}

func pass() outcome                   { return outcome{passed: 1} }
func fail(detail string) outcome      { return outcome{failed: 1, detail: detail} }
func cannotRun(reason string) outcome { return outcome{skipped: []string{reason}} }

func (o *outcome) add(p outcome) {
	o.passed += p.passed
	o.failed += p.failed
	o.skipped = append(o.skipped, p.skipped...)
	o.detail += p.detail
}

// parts in the order in which they run: what is quick and finds most first.
func parts() []part {
	return []part{
		{"format", "gofmt leaves nothing to do", 2 * time.Minute, gofmt, 0},
		{"vet", "go vet, tests with build tags included", 10 * time.Minute, vet, 0},
		{"staticcheck", "staticcheck, tests with build tags included", 10 * time.Minute, staticcheck, 0},
		{"govulncheck", "no known vulnerability is reachable", 10 * time.Minute, govulncheck, 0},
		{"portable", "the packages that promise it build on other systems", 10 * time.Minute, portable, 0},
		{"unit", "unit tests with the race detector", 15 * time.Minute, unit, 0},
		{"build", "make build", 5 * time.Minute, build, 0},
		{"integration", "real targets and real clients on loopback", 15 * time.Minute, integration, programs},
		{"soak", "random faults under load: nothing lost, nothing grown", 3 * time.Hour, soak, programs | background},
		{"guest", "tests with a kernel of their own", 30 * time.Minute, guestTests, programs},
		{"boot", "the Debian package on a machine that boots systemd and udev", 20 * time.Minute, boot, programs},
		{"demo", "make demo", 5 * time.Minute, demo, 0},
		{"fuzz", "every fuzz target for a while", 80 * time.Minute, fuzz, 0},
	}
}

func main() {
	os.Exit(run())
}

func run() int {
	var o options
	flag.DurationVar(&o.fuzzTime, "fuzztime", 3*time.Second, "`time` for each fuzz target")
	flag.DurationVar(&o.soakTime, "soaktime", 30*time.Second, "`time` for random faults")
	flag.BoolVar(&o.verbose, "v", false, "name each test")
	list := flag.Bool("list", false, "list the parts")
	flag.Parse()
	all := parts()
	if *list {
		for _, p := range all {
			fmt.Printf("%-12s %s\n", p.name, p.summary)
		}
		return 0
	}
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(all, func(p part) bool { return p.name == name }) {
			fmt.Fprintf(os.Stderr, "suite: no part %q (see -list)\n", name)
			return 2
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if o.depsErr = installDeps(ctx); o.depsErr != nil {
		fmt.Println("deps:", o.depsErr)
	}
	var total outcome
	mustRun := os.Getenv("CI") == "true"
	maySkip := strings.Split(os.Getenv("SUITE_MAY_SKIP"), ",")
	var forbidden []string
	if len(flag.Args()) > 0 {
		all = slices.DeleteFunc(all, func(p part) bool { return !slices.Contains(flag.Args(), p.name) })
	}
	var mu sync.Mutex // guards total and forbidden, and lines from mixing
	var wg sync.WaitGroup
	for _, p := range all {
		if ctx.Err() != nil {
			break
		}
		if p.needs&programs != 0 && !o.built {
			if got := makeBuild(ctx, &o); got.failed > 0 {
				p.run = func(context.Context, *options) outcome { return got }
			}
		}
		run := func() {
			start := time.Now()
			got := runPart(ctx, p, &o)
			mu.Lock()
			defer mu.Unlock()
			printPart(p, got, time.Since(start))
			total.add(got)
			if len(got.skipped) > 0 && mustRun && !slices.Contains(maySkip, p.name) {
				forbidden = append(forbidden, p.name)
			}
		}
		if p.needs&background != 0 {
			wg.Go(run)
		} else {
			run()
		}
	}
	wg.Wait()
	for _, name := range forbidden {
		fmt.Printf("%s: nothing may be skipped in CI\n", name)
	}
	if ctx.Err() != nil {
		fmt.Println("interrupted")
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", total.passed, total.failed, len(total.skipped))
	if total.failed > 0 || len(forbidden) > 0 || total.passed == 0 || ctx.Err() != nil {
		return 1
	}
	return 0
}

func runPart(ctx context.Context, p part, o *options) outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, fmt.Errorf("not finished after %v", p.timeout))
	defer cancel()
	got := p.run(ctx, o)
	if ctx.Err() != nil && got.failed == 0 {
		got.add(fail(context.Cause(ctx).Error() + "\n"))
	}
	return got
}

// printPart prints what a part found, in one line if all is well.
func printPart(p part, got outcome, took time.Duration) {
	if got.failed > 0 && got.detail != "" {
		fmt.Printf("--- %s\n%s\n", p.name, strings.TrimRight(got.detail, "\n"))
	}
	word := "ok"
	switch {
	case got.failed > 0:
		word = "FAIL"
	case got.passed == 0:
		word = "skip"
	}
	line := fmt.Sprintf("%-4s  %-12s %4d passed", word, p.name, got.passed)
	if got.failed > 0 {
		line += fmt.Sprintf(", %d failed", got.failed)
	}
	if len(got.skipped) > 0 {
		line += fmt.Sprintf(", %d skipped", len(got.skipped))
	}
	fmt.Printf("%s  (%.1f s)\n", line, took.Seconds())
	for _, why := range got.skipped {
		fmt.Printf("      %s\n", why)
	}
}
