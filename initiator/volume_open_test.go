package initiator

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

func TestOpenVolumeLearnsWhatTheDiskSays(t *testing.T) {
	d := newFakeDisk(t, 1<<20, 512)
	d.limits.MaxTransfer, d.limits.OptimalTransfer, d.limits.UnmapGranularity = 256, 128, 8
	d.cap.PhysicalExponent = 3
	v := d.open(t, VolumeOptions{})
	if v.Size() != 1<<20 || v.BlockSize() != 512 || v.ReadOnly() {
		t.Errorf("size %d, block size %d, read-only %v", v.Size(), v.BlockSize(), v.ReadOnly())
	}
	want := Features{
		WriteCache: true, FUA: true, Thin: true,
		Discard: true, DiscardReadsZero: true, DiscardGranularity: 4096, MaxDiscard: 512 << 20,
		WriteZeroes: true, MaxWriteZeroes: mostSame,
		MaxTransfer: 128 << 10, OptimalTransfer: 64 << 10, PhysicalBlockSize: 4096,
		MaxCompareAndWrite: 1024,
	}
	if got := v.Features(); got != want {
		t.Errorf("features\n got %+v\nwant %+v", got, want)
	}
	wantID := Identity{WWID: "36001020304050607" + "08090a0b0c0d0e0f", Serial: "0001", Vendor: "FAKE", Product: "DISK"}
	if got := v.Identity(); got != wantID {
		t.Errorf("identity %+v, want %+v", got, wantID)
	}
}

func TestOpenVolumeWithLessThanAllAnswers(t *testing.T) {
	unknown := func(ops ...scsi.Opcode) func(*fakeDisk) {
		return func(d *fakeDisk) {
			d.fault = func(c scsi.Command, t *Task) bool {
				for _, op := range ops {
					if c.Op == op {
						return d.fail(t, scsi.KeyIllegalRequest, 0x20, 0)
					}
				}
				return false
			}
		}
	}
	tests := []struct {
		name  string
		setup func(*fakeDisk)
		check func(*testing.T, *Volume)
	}{
		{"no READ CAPACITY(16)", unknown(scsi.OpServiceActionIn16), func(t *testing.T, v *Volume) {
			if v.Size() != 1<<20 || v.Features().Discard {
				t.Errorf("size %d, features %+v", v.Size(), v.Features())
			}
		}},
		{"no MODE SENSE: flushes are sent", unknown(scsi.OpModeSense6, scsi.OpModeSense10), func(t *testing.T, v *Volume) {
			if v.ReadOnly() || !v.Features().WriteCache || v.Features().FUA {
				t.Errorf("features %+v", v.Features())
			}
		}},
		{"MODE SENSE(10) only", unknown(scsi.OpModeSense6), func(t *testing.T, v *Volume) {
			if !v.Features().FUA {
				t.Errorf("features %+v", v.Features())
			}
		}},
		{"no vital product data", func(d *fakeDisk) { d.pages = scsi.VPDPages{} }, func(t *testing.T, v *Volume) {
			if id := v.Identity(); !id.IsZero() || v.Features().MaxTransfer != DefaultMaxTransfer {
				t.Errorf("identity %+v, features %+v", id, v.Features())
			}
		}},
		{"no REPORT SUPPORTED OPERATION CODES", func(d *fakeDisk) { d.usage = 0xff }, func(t *testing.T, v *Volume) {
			if !v.Features().WriteZeroes {
				t.Errorf("features %+v", v.Features())
			}
		}},
		{"no WRITE SAME", func(d *fakeDisk) { d.usage = 0 }, func(t *testing.T, v *Volume) {
			if v.Features().WriteZeroes {
				t.Errorf("features %+v", v.Features())
			}
		}},
		{"no COMPARE AND WRITE", func(d *fakeDisk) { d.limits.MaxCompareAndWrite = 0 }, func(t *testing.T, v *Volume) {
			if n := v.Features().MaxCompareAndWrite; n != 0 {
				t.Errorf("MaxCompareAndWrite %d", n)
			}
		}},
		{"not thin", func(d *fakeDisk) { d.cap.Thin, d.cap.ThinReadsZero = false, false }, func(t *testing.T, v *Volume) {
			if v.Features().Discard || v.Features().Thin {
				t.Errorf("features %+v", v.Features())
			}
		}},
		{"write protected", func(d *fakeDisk) { d.header.WriteProtect = true }, func(t *testing.T, v *Volume) {
			if !v.ReadOnly() || !v.Features().ReadOnly {
				t.Error("not read-only")
			}
			if _, err := v.WriteAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, ErrReadOnly) {
				t.Errorf("write: %v", err)
			}
		}},
		{"no write cache", func(d *fakeDisk) { d.caching.WriteCache = false }, func(t *testing.T, v *Volume) {
			if v.Features().WriteCache || v.Features().FUA {
				t.Errorf("features %+v", v.Features())
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newFakeDisk(t, 1<<20, 512)
			tt.setup(d)
			tt.check(t, d.open(t, VolumeOptions{}))
		})
	}
}

func TestOpenVolumeRefuses(t *testing.T) {
	tests := []struct {
		name  string
		setup func(*fakeDisk, *VolumeOptions)
		want  error
	}{
		{"nothing there", func(d *fakeDisk, _ *VolumeOptions) { d.info.Qualifier, d.info.Type = 3, scsi.TypeUnknown }, ErrNoDevice},
		{"block size 520", func(d *fakeDisk, _ *VolumeOptions) { d.cap.BlockSize = 520 }, ErrUnsupported},
		{"block size 0", func(d *fakeDisk, _ *VolumeOptions) { d.cap.BlockSize = 0 }, ErrUnsupported},
		{"more bytes than a signed number holds", func(d *fakeDisk, _ *VolumeOptions) { d.cap.LastLBA = 1 << 62 }, ErrUnsupported},
		{"another device", func(_ *fakeDisk, o *VolumeOptions) { o.Identity.WWID = "3600" }, ErrIdentity},
		{"no medium", func(d *fakeDisk, _ *VolumeOptions) {
			d.fault = func(c scsi.Command, t *Task) bool {
				return c.Op == scsi.OpTestUnitReady && d.fail(t, scsi.KeyNotReady, 0x3a, 0)
			}
		}, ErrNoMedium},
		{"unit attentions without end", func(d *fakeDisk, _ *VolumeOptions) {
			d.fault = func(c scsi.Command, t *Task) bool {
				return c.Op == scsi.OpTestUnitReady && d.fail(t, scsi.KeyUnitAttention, 0x29, 0)
			}
		}, ErrDevice},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newFakeDisk(t, 1<<20, 512)
			var o VolumeOptions
			tt.setup(d, &o)
			v, err := openVolume(t.Context(), d.prober(), fakeLUN, o)
			if err == nil {
				v.Close()
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestOpenVolumeRefusesOtherTypes(t *testing.T) {
	d := newFakeDisk(t, 1<<20, 512)
	d.info.Type = scsi.TypeController
	_, err := openVolume(t.Context(), d.prober(), fakeLUN, VolumeOptions{})
	var nd *NotADiskError
	if !errors.As(err, &nd) || nd.Type != scsi.TypeController {
		t.Fatalf("got %v, want a *NotADiskError", err)
	}
}

func TestOpenVolumeWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		begun, started := time.Now(), false
		d.fault = func(c scsi.Command, t *Task) bool {
			switch {
			case c.Op == scsi.OpStartStopUnit:
				started = c.Start
			case c.Op == scsi.OpTestUnitReady && !started:
				return d.fail(t, scsi.KeyNotReady, 0x04, 0x02) // initializing command required
			case c.Op == scsi.OpTestUnitReady && time.Since(begun) < 20*time.Second:
				return d.fail(t, scsi.KeyNotReady, 0x04, 0x01) // becoming ready
			}
			return false
		}
		d.open(t, VolumeOptions{})
		if !started {
			t.Error("the unit was not started")
		}
		if waited := time.Since(begun); waited < 20*time.Second || waited > 25*time.Second {
			t.Errorf("opened after %v", waited)
		}
	})
}

func TestOpenVolumeGivesUpWhenPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		d.fault = func(c scsi.Command, t *Task) bool {
			return c.Op == scsi.OpTestUnitReady && d.fail(t, scsi.KeyNotReady, 0x04, 0x01)
		}
		begun := time.Now()
		_, err := openVolume(t.Context(), d.prober(), fakeLUN, VolumeOptions{Patience: 10 * time.Second})
		if !errors.Is(err, ErrNotReady) || time.Since(begun) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}
