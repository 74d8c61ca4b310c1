package checker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Disk is what is checked. Methods are called by several goroutines at once.
type Disk interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Flush() error
	Size() int64
}

// A Config says how a disk is checked. Zero values mean the defaults.
type Config struct {
	Workers int           // how many requests at a time; 8
	Blocks  int           // how many blocks, from the disk's start; all, 4096 at most
	Most    int           // longest request in blocks; 16
	Pace    time.Duration // pause of each worker between two requests; none
	Seed    uint64        // of the run; a random one
	// Flushes is how many of 100 requests are flushes; 5.
	Flushes int
}

// maxFindings bounds what is kept: a disk that fails fails thousands of times.
const maxFindings = 20

// A Checker checks one disk.
type Checker struct {
	disk    Disk
	cfg     Config
	run     uint64
	workers []*worker
	wg      sync.WaitGroup
	stop    chan struct{} // closed by Check: workers end
	once    sync.Once

	// power counts failures of the disk's power: odd while it is out.
	power    atomic.Uint64
	tolerant atomic.Bool // errors are expected

	writes, reads, flushes, failures atomic.Uint64

	// mu guards the findings and round, and round's changes wake.
	mu       sync.Mutex
	findings []error
	round    uint64        // the youngest Await
	progress chan struct{} // closed and replaced when a worker catches up with round
	longest  time.Duration // that a request took, since TakeLongest
}

// A worker writes to blocks first, first+1 … first+len(log)-1.
type worker struct {
	c     *Checker
	rng   *rand.Rand
	first uint64
	log   []entry
	seq   uint64
	buf   []byte
	round uint64 // youngest round in which a request began and ended; c.mu
}

// An entry is the log of one block.
type entry struct {
	acked uint64 // last write that was acknowledged
	// unknown are writes that failed after acked and may have happened.
	unknown []uint64
	durable uint64 // last write that a flush has made durable
	// power is the state of the power during the whole of write acked; odd
	// where it failed meanwhile, and nothing is known.
	power uint64
	// older are acknowledged writes between durable and acked: what a power
	// failure can bring back. Kept only until a flush.
	older []uint64
}

// Start begins to check.
func Start(disk Disk, cfg Config) *Checker {
	if cfg.Workers == 0 {
		cfg.Workers = 8
	}
	if cfg.Blocks == 0 {
		cfg.Blocks = int(min(disk.Size()/BlockSize, 4096))
	}
	if cfg.Most == 0 {
		cfg.Most = 16
	}
	if cfg.Flushes == 0 {
		cfg.Flushes = 5
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	cfg.Workers = min(cfg.Workers, cfg.Blocks)
	c := &Checker{disk: disk, cfg: cfg, run: cfg.Seed, stop: make(chan struct{}), progress: make(chan struct{})}
	share := cfg.Blocks / cfg.Workers
	for i := range cfg.Workers {
		w := &worker{
			c: c, rng: rand.New(rand.NewPCG(cfg.Seed, uint64(i))), first: uint64(i * share),
			log: make([]entry, share), buf: Aligned(min(cfg.Most, share) * BlockSize),
		}
		c.workers = append(c.workers, w)
	}
	for _, w := range c.workers {
		c.wg.Go(w.work) // ends with stop; Check waits
	}
	return c
}

// work sends requests until it is told to end.
func (w *worker) work() {
	c := w.c
	for {
		select {
		case <-c.stop:
			return
		default:
		}
		c.mu.Lock()
		round := c.round
		c.mu.Unlock()
		begin := time.Now()
		var ok bool
		switch n := w.rng.IntN(100); {
		case n < c.cfg.Flushes:
			ok = w.flush()
		case n < 70:
			ok = w.write()
		default:
			ok = w.read()
		}
		took := time.Since(begin)
		c.mu.Lock()
		c.longest = max(c.longest, took)
		if ok && round > w.round {
			w.round = round
			close(c.progress)
			c.progress = make(chan struct{})
		}
		c.mu.Unlock()
		pause := c.cfg.Pace
		if !ok {
			pause = max(pause, 20*time.Millisecond)
		}
		if pause > 0 {
			select {
			case <-c.stop:
				return
			case <-time.After(pause):
			}
		}
	}
}

// choose picks a range of the worker's blocks.
func (w *worker) choose() (at, n int) {
	n = 1 + w.rng.IntN(len(w.buf)/BlockSize)
	return w.rng.IntN(len(w.log) - n + 1), n
}

func (w *worker) write() bool {
	c := w.c
	at, n := w.choose()
	seqs := w.seq + 1
	w.seq += uint64(n)
	for i := range n {
		fill(w.buf[i*BlockSize:][:BlockSize], c.run, w.first+uint64(at+i), seqs+uint64(i))
	}
	power := c.power.Load()
	_, err := c.disk.WriteAt(w.buf[:n*BlockSize], int64(w.first+uint64(at))*BlockSize)
	if c.power.Load() != power {
		power |= 1
	}
	c.writes.Add(1)
	for i := range n {
		e, seq := &w.log[at+i], seqs+uint64(i)
		if err != nil {
			e.unknown = append(e.unknown, seq)
			continue
		}
		if e.acked > e.durable {
			e.older = append(e.older, e.acked)
		}
		// What failed before cannot be seen again once this is there, but for
		// a failure of the power.
		e.older = append(e.older, e.unknown...)
		e.acked, e.power, e.unknown = seq, power, nil
	}
	return c.note("write", err)
}

func (w *worker) flush() bool {
	c := w.c
	power := c.power.Load()
	err := c.disk.Flush()
	c.flushes.Add(1)
	if err == nil && power&1 == 0 && c.power.Load() == power {
		for i := range w.log {
			if e := &w.log[i]; e.power == power && e.acked > e.durable {
				e.durable, e.older = e.acked, nil
			}
		}
	}
	return c.note("flush", err)
}

func (w *worker) read() bool {
	at, n := w.choose()
	return w.verify(at, n)
}

// verify reads n blocks and compares them with the log.
func (w *worker) verify(at, n int) bool {
	c := w.c
	b := w.buf[:n*BlockSize]
	_, err := c.disk.ReadAt(b, int64(w.first+uint64(at))*BlockSize)
	c.reads.Add(1)
	if err == nil {
		for i := range n {
			w.compare(at+i, b[i*BlockSize:][:BlockSize])
		}
	}
	return c.note("read", err)
}

func (w *worker) compare(i int, b []byte) {
	block := w.first + uint64(i)
	seq, err := parse(b, w.c.run, block)
	e := &w.log[i]
	if err != nil {
		// What an earlier run has left stays until this one has written there.
		if other := (*otherRunError)(nil); e.acked == 0 && errors.As(err, &other) {
			return
		}
		w.c.find(fmt.Errorf("block %d: %w", block, err))
		return
	}
	now := w.c.power.Load()
	switch {
	case seq == e.acked:
	case slices.Contains(e.unknown, seq):
		// It did happen. Nothing older may come back.
		e.older = append(e.older, e.acked)
		e.acked, e.power = seq, e.power|1
		e.unknown = slices.DeleteFunc(e.unknown, func(s uint64) bool { return s <= seq })
	case (now != e.power || now&1 != 0) && (seq == e.durable || slices.Contains(e.older, seq)):
		// Lost with the power, and never flushed: from here on this counts.
		e.acked, e.power = seq, now|1
		e.older, e.unknown = nil, nil
	case seq < e.acked:
		w.c.find(fmt.Errorf("block %d: write %d was acknowledged and is lost: there is write %d (flushed: %d)", block, e.acked, seq, e.durable))
	default:
		w.c.find(fmt.Errorf("block %d: write %d, which was never sent there (acknowledged: %d)", block, seq, e.acked))
	}
}

// note counts a request and reports whether it succeeded.
func (c *Checker) note(op string, err error) bool {
	if err == nil {
		return true
	}
	c.failures.Add(1)
	if !c.tolerant.Load() {
		c.find(fmt.Errorf("%s: %w", op, err))
	}
	return false
}

func (c *Checker) find(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.findings) < maxFindings {
		c.findings = append(c.findings, fmt.Errorf("%s %w", time.Now().Format("15:04:05.000"), err))
	}
}

// Findings returns what was wrong so far, nil if all was well.
func (c *Checker) Findings() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.findings...)
}

// Tolerate says whether requests may fail from now on.
func (c *Checker) Tolerate(yes bool) { c.tolerant.Store(yes) }

// PowerFails calls f, during which the disk loses what its cache holds.
func (c *Checker) PowerFails(f func()) {
	c.power.Add(1)
	f()
	c.power.Add(1)
}

// Await waits until every worker has begun and ended a request successfully
// since the call: all is well again.
func (c *Checker) Await(ctx context.Context) error {
	c.mu.Lock()
	c.round++
	round := c.round
	c.mu.Unlock()
	for {
		c.mu.Lock()
		waiting := 0
		for _, w := range c.workers {
			if w.round < round {
				waiting++
			}
		}
		progress := c.progress
		c.mu.Unlock()
		if waiting == 0 {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d workers still wait: %w", waiting, len(c.workers), context.Cause(ctx))
		}
	}
}

// TakeLongest returns the longest time that a request took since the last
// call.
func (c *Checker) TakeLongest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.longest
	c.longest = 0
	return d
}

// Failures returns how many requests have failed.
func (c *Checker) Failures() uint64 { return c.failures.Load() }

// Check ends the workers, reads every block once more and returns what was
// wrong since Start. Further calls return the same.
func (c *Checker) Check() error {
	c.once.Do(func() {
		close(c.stop)
		c.wg.Wait()
		for _, w := range c.workers {
			most := len(w.buf) / BlockSize
			for at := 0; at < len(w.log); at += most {
				w.verify(at, min(most, len(w.log)-at))
			}
		}
	})
	return c.Findings()
}

// String returns the counts of the requests in a line.
func (c *Checker) String() string {
	return fmt.Sprintf("%d writes, %d reads, %d flushes, %d failed", c.writes.Load(), c.reads.Load(), c.flushes.Load(), c.failures.Load())
}
