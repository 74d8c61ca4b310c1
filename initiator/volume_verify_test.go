package initiator

import (
	"context"
	"errors"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// What a volume makes of the answers to a verification. That it comes in time,
// verify_test.go shows.
func TestVerify(t *testing.T) {
	anonymous := func(d *fakeDisk) { d.ids, d.serial = nil, ""; d.pages = scsi.VPDPages{} }
	notReady := func(d *fakeDisk) {
		d.fault = func(c scsi.Command, t *Task) bool {
			return c.Op == scsi.OpTestUnitReady && d.fail(t, scsi.KeyNotReady, 0x04, 0x01)
		}
	}
	for _, tc := range []struct {
		name    string
		before  func(*fakeDisk)
		after   func(*fakeDisk)
		want    error // ErrIdentity, ErrNotReady, or nil
		batches int   // 0: does not matter
		size    int64 // afterwards; 0: as before
	}{
		{name: "the same", batches: 1},
		{name: "grown", after: func(d *fakeDisk) { d.cap.LastLBA = 4095 }, batches: 1, size: 4096 * 512},
		{name: "another designator", after: func(d *fakeDisk) { d.ids[0].ID[5]++ }, want: ErrIdentity, batches: 1},
		{name: "another serial number of the same designator", after: func(d *fakeDisk) { d.serial = "2" }},
		{name: "no designator any more, another serial number", after: func(d *fakeDisk) { d.ids, d.serial = nil, "2" }, want: ErrIdentity},
		{name: "nothing to identify it any more", after: anonymous, want: ErrIdentity},
		{name: "another block size", after: func(d *fakeDisk) { d.cap.BlockSize = 4096 }, want: ErrIdentity},
		{name: "another type", after: func(d *fakeDisk) { d.info.Type = scsi.TypeController }, want: ErrIdentity},
		{name: "anonymous, the same size", before: anonymous, batches: 1},
		{name: "anonymous, another size", before: anonymous, after: func(d *fakeDisk) { d.cap.LastLBA++ }, want: ErrIdentity},
		{name: "anonymous, another product", before: anonymous, after: func(d *fakeDisk) { d.info.Product = "OTHER" }, want: ErrIdentity},
		{name: "not ready", after: notReady, want: ErrNotReady, batches: 1},
		{name: "not ready and another", after: func(d *fakeDisk) { notReady(d); d.ids[0].ID[5]++ }, want: ErrIdentity, batches: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newFakeDisk(t, 2<<20, 512)
			d.cap.LastLBA = 2047
			if tc.before != nil {
				tc.before(d)
			}
			v := d.open(t, VolumeOptions{})
			size := v.Size()
			d.with(func() {
				if tc.after != nil {
					tc.after(d)
				}
				d.batches = 0
			})
			var batches int
			// The port's Kicks are counted up to the verdict; afterwards the
			// attendant has its own.
			err := v.verify(t.Context(), countedPort{d, &batches})
			switch {
			case tc.want == nil && err != nil, !errors.Is(err, tc.want):
				t.Errorf("got %v, want %v", err, tc.want)
			case tc.batches != 0 && batches != tc.batches:
				t.Errorf("%d round trips, want %d", batches, tc.batches)
			}
			if tc.size != 0 {
				size = tc.size
			}
			if v.Size() != size {
				t.Errorf("size %d, want %d", v.Size(), size)
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			if held := v.queue.held || v.broken != nil; held != (tc.want != nil) {
				t.Errorf("held or broken: %v", held)
			}
		})
	}
}

// A countedPort counts round trips.
type countedPort struct {
	*fakeDisk
	n *int
}

func (p countedPort) Kick() { *p.n++; p.fakeDisk.Kick() }

func (p countedPort) Do(ctx context.Context, t *Task) error {
	*p.n++
	return p.fakeDisk.Do(ctx, t)
}
