package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Tag is the build tag of tests that want a guest: root, a kernel with nbd,
// and a file system that is thrown away. A file that has it holds nothing but
// such tests and their helpers.
const Tag = "guest"

// TestOptions choose among a package's guest tests.
type TestOptions struct {
	// Run is a regular expression as for go test -run; empty means all tests
	// of the files with the tag, and none of the others.
	Run string
	// Flags are added to the test binary's, such as -test.v.
	Flags []string
}

// TestJob builds the tests of a package with the build tag guest and returns
// base completed into a job that runs them. The binary is static, so it needs
// nothing of the guest. The job's working directory is /lab and holds the
// package's testdata; GOISCSI_BIN names /lab/bin.
//
// The returned function removes the binary and must be called after Run, even
// if TestJob fails.
func TestJob(ctx context.Context, base Job, pkg string, o TestOptions) (Job, func(), error) {
	none := func() {}
	p, err := packageWithTag(ctx, pkg)
	if err != nil {
		return base, none, err
	}
	if o.Run == "" {
		names, err := p.testNames()
		if err != nil {
			return base, none, err
		}
		o.Run = "^(" + strings.Join(names, "|") + ")$"
	}
	tmp, err := os.MkdirTemp("", "guest-test-")
	if err != nil {
		return base, none, err
	}
	cleanup := func() { os.RemoveAll(tmp) }
	bin := filepath.Join(tmp, "test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", Tag, "-o", bin, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return base, cleanup, fmt.Errorf("go test -c %s: %w\n%s", pkg, err, out)
	}
	files := map[string]string{"pkg.test": bin}
	for name, from := range base.Files {
		files[name] = from
	}
	if data := filepath.Join(p.Dir, "testdata"); isDir(data) {
		files["testdata"] = data
	}
	args := append([]string{"/lab/pkg.test", "-test.timeout=0", "-test.run=" + o.Run}, o.Flags...)
	for i, a := range args {
		args[i] = quote(a)
	}
	base.Files = files
	base.Env = append(slices.Clip(base.Env), "GOISCSI_BIN=/lab/bin")
	base.Script = "exec " + strings.Join(args, " ") + "\n"
	return base, cleanup, nil
}

// TestPackages lists the packages below the patterns that have tests with a
// build tag, such as Tag, in the order of go list.
func TestPackages(ctx context.Context, tag string, patterns ...string) ([]string, error) {
	var names []string
	all, err := listPackages(ctx, tag, patterns...)
	for _, p := range all {
		if len(p.files) > 0 {
			names = append(names, p.ImportPath)
		}
	}
	return names, err
}

// A testPackage is what go list says of a package.
type testPackage struct {
	Dir, ImportPath           string
	TestGoFiles, XTestGoFiles []string
	files                     []string // test files that only the tag brings in
}

func packageWithTag(ctx context.Context, pkg string) (testPackage, error) {
	all, err := listPackages(ctx, Tag, pkg)
	if err != nil {
		return testPackage{}, err
	}
	if len(all) != 1 || len(all[0].files) == 0 {
		return testPackage{}, fmt.Errorf("%s has no tests with the build tag %s", pkg, Tag)
	}
	return all[0], nil
}

func listPackages(ctx context.Context, tag string, patterns ...string) ([]testPackage, error) {
	list := func(tags string) ([]testPackage, error) {
		args := append([]string{"list", "-tags", tags, "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles"}, patterns...)
		cmd := exec.CommandContext(ctx, "go", args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list: %w: %s", err, strings.TrimSpace(stderr.String()))
		}
		var all []testPackage
		for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
			var p testPackage
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				return all, nil
			} else if err != nil {
				return nil, err
			}
			all = append(all, p)
		}
	}
	plain, err := list("")
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, p := range plain {
		for _, f := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			known[filepath.Join(p.Dir, f)] = true
		}
	}
	tagged, err := list(tag)
	if err != nil {
		return nil, err
	}
	for i, p := range tagged {
		for _, f := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			if path := filepath.Join(p.Dir, f); !known[path] {
				tagged[i].files = append(tagged[i].files, path)
			}
		}
	}
	return tagged, nil
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w*)\(`)

// testNames returns the tests that only the tag brings in.
func (p testPackage) testNames() ([]string, error) {
	var names []string
	for _, f := range p.files {
		src, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for _, m := range testFunc.FindAllSubmatch(src, -1) {
			if name := string(m[1]); name != "TestMain" {
				names = append(names, name)
			}
		}
	}
	if names == nil {
		return nil, fmt.Errorf("%s has no tests with the build tag %s", p.ImportPath, Tag)
	}
	return names, nil
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// quote makes a word safe for the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
