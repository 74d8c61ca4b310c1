package daemon

import (
	"context"
	"log/slog"
	"math"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goiscsi/goiscsi/nbd"
)

const (
	// memoryBase is what iscsid takes without sessions, what the kernel keeps for
	// it included; memorySession what a session with an idle disk adds
	// (docs/operations.md has the figures).
	memoryBase    = 24 << 20
	memorySession = 1 << 20
	// memoryLeast is the least that iscsid is made for.
	memoryLeast = 48 << 20

	mostInFlight  = 256 << 20
	leastInFlight = 2 << 20
)

// A memoryPlan divides the memory that the process may use.
type memoryPlan struct {
	limit    int64 // of the control group; noLimit
	heap     int64 // what the Go runtime is to stay below; noLimit
	inFlight int64 // payload of all devices together
	idle     int64 // payload buffers kept unused
}

// planMemory divides limit bytes, of a machine that has total. A third of what is
// left above the base is for payload in flight: as much again may be on its way
// in sockets' buffers, which the group has to pay for, too, and the rest is for
// what is between two collections of garbage.
func planMemory(limit, total int64) memoryPlan {
	if limit >= total {
		return memoryPlan{
			limit: noLimit, heap: noLimit,
			inFlight: min(max(total/8, leastInFlight), mostInFlight), idle: poolIdle,
		}
	}
	inFlight := min(max((limit-memoryBase)/3, leastInFlight), mostInFlight)
	return memoryPlan{limit: limit, heap: max(limit-limit/3, memoryBase/2), inFlight: inFlight, idle: min(poolIdle, inFlight/2)}
}

// A memoryKeeper keeps the process within the memory that its control group
// leaves to it. In a group that is full the kernel would let it wait for memory that it
// alone could give back, for it must not be killed (see protect).
type memoryKeeper struct {
	proc string // directory of the process in /proc
	pool *nbd.BufferPool
	log  *slog.Logger
	// sessions returns how many there are.
	sessions func() int

	// The goroutine's own, and its predecessor's before it is started.
	plan   memoryPlan
	warned int // sessions when last warned of
	broken bool
}

// memoryEvery is how often the limit, which can be changed at any time (systemctl
// set-property), is looked at.
const memoryEvery = 5 * time.Second

// run looks at the limit until ctx ends.
func (k *memoryKeeper) run(ctx context.Context) {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.look()
		case <-ctx.Done():
			return
		}
	}
}

// look reads the limit and, if it is another than before, lives by it.
func (k *memoryKeeper) look() {
	limit, err := cgroupLimit(k.proc)
	if err != nil {
		if !k.broken {
			k.log.Warn("memory limit of the control group is not known", "err", err)
		}
		k.broken = true
		return
	}
	k.broken = false
	plan := planMemory(limit, totalMemory())
	if plan != k.plan {
		known := k.plan != memoryPlan{}
		k.plan, k.warned = plan, 0
		debug.SetMemoryLimit(plan.heap)
		k.pool.SetBounds(plan.inFlight, plan.idle)
		switch {
		case plan.limit != noLimit:
			k.log.Info("memory is limited", "limit", plan.limit, "heap", plan.heap, "in_flight", plan.inFlight)
		case known:
			k.log.Info("memory is not limited any more")
		}
	}
	k.warn()
}

// warn says when the limit is too small for what there is; again only when there is
// twice as much.
func (k *memoryKeeper) warn() {
	n := k.sessions()
	need := max(memoryBase+int64(n)*memorySession+leastInFlight, memoryLeast)
	if k.plan.limit >= need || k.warned > 0 && n < 2*k.warned {
		return
	}
	k.warned = max(n, 1)
	k.log.Error("the memory limit is too small: I/O may come to a stand; raise MemoryMax= of the unit",
		"limit", k.plan.limit, "sessions", n, "needed", need)
}

// totalMemory returns the machine's memory in bytes.
func totalMemory() int64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return math.MaxInt64 // none that matters here
	}
	return int64(si.Totalram) * int64(si.Unit)
}
