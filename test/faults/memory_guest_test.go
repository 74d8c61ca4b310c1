//go:build guest

package faults

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
)

// A patternStore is a disk of any size that takes next to no memory: each
// block of it is all one byte pattern, that of its number.
type patternStore struct {
	size  int64
	mu    sync.Mutex
	have  []bool // blocks that were written
	count int
	bad   error
}

// pattern is what block n of a patternStore holds once it was written. It is
// made on the stack: nothing here shall ask for memory.
func pattern(n int64) (b [chunk]byte) {
	for i := 0; i < chunk; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(n+1)*0x9e3779b97f4a7c15+uint64(i))
	}
	return b
}

func (s *patternStore) Size() int64 { return s.size }
func (s *patternStore) Sync() error { return nil }

func (s *patternStore) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < len(p); {
		n, at := (off+int64(i))/chunk, int((off+int64(i))%chunk)
		step := min(chunk-at, len(p)-i)
		if s.have[n] {
			b := pattern(n)
			copy(p[i:i+step], b[at:])
		} else {
			clear(p[i : i+step])
		}
		i += step
	}
	return len(p), nil
}

func (s *patternStore) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off%chunk != 0 || len(p)%chunk != 0 {
		return 0, errors.New("not whole blocks")
	}
	for i := 0; i < len(p); i += chunk {
		n := (off + int64(i)) / chunk
		if [chunk]byte(p[i:i+chunk]) != pattern(n) && s.bad == nil {
			s.bad = fmt.Errorf("block %d is written with % x…", n, p[i:i+16])
		}
		if !s.have[n] {
			s.have[n] = true
			s.count++
		}
	}
	return len(p), nil
}

// meminfo returns a line of /proc/meminfo in bytes.
func meminfo(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name+":" {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s in /proc/meminfo", name)
	return 0
}

// confine puts a process into a memory cgroup and returns its directory.
func confine(t *testing.T, pid, limit int) string {
	t.Helper()
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
		if err := syscall.Mount("none", root, "cgroup2", 0, ""); err != nil {
			t.Fatalf("cgroup2: %v", err)
		}
	}
	dir := filepath.Join(root, "iscsid")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(root+"/cgroup.subtree_control", "+memory")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	write(dir+"/memory.max", fmt.Sprint(limit))
	write(dir+"/cgroup.procs", fmt.Sprint(pid))
	return dir
}

// TestMemoryPressure writes several times the free memory through the page
// cache, with iscsid in a memory cgroup of 128 MiB: no deadlock, no OOM kill,
// nothing lost.
func TestMemoryPressure(t *testing.T) {
	const (
		limit = 128 << 20
		free  = 256 << 20 // what is left to the page cache and all programs
	)
	total := int64(times(640, 4096)) << 20
	store := &patternStore{size: total, have: make([]bool, total/chunk)}
	tgt := newInProcess(t, func(c *iscsitest.Config) {
		c.Targets[0].LUNs[1] = &iscsitest.LUN{Store: store, WriteCache: true, BlockSize: chunk}
	})
	r := guestRig(t)
	cgroup := confine(t, r.d.PID(), limit)
	r.record(tgt.addr)
	r.login(tgt.addr)
	disk := r.Disk(targetName, "1")

	// Every thread must be marked, else one of them can wait for the disk that
	// it serves (PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of linux/sched.h).
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.d.PID()))
	if err != nil || len(tasks) == 0 {
		t.Fatal("no threads", err)
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		flags, err := strconv.ParseUint(f[6], 10, 64)
		if err != nil || flags&0x80000 == 0 || flags&0x100000 == 0 {
			t.Errorf("%s: flags %#x: not an I/O flusher", path, flags)
		}
	}

	// The target and the writer share this machine with the initiator, and have
	// no such mark: they need what the kernel's own bounds of dirty memory leave.
	if size := meminfo(t, "MemAvailable") - free; size > 0 {
		ballast, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Munmap(ballast) //nolint:errcheck // the guest ends soon
		if err := syscall.Mlock(ballast); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d MiB available", meminfo(t, "MemAvailable")>>20)

	pid := r.d.PID()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begin, dirty := time.Now(), 0
	buf := make([]byte, 0, 1<<20)
	for n := int64(0); n < total/chunk; n++ {
		b := pattern(n)
		if buf = append(buf, b[:]...); len(buf) == cap(buf) {
			if _, err := f.Write(buf); err != nil {
				t.Fatal(err)
			}
			buf = buf[:0]
			if n%(8<<20/chunk) == 255 {
				dirty = max(dirty, meminfo(t, "Dirty")+meminfo(t, "Writeback"))
			}
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Logf("%d MiB through the page cache in %v (%.0f MB/s), %d MiB dirty at most", total>>20, took.Round(time.Millisecond), float64(total)/1e6/took.Seconds(), dirty>>20)

	store.mu.Lock()
	if store.bad != nil || int64(store.count) != total/chunk {
		t.Errorf("%d of %d blocks arrived: %v", store.count, total/chunk, store.bad)
	}
	store.mu.Unlock()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	buf = buf[:chunk]
	for n := int64(0); n < total/chunk; n += 97 { // some of all
		if _, err := f.ReadAt(buf, n*chunk); err != nil || [chunk]byte(buf) != pattern(n) {
			t.Fatalf("block %d reads % x…, %v", n, buf[:16], err)
		}
	}
	events, err := os.ReadFile(cgroup + "/memory.events")
	if err != nil {
		t.Fatal(err)
	}
	peak, _ := os.ReadFile(cgroup + "/memory.peak") // newer kernels have it
	t.Logf("iscsid: %d KiB resident at most; cgroup: %s peak %s", r.d.StatusKiB("VmHWM"), strings.ReplaceAll(strings.TrimSpace(string(events)), "\n", ", "), strings.TrimSpace(string(peak)))
	if !strings.Contains(string(events), "oom_kill 0") || r.d.PID() != pid {
		t.Errorf("iscsid was killed for want of memory: %s", events)
	}
	if out, _ := exec.Command("sh", "-c", "dmesg | grep -iE 'i/o error|hung task|out of memory'").Output(); len(out) > 0 {
		t.Errorf("the kernel says\n%s", out)
	}
	tgt.violations()
}
