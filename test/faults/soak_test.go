//go:build integration || guest

package faults

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/faults/proxy"
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

// soak has one fault after the other, at random, while the checkers run, and wants
// that nothing is lost and the daemon has not grown in the end. It begins to look
// when each fault had its turn: buffers and threads are made when first needed.
func (r *rig) soak(checkers []*checker.Checker, faults map[string]func()) {
	t := r.t
	t.Helper()
	count := map[string]int{}
	round := func(name string) {
		pauseBetween()
		count[name]++
		faults[name]()
		for _, c := range checkers {
			await(t, c)
		}
	}
	names := slices.Sorted(maps.Keys(faults))
	for _, name := range names {
		round(name)
	}
	var seen []footprint
	for begin := time.Now(); time.Since(begin) < soakTime(); {
		round(names[rand.N(len(names))])
		seen = append(seen, r.footprint())
	}
	for _, c := range checkers {
		verdict(t, c)
	}
	t.Logf("%v", count)
	notGrown(t, seen)
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
