package initiator

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

func TestLatencyBucket(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want int
	}{
		{-time.Second, 0},
		{0, 0},
		{1, 0},
		{LatencyBound(0), 0},
		{LatencyBound(0) + 1, 1},
		{LatencyBound(1), 1},
		{LatencyBound(7), 7},
		{LatencyBound(7) + 1, 8},
		{LatencyBound(LatencyBuckets - 1), LatencyBuckets - 1},
		{LatencyBound(LatencyBuckets-1) + 1, LatencyBuckets},
		{1<<63 - 1, LatencyBuckets},
	} {
		if got := latencyBucket(tt.d); got != tt.want {
			t.Errorf("%v counts in bucket %d, want %d", tt.d, got, tt.want)
		}
	}
}

func TestStatsCountRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{QueueDepth: 2})
		d.with(func() { d.hold = func(scsi.Command) bool { return true } })
		c := newCollector()
		reqs := []*Request{
			{Op: OpRead, Data: make([]byte, 4096), Owner: c},
			{Op: OpRead, Data: make([]byte, 512), Owner: c},
			{Op: OpWrite, Data: make([]byte, 1024), Owner: c},
			{Op: OpDiscard, Length: 8192, Owner: c},
		}
		for _, r := range reqs {
			v.Submit(r)
		}
		v.Kick()
		synctest.Wait()
		if s := v.Stats(); s.Pending != 4 || s.InFlight != 2 || s.QueueDepth != 2 || s.Read.Requests != 0 {
			t.Errorf("while they are held: %d pending, %d in flight of %d, %d reads", s.Pending, s.InFlight, s.QueueDepth, s.Read.Requests)
		}
		const took = 5 * time.Millisecond
		time.Sleep(took)
		d.unhold()
		for range reqs {
			if r := c.wait(t); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		bad := &Request{Op: OpWrite, Data: make([]byte, 512), Offset: 1 << 40, Owner: c}
		v.Submit(bad)
		v.Submit(&Request{Op: 99, Owner: c})
		v.Kick()
		c.wait(t)
		c.wait(t)
		if !errors.Is(bad.Err, ErrOutOfRange) {
			t.Fatal(bad.Err)
		}
		s := v.Stats()
		if s.Pending != 0 || s.InFlight != 0 {
			t.Errorf("%d pending and %d in flight when all are finished", s.Pending, s.InFlight)
		}
		for _, tt := range []struct {
			op                      Op
			requests, errors, bytes uint64
			time                    time.Duration
		}{
			{OpRead, 2, 0, 4608, 2 * took},
			{OpWrite, 2, 1, 1024, took},
			{OpFlush, 0, 0, 0, 0},
			{OpDiscard, 1, 0, 8192, took},
			{OpWriteZeroes, 0, 0, 0, 0},
		} {
			o := s.Op(tt.op)
			if o.Requests != tt.requests || o.Errors != tt.errors || o.Bytes != tt.bytes || o.Time != tt.time {
				t.Errorf("%v: %d requests, %d errors, %d bytes, %v; want %+v", tt.op, o.Requests, o.Errors, o.Bytes, o.Time, tt)
			}
		}
		if n := s.Read.Latency[latencyBucket(took)]; n != 2 {
			t.Errorf("%d reads in the bucket of %v, want 2", n, took)
		}
	})
}

func TestStatsCountRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{})
		busy := 3
		d.with(func() {
			d.fault = func(_ scsi.Command, t *Task) bool {
				if busy == 0 {
					return false
				}
				busy--
				t.Status = scsi.StatusBusy
				return true
			}
		})
		if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
			t.Fatal(err)
		}
		if s := v.Stats(); s.Retries != 3 || s.Read.Requests != 1 || s.Read.Errors != 0 {
			t.Errorf("%d retries of %d reads with %d errors, want 3 of 1 with 0", s.Retries, s.Read.Requests, s.Read.Errors)
		}
	})
}
