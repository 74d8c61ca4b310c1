//go:build integration || guest

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

const (
	targetName = "iqn.2026-11.com.example:faults"
	diskSize   = 64 << 20
	// recoveryTime bounds the wait for I/O to go on. That is a verdict, so it
	// is far above what is wanted, which is measured.
	recoveryTime = 30 * time.Second
)

// full reports whether the faults are repeated as often as a release wants.
func full() bool { return os.Getenv("FAULTS") == "full" }

// times is how often a fault is repeated.
func times(ci, release int) int {
	if full() {
		return release
	}
	return ci
}

// between waits a random time, so that faults meet I/O and recovery in every
// state.
func between(least, most time.Duration) {
	time.Sleep(least + rand.N(most-least))
}

// pauseBetween is the pause between two faults: the in a full run.
func pauseBetween() {
	if full() {
		between(100*time.Millisecond, 2*time.Second)
	} else {
		between(50*time.Millisecond, 250*time.Millisecond)
	}
}

// A rig is a host with a daemon.
type rig struct {
	t *testing.T
	*lab.Host
	d *lab.Daemon
}

// node are the words for iscsiadm that name a record.
func node(portal string, more ...string) []string {
	return append([]string{"-m", "node", "-T", targetName, "-p", portal}, more...)
}

// record makes a record without a discovery, which would find the target
// behind the proxy, and sets names to values.
func (r *rig) record(portal string, kvs ...string) {
	r.t.Helper()
	r.Must(node(portal, "-o", "new")...)
	args := node(portal, "-o", "update", "-n", "node.session.iscsi.DefaultTime2Wait", "-v", "0")
	for i := 0; i < len(kvs); i += 2 {
		args = append(args, "-n", kvs[i], "-v", kvs[i+1])
	}
	r.Must(args...)
}

// login logs in.
func (r *rig) login(portal string) {
	r.t.Helper()
	r.Must(node(portal, "-l")...)
}

// newRig returns a host in a directory of its own, its disks on sockets.
func newRig(t *testing.T) *rig {
	t.Helper()
	h := lab.NewPrefix(t)
	return &rig{t: t, Host: h, d: h.StartDaemon()}
}

// export checks the only disk, on its socket.
func (r *rig) export(cfg checker.Config) *checker.Checker {
	r.t.Helper()
	e, err := checker.OpenExport(r.Socket())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { e.Close() })
	return start(r.t, e, cfg)
}

// start starts a checker that ends with the test at the latest.
func start(t *testing.T, d checker.Disk, cfg checker.Config) *checker.Checker {
	t.Helper()
	c := checker.Start(d, cfg)
	t.Cleanup(func() {
		c.Tolerate(true)
		_ = c.Check() // verdict has asked before, or the test has failed
	})
	await(t, c)
	return c
}

// await wants every worker to do something successfully from now on.
func await(t *testing.T, c *checker.Checker) time.Duration {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(t.Context(), recoveryTime, fmt.Errorf("no I/O for %v", recoveryTime))
	defer cancel()
	if err := c.Await(ctx); err != nil {
		t.Fatalf("%v\n%v", err, c.Findings())
	}
	if err := c.Findings(); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// eventually waits for what the daemon does by itself, on an event of the
// target.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > recoveryTime {
			t.Fatalf("not within %v: %s", recoveryTime, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// verdict ends a checker and wants that it found nothing.
func verdict(t *testing.T, c *checker.Checker) {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Errorf("the disk did not keep what it had acknowledged:\n%v", err)
	}
	t.Log(c)
}

// recoveries is how often the only session has come back. The log does not tell: of a
// session that fails again and again it leaves lines out.
func (r *rig) recoveries() int {
	r.t.Helper()
	var sessions []struct {
		Recoveries int `json:"recoveries"`
	}
	if err := json.Unmarshal([]byte(r.Must("-m", "session", "--json")), &sessions); err != nil || len(sessions) != 1 {
		r.t.Fatalf("%d sessions, %v", len(sessions), err)
	}
	return sessions[0].Recoveries
}

// outages finds, in the daemon's log, how long each recovery took from the
// loss of the connection until the session worked again.
var outage = regexp.MustCompile(`operational after recovery.* outage=(\S+)`)

func outages(log string) []time.Duration {
	var all []time.Duration
	for _, m := range outage.FindAllStringSubmatch(log, -1) {
		if d, err := time.ParseDuration(strings.Trim(m[1], `"`)); err == nil {
			all = append(all, d)
		}
	}
	return all
}

// slowest returns what the daemon logged in its longest recovery, from the loss of the
// connection on.
func slowest(log string) string {
	var text string
	var most time.Duration
	begin := 0
	for i, line := 0, ""; i < len(log); i += len(line) {
		line = log[i:]
		if n := strings.IndexByte(line, '\n'); n >= 0 {
			line = line[:n+1]
		}
		if strings.Contains(line, "connection lost") {
			begin = i
		}
		if d := outages(line); len(d) == 1 && d[0] > most {
			most, text = d[0], log[begin:i+len(line)]
		}
	}
	return text
}

// summary is the spread of times.
func summary(all []time.Duration) (text string, p90 time.Duration) {
	if len(all) == 0 {
		return "none", 0
	}
	all = slices.Clone(all)
	slices.Sort(all)
	at := func(p int) time.Duration { return all[min(len(all)-1, len(all)*p/100)].Round(time.Millisecond / 10) }
	return fmt.Sprintf("%d: median %v, p90 %v, longest %v", len(all), at(50), at(90), all[len(all)-1].Round(time.Millisecond/10)), at(90)
}

// median is the middle of times.
func median(all []time.Duration) time.Duration {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// own starts our iscsi-target with one disk.
func own(t *testing.T, h *lab.Host, flags ...string) *targets.Own {
	t.Helper()
	return ownLUN(t, h, targets.LUN{Path: targets.SparseFile(t, diskSize)}, flags...)
}

// ownInMemory is own with a disk whose flushes cost nothing. A target answers a login
// when the session before executes nothing any more, a flush, for example: so with
// a file the time of a recovery is one of the machine's disk.
func ownInMemory(t *testing.T, h *lab.Host, flags ...string) *targets.Own {
	t.Helper()
	return ownLUN(t, h, targets.LUN{Memory: diskSize}, flags...)
}

func ownLUN(t *testing.T, h *lab.Host, lun targets.LUN, flags ...string) *targets.Own {
	t.Helper()
	return targets.StartOwn(t, func(args ...string) *exec.Cmd { return h.Command("iscsi-target", args...) },
		targets.Target{Name: targetName, LUNs: []targets.LUN{lun}}, flags...)
}

// lateness measures, until what it returns is called, how much later than it wanted
// a goroutine that does nothing else was woken: what the machine adds to whatever
// is measured meanwhile.
func lateness(t *testing.T) (end func() []time.Duration) {
	var late []time.Duration
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with end, or the test
		defer close(done)
		for {
			const nap = 5 * time.Millisecond
			begin := time.Now()
			select {
			case <-quit:
				return
			case <-time.After(nap):
				late = append(late, time.Since(begin)-nap)
			}
		}
	}()
	end = sync.OnceValue(func() []time.Duration {
		close(quit)
		<-done
		return late
	})
	t.Cleanup(func() { end() })
	return end
}

// descriptors counts a process's open files.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(pid), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
