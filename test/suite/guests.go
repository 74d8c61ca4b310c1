package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/goiscsi/goiscsi/test/guest"
)

// guestTests runs the guest tests of each package that has some, in a guest
// of its own.
func guestTests(ctx context.Context, o *options) outcome {
	if err := guest.Available(guest.UML); err != nil {
		return cannotRun("not run: " + err.Error())
	}
	if o.depsErr != nil {
		return cannotRun("not run: " + o.depsErr.Error())
	}
	pkgs, err := guest.TestPackages(ctx, guest.Tag, "./...")
	if err != nil {
		return fail(err.Error())
	}
	// A guest has one processor, so there is room for one a processor.
	return forEach(pkgs, runtime.GOMAXPROCS(0), func(pkg string) outcome {
		start := time.Now()
		got := guestTest(ctx, o, pkg)
		if o.verbose {
			fmt.Printf("      %s in a guest: %.1f s\n", pkg, time.Since(start).Seconds())
		}
		return got
	})
}

// guestTest runs one package's guest tests and counts.
func guestTest(ctx context.Context, o *options, pkg string) outcome {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return fail(err.Error())
	}
	base := guest.Job{
		Files:   map[string]string{"bin": bin},
		Timeout: 10 * time.Minute,
		// What one test leaves in memory, another may need.
		MemoryMiB: 2048,
	}
	job, cleanup, err := guest.TestJob(ctx, base, pkg, guest.TestOptions{Flags: []string{"-test.v=test2json"}})
	defer cleanup()
	if err != nil {
		return fail(fmt.Sprintf("FAIL %s\n%v\n", pkg, err))
	}
	res, err := guest.Run(ctx, job)
	got := countEvents(bytes.NewReader(toEvents(ctx, pkg, res.Output)), o)
	switch {
	case err != nil:
		got.add(fail(fmt.Sprintf("FAIL %s in the guest: %v\n%s\n", pkg, err, guest.Tail(res.Output, 40))))
	case res.ExitCode != 0 && got.failed == 0:
		got.add(fail(fmt.Sprintf("FAIL %s in the guest: exit status %d\n%s\n", pkg, res.ExitCode, guest.Tail(res.Output, 40))))
	}
	if got.failed > 0 {
		got.detail += fmt.Sprintf("console of the guest:\n%s\n", guest.Tail(res.Console, 40))
	}
	return got
}

// toEvents turns a test binary's output into the events of go test -json.
func toEvents(ctx context.Context, pkg string, output []byte) []byte {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", pkg)
	cmd.Stdin = bytes.NewReader(output)
	events, err := cmd.Output()
	if err != nil {
		return nil // the exit status of the guest tells
	}
	return events
}
