//go:build integration

package faults

import (
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/faults/proxy"
	"github.com/goiscsi/goiscsi/test/lab"
)

// TestRandomFaults mixes the faults of the network and the target.
func TestRandomFaults(t *testing.T) {
	r := newRig(t)
	tgt := own(t, r.Host)
	p := proxy.Start(t, tgt.Portal().String())
	r.record(p.Addr(), digests...)
	r.login(p.Addr())
	// Enough for each fault to hit requests in flight, and no more: the suite
	// does other things meanwhile.
	c := r.export(checker.Config{Pace: 5 * time.Millisecond})
	faults := networkFaults(p)
	faults["target killed"] = func() { tgt.Stop(); pauseBetween(); tgt.Start() }
	soak(t, c, func() *lab.Daemon { return r.d }, faults)
}
