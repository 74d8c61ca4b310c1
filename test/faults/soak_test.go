//go:build integration || guest

package faults

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/faults/proxy"
	"github.com/goiscsi/goiscsi/test/lab"
)

// soakTime is how long random faults go on: FAULTS is "full" or a duration.
func soakTime() time.Duration {
	if full() {
		return 2 * time.Hour
	}
	if d, err := time.ParseDuration(os.Getenv("FAULTS")); err == nil {
		return d
	}
	return 12 * time.Second
}

// soak has one fault after the other, at random, while checker c runs, and
// wants that the daemon has not grown in the end. It begins to compare when
// each fault had its turn: buffers and threads are made when first needed.
func soak(t *testing.T, c *checker.Checker, daemon func() *lab.Daemon, faults map[string]func()) {
	t.Helper()
	var names []string
	for name := range faults {
		names = append(names, name)
	}
	count := map[string]int{}
	round := func(name string) {
		pauseBetween()
		count[name]++
		faults[name]()
		await(t, c)
	}
	for _, name := range names {
		round(name)
	}
	rss, files := daemon().StatusKiB("VmRSS"), descriptors(t, daemon().PID())
	for begin := time.Now(); time.Since(begin) < soakTime(); {
		round(names[rand.N(len(names))])
	}
	verdict(t, c)
	rssAfter, filesAfter := daemon().StatusKiB("VmRSS"), descriptors(t, daemon().PID())
	t.Logf("%v; resident %d → %d KiB, descriptors %d → %d, threads %d", count, rss, rssAfter, files, filesAfter, daemon().StatusKiB("Threads"))
	if filesAfter > files+2 {
		t.Errorf("descriptors grew from %d to %d", files, filesAfter)
	}
	if rssAfter > 2*rss+16<<10 {
		t.Errorf("the daemon grew from %d to %d KiB", rss, rssAfter)
	}
}

// networkFaults are those that a proxy makes.
func networkFaults(p *proxy.Proxy) map[string]func() {
	return map[string]func(){
		"reset":                  p.Reset,
		"close":                  p.Close,
		"corrupt to target":      func() { p.Corrupt(proxy.ToTarget) },
		"corrupt to initiator":   func() { p.Corrupt(proxy.ToInitiator) },
		"silence":                func() { p.Silence(true); between(0, 3*time.Second); p.Silence(false) },
		"reset during a silence": func() { p.Silence(true); between(0, time.Second); p.Reset(); p.Silence(false) },
	}
}

// digests are the settings for a network that changes bits.
var digests = []string{
	"node.conn[0].iscsi.HeaderDigest", "CRC32C", "node.conn[0].iscsi.DataDigest", "CRC32C",
	"node.conn[0].timeo.noop_out_interval", "1", "node.conn[0].timeo.noop_out_timeout", "1",
}
