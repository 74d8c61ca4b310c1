//go:build guest

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
)

// TestMemoryPressure writes several times the memory of a machine to its disks
// through the page cache, with iscsid in a small memory cgroup: no deadlock, no
// OOM kill, nothing lost.
//
// The machine is a control group around iscsid and the writer. The target, which
// is in the test's own process, is outside of it, as it is in life: a target that
// waits for memory that only its own writing can free is no fault of an initiator's,
// and the guest's memory, which both would have to share else, is no place to try it.
// Within the group all is as on a machine without memory: an allocation of iscsid
// has the kernel look for pages to free, which are dirty pages of its own disks.
func TestMemoryPressure(t *testing.T) {
	const (
		mib     = 1 << 20
		machine = 160 * mib
		disks   = 4
		// patience is far above what the writing takes. Nothing else ends a
		// deadlock.
		patience = 3 * time.Minute
	)
	size := int64(times(640, 4096)) * mib / disks
	limits := []int{48 * mib} // what docs/operations.md calls the least
	if full() {
		limits = append(limits, 64*mib, 128*mib)
	}
	for _, limit := range limits {
		t.Run(fmt.Sprintf("%d MiB", limit/mib), func(t *testing.T) {
			said := kernelLog(t)
			var stores []*patternStore
			tgt := newInProcess(t, func(c *iscsitest.Config) {
				for n := range uint64(disks) {
					s := newPatternStore(size)
					stores = append(stores, s)
					c.Targets[0].LUNs[n+1] = &iscsitest.LUN{Store: s, WriteCache: true, BlockSize: chunk, Serial: fmt.Sprint(n)}
				}
			})
			whole := newCgroup(t, nil, "machine", machine)
			writer := newCgroup(t, whole, "writer", machine)
			own := newCgroup(t, whole, "iscsid", limit)
			r := guestRig(t)
			own.add(r.d.PID())
			t.Cleanup(func() { // whatever waits for memory gets it
				own.write("memory.max", "max")
				whole.write("memory.max", "max")
			})
			eventually(t, "iscsid sees its limit", func() bool { return strings.Contains(r.d.Log(), "memory is limited") })
			r.record(tgt.addr)
			r.login(tgt.addr)
			args := []string{fmt.Sprint(size)}
			for n := range disks {
				args = append(args, r.Disk(targetName, fmt.Sprint(n+1)))
			}
			r.flushers()

			dirty := 0
			run := func(what string) time.Duration {
				begin := time.Now()
				cmd := exec.Command(os.Args[0], args...)
				cmd.Env = append(os.Environ(), patternWriter+"="+what)
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				group, err := os.Open(writer.dir)
				if err != nil {
					t.Fatal(err)
				}
				defer group.Close()
				cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { done <- cmd.Wait() }() // ends with the process
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				for {
					select {
					case err := <-done:
						if err != nil {
							t.Fatalf("%s: %v\n%s", what, err, out.String())
						}
						return time.Since(begin)
					case <-time.After(50 * time.Millisecond):
						dirty = max(dirty, whole.counter("memory.stat", "file_dirty")+whole.counter("memory.stat", "file_writeback"))
					case <-ctx.Done():
						t.Errorf("%s: a deadlock\niscsid:\n%s\n%s\n%s", what, stacks(r.d.PID()), own.read("memory.stat"), r.d.Log())
						own.write("memory.max", "max")
						whole.write("memory.max", "max")
						_ = cmd.Process.Kill()
						<-done
						t.FailNow()
					}
				}
			}
			took := run("write")
			total := size * disks
			t.Logf("%d MiB through the page cache of a machine with %d MiB in %v (%.0f MB/s), %d MiB dirty at most",
				total/mib, machine/mib, took.Round(time.Millisecond), float64(total)/1e6/took.Seconds(), dirty/mib)
			for _, s := range stores {
				s.written(t)
			}
			run("read")
			t.Logf("iscsid: %d KiB resident at most; its group: peak %s; %s", r.d.StatusKiB("VmHWM"), own.read("memory.peak"),
				strings.ReplaceAll(own.read("memory.events"), "\n", ", "))
			if n := own.counter("memory.events", "oom"); n != 0 {
				t.Errorf("iscsid had no memory left %d times", n)
			}
			if n := whole.counter("memory.events", "oom_kill"); n != 0 {
				t.Errorf("%d processes were killed for want of memory", n)
			}
			if found := said("i/o error|hung task|out of memory"); found != "" {
				t.Errorf("the kernel says\n%s", found)
			}
			tgt.violations()
		})
	}
}

// flushers wants every thread of iscsid to be marked, else one of them can wait
// for the disk that it serves (PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of
// linux/sched.h).
func (r *rig) flushers() {
	r.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.d.PID()))
	if err != nil || len(tasks) == 0 {
		r.t.Fatal("no threads", err)
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		flags, err := strconv.ParseUint(f[6], 10, 64)
		if err != nil || flags&0x80000 == 0 || flags&0x100000 == 0 {
			r.t.Errorf("%s: flags %#x: not an I/O flusher", path, flags)
		}
	}
}

// stacks tells where in the kernel a process's threads are.
func stacks(pid int) string {
	var b strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is well formed
	for _, dir := range tasks {
		for _, file := range []string{"wchan", "stack"} {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				text = []byte(err.Error())
			}
			fmt.Fprintf(&b, "%s: %s\n", filepath.Base(dir), bytes.TrimSpace(text))
		}
	}
	return b.String()
}
