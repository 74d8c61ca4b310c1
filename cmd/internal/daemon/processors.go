package daemon

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A processorKeeper gives the Go scheduler as many processors as the work fills:
// one, most of the time.
//
// With more, the scheduler wakes another thread as soon as a second goroutine can
// run. Those of an I/O run for a few µs: to wake a thread on another processor
// for that costs more than it saves, and as the goroutines then take turns no
// more, each finds fewer requests to deal with at once (docs/benchmarks.md).
//
// With one, a request of an administrator's that takes some ms would hold up I/O
// for so long; see spare.
//
// nil keeps nothing.
type processorKeeper struct {
	least, most int // what the process may use
	// used returns the processor time of the process, set what the scheduler is
	// told. Tests replace them.
	used func() time.Duration
	set  func(int)

	mu   sync.Mutex
	now  int // what was set last
	calm int // looks in a row at which half as many would have done

	one atomic.Bool // now is 1
}

const (
	// A look every processorsBusy, or processorsIdle when there was nothing to do.
	processorsBusy = 100 * time.Millisecond
	processorsIdle = time.Second

	// Twice as many from fullLoad of those there are, half as many when lowLoad
	// of these would not be reached, calmLooks times in a row. What fills one to
	// fullLoad takes more of two, so that it does not go to and fro.
	fullLoad  = 0.8
	lowLoad   = 0.6
	idleLoad  = 0.05
	calmLooks = 10
)

// newProcessorKeeper returns a keeper that begins with all there are. Where the
// administrator has said how many there are to be, it leaves them alone.
func newProcessorKeeper() *processorKeeper {
	n := runtime.GOMAXPROCS(0)
	k := &processorKeeper{least: 1, most: n, now: n, used: processorTime, set: func(n int) { runtime.GOMAXPROCS(n) }}
	if os.Getenv("GOMAXPROCS") != "" {
		k.least = n
	}
	k.one.Store(n == 1)
	return k
}

// run looks at the load until ctx ends.
func (k *processorKeeper) run(ctx context.Context) {
	if k == nil || k.least == k.most {
		return
	}
	timer := time.NewTimer(processorsBusy)
	defer timer.Stop()
	then, used := time.Now(), k.used()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		now, sum := time.Now(), k.used()
		load := float64(sum-used) / float64(now.Sub(then))
		then, used = now, sum
		k.look(load)
		if load < idleLoad {
			timer.Reset(processorsIdle)
		} else {
			timer.Reset(processorsBusy)
		}
	}
}

// look takes notice of the load since the last look: how many processors were
// busy with this process, on average.
func (k *processorKeeper) look(load float64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	half := max(k.now/2, k.least)
	switch {
	case load > fullLoad*float64(k.now):
		k.change(2 * k.now)
	case load < lowLoad*float64(half):
		if k.calm++; k.calm >= calmLooks {
			k.change(half)
		}
	default:
		k.calm = 0
	}
}

// spare sees to it that there is a processor besides the one that I/O may need, for
// some time: the caller is about to work for longer than an I/O does.
func (k *processorKeeper) spare() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.change(max(k.now, 2))
}

// single reports whether there is only one processor at the moment.
func (k *processorKeeper) single() bool { return k != nil && k.one.Load() }

// change sets another number of processors, which stops the process for some
// 10 µs. The caller holds mu.
func (k *processorKeeper) change(n int) {
	k.calm = 0
	if n = min(n, k.most); n != k.now {
		k.now = n
		k.one.Store(n == 1)
		k.set(n)
	}
}

// processorTime returns the processor time that the process has used.
func processorTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0 // then it never needs more; every kernel has this clock
	}
	return time.Duration(ts.Nano())
}
