package chap

import (
	"crypto/sha256"
	"sync"
)

// historyLen is how many challenges a History remembers after their
// authentications have ended.
const historyLen = 1024

// A History knows the challenges that an initiator issued, to refuse a target
// that sends one of them back (RFC 7143 section 9.2.1): all whose authentication
// goes on, for those are worth something to an attacker, and the last 1024
// others. Its methods may be called from any goroutine; a nil History remembers
// nothing.
type History struct {
	mu    sync.Mutex // protects the rest
	known map[digest]int
	ended []digest // a ring once it is full
	next  int      // where the oldest of the ring is
}

// A digest stands for a challenge: what is remembered is of no use to anybody.
type digest [sha256.Size]byte

// open notes a challenge whose authentication begins.
func (h *History) open(challenge []byte) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known == nil {
		h.known = make(map[digest]int)
	}
	h.known[sha256.Sum256(challenge)]++
}

// end notes that the authentication with the challenge is over.
func (h *History) end(challenge []byte) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := digest(sha256.Sum256(challenge))
	if len(h.ended) < historyLen {
		h.ended = append(h.ended, sum)
		return
	}
	oldest := h.ended[h.next]
	if h.known[oldest]--; h.known[oldest] == 0 {
		delete(h.known, oldest)
	}
	h.ended[h.next] = sum
	h.next = (h.next + 1) % historyLen
}

func (h *History) issued(challenge []byte) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known[sha256.Sum256(challenge)] > 0
}
