package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/goiscsi/goiscsi/test/guest"
)

func unit(ctx context.Context, o *options) outcome {
	args := []string{"-race", "-shuffle=on", "./..."}
	var why []string
	if _, err := exec.LookPath("gcc"); err != nil {
		// The tests still run; that the detector did not is said and counted.
		args, why = args[1:], []string{"the race detector was not used: it needs gcc"}
	}
	got := goTest(ctx, o, args...)
	got.skipped = append(got.skipped, why...)
	return got
}

func integration(ctx context.Context, o *options) outcome {
	if o.depsErr != nil {
		return cannotRun("not run: " + o.depsErr.Error())
	}
	// Packages without tests of the tag have had their turn as unit tests.
	pkgs, err := guest.TestPackages(ctx, "integration", "./...")
	if err != nil {
		return fail(err.Error())
	}
	pkgs = slices.DeleteFunc(pkgs, func(pkg string) bool { return strings.HasSuffix(pkg, "/test/boot") })
	// One package at a time: several measure times on a machine of two cores.
	return goTest(ctx, o, append([]string{"-tags", "integration", "-count=1", "-p", "1"}, pkgs...)...)
}

// boot is apart from the other integration tests because it takes minutes.
func boot(ctx context.Context, o *options) outcome {
	if err := guest.Available(guest.Systemd); err != nil {
		return cannotRun("not run: " + err.Error())
	}
	if o.depsErr != nil {
		return cannotRun("not run: " + o.depsErr.Error())
	}
	return goTest(ctx, o, "-tags", "integration", "-count=1", "./test/boot")
}

// soak lets random faults go on for as long as was asked for: the part
// integration has a few seconds of them.
func soak(ctx context.Context, o *options) outcome {
	if o.depsErr != nil {
		return cannotRun("not run: " + o.depsErr.Error())
	}
	return goTestEnv(ctx, o, []string{"FAULTS=" + o.soakTime.String()},
		"-tags", "integration", "-count=1", "-timeout", "0", "-run", "^TestRandomFaults$", "./test/faults")
}

// goTest runs go test and counts.
func goTest(ctx context.Context, o *options, args ...string) outcome {
	return goTestEnv(ctx, o, nil, args...)
}

// goTestEnv is goTest with additions to the environment.
func goTestEnv(ctx context.Context, o *options, env []string, args ...string) outcome {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fail(err.Error())
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return fail(err.Error())
	}
	got := countEvents(stdout, o)
	if err := cmd.Wait(); err != nil && got.failed == 0 {
		got.add(fail(fmt.Sprintf("go test: %v\n%s", err, stderr.String())))
	}
	return got
}

// A testEvent is a line of go test -json (see go doc test2json).
type testEvent struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
	Elapsed    float64
}

// countEvents counts top-level tests; a package that failed without a failed
// test (it did not build, or died) counts as one failure.
func countEvents(r io.Reader, o *options) outcome {
	var got outcome
	output := map[string]*strings.Builder{} // by package and test
	failedIn := map[string]bool{}           // packages with a failed test
	text := func(key string) *strings.Builder {
		b := output[key]
		if b == nil {
			b = new(strings.Builder)
			output[key] = b
		}
		return b
	}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e testEvent
			if json.Unmarshal(line, &e) != nil {
				// Not an event: the toolchain's own words.
				got.detail += string(line)
				continue
			}
			top, _, sub := strings.Cut(e.Test, "/")
			key := e.Package + e.ImportPath + " " + top
			switch e.Action {
			case "output", "build-output":
				text(key).WriteString(e.Output)
			case "pass", "fail", "skip":
				got.finish(e, sub, key, text(key).String(), failedIn, o)
				if !sub {
					delete(output, key)
				}
			}
		}
		if err != nil {
			return got
		}
	}
}

// finish counts the end of a test or package.
func (o *outcome) finish(e testEvent, sub bool, key, text string, failedIn map[string]bool, opt *options) {
	switch {
	case sub:
		// A subtest counts with its test, but a skipped one is not hidden.
		if e.Action == "skip" {
			o.skipped = append(o.skipped, e.Package+" "+e.Test+": "+skipReason(text))
		}
	case e.Test == "" && e.Action == "fail":
		if !failedIn[e.Package] {
			o.add(fail(fmt.Sprintf("FAIL %s\n%s", e.Package, text)))
		}
	case e.Test == "":
		if opt.verbose {
			fmt.Printf("      %s %s (%.1f s)\n", e.Action, e.Package, e.Elapsed)
		}
	case e.Action == "pass":
		o.passed++
		if opt.verbose {
			fmt.Printf("      pass %s (%.2f s)\n", key, e.Elapsed)
		}
	case e.Action == "fail":
		failedIn[e.Package] = true
		o.add(fail(fmt.Sprintf("FAIL %s\n%s", key, text)))
	case e.Action == "skip":
		o.skipped = append(o.skipped, key+": "+skipReason(text))
	}
}

// skipReason finds what t.Skip said among a test's output.
func skipReason(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			return line
		}
	}
	return "skipped"
}
