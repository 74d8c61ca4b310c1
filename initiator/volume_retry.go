package initiator

import (
	"math/rand/v2"
	"time"
)

// Bounds of retries. docs/disk.md explains them.
const (
	// maxAgain is how often a command is sent again that was aborted, timed
	// out or got a status nobody understands: as often as Linux's disks do.
	maxAgain = 5

	// maxAttentions is how many unit attentions one command may meet. A device
	// keeps one of each kind for us, so a real one runs out of them early.
	maxAttentions = 16

	// DefaultPatience is how long a command waits for a device that is busy or
	// getting ready, in all: as long as for a lost connection.
	DefaultPatience = 120 * time.Second
)

// Times between two attempts.
const (
	busyDelay    = 5 * time.Millisecond // first back-off
	busyDelayMax = 2 * time.Second
	waitDelay    = 100 * time.Millisecond // first wait for a device to get ready
	waitDelayMax = 2 * time.Second
)

// retries counts what a command has been through. The zero value is a command
// that was not sent yet.
type retries struct {
	again      uint8
	attentions uint8
	delays     uint8
	waiting    bool
	since      time.Time // when the first delay began, if waiting
}

// next decides, after a verdict that is neither done, unsupported nor failed,
// whether the command is sent again and after how long.
func (r *retries) next(v verdict, now time.Time, patience time.Duration) (time.Duration, bool) {
	switch v {
	case verdictAttention, verdictHold:
		r.attentions++
		return 0, r.attentions <= maxAttentions
	case verdictAgain:
		if r.again++; r.again == 1 {
			return 0, true // mostly whatever came between is over
		}
		return backoff(r.again-2, busyDelay, busyDelayMax), r.again <= maxAgain
	case verdictBusy, verdictFull, verdictWait:
		if !r.waiting {
			r.waiting, r.since = true, now
		}
		left := patience - now.Sub(r.since)
		if left <= 0 {
			return 0, false
		}
		first, most := busyDelay, busyDelayMax
		if v == verdictWait {
			first, most = waitDelay, waitDelayMax
		}
		d := backoff(r.delays, first, most)
		if r.delays < 63 {
			r.delays++
		}
		// The last attempt is made when patience ends, not after.
		return min(d, left), true
	}
	return 0, false
}

// backoff returns the delay after n earlier ones: random, so that initiators
// that met once do not meet again, between half and all of first·2ⁿ, which is
// bounded by most.
func backoff(n uint8, first, most time.Duration) time.Duration {
	d := most
	if n < 20 {
		d = min(first<<n, most)
	}
	return d/2 + rand.N(d/2+1)
}
