package initiator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// openWithEvents opens the disk with a channel of its events.
func (d *fakeDisk) openWithEvents(t *testing.T) (*Volume, chan VolumeEvent) {
	events := make(chan VolumeEvent, 100)
	return d.open(t, VolumeOptions{OnEvent: func(e VolumeEvent) { events <- e }}), events
}

// attention makes the next read or write report a unit attention.
func (d *fakeDisk) attention(asc, ascq uint8) {
	d.with(func() {
		d.fault = once(1, isIO, func(t *Task) bool { return d.fail(t, scsi.KeyUnitAttention, asc, ascq) })
	})
}

func TestUnitAttentionsBecomeEvents(t *testing.T) {
	tests := []struct {
		asc, ascq uint8
		setup     func(*fakeDisk)
		want      []VolumeEventType
	}{
		{0x3f, 0x0e, nil, []VolumeEventType{VolumeLUNsChanged}},
		{0x38, 0x07, nil, []VolumeEventType{VolumeSpaceLow}},
		{0x29, 0x00, nil, []VolumeEventType{VolumeReset}},
		{0x29, 0x07, nil, []VolumeEventType{VolumeReset}},
		{0x28, 0x00, nil, nil},
		{0x2a, 0x06, nil, nil},
		{0x2a, 0x09, nil, nil}, // the same capacity as before
		{0x2a, 0x09, func(d *fakeDisk) { d.cap.LastLBA++ }, []VolumeEventType{VolumeResized}},
		{0x2a, 0x01, func(d *fakeDisk) { d.header.WriteProtect = true }, []VolumeEventType{VolumeModeChanged}},
		{0x29, 0x00, func(d *fakeDisk) { d.cap.LastLBA++; d.caching.WriteCache = false }, []VolumeEventType{VolumeResized, VolumeModeChanged, VolumeReset}},
		{0x3f, 0x03, func(d *fakeDisk) { d.ids, d.serial = nil, "0002" }, []VolumeEventType{VolumeReplaced}},
		{0x3f, 0x0e, func(d *fakeDisk) { d.ids, d.serial = nil, "0002" }, []VolumeEventType{VolumeReplaced}},
	}
	for _, tt := range tests {
		t.Run(scsi.CodeText(tt.asc, tt.ascq), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newFakeDisk(t, 1<<20, 512)
				v, events := d.openWithEvents(t)
				if tt.setup != nil {
					d.with(func() { tt.setup(d) })
				}
				d.attention(tt.asc, tt.ascq)
				if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); (err != nil) != (len(tt.want) == 1 && tt.want[0] == VolumeReplaced) {
					t.Fatal(err)
				}
				synctest.Wait()
				close(events)
				seen := map[VolumeEventType]bool{}
				for e := range events {
					if seen[e.Type] || e.Volume != v {
						t.Errorf("event %+v", e)
					}
					seen[e.Type] = true
				}
				for _, w := range tt.want {
					if !seen[w] {
						t.Errorf("no event %q", w)
					}
				}
				if len(seen) != len(tt.want) {
					t.Errorf("events %v, want %v", seen, tt.want)
				}
			})
		})
	}
}

func TestVolumeGrowsAndShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 2<<20, 512)
		d.cap.LastLBA = 1<<20/512 - 1
		v, events := d.openWithEvents(t)
		for _, size := range []int64{2 << 20, 1 << 19} {
			old := v.Size()
			d.with(func() { d.cap.LastLBA = uint64(size/512 - 1) })
			d.attention(0x2a, 0x09)
			if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
				t.Fatal(err)
			}
			if e := <-events; e.Type != VolumeResized || e.OldSize != old || e.Size != size || v.Size() != size {
				t.Errorf("event %+v, size %d", e, v.Size())
			}
		}
		if _, err := v.WriteAt(t.Context(), make([]byte, 512), 1<<19); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("write beyond the new end: %v", err)
		}
	})
}

func TestNothingGoesToAResetDeviceBeforeItIsIdentified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v, events := d.openWithEvents(t)
		d.seen()
		d.attention(0x29, 0)
		d.with(func() {
			d.hold = func(c scsi.Command) bool { return c.Op == scsi.OpInquiry }
			// It comes back as another device.
			d.ids[0].ID[5]++
		})
		c := newCollector()
		reqs := make([]Request, 10)
		for i := range reqs {
			reqs[i] = Request{Op: OpWrite, Data: make([]byte, 512), Offset: int64(i) * 512, Owner: c}
			v.Submit(&reqs[i])
			v.Kick()
			synctest.Wait()
		}
		if n := len(d.seen()); n != 1 || len(c.done) != 0 {
			t.Fatalf("%d commands and %d answers before the device is identified", n, len(c.done))
		}
		d.unhold()
		for range reqs {
			var id *IdentityError
			if r := c.wait(t); !errors.Is(r.Err, ErrIdentity) || !errors.As(r.Err, &id) || !id.Want.Same(v.Identity()) {
				t.Errorf("write: %v", r.Err)
			}
		}
		if e := <-events; e.Type != VolumeReplaced || !errors.Is(e.Err, ErrIdentity) {
			t.Errorf("event %+v", e)
		}
		if err := v.Refresh(t.Context()); !errors.Is(err, ErrIdentity) {
			t.Errorf("refresh: %v", err)
		}
		if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, ErrIdentity) {
			t.Errorf("read: %v", err)
		}
		if n := len(d.seen()); n != 0 {
			t.Errorf("%d commands went to the other device", n)
		}
	})
}

func TestADeviceThatCannotBeIdentifiedIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v, _ := d.openWithEvents(t)
		reset := true
		d.with(func() {
			d.fault = func(c scsi.Command, t *Task) bool {
				switch {
				case isIO(c) && reset:
					reset = false
					return d.fail(t, scsi.KeyUnitAttention, 0x29, 0)
				case c.Op == scsi.OpInquiry:
					t.Err = ErrRecoveryTimeout
					return true
				}
				return false
			}
		})
		for range 3 {
			if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, ErrRecoveryTimeout) {
				t.Fatalf("got %v", err)
			}
		}
		if err := v.Refresh(t.Context()); !errors.Is(err, ErrRecoveryTimeout) {
			t.Errorf("refresh: %v", err)
		}
		d.with(func() { d.fault = nil })
		if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
			t.Errorf("after the device came back: %v", err)
		}
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v, events := d.openWithEvents(t)
		d.with(func() { d.cap.LastLBA, d.header.WriteProtect = 1<<10, true })
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v.Size() != (1<<10+1)*512 || !v.ReadOnly() {
			t.Errorf("size %d, read-only %v", v.Size(), v.ReadOnly())
		}
		<-events
		<-events
		d.with(func() { d.cap.BlockSize = 4096 })
		if err := v.Refresh(t.Context()); !errors.Is(err, ErrIdentity) {
			t.Errorf("with another block size: %v", err)
		}
	})
}

func TestRefreshCanBeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{})
		d.with(func() { d.hold = func(scsi.Command) bool { return true } })
		ctx, cancel := context.WithCancel(t.Context())
		go func() { synctest.Wait(); cancel() }()
		if err := v.Refresh(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		v.Close()
		if err := v.Refresh(t.Context()); !errors.Is(err, ErrVolumeClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestUnitAttentionFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v, events := d.openWithEvents(t)
		v.UnitAttention(scsi.NewSense(scsi.KeyMediumError, 0x3f, 0x0e)) // is none
		v.UnitAttention(scsi.NewSense(scsi.KeyUnitAttention, 0x3f, 0x0e))
		if e := <-events; e.Type != VolumeLUNsChanged {
			t.Errorf("event %+v", e)
		}
		synctest.Wait()
		if len(events) > 0 {
			t.Errorf("another event %+v", <-events)
		}
	})
}

func TestTheOwnerMayUseTheVolumeInOnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		done := make(chan error, 1)
		v := d.open(t, VolumeOptions{OnEvent: func(e VolumeEvent) {
			d.attention(0x29, 0) // the attendant is needed once more
			_, err := e.Volume.ReadAt(t.Context(), make([]byte, 512), 0)
			select {
			case done <- err:
			default:
			}
			d.with(func() { d.fault = nil })
		}})
		v.UnitAttention(scsi.NewSense(scsi.KeyUnitAttention, 0x38, 0x07))
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What Refresh was called for counts, not what the attendant had just asked.
func TestRefreshDuringAnEarlierLookAtTheSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{})
		d.with(func() { d.hold = func(c scsi.Command) bool { return c.Op == scsi.OpServiceActionIn16 } })
		v.UnitAttention(scsi.NewSense(scsi.KeyUnitAttention, 0x2a, 0x09))
		synctest.Wait() // the attendant waits for the capacity
		done := make(chan error, 1)
		go func() { done <- v.Refresh(t.Context()) }()
		synctest.Wait()
		d.with(func() { // the answer is the old capacity; Refresh's own question waits
			d.queue, d.held = append(d.held, d.queue...), nil
			d.hold = func(c scsi.Command) bool { return c.Op == scsi.OpTestUnitReady }
		})
		d.Kick()
		synctest.Wait()
		if len(done) != 0 {
			t.Error("Refresh returned without having asked")
		}
		d.with(func() { d.cap.LastLBA = 1023 })
		d.unhold()
		if err := <-done; err != nil || v.Size() != 1024*512 {
			t.Errorf("size %d after Refresh (%v)", v.Size(), err)
		}
	})
}
