//go:build linux

package nbd

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	minClassShift = 12 // 4 KiB
	maxClassShift = 25 // MaxPayload
	poolClasses   = maxClassShift - minClassShift + 1

	// defaultPoolIdle is what a pool keeps for later unless told otherwise.
	defaultPoolIdle = 16 << 20
)

// A BufferPool keeps payload buffers between requests, in classes of powers of
// two from 4 KiB to MaxPayload. Several connections may share one, so that what
// a busy device gave back serves the next, and so that there is one bound for all
// (SetBounds).
//
// It is no sync.Pool because it must hold on to its buffers in a garbage
// collection: the next I/O may be the one that frees memory.
type BufferPool struct {
	maxUsed atomic.Int64 // bytes that should be in use at most
	used    atomic.Int64 // bytes reserved: capacity of buffers that are or may be handed out

	mu      sync.Mutex // protects what follows
	maxIdle int64
	free    [poolClasses][][]byte
	idle    int64 // bytes in free
	active  int64 // buffers handed out and not yet returned
	out     int64 // bytes of them
}

// NewBufferPool returns a pool that keeps up to maxIdle bytes of unused
// buffers; 0 means 16 MiB. What is returned above that is left to the garbage
// collector.
func NewBufferPool(maxIdle int64) *BufferPool {
	if maxIdle <= 0 {
		maxIdle = defaultPoolIdle
	}
	p := &BufferPool{maxIdle: maxIdle}
	p.maxUsed.Store(math.MaxInt64)
	return p
}

// SetBounds makes used the bytes that all connections of the pool should have in
// flight at most, and idle what is kept unused; 0 means no bound and the default of
// NewBufferPool. It may be called at any time; what is in use stays so.
//
// A connection takes a further request only while its own payload in flight would be
// no more than what is left of the bound. So one busy connection gets half of it, two
// a third each, and there is always something left for the next. A request of a
// connection that has no other in flight is taken whatever the bound: else a device
// whose target is away could stop the others. The bytes in use are therefore at
// most used, and a request a connection.
func (p *BufferPool) SetBounds(used, idle int64) {
	if used <= 0 {
		used = math.MaxInt64
	}
	if idle <= 0 {
		idle = defaultPoolIdle
	}
	p.maxUsed.Store(used)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.maxIdle = idle
	p.shrink()
}

// keep returns how many bytes of unused buffers to keep: what requests in flight
// are going to take counts as in use, else a buffer would be made for each of many
// that are answered in turn. The caller holds mu.
func (p *BufferPool) keep() int64 { return max(p.maxIdle, p.used.Load()-p.out) }

// shrink drops buffers, the largest first, until no more are kept than may be. The
// caller holds mu.
func (p *BufferPool) shrink() {
	most := p.keep()
	for c := len(p.free) - 1; c >= 0 && p.idle > most; c-- {
		for l := len(p.free[c]); l > 0 && p.idle > most; l-- {
			p.idle -= int64(cap(p.free[c][l-1]))
			p.free[c][l-1] = nil
			p.free[c] = p.free[c][:l-1]
		}
	}
}

// room returns how many bytes a connection may have in flight.
func (p *BufferPool) room() int64 { return p.maxUsed.Load() - p.used.Load() }

// Used returns the bytes of the buffers of requests in flight, whether they have
// been taken from the pool already or not.
func (p *BufferPool) Used() int64 { return p.used.Load() }

// class returns the class for n bytes, 0 < n ≤ MaxPayload.
func class(n int) int {
	return max(bits.Len(uint(n-1))-minClassShift, 0)
}

// reserve counts a buffer for n bytes that take may be asked for, until release.
func (p *BufferPool) reserve(n int) { p.used.Add(1 << (class(n) + minClassShift)) }

// take returns a buffer of length n with undefined content, 0 < n ≤ MaxPayload.
func (p *BufferPool) take(n int) []byte {
	c := class(n)
	p.mu.Lock()
	p.active++
	p.out += 1 << (c + minClassShift)
	if l := len(p.free[c]); l > 0 {
		b := p.free[c][l-1]
		p.free[c][l-1] = nil
		p.free[c] = p.free[c][:l-1]
		p.idle -= int64(cap(b))
		p.mu.Unlock()
		return b[:n]
	}
	p.mu.Unlock()
	return make([]byte, n, 1<<(c+minClassShift))
}

// release ends a reservation for n bytes, and takes back what take returned for it,
// which is nil if it was not called.
func (p *BufferPool) release(b []byte, n int) {
	size := int64(1) << (class(n) + minClassShift)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used.Add(-size)
	if b != nil {
		p.active--
		p.out -= size
		if p.idle+size <= p.keep() {
			c := class(n)
			p.free[c] = append(p.free[c], b)
			p.idle += size
		}
	}
	p.shrink()
}

// Trim drops all unused buffers.
func (p *BufferPool) Trim() {
	p.mu.Lock()
	p.free = [poolClasses][][]byte{}
	p.idle = 0
	p.mu.Unlock()
}

// Idle returns how many bytes of unused buffers the pool holds.
func (p *BufferPool) Idle() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle
}

// Outstanding returns how many buffers are in use.
func (p *BufferPool) Outstanding() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.active
}
