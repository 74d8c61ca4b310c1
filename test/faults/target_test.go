//go:build integration

package faults

import (
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/targets"
)

// A server is a target that can be killed and started again.
type server interface {
	Portal() targets.PortalAddr
	Start()
	Stop()
}

// TestTargetKilled kills the target and starts it again: I/O waits.
func TestTargetKilled(t *testing.T) {
	for _, tc := range []struct {
		name  string
		start func(r *rig) server
	}{
		{"iscsi-target", func(r *rig) server { return own(r.t, r.Host) }},
		{"tgt", func(r *rig) server {
			return targets.StartTGT(r.t, 0, nil, targets.Target{
				Name: targetName,
				LUNs: []targets.LUN{{Number: 1, Path: targets.SparseFile(r.t, diskSize)}},
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			tgt := tc.start(r)
			portal := tgt.Portal().String()
			r.record(portal)
			r.login(portal)
			c := r.export(checker.Config{})
			var back []time.Duration
			for range times(6, 200) {
				pauseBetween()
				tgt.Stop()
				pauseBetween()
				tgt.Start()
				back = append(back, await(t, c))
			}
			verdict(t, c)
			text, _ := summary(back)
			t.Logf("I/O after the target's start: %s", text)
		})
	}
}
