package daemon

import (
	"bytes"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/nbd"
)

// fakeProc makes a process's directory and a mounted hierarchy of control groups
// with files, whose names are relative to the mount point.
func fakeProc(t *testing.T, group, root string, files map[string]string) string {
	t.Helper()
	proc, mount := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(proc, "cgroup"), "1:name=systemd:/elsewhere\n0::"+group+"\n")
	write(filepath.Join(proc, "mountinfo"), "21 1 0:5 / /proc rw shared:1 - proc proc rw\n"+
		"22 1 0:20 "+root+" "+mount+" rw,nosuid shared:2 - cgroup2 cgroup2 rw\n")
	for name, text := range files {
		write(filepath.Join(mount, name), text)
	}
	return proc
}

func TestCgroupLimit(t *testing.T) {
	for _, tc := range []struct {
		name, group, root string
		files             map[string]string
		want              int64
	}{
		{
			"of its own group", "/system.slice/iscsid.service", "/",
			map[string]string{"system.slice/iscsid.service/memory.max": "67108864\n", "system.slice/memory.max": "max\n"},
			64 << 20,
		},
		{
			"of the slice", "/system.slice/iscsid.service", "/",
			map[string]string{"system.slice/iscsid.service/memory.max": "max\n", "system.slice/memory.max": "33554432\n"},
			32 << 20,
		},
		{"high is less than max", "/a", "/", map[string]string{"a/memory.max": "67108864\n", "a/memory.high": "50331648\n"}, 48 << 20},
		{"none", "/a", "/", map[string]string{"a/memory.max": "max\n", "a/memory.high": "max\n"}, noLimit},
		{"no controller", "/a", "/", nil, noLimit},
		{"the root group", "/", "/", nil, noLimit},
		{"in a container with a namespace of its own", "/", "/", map[string]string{"memory.max": "67108864\n"}, 64 << 20},
		{
			"in a container that sees its part of the hierarchy", "/docker/c1/iscsid", "/docker/c1",
			map[string]string{"iscsid/memory.max": "67108864\n"},
			64 << 20,
		},
		{"outside of what is mounted", "/elsewhere", "/docker/c1", map[string]string{"memory.max": "67108864\n"}, 64 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := cgroupLimit(fakeProc(t, tc.group, tc.root, tc.files))
			if err != nil || got != tc.want {
				t.Errorf("%d, %v, want %d", got, err, tc.want)
			}
		})
	}
	t.Run("a kernel without control groups", func(t *testing.T) {
		if got, err := cgroupLimit(t.TempDir()); err != nil || got != noLimit {
			t.Errorf("%d, %v", got, err)
		}
	})
	t.Run("what is no number", func(t *testing.T) {
		if _, err := cgroupLimit(fakeProc(t, "/a", "/", map[string]string{"a/memory.max": "much\n"})); err == nil {
			t.Error("no error")
		}
	})
	t.Run("of this process", func(t *testing.T) {
		if got, err := cgroupLimit("/proc/self"); err != nil || got <= 0 {
			t.Errorf("%d, %v", got, err)
		}
	})
}

// TestMemoryPlan wants that all parts of a plan fit into the limit.
func TestMemoryPlan(t *testing.T) {
	const total = 8 << 30
	for limit := int64(memoryLeast); limit < total; limit *= 2 {
		p := planMemory(limit, total)
		if p.heap < memoryBase/2+p.inFlight || p.heap >= limit || p.inFlight < leastInFlight || p.idle > p.inFlight {
			t.Errorf("limit %d: %+v", limit, p)
		}
	}
	for _, limit := range []int64{0, 1 << 20} { // whatever it is good for
		if p := planMemory(limit, total); p.heap <= 0 || p.inFlight <= 0 || p.idle <= 0 {
			t.Errorf("limit %d: %+v", limit, p)
		}
	}
	if p := planMemory(noLimit, total); p.heap != noLimit || p.inFlight != mostInFlight || p.idle != poolIdle {
		t.Errorf("no limit: %+v", p)
	}
	if p := planMemory(noLimit, 512<<20); p.inFlight != 64<<20 {
		t.Errorf("a small machine: %+v", p)
	}
}

// TestMemoryLimitIsFollowed changes the limit of a group while the daemon runs.
func TestMemoryLimitIsFollowed(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	proc := fakeProc(t, "/iscsid", "/", map[string]string{"iscsid/memory.max": "max\n"})
	mount, _, err := cgroupMount(proc)
	if err != nil {
		t.Fatal(err)
	}
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(mount, "iscsid/memory.max"), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var logged bytes.Buffer
	n := 1
	k := &memoryKeeper{proc: proc, pool: nbd.NewBufferPool(0), log: slog.New(slog.NewTextHandler(&logged, nil)), sessions: func() int { return n }}
	said := func() string {
		text := logged.String()
		logged.Reset()
		return text
	}
	heap := func() int64 { return debug.SetMemoryLimit(-1) }

	k.look()
	if text := said(); text != "" || heap() != math.MaxInt64 {
		t.Errorf("without a limit: heap %d, %s", heap(), text)
	}
	set("100663296") // 96 MiB
	k.look()
	if text := said(); !strings.Contains(text, "memory is limited") || heap() != 64<<20 {
		t.Errorf("96 MiB: heap %d, %s", heap(), text)
	}
	k.look()
	if text := said(); text != "" {
		t.Errorf("unchanged, and still: %s", text)
	}
	n = 100
	for range 2 {
		k.look()
	}
	if text := said(); strings.Count(text, "too small") != 1 || !strings.Contains(text, "sessions=100") {
		t.Errorf("96 MiB for a hundred sessions: %s", text)
	}
	n = 1
	set("33554432")
	k.look()
	if text := said(); !strings.Contains(text, "too small") {
		t.Errorf("32 MiB: %s", text)
	}
	set("what")
	for range 2 {
		k.look()
	}
	if text := said(); strings.Count(text, "not known") != 1 {
		t.Errorf("a broken file: %s", text)
	}
	set("max")
	k.look()
	if text := said(); !strings.Contains(text, "not limited any more") || heap() != math.MaxInt64 {
		t.Errorf("no limit any more: heap %d, %s", heap(), text)
	}
}
