package initiator

import "time"

// A clock tells how much time has gone by since it was made; it only ever goes
// forward. A session and its volumes have the same one.
//
// What handles many tasks a second reads it once for all that come together. A
// reading is nearly free where the kernel has a vDSO, but a system call in
// user-mode Linux and with clocks that user space cannot read, and there three
// for each request were most of the system calls that were made.
type clock struct{ epoch time.Time }

func newClock() clock { return clock{time.Now()} }

func (c clock) now() time.Duration { return time.Since(c.epoch) }

// maxReadingUses is for how many requests one reading serves, so that it is not
// used without end by somebody who never calls Kick.
const maxReadingUses = 32

// A reading of a clock is used for all requests that are submitted together.
type reading struct {
	at   time.Duration
	uses int // that are left
}

// of returns the reading, of this clock, and makes it first if there is none.
func (r *reading) of(c clock) time.Duration {
	if r.uses == 0 {
		r.at, r.uses = c.now(), maxReadingUses
	}
	r.uses--
	return r.at
}

// forget has the next use read the clock.
func (r *reading) forget() { r.uses = 0 }
