package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// Volumes over sessions with the target of iscsitest.

// volume opens LUN 1 over a session of its own.
func (r *rig) volume(t testing.TB, cfg initiator.Config, o initiator.VolumeOptions) *initiator.Volume {
	t.Helper()
	v, err := r.dial(t, cfg).OpenVolumeWith(t.Context(), lun1, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// target describes a disk of the rig for Connect.
func (r *rig) target(t testing.TB, lun uint64) initiator.Target {
	c := r.config(t)
	return initiator.Target{Name: c.Target, Portals: []initiator.Portal{c.Portal}, LUN: lun, InitiatorName: c.InitiatorName, CHAP: c.CHAP, Session: c}
}

func TestConnectAndDisconnect(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	v, err := initiator.Connect(ctx, r.target(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	want := pattern(1, 1<<20)
	if _, err := v.WriteAt(ctx, want, 4096); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := v.ReadAt(ctx, got, 4096); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read back: %v", err)
	}
	if err := v.Disconnect(ctx); err != nil {
		t.Fatal(err)
	}
	if n := r.srv.Received(pdu.OpLogoutRequest); n != 1 {
		t.Errorf("%d logouts", n)
	}
	if _, err := v.ReadAt(ctx, got, 0); !errors.Is(err, initiator.ErrVolumeClosed) {
		t.Errorf("read after Disconnect: %v", err)
	}
	r.checkViolations(t)
}

func TestConnectToNoLUNLogsOutAgain(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.Targets[0].Controller = true })
	if _, err := initiator.Connect(t.Context(), r.target(t, 7)); !errors.Is(err, initiator.ErrNoDevice) {
		t.Errorf("LUN 7: %v", err)
	}
	var nd *initiator.NotADiskError
	if _, err := initiator.Connect(t.Context(), r.target(t, 0)); !errors.As(err, &nd) || nd.Type != scsi.TypeController {
		t.Errorf("LUN 0: %v", err)
	}
	if n := r.srv.Received(pdu.OpLogoutRequest); n != 2 {
		t.Errorf("%d logouts after 2 attempts", n)
	}
}

func TestLUNsOfAllAddressingMethods(t *testing.T) {
	var want []pdu.LUN
	r := newRig(t, func(c *iscsitest.Config) {
		c.Targets[0].Controller = true
		luns := c.Targets[0].LUNs
		for n := range uint64(600) {
			luns[n+1] = &iscsitest.LUN{Store: iscsitest.NullStore(1 << 20)}
		}
		luns[20000] = &iscsitest.LUN{Store: iscsitest.NewMemStore(1 << 20)}
		for n := range uint64(601) {
			want = append(want, pdu.LUNFromNumber(n))
		}
		want = append(want, pdu.LUNFromNumber(20000))
	})
	s := r.dial(t, r.config(t))
	got, err := s.LUNs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b pdu.LUN) int { return int(a>>32) - int(b>>32) })
	slices.SortFunc(want, func(a, b pdu.LUN) int { return int(a>>32) - int(b>>32) })
	if !slices.Equal(got, want) {
		t.Errorf("%d LUNs, want %d", len(got), len(want))
	}
	for _, n := range []uint64{300, 20000} {
		v, err := s.OpenVolume(t.Context(), pdu.LUNFromNumber(n))
		if err != nil {
			t.Fatalf("LUN %d: %v", n, err)
		}
		if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
			t.Errorf("LUN %d: %v", n, err)
		}
		v.Close()
	}
}

func TestInquire(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) {
		c.Targets[0].Controller = true
		c.Targets[0].LUNs[1].NAA = []byte{0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
		c.Targets[0].LUNs[1].Serial = "S1"
	})
	s := r.dial(t, r.config(t))
	info, err := s.Inquire(t.Context(), lun1)
	if err != nil || !info.IsDisk() || info.Identity.WWID != "360010203040506070809"+"0a0b0c0d0e0f" || info.Identity.Serial != "S1" || len(info.Designators) < 2 {
		t.Errorf("LUN 1: %+v, %v", info, err)
	}
	if info, err = s.Inquire(t.Context(), 0); err != nil || info.Type != scsi.TypeController || info.IsDisk() || !info.Present() {
		t.Errorf("LUN 0: %+v, %v", info, err)
	}
	if info, err = s.Inquire(t.Context(), pdu.LUNFromNumber(9)); err != nil || info.Present() {
		t.Errorf("LUN 9: %+v, %v", info, err)
	}
}

// A worker keeps random requests going on blocks of its own and checks what it
// reads against a shadow of what it wrote.
type worker struct {
	v      *initiator.Volume
	rnd    *rand.Rand
	shadow []byte
	base   int64
	unit   int64

	r    initiator.Request
	want []byte // of a read
	left int
	done chan error
}

func (w *worker) next() {
	off := w.rnd.Int64N(int64(len(w.shadow))/w.unit) * w.unit
	n := min((1+w.rnd.Int64N(64))*w.unit, int64(len(w.shadow))-off)
	w.r = initiator.Request{Owner: w, Offset: w.base + off, Length: n}
	part := w.shadow[off : off+n]
	switch op := w.rnd.IntN(20); {
	case op < 9:
		w.r.Op, w.r.Data = initiator.OpWrite, pattern(w.rnd.Uint64(), int(n))
		w.r.FUA = op == 0
		copy(part, w.r.Data)
	case op < 10:
		w.r.Op, w.r.NoUnmap = initiator.OpWriteZeroes, w.rnd.IntN(2) == 0
		clear(part)
	case op < 11:
		w.r.Op = initiator.OpFlush
	case op < 12:
		// Discarded blocks read as zeroes here, as iscsitest says.
		w.r.Op = initiator.OpDiscard
		clear(part)
	default:
		w.r.Op, w.r.Data, w.want = initiator.OpRead, make([]byte, n), part
	}
	w.v.Submit(&w.r)
}

func (w *worker) RequestDone(r *initiator.Request) {
	switch {
	case r.Err != nil:
		w.done <- r.Err
		return
	case r.Op == initiator.OpRead && !bytes.Equal(r.Data, w.want):
		w.done <- fmt.Errorf("read of %d bytes at %d returned other data", len(r.Data), r.Offset)
		return
	}
	if w.left--; w.left == 0 {
		w.done <- nil
		return
	}
	w.next()
}

func (w *worker) Flush() { w.v.Kick() }

// workload runs workers over a volume until each has done n requests.
func workload(t *testing.T, v *initiator.Volume, workers, n int) {
	t.Helper()
	const part = 1 << 20
	done := make(chan error, workers)
	for i := range workers {
		w := &worker{
			v: v, rnd: rand.New(rand.NewPCG(uint64(i), 1)), shadow: make([]byte, part), base: int64(i) * part,
			unit: int64(v.BlockSize()), left: n, done: done,
		}
		if _, err := v.ReadAt(t.Context(), w.shadow, w.base); err != nil {
			t.Fatal(err)
		}
		w.next()
	}
	v.Kick()
	for range workers {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("requests are lost")
		}
	}
}

func TestVolumeWorkload(t *testing.T) {
	for _, bs := range []int{512, 4096} {
		for _, limit := range []uint32{0, 16} {
			t.Run(fmt.Sprintf("blocksize=%d/limit=%d", bs, limit), func(t *testing.T) {
				r := newRig(t, func(c *iscsitest.Config) {
					l := c.Targets[0].LUNs[1]
					l.BlockSize, l.MaxTransfer, l.Thin, l.WriteCache = bs, limit, true, true
				})
				cfg := r.config(t)
				cfg.Logger = slog.New(slog.DiscardHandler)
				workload(t, r.volume(t, cfg, initiator.VolumeOptions{QueueDepth: 16}), 16, 100)
			})
		}
	}
}

func TestVolumeWorkloadWhileConnectionsAreLost(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) {
		c.UnitAttention = true // each login finds the device reset
		l := c.Targets[0].LUNs[1]
		l.Thin, l.WriteCache = true, true
	})
	cfg := r.config(t)
	cfg.Logger = slog.New(slog.DiscardHandler)
	var resets atomic.Int32
	v := r.volume(t, cfg, initiator.VolumeOptions{OnEvent: func(e initiator.VolumeEvent) {
		if e.Type == initiator.VolumeReset {
			resets.Add(1)
		}
	}})
	// Cut the connection whenever so many commands have passed.
	var seen atomic.Int64
	r.srv.Handle(pdu.OpSCSICommand, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		if seen.Add(1)%300 == 0 {
			return iscsitest.ResetConn()
		}
		return iscsitest.Pass()
	})
	workload(t, v, 8, 150)
	if n := v.Session().Info().Recoveries; n == 0 || resets.Load() == 0 {
		t.Errorf("%d recoveries, %d resets noticed", n, resets.Load())
	}
}

func TestSenseFromTheTarget(t *testing.T) {
	r := newRig(t, nil)
	v := r.volume(t, r.config(t), initiator.VolumeOptions{})
	write := func(cdb []byte) bool { return cdb[0] == byte(scsi.OpWrite10) }
	for _, tt := range []struct {
		name   string
		status scsi.Status
		sense  scsi.Sense
		want   error
	}{
		{"no space", scsi.StatusCheckCondition, scsi.NewSense(scsi.KeyDataProtect, 0x27, 0x07), initiator.ErrNoSpace},
		{"descriptor format", scsi.StatusCheckCondition, scsi.Sense{ResponseCode: scsi.SenseDescriptor, Key: scsi.KeyMediumError, ASC: 0x0c}, initiator.ErrMedium},
		{"conflict", scsi.StatusReservationConflict, scsi.Sense{}, initiator.ErrReservationConflict},
		{"busy once", scsi.StatusBusy, scsi.Sense{}, nil},
		{"reset once", scsi.StatusCheckCondition, scsi.NewSense(scsi.KeyUnitAttention, 0x29, 0x02), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var sense []byte
			if tt.sense.Valid() {
				sense = tt.sense.Append(nil)
			}
			r.lun.FailNext(tt.status, sense, write)
			n, err := v.WriteAt(t.Context(), make([]byte, 8192), 0)
			if !errors.Is(err, tt.want) || (n == 8192) != (tt.want == nil) {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

func TestACapacityChangeIsNoticed(t *testing.T) {
	r := newRig(t, nil)
	events := make(chan initiator.VolumeEvent, 10)
	r.lun.FailNext(scsi.StatusCheckCondition, scsi.NewSense(scsi.KeyUnitAttention, 0x2a, 0x09).Append(nil), func(cdb []byte) bool { return cdb[0] == byte(scsi.OpRead10) })
	v := r.volume(t, r.config(t), initiator.VolumeOptions{OnEvent: func(e initiator.VolumeEvent) { events <- e }})
	asked := r.lun.Commands()
	if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Refresh(t.Context()); err != nil || v.Size() != 64<<20 {
		t.Fatal(err)
	}
	if r.lun.Commands()-asked < 4 {
		t.Error("the capacity was not read again")
	}
}

func TestADifferentDiskIsNeverServed(t *testing.T) {
	first := newRig(t, nil)
	second := newRig(t, func(c *iscsitest.Config) {
		c.UnitAttention = true
		c.Targets[0].LUNs[1].Serial = "another"
		c.Targets[0].LUNs[1].NAA = []byte{0x50, 1, 2, 3, 4, 5, 6, 7}
	})
	var current atomic.Pointer[rig]
	current.Store(first)
	cfg := first.config(t)
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return current.Load().dialPipe(ctx, network, address)
	}
	v := first.volume(t, cfg, initiator.VolumeOptions{})
	if _, err := v.WriteAt(t.Context(), pattern(1, 4096), 0); err != nil {
		t.Fatal(err)
	}
	current.Store(second)
	first.srv.DropConnections()
	for range 3 {
		if _, err := v.WriteAt(t.Context(), pattern(2, 4096), 0); !errors.Is(err, initiator.ErrIdentity) {
			t.Errorf("write: %v", err)
		}
	}
	if n := second.store.Allocated(); n != 0 {
		t.Errorf("%d bytes were written to the wrong disk", n)
	}
}

func TestReservationsBetweenTwoInitiators(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	a := r.volume(t, r.config(t), initiator.VolumeOptions{})
	other := r.config(t)
	other.InitiatorName += "2"
	b := r.volume(t, other, initiator.VolumeOptions{})
	const keyA, keyB = initiator.ReservationKey(0xa), initiator.ReservationKey(0xb)
	typ := scsi.WriteExclusiveRegistrantsOnly

	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("register", a.Reservations().Register(ctx, 0, keyA, initiator.RegisterOptions{}))
	must("reserve", a.Reservations().Reserve(ctx, keyA, typ))
	if h, err := b.Reservations().Holder(ctx); err != nil || !h.Held || h.Key != uint64(keyA) || h.Type != typ {
		t.Errorf("holder %+v, %v", h, err)
	}
	_, err := b.WriteAt(ctx, make([]byte, 512), 0)
	if !errors.Is(err, initiator.ErrReservationConflict) {
		t.Errorf("write by another: %v", err)
	}
	if _, err := b.ReadAt(ctx, make([]byte, 512), 0); err != nil {
		t.Errorf("read by another: %v", err)
	}
	must("register b", b.Reservations().Register(ctx, 0, keyB, initiator.RegisterOptions{Force: true}))
	_, err = b.WriteAt(ctx, make([]byte, 512), 0)
	must("write by a registrant", err)
	keys, err := a.Reservations().Keys(ctx)
	if slices.Sort(keys); err != nil || !slices.Equal(keys, []initiator.ReservationKey{keyA, keyB}) {
		t.Errorf("keys %v, %v", keys, err)
	}
	regs, err := a.Reservations().Registrants(ctx)
	if err != nil || len(regs) != 2 || !slices.ContainsFunc(regs, func(x scsi.PRRegistrant) bool { return x.Holder && x.Key == uint64(keyA) }) {
		t.Errorf("registrants %+v, %v", regs, err)
	}
	if c, err := a.Reservations().Capabilities(ctx); err != nil || !slices.Contains(c.Types, typ) {
		t.Errorf("capabilities %+v, %v", c, err)
	}
	must("preempt", b.Reservations().Preempt(ctx, keyB, keyA, typ, true))
	if _, err := a.WriteAt(ctx, make([]byte, 512), 0); !errors.Is(err, initiator.ErrReservationConflict) {
		t.Errorf("write by the one fenced off: %v", err)
	}
	if err := a.Reservations().Release(ctx, keyA, typ); !errors.Is(err, initiator.ErrReservationConflict) {
		t.Errorf("release by the one fenced off: %v", err)
	}
	must("release", b.Reservations().Release(ctx, keyB, typ))
	_, err = a.WriteAt(ctx, make([]byte, 512), 0)
	must("write after the release", err)
	must("clear", b.Reservations().Clear(ctx, keyB))
}

func TestCompareAndWriteOnTheTarget(t *testing.T) {
	r := newRig(t, nil)
	v := r.volume(t, r.config(t), initiator.VolumeOptions{})
	ctx := t.Context()
	zero, one := make([]byte, 512), bytes.Repeat([]byte{1}, 512)
	if err := v.CompareAndWrite(ctx, 1024, zero, one); err != nil {
		t.Fatal(err)
	}
	err := v.CompareAndWrite(ctx, 1024, zero, one)
	var m *initiator.MiscompareError
	if !errors.Is(err, initiator.ErrMiscompare) || !errors.As(err, &m) {
		t.Fatalf("got %v", err)
	}
	if m.Known && m.Offset != 1024 {
		t.Errorf("first difference at %d", m.Offset)
	}
}

func TestACancelledReadIsAborted(t *testing.T) {
	r := newRig(t, nil)
	v := r.volume(t, r.config(t), initiator.VolumeOptions{})
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	r.srv.Handle(pdu.OpSCSICommand, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
		arrived <- struct{}{}
		return iscsitest.Delay(release)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := v.ReadAt(ctx, make([]byte, 512), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := r.srv.Received(pdu.OpTaskManagementRequest); n == 0 {
		t.Error("the command was not aborted")
	}
	r.srv.Handle(pdu.OpSCSICommand, nil)
	close(release)
	if _, err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestVolumeIOAllocatesNothing(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) {
		c.Targets[0].LUNs[1] = &iscsitest.LUN{Store: iscsitest.NullStore(1 << 30)}
	})
	cfg := r.config(t)
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.Timeouts.NoopInterval = -1
	v := r.volume(t, cfg, initiator.VolumeOptions{})
	for _, op := range []initiator.Op{initiator.OpRead, initiator.OpWrite} {
		t.Run(op.String(), func(t *testing.T) {
			l := &volumeLoop{v: v, idle: make(chan error, 1)}
			reqs := make([]initiator.Request, 16)
			for i := range reqs {
				reqs[i] = initiator.Request{Op: op, Data: make([]byte, 4096), Offset: int64(i) * 4096, Owner: l}
			}
			const n = 2000
			run := func() {
				if err := l.run(reqs, n); err != nil {
					t.Fatal(err)
				}
			}
			run() // grows what grows
			if a := testing.AllocsPerRun(5, run); a > n/100 {
				t.Errorf("%v allocations for %d requests", a, n)
			}
		})
	}
}

// A volumeLoop keeps a number of requests going.
type volumeLoop struct {
	v          *initiator.Volume
	left, busy atomic.Int64
	idle       chan error
}

func (l *volumeLoop) RequestDone(r *initiator.Request) {
	if r.Err == nil && l.left.Add(-1) >= 0 {
		l.v.Submit(r)
		return
	}
	if l.busy.Add(-1) == 0 {
		l.idle <- r.Err
	}
}

func (l *volumeLoop) Flush() { l.v.Kick() }

func (l *volumeLoop) run(reqs []initiator.Request, n int) error {
	l.left.Store(int64(n - len(reqs)))
	l.busy.Store(int64(len(reqs)))
	for i := range reqs {
		l.v.Submit(&reqs[i])
	}
	l.v.Kick()
	return <-l.idle
}

func BenchmarkVolumeOverTCP(b *testing.B) {
	for _, op := range []initiator.Op{initiator.OpRead, initiator.OpWrite} {
		for _, size := range []int{4096, 256 << 10} {
			for _, depth := range []int{1, 32} {
				b.Run(fmt.Sprintf("op=%s/size=%d/depth=%d", op, size, depth), func(b *testing.B) {
					r := newRig(b, func(c *iscsitest.Config) {
						c.Targets[0].LUNs[1] = &iscsitest.LUN{Store: iscsitest.NullStore(1 << 30)}
					})
					cfg := r.config(b)
					cfg.Logger = nil
					v := r.volume(b, cfg, initiator.VolumeOptions{})
					l := &volumeLoop{v: v, idle: make(chan error, 1)}
					reqs := make([]initiator.Request, depth)
					for i := range reqs {
						reqs[i] = initiator.Request{Op: op, Data: make([]byte, size), Owner: l}
					}
					b.SetBytes(int64(size) * int64(depth))
					b.ReportAllocs()
					for b.Loop() {
						if err := l.run(reqs, depth); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
