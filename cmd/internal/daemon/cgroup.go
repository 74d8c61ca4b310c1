package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// noLimit says that memory is not limited.
const noLimit = math.MaxInt64

// cgroupLimit returns how many bytes of memory the control group of a process
// (version 2) leaves to it: the least of memory.max and memory.high, above which the
// kernel slows a process down until it stands, of the group and of those that it
// is in. proc is the process's directory in /proc. noLimit where there is none.
func cgroupLimit(proc string) (int64, error) {
	group, err := cgroupOf(proc)
	if err != nil || group == "" {
		return noLimit, err
	}
	mount, root, err := cgroupMount(proc)
	if err != nil || mount == "" {
		return noLimit, err
	}
	// What is mounted may begin below the root of the hierarchy, as in a container.
	rel, err := filepath.Rel(root, group)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		rel = "."
	}
	limit := int64(noLimit)
	for dir := filepath.Join(mount, rel); ; dir = filepath.Dir(dir) {
		for _, name := range []string{"memory.max", "memory.high"} {
			n, err := readLimit(filepath.Join(dir, name))
			if err != nil {
				return noLimit, err
			}
			limit = min(limit, n)
		}
		if len(dir) <= len(mount) {
			return limit, nil
		}
	}
}

// readLimit reads a file of a memory controller. The root group, and groups without
// the controller, have none.
func readLimit(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return noLimit, nil
	}
	if err != nil {
		return noLimit, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return noLimit, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return noLimit, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// cgroupOf returns the path of a process's group in the unified hierarchy, "" where
// there is none (cgroups(7), /proc/PID/cgroup).
func cgroupOf(proc string) (string, error) {
	b, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if errors.Is(err, fs.ErrNotExist) { // a kernel without control groups
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", nil
}

// cgroupMount returns where the unified hierarchy is mounted, and what of it
// (proc(5), /proc/PID/mountinfo).
func cgroupMount(proc string) (mount, root string, err error) {
	b, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if ok && len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return f[4], f[3], nil
		}
	}
	return "", "", nil
}
