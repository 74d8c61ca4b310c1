package initiator

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// TestSenseTable is docs/disk.md as a test: what happens to a read that meets
// each condition for ever.
func TestSenseTable(t *testing.T) {
	check := func(k scsi.SenseKey, asc, ascq uint8) func(*fakeDisk, *Task) {
		return func(d *fakeDisk, t *Task) { d.fail(t, k, asc, ascq) }
	}
	status := func(s scsi.Status) func(*fakeDisk, *Task) {
		return func(_ *fakeDisk, t *Task) { t.Status = s }
	}
	failure := func(err error) func(*fakeDisk, *Task) {
		return func(_ *fakeDisk, t *Task) { t.Err = err }
	}
	const patience = 30 * time.Second
	tests := []struct {
		name  string
		fault func(*fakeDisk, *Task)
		kind  error
		errno syscall.Errno
		tries int           // -1: any number of at least 5
		after time.Duration // -1: at most a second
	}{
		{"medium error", check(scsi.KeyMediumError, 0x11, 0), ErrMedium, syscall.EIO, 1, 0},
		{"blank check", check(scsi.KeyBlankCheck, 0, 0), ErrMedium, syscall.EIO, 1, 0},
		{"hardware error", check(scsi.KeyHardwareError, 0x44, 0), ErrDevice, syscall.EIO, 1, 0},
		{"space allocation failed", check(scsi.KeyDataProtect, 0x27, 0x07), ErrNoSpace, syscall.ENOSPC, 1, 0},
		{"write protected", check(scsi.KeyDataProtect, 0x27, 0), ErrReadOnly, syscall.EROFS, 1, 0},
		{"data protect, other", check(scsi.KeyDataProtect, 0, 0), ErrDevice, syscall.EIO, 1, 0},
		{"access denied", check(scsi.KeyDataProtect, 0x20, 0x02), ErrAccess, syscall.EACCES, 1, 0},
		{"access denied, illegal request", check(scsi.KeyIllegalRequest, 0x20, 0x02), ErrAccess, syscall.EACCES, 1, 0},
		{"invalid opcode", check(scsi.KeyIllegalRequest, 0x20, 0), ErrUnsupported, syscall.EOPNOTSUPP, 1, 0},
		{"invalid field", check(scsi.KeyIllegalRequest, 0x24, 0), ErrUnsupported, syscall.EOPNOTSUPP, 1, 0},
		{"LBA out of range", check(scsi.KeyIllegalRequest, 0x21, 0), ErrOutOfRange, syscall.EINVAL, 1, 0},
		{"no such unit", check(scsi.KeyIllegalRequest, 0x25, 0), ErrNoDevice, syscall.ENODEV, 1, 0},
		{"illegal request, other", check(scsi.KeyIllegalRequest, 0x2c, 0), ErrDevice, syscall.EIO, 1, 0},
		{"volume overflow", check(scsi.KeyVolumeOverflow, 0, 0), ErrNoSpace, syscall.ENOSPC, 1, 0},
		{"miscompare", check(scsi.KeyMiscompare, 0x1d, 0), ErrMiscompare, syscall.EILSEQ, 1, 0},
		{"protection information", check(scsi.KeyAbortedCommand, 0x10, 1), ErrMedium, syscall.EIO, 1, 0},
		{"copy aborted", check(scsi.KeyCopyAborted, 0, 0), ErrDevice, syscall.EIO, 1, 0},
		{"manual intervention", check(scsi.KeyNotReady, 0x04, 0x03), ErrNotReady, syscall.EIO, 1, 0},
		{"not ready, no reason", check(scsi.KeyNotReady, 0x04, 0x00), ErrNotReady, syscall.EIO, 1, 0},
		{"standby", check(scsi.KeyNotReady, 0x04, 0x0b), ErrNotReady, syscall.EIO, 1, 0},
		{"no medium", check(scsi.KeyNotReady, 0x3a, 0), ErrNoMedium, errnoNoMedium, 1, 0},
		{"reservation conflict", status(scsi.StatusReservationConflict), ErrReservationConflict, errnoReservation, 1, 0},
		{"unknown status", status(0x7e), ErrDevice, syscall.EIO, 1, 0},

		{"aborted command", check(scsi.KeyAbortedCommand, 0, 0), ErrDevice, syscall.EIO, 1 + maxAgain, -1},
		{"task aborted", status(scsi.StatusTaskAborted), ErrDevice, syscall.EIO, 1 + maxAgain, -1},
		{"no sense data", status(scsi.StatusCheckCondition), ErrDevice, syscall.EIO, 1 + maxAgain, -1},
		{"short read", func(_ *fakeDisk, t *Task) { t.Transferred, t.Residual = 100, int64(len(t.DataIn)-100) }, ErrDevice, syscall.EIO, 1 + maxAgain, -1},
		{"timeout", failure(ErrTimeout), nil, syscall.ETIMEDOUT, 1 + maxAgain, -1},
		{"aborted by task management", failure(ErrAborted), nil, syscall.EIO, 1 + maxAgain, -1},
		{"recovery timeout", failure(ErrRecoveryTimeout), nil, syscall.EIO, 1, 0},
		{"session closed", failure(ErrClosed), nil, syscall.ENODEV, 1, 0},
		{"unit attention, mode changed", check(scsi.KeyUnitAttention, 0x2a, 0x01), ErrDevice, syscall.EIO, 1 + maxAttentions, 0},

		{"busy", status(scsi.StatusBusy), ErrBusy, syscall.EBUSY, -1, patience},
		{"ACA active", status(scsi.StatusACAActive), ErrBusy, syscall.EBUSY, -1, patience},
		{"task set full", status(scsi.StatusTaskSetFull), ErrBusy, syscall.EBUSY, -1, patience},
		{"becoming ready", check(scsi.KeyNotReady, 0x04, 0x01), ErrNotReady, syscall.EIO, -1, patience},
		{"ALUA transition", check(scsi.KeyNotReady, 0x04, 0x0a), ErrNotReady, syscall.EIO, -1, patience},
		{"not self-configured yet", check(scsi.KeyNotReady, 0x3e, 0x00), ErrNotReady, syscall.EIO, -1, patience},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newFakeDisk(t, 1<<20, 512)
				v := d.open(t, VolumeOptions{Patience: patience})
				tries := 0
				d.with(func() {
					d.fault = func(c scsi.Command, t *Task) bool {
						if !isRead(c) {
							return false
						}
						tries++
						tt.fault(d, t)
						return true
					}
				})
				begun := time.Now()
				_, err := v.ReadAt(t.Context(), make([]byte, 512), 1024)
				took := time.Since(begun)
				var ve *VolumeError
				if !errors.As(err, &ve) || tt.kind != nil && !errors.Is(err, tt.kind) {
					t.Fatalf("got %v, want %v", err, tt.kind)
				}
				if ve.Errno() != tt.errno || Errno(err) != tt.errno {
					t.Errorf("errno %v, want %v", ve.Errno(), tt.errno)
				}
				if ve.Offset != 1024 || ve.Length != 512 {
					t.Errorf("range %d+%d", ve.Offset, ve.Length)
				}
				if tt.tries >= 0 && tries != tt.tries || tt.tries < 0 && tries < 5 {
					t.Errorf("tried %d times, want %d", tries, tt.tries)
				}
				if tt.after >= 0 && took != tt.after || tt.after < 0 && took > time.Second {
					t.Errorf("took %v, want %v", took, tt.after)
				}
				// Nothing is left behind.
				d.with(func() { d.fault = nil })
				if _, err := v.ReadAt(t.Context(), make([]byte, 512), 1024); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

// TestConditionsThatPass checks that each condition that ends by itself costs
// no error.
func TestConditionsThatPass(t *testing.T) {
	tests := []struct {
		name  string
		times int
		fault func(*fakeDisk, *Task) bool
	}{
		{"recovered error", 1, func(d *fakeDisk, t *Task) bool {
			c, _ := scsi.ParseCommand(t.CDB[:])
			d.execute(c, t)
			return d.fail(t, scsi.KeyRecoveredError, 0x17, 0)
		}},
		{"power on", 1, func(d *fakeDisk, t *Task) bool { return d.fail(t, scsi.KeyUnitAttention, 0x29, 0) }},
		{"nexus loss", 2, func(d *fakeDisk, t *Task) bool { return d.fail(t, scsi.KeyUnitAttention, 0x29, 7) }},
		{"medium may have changed", 1, func(d *fakeDisk, t *Task) bool { return d.fail(t, scsi.KeyUnitAttention, 0x28, 0) }},
		{"unknown unit attention", 3, func(d *fakeDisk, t *Task) bool { return d.fail(t, scsi.KeyUnitAttention, 0x5e, 3) }},
		{"busy", 9, func(_ *fakeDisk, t *Task) bool { t.Status = scsi.StatusBusy; return true }},
		{"task set full", 9, func(_ *fakeDisk, t *Task) bool { t.Status = scsi.StatusTaskSetFull; return true }},
		{"becoming ready", 9, func(d *fakeDisk, t *Task) bool { return d.fail(t, scsi.KeyNotReady, 4, 1) }},
		{"ALUA transition", 9, func(d *fakeDisk, t *Task) bool { return d.fail(t, scsi.KeyNotReady, 4, 0xa) }},
		{"aborted", maxAgain, func(d *fakeDisk, t *Task) bool { return d.fail(t, scsi.KeyAbortedCommand, 0, 0) }},
		{"timed out", maxAgain, func(_ *fakeDisk, t *Task) bool { t.Err = ErrTimeout; return true }},
		{"deferred error", 1, func(_ *fakeDisk, t *Task) bool {
			t.Status = scsi.StatusCheckCondition
			t.setSense(scsi.Sense{ResponseCode: scsi.SenseFixedDeferred, Key: scsi.KeyMediumError, ASC: 0xc}.Append(nil))
			return true
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newFakeDisk(t, 1<<20, 512)
				v := d.open(t, VolumeOptions{})
				want := pattern(8192, 3)
				d.with(func() {
					d.fault = once(tt.times, isIO, func(t *Task) bool { return tt.fault(d, t) })
				})
				if _, err := v.WriteAt(t.Context(), want, 4096); err != nil {
					t.Fatal(err)
				}
				if string(d.data[4096:4096+8192]) != string(want) {
					t.Error("data were not written")
				}
			})
		})
	}
}

func TestBusyWithoutPatienceFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{Patience: Immediately})
		d.with(func() {
			d.fault = func(c scsi.Command, t *Task) bool {
				if isRead(c) {
					t.Status = scsi.StatusBusy
				}
				return isRead(c)
			}
		})
		begun := time.Now()
		if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, ErrBusy) || time.Since(begun) > time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

func TestBackoff(t *testing.T) {
	for n := range uint8(255) {
		d := backoff(n, busyDelay, busyDelayMax)
		want := busyDelayMax
		if n < 9 {
			want = min(busyDelay<<n, busyDelayMax)
		}
		if d < want/2 || d > want {
			t.Fatalf("backoff(%d) = %v, want %v to %v", n, d, want/2, want)
		}
	}
}

func TestADeferredErrorFailsTheNextFlush(t *testing.T) {
	for _, cache := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := newFakeDisk(t, 1<<20, 512)
			d.caching.WriteCache = cache
			events := make(chan VolumeEvent, 10)
			v := d.open(t, VolumeOptions{OnEvent: func(e VolumeEvent) { events <- e }})
			d.with(func() {
				d.fault = once(1, isRead, func(t *Task) bool {
					t.Status = scsi.StatusCheckCondition
					t.setSense(scsi.Sense{ResponseCode: scsi.SenseFixedDeferred, Key: scsi.KeyMediumError, ASC: 0xc}.Append(nil))
					return true
				})
			})
			if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
				t.Fatal(err)
			}
			s, ok := Sense(v.Sync(t.Context()))
			if !ok || !s.Deferred() || s.Key != scsi.KeyMediumError {
				t.Errorf("flush: %v", s)
			}
			if err := v.Sync(t.Context()); err != nil {
				t.Errorf("second flush: %v", err)
			}
			if e := <-events; e.Type != VolumeDataLost || e.Err == nil {
				t.Errorf("event %+v", e)
			}
		})
	}
}
