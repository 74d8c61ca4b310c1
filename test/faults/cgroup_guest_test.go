//go:build guest

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A cgroup is a control group of the guest with a bound of memory.
type cgroup struct {
	t   *testing.T
	dir string
}

// newCgroup makes a group in the root, or in another group. It goes with the test,
// after what was started later has ended.
func newCgroup(t *testing.T, in *cgroup, name string, limit int) *cgroup {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
		if err := syscall.Mount("none", root, "cgroup2", 0, ""); err != nil {
			t.Fatalf("cgroup2: %v", err)
		}
	}
	if in != nil {
		root = in.dir
	}
	c := &cgroup{t, filepath.Join(root, name)}
	// With both, the kernel bounds the dirty pages of each group, as it does those
	// of a machine.
	(&cgroup{t, root}).write("cgroup.subtree_control", "+memory +io")
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Who has just ended is a member for a moment still.
		eventually(t, "the end of a control group", func() bool { return syscall.Rmdir(c.dir) == nil })
	})
	c.write("memory.max", fmt.Sprint(limit))
	return c
}

func (c *cgroup) write(file, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// read returns a file's text, "" where this kernel does not have it.
func (c *cgroup) read(file string) string {
	b, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

// counter returns a value of a file that has a name and a number in each line.
func (c *cgroup) counter(file, name string) int {
	c.t.Helper()
	for line := range strings.Lines(c.read(file)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				c.t.Fatal(err)
			}
			return n
		}
	}
	c.t.Fatalf("no %s in %s", name, file)
	return 0
}

// add puts a process into the group.
func (c *cgroup) add(pid int) {
	c.t.Helper()
	c.write("cgroup.procs", strconv.Itoa(pid))
}
