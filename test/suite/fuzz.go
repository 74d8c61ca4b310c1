package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// fuzzMinimize bounds the time spent on making an input smaller: the engine
// does that to each that reaches something new, and finds nothing meanwhile.
const fuzzMinimize = "1s"

// fuzzAtOnce is how many targets run for each processor. A target's time is by
// the clock: a fifth of a processor for it is enough, and takes a fifth as long.
const fuzzAtOnce = 5

// A fuzzTarget is one Fuzz function, in a binary built for fuzzing.
type fuzzTarget struct {
	pkg, dir, binary, name string
}

// fuzz finds every fuzz target of the tree by itself and runs each for a
// while, some for each processor at a time.
func fuzz(ctx context.Context, o *options) outcome {
	tmp, err := os.MkdirTemp("", "suite-fuzz-")
	if err != nil {
		return fail(err.Error())
	}
	defer os.RemoveAll(tmp)
	targets, broken := fuzzTargets(ctx, tmp)
	cache, err := command(ctx, nil, "go", "env", "GOCACHE")
	if err != nil {
		return fail(string(cache))
	}
	corpus := filepath.Join(strings.TrimSpace(string(cache)), "fuzz")

	broken.add(forEach(targets, fuzzAtOnce*runtime.GOMAXPROCS(0), func(t fuzzTarget) outcome { return fuzzOne(ctx, t, o, corpus) }))
	return broken
}

// onlyTimeUp matches the output of a target that found nothing and whose time
// ended while a worker was busy: the engine then reports its own deadline as
// if the target had failed (go.dev/issue/75804, mended in Go 1.27). A real
// finding names the input that it wrote.
var onlyTimeUp = regexp.MustCompile(`(?m)^--- FAIL: \S+ \(\S+\)\n    context deadline exceeded\nFAIL\n\z`)

func fuzzOne(ctx context.Context, t fuzzTarget, o *options, corpus string) outcome {
	args := []string{
		"-test.run=^$", "-test.fuzz=^" + t.name + "$", "-test.fuzztime=" + o.fuzzTime.String(),
		"-test.fuzzminimizetime=" + fuzzMinimize, "-test.parallel=1",
		"-test.fuzzcachedir=" + filepath.Join(corpus, t.pkg),
	}
	out, err := commandIn(ctx, t.dir, nil, t.binary, args...)
	if err != nil && !onlyTimeUp.Match(out) {
		return fail(fmt.Sprintf("FAIL %s %s: %v\n%s", t.pkg, t.name, err, out))
	}
	if o.verbose {
		fmt.Printf("      pass %s %s: %s\n", t.pkg, t.name, strings.TrimPrefix(lastFuzzLine(out), "fuzz: "))
	}
	return pass()
}

// fuzzTargets builds the test binary of each package that has fuzz targets.
// A package that does not build is a failure in the outcome.
func fuzzTargets(ctx context.Context, tmp string) (targets []fuzzTarget, broken outcome) {
	list, err := command(ctx, nil, "go", "list", "-f", "{{.ImportPath}}\t{{.Dir}}", "./...")
	if err != nil {
		return nil, fail(fmt.Sprintf("go list: %v\n%s", err, list))
	}
	for line := range strings.Lines(string(list)) {
		pkg, dir, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		found, err := packageTargets(ctx, pkg, dir, filepath.Join(tmp, strings.ReplaceAll(pkg, "/", "_")))
		if err != nil {
			broken.add(fail(err.Error()))
		}
		targets = append(targets, found...)
	}
	return targets, broken
}

func packageTargets(ctx context.Context, pkg, dir, binary string) ([]fuzzTarget, error) {
	if has, err := hasFuzzTargets(dir); err != nil || !has {
		return nil, err
	}
	if out, err := command(ctx, nil, "go", "test", "-c", "-fuzz=.", "-o", binary, pkg); err != nil {
		return nil, fmt.Errorf("go test -c %s: %w\n%s", pkg, err, out)
	}
	names, err := commandIn(ctx, dir, nil, binary, "-test.list=^Fuzz")
	if err != nil {
		return nil, fmt.Errorf("%s -test.list: %w\n%s", pkg, err, names)
	}
	var targets []fuzzTarget
	for name := range strings.Lines(string(names)) {
		if name = strings.TrimSpace(name); strings.HasPrefix(name, "Fuzz") {
			targets = append(targets, fuzzTarget{pkg, dir, binary, name})
		}
	}
	return targets, nil
}

// hasFuzzTargets looks before building: most packages have none.
func hasFuzzTargets(dir string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return false, err
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			return false, err
		}
		if bytes.Contains(src, []byte("\nfunc Fuzz")) {
			return true, nil
		}
	}
	return false, nil
}

// lastFuzzLine is the engine's last progress report.
func lastFuzzLine(out []byte) string {
	last := ""
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "fuzz: ") {
			last = strings.TrimSpace(line)
		}
	}
	return last
}
