//go:build linux

package nbd

import (
	"math/bits"
	"sync"
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
// a busy device gave back serves the next.
//
// It is no sync.Pool because it must hold on to its buffers in a garbage
// collection: the next I/O may be the one that frees memory.
type BufferPool struct {
	maxIdle int64

	mu     sync.Mutex // protects what follows
	free   [poolClasses][][]byte
	idle   int64 // bytes in free
	active int64 // buffers handed out and not yet returned
}

// NewBufferPool returns a pool that keeps up to maxIdle bytes of unused
// buffers; 0 means 16 MiB. What is returned above that is left to the garbage
// collector.
func NewBufferPool(maxIdle int64) *BufferPool {
	if maxIdle <= 0 {
		maxIdle = defaultPoolIdle
	}
	return &BufferPool{maxIdle: maxIdle}
}

// class returns the class for n bytes, 0 < n ≤ MaxPayload.
func class(n int) int {
	return max(bits.Len(uint(n-1))-minClassShift, 0)
}

// get returns a buffer of length n with undefined content, 0 < n ≤ MaxPayload.
func (p *BufferPool) get(n int) []byte {
	c := class(n)
	p.mu.Lock()
	p.active++
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

// put takes back what get returned.
func (p *BufferPool) put(b []byte) {
	c := class(cap(b))
	p.mu.Lock()
	p.active--
	if p.idle+int64(cap(b)) <= p.maxIdle {
		p.free[c] = append(p.free[c], b)
		p.idle += int64(cap(b))
	}
	p.mu.Unlock()
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
