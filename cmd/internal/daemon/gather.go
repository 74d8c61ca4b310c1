package daemon

import (
	"runtime"
	"sync/atomic"

	"github.com/goiscsi/goiscsi/initiator"
)

// A gatherer has the requests for several disks of a session sent together. Each
// disk's come from a goroutine of its own, which would send them by a system call
// of its own, and the target would answer them one by one. So who is about to send
// lets the others that can run submit theirs before.
//
// That is worth it on one processor only: with more, the scheduler would wake a
// thread for the one that waits.
type gatherer struct {
	processors *processorKeeper
	yield      func() // runtime.Gosched

	last atomic.Pointer[initiator.Volume] // whose request was submitted last
	left atomic.Int32                     // of those to come, how many need not be another's
}

// gatherFor is how many requests in a row a disk may submit and still be thought of
// as one of several at work.
const gatherFor = 32

func newGatherer(k *processorKeeper) *gatherer {
	return &gatherer{processors: k, yield: runtime.Gosched}
}

// submitted takes notice of a request for v.
func (g *gatherer) submitted(v *initiator.Volume) {
	if g.last.Load() != v {
		g.last.Store(v)
		g.left.Store(gatherFor)
	} else if n := g.left.Load(); n > 0 {
		// Readers that do this at once may count one for two; that is of no
		// consequence.
		g.left.Store(n - 1)
	}
}

// gather is called before the requests of the session are sent.
func (g *gatherer) gather() {
	if g.left.Load() > 0 && g.processors.single() {
		g.yield()
	}
}
