package chap

import (
	"crypto/sha256"
	"sync"
)

// historyLen is how many challenges a History remembers.
const historyLen = 32

// A History remembers the last challenges that an initiator issued, to refuse a
// target that sends one of them back. Its methods may be called from any
// goroutine; a nil History remembers nothing.
type History struct {
	mu   sync.Mutex // protects the rest
	ring [historyLen][sha256.Size]byte
	next int
	n    int
}

func (h *History) add(challenge []byte) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring[h.next] = sha256.Sum256(challenge)
	h.next = (h.next + 1) % historyLen
	h.n = min(h.n+1, historyLen)
}

func (h *History) issued(challenge []byte) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := sha256.Sum256(challenge)
	for _, old := range h.ring[:h.n] {
		if old == sum {
			return true
		}
	}
	return false
}
