package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Tag is the build tag of tests that want a guest: root, a kernel with nbd,
// and a file system that is thrown away.
const Tag = "guest"

// TestJob builds the tests of a package with the build tag guest and returns
// base completed into a job that runs them: static binary, so that it needs
// nothing of the host's C library. The returned function removes the binary
// and must be called after Run, even if TestJob fails.
//
// run is a regular expression as for go test -run, empty for all tests;
// verbose names each test. Flags in extra go to the test binary.
func TestJob(ctx context.Context, base Job, pkg, run string, verbose bool, extra ...string) (Job, func(), error) {
	none := func() {}
	src, err := output(ctx, "go", "list", "-tags", Tag, "-f", "{{.Dir}}", pkg)
	if err != nil {
		return base, none, err
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
	if _, err := os.Stat(bin); err != nil {
		return base, cleanup, fmt.Errorf("%s has no tests with the tag %s", pkg, Tag)
	}
	files := map[string]string{"pkg.test": bin}
	for name, from := range base.Files {
		files[name] = from
	}
	if data := filepath.Join(src, "testdata"); isDir(data) {
		files["testdata"] = data
	}
	args := append([]string{"/lab/pkg.test", "-test.timeout=0"}, extra...)
	if run != "" {
		args = append(args, "-test.run="+run)
	}
	if verbose {
		args = append(args, "-test.v")
	}
	for i, a := range args {
		args[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	base.Files = files
	base.Script = "exec " + strings.Join(args, " ") + "\n"
	return base, cleanup, nil
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// output runs a command and returns its trimmed standard output.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
