package initiator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// pattern returns n bytes that differ from place to place.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

func TestVolumeReadsWhatItWrote(t *testing.T) {
	for _, bs := range []int{512, 4096} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			d := newFakeDisk(t, 1<<20, bs)
			d.limits.MaxTransfer = 4
			v := d.open(t, VolumeOptions{QueueDepth: 3})
			ctx := t.Context()
			want := pattern(1<<20, 1)
			if n, err := v.WriteAt(ctx, want, 0); n != len(want) || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
			if !bytes.Equal(d.data, want) {
				t.Fatal("the disk has other data")
			}
			for _, r := range [][2]int{{0, 1 << 20}, {1, 1}, {bs - 1, 2}, {bs / 2, 3 * bs}, {bs, bs}, {7, 9*bs + 3}, {1<<20 - 1, 1}, {3 * bs, bs + 5}} {
				got := make([]byte, r[1])
				if n, err := v.ReadAt(ctx, got, int64(r[0])); n != r[1] || err != nil {
					t.Fatalf("read of %d at %d: %d, %v", r[1], r[0], n, err)
				}
				if !bytes.Equal(got, want[r[0]:r[0]+r[1]]) {
					t.Fatalf("read of %d at %d returned other data", r[1], r[0])
				}
			}
		})
	}
}

func TestReadAtEndsAtTheEnd(t *testing.T) {
	d := newFakeDisk(t, 8192, 512)
	v := d.open(t, VolumeOptions{})
	r := v.IO(t.Context())
	for _, tt := range []struct {
		off  int64
		n    int
		want int
		err  error
	}{{8000, 400, 192, io.EOF}, {8192, 1, 0, io.EOF}, {9000, 1, 0, io.EOF}, {7680, 512, 512, nil}, {8192, 0, 0, nil}, {0, 10000, 8192, io.EOF}} {
		if n, err := r.ReadAt(make([]byte, tt.n), tt.off); n != tt.want || err != tt.err {
			t.Errorf("read of %d at %d: %d, %v", tt.n, tt.off, n, err)
		}
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("negative offset: %v", err)
	}
	b, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()+100))
	if len(b) != 8192 || err != nil {
		t.Errorf("section reader: %d, %v", len(b), err)
	}
}

func TestRequestsThatMakeNoSenseFailWithoutACommand(t *testing.T) {
	d := newFakeDisk(t, 8192, 512)
	v := d.open(t, VolumeOptions{})
	d.seen()
	c := newCollector()
	for _, tt := range []struct {
		name string
		r    Request
		want error
	}{
		{"no operation", Request{}, ErrInvalidRequest},
		{"unknown operation", Request{Op: 99}, ErrInvalidRequest},
		{"unaligned offset", Request{Op: OpRead, Offset: 1, Data: make([]byte, 512)}, ErrUnaligned},
		{"unaligned length", Request{Op: OpWrite, Data: make([]byte, 511)}, ErrUnaligned},
		{"negative offset", Request{Op: OpRead, Offset: -512, Data: make([]byte, 512)}, ErrOutOfRange},
		{"beyond the end", Request{Op: OpRead, Offset: 8192 - 512, Data: make([]byte, 1024)}, ErrOutOfRange},
		{"length that overflows", Request{Op: OpDiscard, Offset: 512, Length: 1<<63 - 512}, ErrOutOfRange},
		{"offset that overflows", Request{Op: OpDiscard, Offset: 1<<63 - 512, Length: 1024}, ErrOutOfRange},
		{"negative length", Request{Op: OpWriteZeroes, Length: -512}, ErrInvalidRequest},
		{"nothing to read", Request{Op: OpRead, Offset: 512}, nil},
		{"nothing to discard", Request{Op: OpDiscard}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.r
			r.Owner = c
			v.Submit(&r)
			if len(c.done) > 0 {
				t.Fatal("finished within Submit")
			}
			v.Kick()
			if got := c.wait(t); got != &r || !errors.Is(r.Err, tt.want) {
				t.Errorf("got %v, want %v", r.Err, tt.want)
			}
			var ve *VolumeError
			if r.Err != nil && (!errors.As(r.Err, &ve) || ve.Errno() == 0) {
				t.Errorf("%v is no *VolumeError with a number", r.Err)
			}
		})
	}
	if cmds := d.seen(); len(cmds) > 0 {
		t.Errorf("commands were sent: %v", cmds)
	}
	if c.flushes == 0 {
		t.Error("the owner was not flushed")
	}
}

func TestFUA(t *testing.T) {
	tests := []struct {
		name          string
		cache, dpofua bool
		op            Op
		want          []scsi.Opcode
		fua           bool
	}{
		{"bit", true, true, OpWrite, []scsi.Opcode{scsi.OpWrite10, scsi.OpWrite10}, true},
		{"flush after all pieces", true, false, OpWrite, []scsi.Opcode{scsi.OpWrite10, scsi.OpWrite10, scsi.OpSynchronizeCache10}, false},
		{"no cache", false, true, OpWrite, []scsi.Opcode{scsi.OpWrite10, scsi.OpWrite10}, false},
		{"zeroes: WRITE SAME has no such bit", true, true, OpWriteZeroes, []scsi.Opcode{scsi.OpWriteSame16, scsi.OpSynchronizeCache10}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newFakeDisk(t, 1<<20, 512)
			d.limits.MaxTransfer = 8
			d.caching.WriteCache, d.header.DPOFUA = tt.cache, tt.dpofua
			v := d.open(t, VolumeOptions{})
			d.seen()
			c := newCollector()
			r := &Request{Op: tt.op, FUA: true, Owner: c, Data: make([]byte, 8192), Length: 8192}
			v.Submit(r)
			v.Kick()
			if c.wait(t).Err != nil {
				t.Fatal(r.Err)
			}
			cmds := d.seen()
			if len(cmds) != len(tt.want) {
				t.Fatalf("commands %v", cmds)
			}
			for i, cmd := range cmds {
				if cmd.Op != tt.want[i] || cmd.FUA != tt.fua {
					t.Errorf("command %d: %+v", i, cmd)
				}
			}
		})
	}
}

func TestFUABitThatIsRefusedBecomesAFlush(t *testing.T) {
	d := newFakeDisk(t, 1<<20, 512)
	v := d.open(t, VolumeOptions{})
	d.with(func() {
		d.fault = func(c scsi.Command, t *Task) bool { return c.FUA && d.fail(t, scsi.KeyIllegalRequest, 0x24, 0) }
	})
	d.seen()
	if _, err := v.do(t.Context(), Request{Op: OpWrite, FUA: true, Data: make([]byte, 512)}); err != nil {
		t.Fatal(err)
	}
	cmds := d.seen()
	if len(cmds) != 3 || cmds[1].FUA || cmds[2].Op != scsi.OpSynchronizeCache10 || v.Features().FUA {
		t.Errorf("commands %+v", cmds)
	}
}

func TestSync(t *testing.T) {
	t.Run("with a cache", func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		v := d.open(t, VolumeOptions{})
		d.seen()
		if err := v.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if cmds := d.seen(); len(cmds) != 1 || cmds[0].Op != scsi.OpSynchronizeCache10 || cmds[0].Blocks != 0 || cmds[0].Immed {
			t.Errorf("commands %+v", cmds)
		}
	})
	t.Run("without one", func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		d.caching.WriteCache = false
		v := d.open(t, VolumeOptions{})
		d.seen()
		if err := v.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if cmds := d.seen(); len(cmds) != 0 {
			t.Errorf("commands %+v", cmds)
		}
	})
	t.Run("unknown to a device that does not tell of a cache", func(t *testing.T) {
		d := newFakeDisk(t, 1<<20, 512)
		d.noCaching = true
		v := d.open(t, VolumeOptions{})
		d.with(func() {
			d.fault = func(c scsi.Command, t *Task) bool {
				return c.Op == scsi.OpSynchronizeCache10 && d.fail(t, scsi.KeyIllegalRequest, 0x20, 0)
			}
		})
		d.seen()
		for range 2 {
			if err := v.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if cmds := d.seen(); len(cmds) != 1 || v.Features().WriteCache {
			t.Errorf("commands %+v", cmds)
		}
	})
	// Data in a cache that cannot be written back are not safe, and whoever
	// asked must know.
	for name, asc := range map[string]uint8{"unknown to a device with a cache": 0x20, "refused": 0x24} {
		t.Run(name, func(t *testing.T) {
			d := newFakeDisk(t, 1<<20, 512)
			d.noCaching = asc != 0x20
			v := d.open(t, VolumeOptions{})
			d.with(func() {
				d.fault = func(c scsi.Command, t *Task) bool {
					return c.Op == scsi.OpSynchronizeCache10 && d.fail(t, scsi.KeyIllegalRequest, asc, 0)
				}
			})
			for range 2 {
				if err := v.Sync(t.Context()); !errors.Is(err, ErrUnsupported) {
					t.Errorf("got %v", err)
				}
			}
			if !v.Features().WriteCache {
				t.Error("the cache is forgotten")
			}
		})
	}
}

func TestDiscard(t *testing.T) {
	tests := []struct {
		name  string
		setup func(*fakeDisk)
		off   int64
		n     int64
		op    scsi.Opcode
		want  [][2]uint64 // LBA, blocks
		err   error
	}{
		{"one command", func(*fakeDisk) {}, 512, 1024, scsi.OpUnmap, [][2]uint64{{1, 2}}, nil},
		{"split at the limit", func(d *fakeDisk) { d.limits.MaxUnmapBlocks = 4 }, 0, 5120, scsi.OpUnmap, [][2]uint64{{0, 4}, {4, 4}, {8, 2}}, nil},
		{"split between granules", func(d *fakeDisk) {
			d.limits.MaxUnmapBlocks, d.limits.UnmapGranularity = 10, 8
			d.limits.UnmapAlignment, d.limits.UnmapAlignmentValid = 3, true
		}, 512, 32 * 512, scsi.OpUnmap, [][2]uint64{{1, 10}, {11, 8}, {19, 8}, {27, 6}}, nil},
		{"granules larger than the limit", func(d *fakeDisk) { d.limits.MaxUnmapBlocks, d.limits.UnmapGranularity = 4, 8 }, 512, 10 * 512, scsi.OpUnmap, [][2]uint64{{1, 4}, {5, 3}, {8, 3}}, nil},
		{"by WRITE SAME", func(d *fakeDisk) { d.prov.Unmap = false }, 512, 1024, scsi.OpWriteSame16, [][2]uint64{{1, 2}}, nil},
		{"UNMAP that the device does not know", func(d *fakeDisk) {
			d.fault = func(c scsi.Command, t *Task) bool {
				return c.Op == scsi.OpUnmap && d.fail(t, scsi.KeyIllegalRequest, 0x20, 0)
			}
		}, 512, 1024, 0, [][2]uint64{{0, 0}, {1, 2}}, nil},
		{"not at all", func(d *fakeDisk) {
			d.prov.Unmap, d.prov.WriteSame16 = false, false
			d.prov.Type = scsi.ProvisioningThin
		}, 0, 512, 0, nil, ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newFakeDisk(t, 1<<20, 512)
			tt.setup(d)
			v := d.open(t, VolumeOptions{QueueDepth: 1})
			want := bytes.Repeat([]byte{1}, len(d.data))
			copy(d.data, want)
			d.seen()
			if err := v.Discard(t.Context(), tt.off, tt.n); !errors.Is(err, tt.err) {
				t.Fatal(err)
			}
			cmds := d.seen()
			var got [][2]uint64
			for _, c := range cmds {
				got = append(got, [2]uint64{c.LBA, uint64(c.Blocks)})
				if tt.op != 0 && c.Op != tt.op {
					t.Errorf("command %+v", c)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("ranges %v, want %v", got, tt.want)
			}
			if tt.err == nil {
				clear(want[tt.off : tt.off+tt.n])
			}
			if !bytes.Equal(d.data, want) {
				t.Error("another range was discarded")
			}
		})
	}
}

func TestWriteZeroes(t *testing.T) {
	refuse := func(d *fakeDisk, match func(scsi.Command) bool) {
		d.fault = func(c scsi.Command, t *Task) bool { return match(c) && d.fail(t, scsi.KeyIllegalRequest, 0x24, 0) }
	}
	same := func(c scsi.Command) bool { return c.Op == scsi.OpWriteSame16 }
	tests := []struct {
		name    string
		setup   func(*fakeDisk)
		noUnmap bool
		want    func(c scsi.Command) bool // of the last command
		cmds    int
	}{
		{"unmap", func(*fakeDisk) {}, false, func(c scsi.Command) bool { return same(c) && c.Unmap && c.NDOB }, 1},
		{"keep allocated", func(*fakeDisk) {}, true, func(c scsi.Command) bool { return same(c) && !c.Unmap && c.NDOB }, 1},
		{"keep allocated, by anchoring", func(d *fakeDisk) { d.prov.Anchor = true }, true, func(c scsi.Command) bool { return same(c) && c.Unmap && c.Anchor && c.NDOB }, 1},
		{"anchoring is for those who want the space", func(d *fakeDisk) { d.prov.Anchor = true }, false, func(c scsi.Command) bool { return same(c) && c.Unmap && !c.Anchor }, 1},
		{"anchored blocks do not read as zeroes", func(d *fakeDisk) { d.prov.Anchor, d.prov.ReadZeros, d.cap.ThinReadsZero = true, 0, false }, true, func(c scsi.Command) bool { return same(c) && !c.Unmap && !c.Anchor }, 1},
		{"ANCHOR that is refused", func(d *fakeDisk) {
			d.prov.Anchor, d.usage = true, byte(scsi.SameUnmap)
			refuse(d, func(c scsi.Command) bool { return c.Anchor })
		}, true, func(c scsi.Command) bool { return same(c) && !c.Unmap && !c.Anchor }, 2},
		{"unmapped blocks do not read as zeroes", func(d *fakeDisk) { d.prov.ReadZeros, d.cap.ThinReadsZero = 0, false }, false, func(c scsi.Command) bool { return same(c) && !c.Unmap }, 1},
		{"no NDOB", func(d *fakeDisk) { d.usage = byte(scsi.SameUnmap) }, false, func(c scsi.Command) bool { return same(c) && c.Unmap && !c.NDOB }, 1},
		{"NDOB that is refused", func(d *fakeDisk) { refuse(d, func(c scsi.Command) bool { return c.NDOB }) }, false, func(c scsi.Command) bool { return same(c) && c.Unmap && !c.NDOB }, 2},
		{"UNMAP that is refused", func(d *fakeDisk) {
			d.usage = byte(scsi.SameUnmap)
			refuse(d, func(c scsi.Command) bool { return c.Unmap })
		}, false, func(c scsi.Command) bool { return same(c) && !c.Unmap }, 2},
		{"WRITE SAME that is refused", func(d *fakeDisk) { d.usage = 0xff; refuse(d, same) }, true, isWrite, 3},
		{"all that is refused", func(d *fakeDisk) { refuse(d, same) }, false, isWrite, 5},
		{"no WRITE SAME", func(d *fakeDisk) { d.usage = 0 }, false, isWrite, 2},
		{"limit", func(d *fakeDisk) { d.limits.MaxWriteSame = 8 }, false, same, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newFakeDisk(t, 1<<20, 512)
			d.limits.MaxTransfer = 8
			tt.setup(d)
			v := d.open(t, VolumeOptions{QueueDepth: 1})
			want := bytes.Repeat([]byte{1}, len(d.data))
			copy(d.data, want)
			d.seen()
			if _, err := v.do(t.Context(), Request{Op: OpWriteZeroes, Offset: 512, Length: 8192, NoUnmap: tt.noUnmap}); err != nil {
				t.Fatal(err)
			}
			cmds := d.seen()
			if len(cmds) != tt.cmds || !tt.want(cmds[len(cmds)-1]) {
				t.Errorf("commands %+v", cmds)
			}
			clear(want[512 : 512+8192])
			if !bytes.Equal(d.data, want) {
				t.Error("another range was zeroed")
			}
		})
	}
}

func TestAFailedWriteSaysHowFarItCame(t *testing.T) {
	d := newFakeDisk(t, 1<<20, 512)
	d.limits.MaxTransfer = 8
	v := d.open(t, VolumeOptions{})
	d.with(func() {
		d.fault = func(c scsi.Command, t *Task) bool {
			return (c.LBA == 16 || c.LBA == 40) && d.fail(t, scsi.KeyMediumError, 0x11, 0)
		}
	})
	n, err := v.WriteAt(t.Context(), make([]byte, 64<<10), 0)
	var ve *VolumeError
	if n != 8192 || !errors.As(err, &ve) || ve.Offset != 8192 || ve.Length != 4096 || !errors.Is(err, ErrMedium) {
		t.Errorf("n %d, error %v", n, err)
	}
	if s, ok := Sense(err); !ok || !s.Is(scsi.KeyMediumError, 0x11, 0) {
		t.Errorf("sense %v", s)
	}
	// The rest of the disk is as good as before.
	if _, err := v.ReadAt(t.Context(), make([]byte, 4096), 0); err != nil {
		t.Errorf("read elsewhere: %v", err)
	}
}

func TestCompareAndWrite(t *testing.T) {
	d := newFakeDisk(t, 8192, 512)
	v := d.open(t, VolumeOptions{})
	ctx := t.Context()
	zero, one := make([]byte, 512), bytes.Repeat([]byte{1}, 512)
	if err := v.CompareAndWrite(ctx, 512, zero, one); err != nil || !bytes.Equal(d.data[512:1024], one) {
		t.Fatal(err)
	}
	d.with(func() {
		d.fault = func(c scsi.Command, t *Task) bool {
			if c.Op != scsi.OpCompareAndWrite {
				return false
			}
			t.Status = scsi.StatusCheckCondition
			t.setSense(scsi.Sense{ResponseCode: scsi.SenseFixed, Key: scsi.KeyMiscompare, ASC: 0x1d, Information: 7, InformationValid: true}.Append(nil))
			return true
		}
	})
	err := v.CompareAndWrite(ctx, 512, zero, one)
	var m *MiscompareError
	if !errors.Is(err, ErrMiscompare) || !errors.As(err, &m) || !m.Known || m.Offset != 519 {
		t.Errorf("got %v", err)
	}
	for _, tt := range []struct {
		name     string
		off      int64
		old, new []byte
		want     error
	}{
		{"lengths differ", 0, zero, append(one, one...), ErrInvalidRequest},
		{"too long", 0, make([]byte, 2048), make([]byte, 2048), ErrInvalidRequest},
		{"unaligned", 1, zero, one, ErrUnaligned},
		{"beyond the end", 8192, zero, one, ErrOutOfRange},
		{"nothing", 0, nil, nil, nil},
	} {
		if err := v.CompareAndWrite(ctx, tt.off, tt.old, tt.new); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestCompareAndWriteThatIsRefusedIsNotOfferedAgain(t *testing.T) {
	d := newFakeDisk(t, 8192, 512)
	v := d.open(t, VolumeOptions{})
	d.with(func() {
		d.fault = func(c scsi.Command, t *Task) bool {
			return c.Op == scsi.OpCompareAndWrite && d.fail(t, scsi.KeyIllegalRequest, 0x20, 0)
		}
	})
	d.seen()
	for range 2 {
		if err := v.CompareAndWrite(t.Context(), 0, make([]byte, 512), make([]byte, 512)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	}
	if n := len(d.seen()); n != 1 || v.Features().MaxCompareAndWrite != 0 {
		t.Errorf("%d commands, limit %d", n, v.Features().MaxCompareAndWrite)
	}
}

func TestDoReturnsWhatTheDeviceSays(t *testing.T) {
	d := newFakeDisk(t, 8192, 512)
	v := d.open(t, VolumeOptions{})
	task := &Task{DataIn: make([]byte, 8)}
	scsi.ReadCapacity10(&task.CDB)
	if err := v.Do(t.Context(), task); err != nil || task.Transferred != 8 || task.LUN != fakeLUN {
		t.Fatalf("%v, %+v", err, task)
	}
	task.CDB = scsi.CDB{0xc0}
	err := v.Do(t.Context(), task)
	var se *scsi.StatusError
	if !errors.As(err, &se) || !se.Sense.Is(scsi.KeyIllegalRequest, 0x20, 0) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.with(func() { d.hold = func(scsi.Command) bool { return true } })
	scsi.TestUnitReady(&task.CDB)
	if err := v.Do(ctx, task); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
