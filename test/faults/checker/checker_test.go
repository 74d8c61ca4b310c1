package checker_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/faults/checker"
)

// memory is a disk with a volatile cache of whole requests.
type memory struct {
	mu     sync.Mutex
	now    []byte
	stable []byte
	write  func(p []byte, off int64) ([]byte, int64, error) // nil: as asked
}

func newMemory() *memory {
	const size = 64 * checker.BlockSize
	return &memory{now: make([]byte, size), stable: make([]byte, size)}
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(p, m.now[off:]), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.write != nil {
		var err error
		if p, off, err = m.write(p, off); err != nil {
			return 0, err
		}
	}
	return copy(m.now[off:], p), nil
}

func (m *memory) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.stable, m.now)
	return nil
}

func (m *memory) Size() int64 { return int64(len(m.now)) }

func (m *memory) crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.now, m.stable)
}

func (m *memory) set(f func(p []byte, off int64) ([]byte, int64, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.write = f
}

// check runs the checker on m while f does something to it.
func check(t *testing.T, m *memory, f func(c *checker.Checker)) error {
	t.Helper()
	c := checker.Start(m, checker.Config{Workers: 4, Seed: 1, Pace: 10 * time.Microsecond})
	await(t, c)
	f(c)
	await(t, c)
	return c.Check()
}

func await(t *testing.T, c *checker.Checker) {
	t.Helper()
	for range 10 {
		if err := c.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// untilFound repeats f, whose harm depends on what the workers are doing, until
// the checker has found it.
func untilFound(t *testing.T, c *checker.Checker, f func()) {
	t.Helper()
	for c.Findings() == nil {
		f()
		await(t, c)
	}
}

func TestGoodDisk(t *testing.T) {
	if err := check(t, newMemory(), func(*checker.Checker) {}); err != nil {
		t.Error(err)
	}
}

// TestPowerFailure loses only what was not flushed, time and again.
func TestPowerFailure(t *testing.T) {
	m := newMemory()
	err := check(t, m, func(c *checker.Checker) {
		for range 20 {
			c.PowerFails(m.crash)
			await(t, c)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// TestRequestsWhileThePowerFails has some before the cache is lost and some after.
func TestRequestsWhileThePowerFails(t *testing.T) {
	m := newMemory()
	err := check(t, m, func(c *checker.Checker) {
		for range 5 {
			c.PowerFails(func() {
				await(t, c)
				m.crash()
				await(t, c)
			})
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestFindings(t *testing.T) {
	var kept []byte // an old write
	for _, tc := range []struct {
		name string
		do   func(m *memory, c *checker.Checker)
		want string
	}{
		{"acknowledged write lost", func(m *memory, _ *checker.Checker) {
			m.set(func(p []byte, off int64) ([]byte, int64, error) { return nil, off, nil })
		}, "was acknowledged and is lost"},
		{"cache lost without a power failure", func(m *memory, c *checker.Checker) {
			// A crash may find everything flushed, or only what was not yet
			// acknowledged: then it cost nothing.
			untilFound(t, c, m.crash)
		}, "was acknowledged and is lost"},
		{"flushed write lost", func(m *memory, c *checker.Checker) {
			// Perhaps nothing was flushed yet.
			untilFound(t, c, func() {
				c.PowerFails(func() {
					m.mu.Lock()
					clear(m.now)
					m.mu.Unlock()
				})
			})
		}, "was acknowledged and is lost"},
		{"old write carried out late", func(m *memory, c *checker.Checker) {
			// What is kept may be what is still there: then it cost nothing.
			untilFound(t, c, func() {
				m.mu.Lock()
				kept = append(kept[:0], m.now...)
				m.mu.Unlock()
				await(t, c)
				m.mu.Lock()
				copy(m.now, kept)
				m.mu.Unlock()
			})
		}, "was acknowledged and is lost"},
		{"write goes to another place", func(m *memory, _ *checker.Checker) {
			m.set(func(p []byte, off int64) ([]byte, int64, error) { return p, max(0, off-checker.BlockSize), nil })
		}, "belongs"},
		{"torn block", func(m *memory, _ *checker.Checker) {
			m.set(func(p []byte, off int64) ([]byte, int64, error) { return p[:len(p)-512], off, nil })
		}, "torn"},
		{"error", func(m *memory, c *checker.Checker) {
			m.set(func(p []byte, off int64) ([]byte, int64, error) { return nil, 0, errors.New("no disk") })
			for c.Failures() == 0 {
				await(t, c)
			}
			m.set(nil)
		}, "no disk"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMemory()
			err := check(t, m, func(c *checker.Checker) { tc.do(m, c) })
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("found %v, want %q", err, tc.want)
			}
		})
	}
}

// TestFailedWriteMayHaveHappened accepts either outcome of a write that
// failed, and no older one.
func TestFailedWriteMayHaveHappened(t *testing.T) {
	m := newMemory()
	err := check(t, m, func(c *checker.Checker) {
		c.Tolerate(true)
		n := 0
		m.set(func(p []byte, off int64) ([]byte, int64, error) {
			if n++; n%3 == 0 {
				copy(m.now[off:], p)
			}
			if n%3 != 1 {
				return nil, 0, errors.New("nobody knows")
			}
			return p, off, nil
		})
		await(t, c)
		m.set(nil)
		c.Tolerate(false)
	})
	if err != nil {
		t.Error(err)
	}
}
