package initiator

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// LatencyBuckets is how many bounds a latency histogram has.
const LatencyBuckets = 21

// Latencies are told apart by powers of two of a nanosecond, so that a bucket is
// found without a search: from 2^14 ns, which is less than any network takes, to
// 2^34 ns, 17 s, about half of what a command may take.
const firstLatencyBit = 14

// LatencyBound returns the longest time that counts in bucket i of a Histogram,
// 0 ≤ i < LatencyBuckets: 16.384 µs, and twice as much from each to the next.
func LatencyBound(i int) time.Duration { return 1 << (firstLatencyBit + i) }

// A Histogram counts requests by the time they took, from Submit to RequestDone:
// element i those that took more than LatencyBound(i-1) and not more than
// LatencyBound(i), the last element all that took longer.
type Histogram [LatencyBuckets + 1]uint64

// latencyBucket returns the element of a Histogram in which d counts.
func latencyBucket(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return min(max(bits.Len64(uint64(d-1))-firstLatencyBit, 0), LatencyBuckets)
}

// OpStats are the counters of one kind of request on a Volume.
type OpStats struct {
	Requests uint64        // that are finished, failed ones included
	Errors   uint64        // of these, those that failed
	Bytes    uint64        // read, written, discarded or zeroed by those that did not fail
	Time     time.Duration // that all of them took together
	Latency  Histogram
}

// VolumeStats are the counters of a Volume since it was opened. Each is exact;
// as they are read while requests go on, they may be from moments that are
// microseconds apart.
type VolumeStats struct {
	Read, Write, Flush, Discard, WriteZeroes OpStats

	// Pending is how many requests are submitted and not finished; InFlight, how
	// many commands for them are with the session, at most QueueDepth, which
	// shrinks while the device answers TASK SET FULL.
	Pending    int
	InFlight   int
	QueueDepth int

	// Retries counts commands that were sent again: the device was busy, getting
	// ready or reset, or its task set was full. What the session sends again
	// after a lost connection does not count.
	Retries uint64
}

// Op returns the counters of requests of one kind, nil if there is no such kind.
func (s *VolumeStats) Op(o Op) *OpStats {
	switch o {
	case OpRead:
		return &s.Read
	case OpWrite:
		return &s.Write
	case OpFlush:
		return &s.Flush
	case OpDiscard:
		return &s.Discard
	case OpWriteZeroes:
		return &s.WriteZeroes
	}
	return nil
}

// Stats returns the counters. It costs the requests that go on nothing but a
// moment of the volume's lock.
func (v *Volume) Stats() VolumeStats {
	var s VolumeStats
	for o := OpRead; o <= OpWriteZeroes; o++ {
		v.counters.ops[o-OpRead].read(s.Op(o))
	}
	s.Pending = int(v.counters.pending.Load())
	s.Retries = v.counters.retries.Load()
	v.mu.Lock()
	defer v.mu.Unlock()
	s.InFlight, s.QueueDepth = v.queue.inFlight, v.queue.depth
	return s
}

// volumeCounters are what Stats reads. They are atomic so that reading them, at
// whatever rate, does not hold requests up.
type volumeCounters struct {
	ops     [OpWriteZeroes - OpRead + 1]opCounters
	pending atomic.Int64
	retries atomic.Uint64
}

type opCounters struct {
	errors, bytes, time atomic.Uint64
	latency             [LatencyBuckets + 1]atomic.Uint64
}

// begin notes that a request has come.
func (c *volumeCounters) begin() { c.pending.Add(1) }

// end counts a request that is finished, took d and moved n bytes.
func (c *volumeCounters) end(o Op, n int64, d time.Duration, err error) {
	c.pending.Add(-1)
	if o < OpRead || o > OpWriteZeroes {
		return // refused
	}
	op := &c.ops[o-OpRead]
	op.latency[latencyBucket(d)].Add(1)
	op.time.Add(uint64(max(d, 0)))
	if err != nil {
		op.errors.Add(1)
		return
	}
	op.bytes.Add(uint64(n))
}

func (c *opCounters) read(s *OpStats) {
	for i := range c.latency {
		s.Latency[i] = c.latency[i].Load()
		s.Requests += s.Latency[i]
	}
	s.Errors, s.Bytes, s.Time = c.errors.Load(), c.bytes.Load(), time.Duration(c.time.Load())
}
