package initiator

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

func TestQueueDepthIsObeyed(t *testing.T) {
	d := newFakeDisk(t, 1<<20, 512)
	v := d.open(t, VolumeOptions{QueueDepth: 4})
	d.with(func() { d.most = 0; d.hold = func(scsi.Command) bool { return true } })
	c := newCollector()
	reqs := make([]Request, 64)
	for i := range reqs {
		reqs[i] = Request{Op: OpRead, Data: make([]byte, 512), Offset: int64(i) * 512, Owner: c}
		v.Submit(&reqs[i])
	}
	v.Kick()
	d.seen()
	d.unhold()
	for range reqs {
		if r := c.wait(t); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if d.most != 4 {
		t.Errorf("%d commands in flight, want 4", d.most)
	}
	for i, cmd := range d.seen() {
		if cmd.LBA != uint64(i) {
			t.Fatalf("command %d is for block %d: out of order", i, cmd.LBA)
		}
	}
}

func TestTaskSetFullLowersTheQueueDepthForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{QueueDepth: 32})
		c := newCollector()
		limit := 8
		d.with(func() {
			d.most = 0
			d.fault = func(_ scsi.Command, t *Task) bool {
				if d.inFlight > limit { // as the target counts them
					t.Status = scsi.StatusTaskSetFull
					return true
				}
				return false
			}
		})
		run := func(n int) {
			t.Helper()
			reqs := make([]Request, n)
			for i := range reqs {
				reqs[i] = Request{Op: OpRead, Data: make([]byte, 512), Owner: c}
				v.Submit(&reqs[i])
			}
			v.Kick()
			for range reqs {
				if r := c.wait(t); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
		}
		run(100)
		v.mu.Lock()
		depth := v.queue.depth
		v.mu.Unlock()
		if depth > 12 {
			t.Errorf("depth %d after TASK SET FULL at %d", depth, limit)
		}
		d.with(func() { d.fault = nil })
		run(20000)
		v.mu.Lock()
		depth = v.queue.depth
		v.mu.Unlock()
		if depth != 32 {
			t.Errorf("depth %d long after TASK SET FULL, want 32", depth)
		}
	})
}

func TestRangesLeaveRoomForReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		d.limits.MaxUnmapBlocks = 1
		v := d.open(t, VolumeOptions{QueueDepth: 8})
		d.with(func() { d.hold = func(c scsi.Command) bool { return c.Op == scsi.OpUnmap } })
		c := newCollector()
		discard := &Request{Op: OpDiscard, Length: 1 << 20, Owner: c}
		v.Submit(discard)
		v.Kick()
		synctest.Wait()
		if d.inFlight != 2 {
			t.Errorf("%d commands of a long range in flight, want a quarter of the depth", d.inFlight)
		}
		for range 100 {
			read := &Request{Op: OpRead, Data: make([]byte, 512), Owner: c}
			v.Submit(read)
			v.Kick()
			if got := c.wait(t); got != read {
				t.Fatal("a read waited for the range")
			}
		}
		d.unhold()
		if c.wait(t) != discard || discard.Err != nil {
			t.Error(discard.Err)
		}
	})
}

func TestRangesAreNotStarvedByReads(t *testing.T) {
	d := newFakeDisk(t, 1<<20, 512)
	v := d.open(t, VolumeOptions{QueueDepth: 2})
	c := newCollector()
	// A reader that always has more reads waiting than the depth.
	r := &rereader{v: v, stop: make(chan struct{})}
	for range 8 {
		r.pending.Add(1)
		v.Submit(&Request{Op: OpRead, Data: make([]byte, 512), Owner: r})
	}
	v.Kick()
	discard := &Request{Op: OpDiscard, Length: 1 << 20, Owner: c}
	v.Submit(discard)
	v.Kick()
	if c.wait(t).Err != nil {
		t.Error(discard.Err)
	}
	close(r.stop)
	r.pending.Wait()
}

// A rereader submits each read again until it is stopped.
type rereader struct {
	v       *Volume
	stop    chan struct{}
	pending sync.WaitGroup
}

func (r *rereader) RequestDone(q *Request) {
	select {
	case <-r.stop:
		r.pending.Done()
	default:
		r.v.Submit(q)
	}
}
func (r *rereader) Flush() { r.v.Kick() }

func TestOneFailureStopsARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		d.limits.MaxTransfer = 1
		v := d.open(t, VolumeOptions{QueueDepth: 2})
		d.seen()
		d.with(func() {
			d.fault = func(c scsi.Command, t *Task) bool {
				return c.LBA == 10 && d.fail(t, scsi.KeyMediumError, 0x11, 0) ||
					c.LBA == 11 && d.fail(t, scsi.KeyNotReady, 0x04, 0x01)
			}
		})
		begun := time.Now()
		n, err := v.ReadAt(t.Context(), make([]byte, 1<<20), 0)
		if n != 5120 || !errors.Is(err, ErrMedium) {
			t.Errorf("%d, %v", n, err)
		}
		if cmds := d.seen(); len(cmds) > 14 {
			t.Errorf("%d commands, although the 11th failed", len(cmds))
		}
		if time.Since(begun) > time.Second {
			t.Errorf("a piece that waits held up the request for %v", time.Since(begun))
		}
	})
}

func TestCancel(t *testing.T) {
	tests := []struct {
		name  string
		setup func(*fakeDisk)
	}{
		{"with the device", func(d *fakeDisk) { d.hold = isRead }},
		{"waiting for a busy device", func(d *fakeDisk) {
			d.fault = func(c scsi.Command, t *Task) bool {
				if isRead(c) {
					t.Status = scsi.StatusBusy
				}
				return isRead(c)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newFakeDisk(t, 1<<20, 512)
				d.limits.MaxTransfer = 1
				v := d.open(t, VolumeOptions{QueueDepth: 4})
				d.with(func() { tt.setup(d) })
				ctx, cancel := context.WithCancelCause(t.Context())
				cause := errors.New("enough")
				go func() { synctest.Wait(); cancel(cause) }()
				// More pieces than the queue depth: some are not sent.
				if _, err := v.ReadAt(ctx, make([]byte, 8192), 0); !errors.Is(err, cause) {
					t.Errorf("got %v", err)
				}
				d.with(func() { d.hold, d.fault = nil, nil })
				if _, err := v.ReadAt(t.Context(), make([]byte, 8192), 0); err != nil {
					t.Errorf("afterwards: %v", err)
				}
				if _, err := v.ReadAt(ctx, make([]byte, 8192), 0); !errors.Is(err, cause) {
					t.Errorf("with a context that has ended: %v", err)
				}
			})
		})
	}
}

func TestCloseFailsWhatWaitsAndAwaitsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		d.limits.MaxTransfer = 1
		v := d.open(t, VolumeOptions{QueueDepth: 2})
		d.with(func() { d.hold = isIO })
		c := newCollector()
		reqs := make([]Request, 4)
		for i := range reqs {
			reqs[i] = Request{Op: OpRead, Data: make([]byte, 1024), Owner: c}
			v.Submit(&reqs[i])
		}
		v.Kick()
		closed := make(chan struct{})
		go func() { v.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("Close did not wait for the device")
		default:
		}
		if len(c.done) != 3 {
			t.Errorf("%d requests came back at once, want those that were not sent", len(c.done))
		}
		d.unhold()
		<-closed
		if len(c.done) != 4 {
			t.Fatalf("%d requests came back", len(c.done))
		}
		for i := range reqs {
			if err := reqs[i].Err; (err == nil) != (i == 0) || err != nil && !errors.Is(err, ErrVolumeClosed) {
				t.Errorf("request %d: %v", i, err)
			}
		}
		v.Close() // again
		if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, ErrVolumeClosed) {
			t.Errorf("read: %v", err)
		}
	})
}

func TestDisconnectAbortsWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{})
		d.with(func() { d.hold = isRead })
		c := newCollector()
		r := &Request{Op: OpRead, Data: make([]byte, 512), Owner: c}
		v.Submit(r)
		v.Kick()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := v.Disconnect(ctx); err != nil || time.Since(begun) != time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		if c.wait(t); r.Err == nil {
			t.Error("the read that was aborted has no error")
		}
	})
}

func TestCloseDoesNotWaitForABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{})
		d.with(func() {
			d.fault = func(c scsi.Command, t *Task) bool { return isRead(c) && d.fail(t, scsi.KeyNotReady, 4, 1) }
		})
		c := newCollector()
		r := &Request{Op: OpRead, Data: make([]byte, 512), Owner: c}
		v.Submit(r)
		v.Kick()
		synctest.Wait()
		begun := time.Now()
		v.Close()
		if c.wait(t); !errors.Is(r.Err, ErrVolumeClosed) || time.Since(begun) > 0 {
			t.Errorf("after %v: %v", time.Since(begun), r.Err)
		}
	})
}

func TestABatchIsOneKickAndOneFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{})
		c := newCollector()
		d.with(func() { d.batches = 0 })
		reqs := make([]Request, 16)
		for i := range reqs {
			reqs[i] = Request{Op: OpRead, Data: make([]byte, 512), Owner: c}
			v.Submit(&reqs[i])
		}
		v.Kick()
		for range reqs {
			c.wait(t)
		}
		synctest.Wait()
		if d.batches != 1 {
			t.Errorf("%d kicks", d.batches)
		}
		v.Kick()
		if d.batches != 1 {
			t.Error("a kick without anything to send")
		}
	})
}

// A counter counts requests; it is the cheapest owner there is.
type counter struct{ done chan struct{} }

func (c *counter) RequestDone(*Request) { c.done <- struct{}{} }
func (c *counter) Flush()               {}

func TestReadsAndWritesDoNotAllocate(t *testing.T) {
	d := newFakeDisk(t, 1<<20, 512)
	v := d.open(t, VolumeOptions{QueueDepth: 8})
	d.with(func() { d.commands = make([]scsi.Command, 0, 1<<20) })
	port := &inlinePort{v: v}
	v.port = port
	c := &counter{done: make(chan struct{}, 64)}
	for _, tt := range []struct {
		name string
		r    Request
	}{
		{"read", Request{Op: OpRead, Data: make([]byte, 4096)}},
		{"write", Request{Op: OpWrite, Data: make([]byte, 4096)}},
		{"write with FUA", Request{Op: OpWrite, FUA: true, Data: make([]byte, 4096)}},
		{"split", Request{Op: OpWrite, Data: make([]byte, 16<<20>>4)}},
		{"flush", Request{Op: OpFlush}},
		{"discard", Request{Op: OpDiscard, Length: 4096}},
		{"zeroes", Request{Op: OpWriteZeroes, Length: 4096}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reqs := make([]Request, 16) // more than the depth: some wait
			for i := range reqs {
				reqs[i] = tt.r
				reqs[i].Owner = c
			}
			v.split.maxTransfer, v.split.most[pieceWrite] = 64<<10, 64<<10
			if n := testing.AllocsPerRun(100, func() {
				for i := range reqs {
					v.Submit(&reqs[i])
				}
				v.Kick()
				for range reqs {
					<-c.done
				}
			}); n != 0 {
				t.Errorf("%v allocations for %d requests", n, len(reqs))
			}
		})
	}
}

// An inlinePort finishes tasks within Kick with success, without a goroutine,
// so that what it allocates does not count.
type inlinePort struct {
	v     *Volume
	queue taskList
	busy  bool
}

func (p *inlinePort) Submit(t *Task) { t.reset(); p.queue.pushBack(t) }
func (p *inlinePort) Kick() {
	if p.busy {
		return
	}
	p.busy = true
	for t := p.queue.popFront(); t != nil; t = p.queue.popFront() {
		owner := t.Owner
		owner.TaskDone(t)
		owner.Flush()
	}
	p.busy = false
}
func (p *inlinePort) Do(context.Context, *Task) error { return nil }

func BenchmarkVolume(b *testing.B) {
	for _, op := range []Op{OpRead, OpWrite} {
		b.Run("op="+op.String()+"/size=4096", func(b *testing.B) {
			d := newFakeDisk(b, 1<<20, 512)
			v := d.open(b, VolumeOptions{})
			v.port = &inlinePort{v: v}
			c := &counter{done: make(chan struct{}, 1)}
			r := &Request{Op: op, Data: make([]byte, 4096), Owner: c}
			b.SetBytes(4096)
			b.ReportAllocs()
			for b.Loop() {
				v.Submit(r)
				v.Kick()
				<-c.done
			}
		})
	}
}
