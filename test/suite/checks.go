package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// The versions of the tools are part of what is tested: a newer one may find
// more, on a day when nobody changed anything.
const (
	staticcheckTool = "honnef.co/go/tools/cmd/staticcheck@v0.8.2"
	govulncheckTool = "golang.org/x/vuln/cmd/govulncheck@v1.9.0"
)

// allTags make the checks see every file of the tree.
const allTags = "integration,guest"

// installDeps runs test/deps; its error is one line fit to be shown.
func installDeps(ctx context.Context) error {
	out, err := command(ctx, nil, "test/deps", "test")
	if err != nil {
		return fmt.Errorf("%s", strings.TrimSpace(lastLine(out)))
	}
	if len(out) > 0 {
		fmt.Print(string(out))
	}
	return nil
}

func gofmt(ctx context.Context, _ *options) outcome {
	out, err := command(ctx, nil, "gofmt", "-l", ".")
	if err != nil || len(out) > 0 {
		return fail(fmt.Sprintf("not formatted by gofmt (make fmt does it):\n%s%s", out, errText(err)))
	}
	return pass()
}

func vet(ctx context.Context, _ *options) outcome {
	return check(ctx, nil, "go", "vet", "-tags", allTags, "./...")
}

func staticcheck(ctx context.Context, _ *options) outcome {
	if why := toolMissing(ctx, staticcheckTool, "-version"); why != "" {
		return cannotRun(why)
	}
	return check(ctx, nil, "go", "run", staticcheckTool, "-tags", allTags, "./...")
}

func govulncheck(ctx context.Context, _ *options) outcome {
	if why := toolMissing(ctx, govulncheckTool, "-version"); why != "" {
		return cannotRun(why)
	}
	out, err := command(ctx, nil, "go", "run", govulncheckTool, "./...")
	switch {
	case err == nil:
		return pass()
	case bytes.Contains(out, []byte("vuln.go.dev")) && !bytes.Contains(out, []byte("Vulnerability #")):
		return cannotRun("not run: the vulnerability database cannot be reached")
	}
	return fail(string(out))
}

// toolMissing returns why a tool of the Go module proxy cannot be had, or
// nothing.
func toolMissing(ctx context.Context, tool string, args ...string) string {
	out, err := command(ctx, nil, "go", append([]string{"run", tool}, args...)...)
	if err == nil || ctx.Err() != nil {
		return ""
	}
	return fmt.Sprintf("not run: %s cannot be had: %s", tool, lastLine(out))
}

// portable builds the packages that promise to work on any system for one
// that is not Linux.
func portable(ctx context.Context, _ *options) outcome {
	var total outcome
	for _, system := range []string{"darwin/arm64", "windows/amd64", "linux/386"} {
		goos, goarch, _ := strings.Cut(system, "/")
		total.add(check(ctx, []string{"GOOS=" + goos, "GOARCH=" + goarch, "CGO_ENABLED=0"},
			"go", "build", "./pdu/...", "./initiator/...", "./nodedb/..."))
	}
	return total
}

// makeBuild makes bin/ and notes that it is made.
func makeBuild(ctx context.Context, o *options) outcome {
	got := check(ctx, nil, "make", "build")
	o.built = got.failed == 0
	return got
}

func build(ctx context.Context, o *options) outcome {
	got := makeBuild(ctx, o)
	if got.failed > 0 {
		return got
	}
	for _, name := range []string{"iscsiadm", "iscsid", "iscsi-iname", "iscsi-target"} {
		out, err := command(ctx, nil, "go", "version", "-m", "bin/"+name)
		switch {
		case err != nil:
			got.add(fail(string(out)))
		case !bytes.Contains(out, []byte("CGO_ENABLED=0")):
			got.add(fail("bin/" + name + " is not a static binary\n"))
		default:
			got.add(pass())
		}
	}
	return got
}

func demo(ctx context.Context, _ *options) outcome { return check(ctx, nil, "make", "demo") }

// check runs a command that is to succeed and to be silent about it.
func check(ctx context.Context, env []string, name string, args ...string) outcome {
	out, err := command(ctx, env, name, args...)
	if err != nil {
		return fail(fmt.Sprintf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out))
	}
	return pass()
}

// command runs a command and returns both its streams as one.
func command(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	return commandIn(ctx, "", env, name, args...)
}

// commandIn is command in a directory.
func commandIn(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	return cmd.CombinedOutput()
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

func errText(err error) string {
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) {
		return ""
	}
	return err.Error()
}
