//go:build integration

package faults

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
	"github.com/goiscsi/goiscsi/test/faults/proxy"
)

// quickRecovery is what a recovery may take while the target is there.
const quickRecovery = 100 * time.Millisecond

// TestConnectionFails ends or damages the connection again and again.
func TestConnectionFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault func(*proxy.Proxy)
	}{
		{"reset", (*proxy.Proxy).Reset},
		{"closed", (*proxy.Proxy).Close},
		{"corrupted on the way to the target", func(p *proxy.Proxy) { p.Corrupt(proxy.ToTarget) }},
		{"corrupted on the way to the initiator", func(p *proxy.Proxy) { p.Corrupt(proxy.ToInitiator) }},
		{"reset in the login or soon after", resetTwice},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			tgt := ownInMemory(t, r.Host)
			p := proxy.Start(t, tgt.Portal().String())
			// A corrupted length makes a PDU that never ends: the ping finds it.
			r.record(p.Addr(), digests...)
			r.login(p.Addr())
			c := r.export(checker.Config{})
			n := times(25, 200)
			late := lateness(t)
			for range n {
				pauseBetween()
				before := p.Accepted()
				tc.fault(p)
				for p.Accepted() == before {
					await(t, c) // the fault meets a PDU sooner or later
				}
				await(t, c)
			}
			waking, _ := summary(late())
			verdict(t, c)
			all := outages(r.d.Log())
			text, p90 := summary(all)
			usual := p90
			if !full() && len(all) > 0 {
				usual = median(all) // the suite does other things meanwhile
			}
			t.Logf("recoveries: %s; a goroutine was woken late by %s; the longest:\n%s", text, waking, slowest(r.d.Log()))
			if back := r.recoveries(); back < n {
				t.Errorf("%d recoveries for %d faults", back, n)
			}
			if usual > quickRecovery {
				t.Errorf("recoveries take longer than %v", quickRecovery)
			}
		})
	}
}

// resetTwice resets the connection, and the one that takes its place at whatever
// moment of its login or of the first commands.
func resetTwice(p *proxy.Proxy) {
	before := p.Accepted()
	p.Reset()
	for begin := time.Now(); p.Accepted() == before && time.Since(begin) < recoveryTime; {
		runtime.Gosched() // a sleep would always be too long for the login
	}
	between(0, 3*time.Millisecond)
	p.Reset()
}

// TestBlackHole swallows everything for a while: the ping finds it within its
// interval and timeout, and the session comes back when packets flow again.
func TestBlackHole(t *testing.T) {
	r := newRig(t)
	tgt := own(t, r.Host)
	p := proxy.Start(t, tgt.Portal().String())
	r.record(p.Addr(), "node.conn[0].timeo.noop_out_interval", "1", "node.conn[0].timeo.noop_out_timeout", "1")
	r.login(p.Addr())
	c := r.export(checker.Config{})
	var found, back []time.Duration
	for i := range times(3, 20) {
		pauseBetween()
		begin := time.Now()
		p.Silence(true)
		for strings.Count(r.d.Log(), "connection lost") <= i {
			if time.Since(begin) > recoveryTime {
				t.Fatalf("a silent target is not found to be so")
			}
			time.Sleep(5 * time.Millisecond)
		}
		found = append(found, time.Since(begin))
		between(10*time.Millisecond, 1500*time.Millisecond)
		p.Silence(false)
		back = append(back, await(t, c))
	}
	verdict(t, c)
	text, p90 := summary(found)
	t.Logf("found: %s", text)
	if p90 > 3*time.Second {
		t.Errorf("with an interval and a timeout of 1 s each, found after %v", p90)
	}
	text, _ = summary(back)
	t.Logf("I/O after the end of the silence: %s", text)
}

// TestRecoveryTimeout has the target away for longer than replacement_timeout:
// I/O fails with an error and not before, and heals when the target is back.
func TestRecoveryTimeout(t *testing.T) {
	r := newRig(t)
	tgt := own(t, r.Host)
	portal := tgt.Portal().String()
	r.record(portal, "node.session.timeo.replacement_timeout", "2")
	r.login(portal)
	c := r.export(checker.Config{})
	for range times(2, 20) {
		pauseBetween()
		failed := c.Failures()
		c.Tolerate(true)
		begin := time.Now()
		tgt.Stop()
		for c.Failures() == failed {
			if time.Since(begin) > recoveryTime {
				t.Fatal("I/O waits for ever")
			}
			time.Sleep(5 * time.Millisecond)
		}
		if took := time.Since(begin); took < 1900*time.Millisecond || took > 4*time.Second {
			t.Errorf("I/O failed after %v, want 2 s", took)
		} else {
			t.Logf("I/O failed after %v", took)
		}
		if out := r.Must("-m", "session", "-P", "1"); !strings.Contains(out, "FAILED") {
			t.Errorf("-P 1 does not show that the session has failed:\n%s", out)
		}
		tgt.Start()
		t.Logf("I/O goes on %v after the target is back", await(t, c))
		c.Tolerate(false)
		await(t, c)
	}
	verdict(t, c)
}
