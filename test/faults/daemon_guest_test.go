//go:build guest

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// guestRig returns the machine as a host, its disks being /dev/nbdN.
func guestRig(t *testing.T) *rig {
	t.Helper()
	h := lab.NewMachine(t)
	return &rig{t: t, Host: h, d: h.StartDaemon()}
}

// device checks the only disk past the page cache.
func (r *rig) device(lun string, cfg checker.Config) *checker.Checker {
	r.t.Helper()
	d, err := checker.OpenDevice(r.Disk(targetName, lun))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { d.Close() })
	return start(r.t, d, cfg)
}

// devices lists the kernel's connected nbd devices.
func devices() []string {
	all, _ := filepath.Glob("/sys/block/nbd*/pid") // the pattern is well formed
	for i, path := range all {
		all[i] = filepath.Base(filepath.Dir(path))
	}
	return all
}

// view is what must not change when the daemon is replaced.
func (r *rig) view() string {
	r.t.Helper()
	links, err := filepath.Glob("/dev/disk/by-path/*")
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(r.Must("-m", "session"))
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil {
			r.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s → %s\n", l, to)
	}
	fmt.Fprintln(&b, devices())
	return b.String()
}

// TestDaemonKilled kills iscsid while it is busy and starts it again: no I/O
// error, I/O goes on within 5 s, sid, links and mounts stay. The target is ours
// without a cache that could hide a lost flush.
func TestDaemonKilled(t *testing.T) {
	said := kernelLog(t)
	r := guestRig(t)
	tgt := targets.StartOwn(t, func(args ...string) *exec.Cmd { return r.Command("iscsi-target", args...) },
		targets.Target{Name: targetName, LUNs: []targets.LUN{
			{Path: targets.SparseFile(t, diskSize)}, {Path: targets.SparseFile(t, diskSize)},
		}})
	portal := tgt.Portal().String()
	r.record(portal)
	r.login(portal)
	c := r.device("1", checker.Config{})
	files := r.Disk(targetName, "2")
	dir := t.TempDir()
	r.Shell("mkfs.ext4 -q -F " + files + " && mount " + files + " " + dir)
	t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
	before := r.view()
	var back, longest []time.Duration
	for i := range times(5, 50) {
		pauseBetween()
		r.Shell(fmt.Sprintf("echo written before kill %d > %s/file%d", i, dir, i))
		c.TakeLongest()
		r.d.Kill()
		between(0, 300*time.Millisecond)
		begin := time.Now()
		r.d = r.StartDaemon()
		await(t, c)
		back = append(back, time.Since(begin))
		longest = append(longest, c.TakeLongest())
		if now := r.view(); now != before {
			t.Fatalf("after %d kills:\n%s\nbefore:\n%s", i+1, now, before)
		}
	}
	r.Shell("sync")
	for i := range times(5, 50) {
		if got, want := r.Shell(fmt.Sprintf("cat %s/file%d", dir, i)), fmt.Sprintf("written before kill %d", i); got != want {
			t.Errorf("file %d holds %q", i, got)
		}
	}
	verdict(t, c)
	text, _ := summary(back)
	t.Logf("I/O after the daemon's start: %s", text)
	// The kernel sends what was in flight again within 3.3 s of the daemon's
	// login (docs/nbd.md, trap 2). A guest that shares its processor may be
	// late once, not always.
	slices.Sort(back)
	if half, worst := back[len(back)/2], back[len(back)-1]; half > 5*time.Second || worst > 10*time.Second {
		t.Errorf("I/O went on %v after the start of iscsid, want 5 s", worst)
	}
	text, _ = summary(longest)
	t.Logf("longest request: %s", text)
	r.Shell("umount " + dir + " && e2fsck -fn " + files)
	if found := said("i/o error"); found != "" {
		t.Errorf("the kernel saw\n%s", found)
	}
}

// TestDaemonAndTargetKilled has both away at once, back in either order.
func TestDaemonAndTargetKilled(t *testing.T) {
	r := guestRig(t)
	tgt := own(t, r.Host)
	portal := tgt.Portal().String()
	r.record(portal)
	r.login(portal)
	c := r.device("1", checker.Config{})
	for i := range times(2, 50) {
		pauseBetween()
		if i%2 == 0 {
			tgt.Stop()
			r.d.Kill()
			r.d = r.StartDaemon()
			between(0, 500*time.Millisecond)
			tgt.Start()
		} else {
			r.d.Kill()
			tgt.Stop()
			tgt.Start()
			r.d = r.StartDaemon()
		}
		await(t, c)
	}
	verdict(t, c)
}

// TestLIODisabled disables the kernel's target under load and enables it again.
func TestLIODisabled(t *testing.T) {
	portal := targets.PortalAddr{Host: "127.0.0.1", Port: 3260}
	l := targets.StartLIO(t, []targets.PortalAddr{portal}, targets.Target{
		Name: targetName,
		LUNs: []targets.LUN{{Number: 0, Path: targets.SparseFile(t, diskSize)}},
	})
	r := guestRig(t)
	r.record(portal.String())
	r.login(portal.String())
	c := r.device("0", checker.Config{})
	var back []time.Duration
	for range times(3, 200) {
		pauseBetween()
		l.Enable(targetName, false)
		pauseBetween()
		l.Enable(targetName, true)
		back = append(back, await(t, c))
	}
	verdict(t, c)
	text, _ := summary(back)
	t.Logf("I/O after the target was enabled: %s", text)
	r.Must("-m", "session", "-u")
}
