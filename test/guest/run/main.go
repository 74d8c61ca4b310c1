// Command run runs a shell script, or the guest tests of a Go package, in a
// guest with its own kernel:
//
//	go run ./test/guest/run SCRIPT [TIMEOUT]
//	go run ./test/guest/run -test PKG [-run REGEXP] [-v] [TIMEOUT]
//
// The script is run by /bin/sh as root. A package's guest tests are its tests
// with the build tag guest; the binaries in bin/ are at /lab/bin and first on
// the PATH, and the package's testdata is where the test looks for it. The
// exit status is the script's or the test's; the guest's console is shown
// when it is not zero.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/goiscsi/goiscsi/test/guest"
)

func main() { os.Exit(run()) }

func run() int {
	var (
		pkg    = flag.String("test", "", "run the guest tests of this `package` instead of a script")
		runRE  = flag.String("run", "", "only the tests that match this `regexp`")
		verb   = flag.Bool("v", false, "name each test")
		bin    = flag.String("bin", "bin", "`directory` whose files the guest gets in /lab/bin")
		kind   = flag.String("kind", string(guest.UML), "`kind` of guest: uml, systemd, qemu")
		memory = flag.Int("mem", 0, "the guest's memory in `MiB`")
		dir    = flag.String("dir", "", "exchange `directory`, kept afterwards (default: a temporary one)")
		env    multi
	)
	flag.Var(&env, "env", "`NAME=value` for the script's environment (repeatable)")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: run [flags] SCRIPT [TIMEOUT]\n       run [flags] -test PKG [TIMEOUT]\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	job := guest.Job{
		Kind: guest.Kind(*kind), MemoryMiB: *memory, Dir: *dir, Stdout: os.Stdout,
		Env: append([]string{"PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...),
	}
	args := flag.Args()
	var err error
	switch {
	case *pkg != "":
		var cleanup func()
		o := guest.TestOptions{Run: *runRE}
		if *verb {
			o.Flags = []string{"-test.v"}
		}
		job, cleanup, err = guest.TestJob(ctx, job, *pkg, o)
		defer cleanup()
	case len(args) > 0:
		var script []byte
		script, err = os.ReadFile(args[0])
		job.Script, args = string(script), args[1:]
	default:
		flag.Usage()
		return 2
	}
	if err == nil && len(args) > 0 {
		job.Timeout, err = parseTimeout(args[0])
	}
	if err == nil {
		if st, serr := os.Stat(*bin); serr == nil && st.IsDir() {
			if job.Files == nil {
				job.Files = map[string]string{}
			}
			job.Files["bin"], err = filepath.Abs(*bin)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		return 2
	}
	return report(guest.Run(ctx, job))
}

// report shows what failed and returns the exit status.
func report(res guest.Result, err error) int {
	var missing *guest.MissingError
	switch {
	case errors.As(err, &missing):
		fmt.Fprintln(os.Stderr, "guest:", err)
		return 77 // the tests' word for "cannot run here"
	case err != nil:
		fmt.Fprintln(os.Stderr, "guest:", err)
		return 1
	case res.ExitCode != 0:
		fmt.Fprintf(os.Stderr, "\nguest: exit status %d after %.1f s; its console:\n%s\n",
			res.ExitCode, res.Elapsed.Seconds(), guest.Tail(res.Console, 60))
	}
	return res.ExitCode
}

// parseTimeout takes Go's notation or a plain number of seconds.
func parseTimeout(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	d, err := time.ParseDuration(s + "s")
	if err != nil {
		return 0, fmt.Errorf("timeout %q: want seconds or a duration", s)
	}
	return d, nil
}

// multi is a flag that may be repeated.
type multi []string

func (m *multi) String() string     { return strings.Join(*m, " ") }
func (m *multi) Set(s string) error { *m = append(*m, s); return nil }
