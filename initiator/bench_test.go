package initiator_test

import (
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
)

// A loop keeps a number of tasks going: the owner submits each again when it is
// finished, and kicks once a batch.
type loop struct {
	s    *initiator.Session
	left atomic.Int64
	busy atomic.Int64
	idle chan error
	err  error
}

func (l *loop) TaskDone(t *initiator.Task) {
	if t.Err != nil || t.Status != 0 {
		l.err = fmt.Errorf("status %v: %w", t.Status, t.Err)
		l.left.Store(0)
	}
	if l.left.Add(-1) >= 0 {
		l.s.Submit(t)
		return
	}
	if l.busy.Add(-1) == 0 {
		l.idle <- l.err
	}
}

func (l *loop) Flush() { l.s.Kick() }

// run carries out n tasks, len(tasks) at a time.
func (l *loop) run(tasks []*initiator.Task, n int) error {
	tasks = tasks[:min(len(tasks), n)]
	l.left.Store(int64(n - len(tasks)))
	l.busy.Store(int64(len(tasks)))
	for _, t := range tasks {
		t.Owner = l
		l.s.Submit(t)
	}
	l.s.Kick()
	return <-l.idle
}

func newLoop(b testing.TB, digest bool) *loop {
	r := newRig(b, func(c *iscsitest.Config) {
		c.Targets[0].LUNs[1] = &iscsitest.LUN{Store: iscsitest.NullStore(1 << 30)}
	})
	cfg := r.config(b)
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	if digest {
		crc := []initiator.Digest{initiator.DigestCRC32C}
		cfg.Params.HeaderDigest, cfg.Params.DataDigest = crc, crc
	}
	return &loop{s: r.dial(b, cfg), idle: make(chan error)}
}

// The path of a task allocates nothing, neither in the caller nor in the
// session's goroutines; the target in the same process does not either.
func TestTaskPathAllocatesNothing(t *testing.T) {
	for _, write := range []bool{false, true} {
		for _, size := range []int{4096, 256 << 10} {
			t.Run(fmt.Sprintf("write=%v,size=%d", write, size), func(t *testing.T) {
				l := newLoop(t, false)
				tasks := benchTasks(16, size, write)
				n := 4 << 20 / size * 8 // the same bytes for all sizes
				n = min(max(n, 200), 1000)
				if err := l.run(tasks, 2*n); err != nil { // buffers reach their size
					t.Fatal(err)
				}
				allocs := testing.AllocsPerRun(3, func() {
					if err := l.run(tasks, n); err != nil {
						t.Fatal(err)
					}
				})
				// A handful for the runtime's own needs, and for buffers that grow
				// still when the machine holds up one side.
				if allocs > float64(n)/10 {
					t.Errorf("%.0f allocations for %d tasks", allocs, n)
				}
			})
		}
	}
}

func benchTasks(depth, size int, write bool) []*initiator.Task {
	tasks := make([]*initiator.Task, depth)
	for i := range tasks {
		off := int64(i * size)
		if write {
			tasks[i] = writeTask(off, make([]byte, size))
		} else {
			tasks[i] = readTask(off, size)
		}
	}
	return tasks
}

// BenchmarkSession measures the pipeline against iscsitest in the same process,
// so the target's work is in the figures.
func BenchmarkSession(b *testing.B) {
	for _, bm := range []struct {
		op    string
		size  int
		depth int
		crc   bool
	}{
		{"read", 4096, 1, false},
		{"read", 4096, 8, false},
		{"read", 4096, 32, false},
		{"read", 4096, 128, false},
		{"write", 4096, 1, false},
		{"write", 4096, 32, false},
		{"read", 256 << 10, 8, false},
		{"write", 256 << 10, 8, false},
		{"read", 1 << 20, 8, false},
		{"write", 1 << 20, 8, false},
		{"read", 1 << 20, 8, true},
		{"write", 1 << 20, 8, true},
	} {
		digest := "none"
		if bm.crc {
			digest = "crc32c"
		}
		b.Run(fmt.Sprintf("op=%s/size=%d/depth=%d/digest=%s", bm.op, bm.size, bm.depth, digest), func(b *testing.B) {
			l := newLoop(b, bm.crc)
			tasks := benchTasks(bm.depth, bm.size, bm.op == "write")
			if err := l.run(tasks, 1000); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(bm.size))
			b.ReportAllocs()
			b.ResetTimer()
			// One run for all: b.Loop would start and stop the pipeline
			// for every task.
			if err := l.run(tasks, b.N); err != nil {
				b.Fatal(err)
			}
		})
	}
}
