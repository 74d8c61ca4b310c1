//go:build integration || guest

package faults

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A footprint is what the daemon takes at one moment.
type footprint struct {
	pid, goroutines, files, threads int
	heap, resident                  int // KiB
}

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d threads, %d KiB of heap in use, %d KiB resident",
		f.goroutines, f.files, f.threads, f.heap, f.resident)
}

// footprint asks the daemon and the kernel.
func (r *rig) footprint() footprint {
	r.t.Helper()
	m := r.metrics()
	return footprint{
		pid: r.d.PID(), goroutines: int(m["go_goroutines"]), files: descriptors(r.t, r.d.PID()), threads: r.d.StatusKiB("Threads"),
		heap: int(m["go_memstats_heap_inuse_bytes"]) >> 10, resident: r.d.StatusKiB("VmRSS"),
	}
}

// metrics returns the daemon's metrics that have no labels, by name. No connection
// stays open for it.
func (r *rig) metrics() map[string]float64 {
	r.t.Helper()
	client := http.Client{
		Timeout: recoveryTime,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", r.Paths.ControlSocket())
			},
		},
	}
	resp, err := client.Get("http://iscsid/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	all := make(map[string]float64)
	for lines := bufio.NewScanner(io.LimitReader(resp.Body, 64<<20)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			all[name] = v
		}
	}
	if all["go_goroutines"] == 0 {
		r.t.Fatal("no metrics of iscsid")
	}
	return all
}

// notGrown compares what the daemon took in the first quarter of a soak with the
// last one, each by its least: buffers, collections of garbage and recoveries that are
// under way come and go, a leak stays (and backTo finds the smallest). The daemon may have been another one before;
// only the last one counts.
func notGrown(t *testing.T, all []footprint) {
	t.Helper()
	if len(all) == 0 {
		return
	}
	pid := all[len(all)-1].pid
	all = slices.DeleteFunc(slices.Clone(all), func(f footprint) bool { return f.pid != pid })
	const few = 12
	if len(all) < few {
		t.Logf("%d looks at the last iscsid are too few to tell whether it grew", len(all))
		return
	}
	least := func(part []footprint) footprint {
		f := part[0]
		for _, p := range part {
			f.goroutines, f.files, f.threads = min(f.goroutines, p.goroutines), min(f.files, p.files), min(f.threads, p.threads)
			f.heap, f.resident = min(f.heap, p.heap), min(f.resident, p.resident)
		}
		return f
	}
	first, last := least(all[:len(all)/4]), least(all[len(all)*3/4:])
	t.Logf("first: %v", first)
	t.Logf("last: %v, looked at %d times", last, len(all))
	if last.goroutines > first.goroutines+8 {
		t.Errorf("goroutines grew from %d to %d", first.goroutines, last.goroutines)
	}
	if last.files > first.files+4 {
		t.Errorf("descriptors grew from %d to %d", first.files, last.files)
	}
	if last.heap > first.heap*3/2+4<<10 {
		t.Errorf("the heap grew from %d to %d KiB", first.heap, last.heap)
	}
	if last.resident > first.resident*5/4+8<<10 {
		t.Errorf("the daemon grew from %d to %d KiB", first.resident, last.resident)
	}
}

// backTo wants the daemon, which has no session any more, to be what it was before
// the first one.
func (r *rig) backTo(idle footprint) {
	r.t.Helper()
	var now footprint
	begin := time.Now()
	for {
		now = r.footprint()
		if now.goroutines <= idle.goroutines && now.files <= idle.files {
			break
		}
		if time.Since(begin) > recoveryTime {
			r.t.Errorf("without sessions: %v, was %v", now, idle)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.t.Logf("without sessions: %v, was %v", now, idle)
}
