package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// probesAtOnce bounds how many portals are asked at the same time.
const probesAtOnce = 32

// slow is a time to connect that a disk will be felt to have.
const slow = 10 * time.Millisecond

// Sizes of what TCP and IP add to a segment, without options.
const (
	overhead4 = 40
	overhead6 = 60
	optionMax = 60 // options of TCP, and rounding
)

// portals connects to each portal of the records, as a login does first, and
// hangs up.
func (e *examination) portals() {
	const check = "portal"
	var list []string
	for _, n := range e.nodes {
		if at := hostPort(n.Address(), n.Port()); !slices.Contains(list, at) {
			list = append(list, at)
		}
	}
	slices.Sort(list)
	type answer struct {
		p   Path
		err error
	}
	answers := make([]answer, len(list))
	var wg sync.WaitGroup
	slots := make(chan struct{}, probesAtOnce)
	for i, at := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(e.ctx, e.Timeout)
			defer cancel()
			answers[i].p, answers[i].err = e.System.Probe(ctx, at)
		})
	}
	wg.Wait()
	for i, at := range list {
		a := answers[i]
		switch {
		case a.err != nil && errors.Is(a.err, context.DeadlineExceeded):
			e.problem(check, fmt.Sprintf("%s does not answer within %v", at, e.Timeout), "check address, route and firewall; a host that is down answers like this")
		case a.err != nil:
			e.problem(check, at+": "+a.err.Error(), "check that the target's service runs and that the port is right")
		default:
			e.path(at, a.p)
		}
	}
}

// path judges a connection that was made.
func (e *examination) path(at string, p Path) {
	const check = "portal"
	text := fmt.Sprintf("%s answers in %v", at, p.Connect.Round(10*time.Microsecond))
	if p.Iface != "" {
		text += fmt.Sprintf(", through %s", p.Iface)
	}
	if p.IfaceMTU > 0 {
		text += fmt.Sprintf(" (MTU %d)", p.IfaceMTU)
	}
	if p.MSS > 0 {
		text += fmt.Sprintf(", segments of %d bytes", p.MSS)
	}
	e.ok(check, "%s", text)
	if p.Connect > slow {
		e.warning("latency", fmt.Sprintf("%s is %v away: each request takes at least as long", at, p.Connect.Round(time.Millisecond)),
			"keep the target near, or the queue deep; see whether the network is busy")
	}
	overhead := overhead4
	if p.Local.Is6() && !p.Local.Is4In6() {
		overhead = overhead6
	}
	switch {
	case p.IfaceMTU <= 0 || p.Local.IsLoopback(): // there is no network to be wrong
	case p.PathMTU > 0 && p.PathMTU < p.IfaceMTU:
		e.warning("MTU", fmt.Sprintf("%s: packets of %d bytes pass, the interface sends %d", at, p.PathMTU, p.IfaceMTU),
			"give all switches and both ends on the way the same MTU")
	case p.MSS > 0 && p.MSS < p.IfaceMTU-overhead-optionMax:
		e.warning("MTU", fmt.Sprintf("%s: the other end takes segments of %d bytes, the interface could send %d", at, p.MSS, p.IfaceMTU-overhead),
			"give both ends the same MTU, or traffic is smaller than it could be")
	}
}
