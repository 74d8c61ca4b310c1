package initiator

import (
	"context"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// FuzzJudge checks that whatever a device answers, for ever, a command comes to
// an end in bounded time and number of attempts.
func FuzzJudge(f *testing.F) {
	f.Add(byte(2), scsi.NewSense(scsi.KeyNotReady, 4, 1).Append(nil), int64(0))
	f.Add(byte(2), scsi.NewSense(scsi.KeyUnitAttention, 0x29, 0).Append(nil), int64(512))
	f.Add(byte(2), scsi.Sense{ResponseCode: scsi.SenseDescriptorDeferred, Key: 3}.Append(nil), int64(-1))
	f.Add(byte(8), []byte{}, int64(0))
	f.Add(byte(0x28), []byte{0x70}, int64(0))
	f.Add(byte(0), []byte{}, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, status byte, sense []byte, residual int64) {
		task := &Task{Status: scsi.Status(status), Residual: residual}
		task.setSense(sense)
		var r retries
		now := time.Unix(0, 0)
		begun := now
		for range 1000 {
			j, _ := judge(task)
			switch j.verdict {
			case verdictDone:
				return
			case verdictUnsupported, verdictFail:
				if taskError(task, j.kind) == nil {
					t.Fatal("a failure without an error")
				}
				return
			}
			delay, again := r.next(j.verdict, now, DefaultPatience)
			if !again {
				if taskError(task, j.kind) == nil {
					t.Fatal("a failure without an error")
				}
				return
			}
			now = now.Add(delay)
			if now.Sub(begun) > DefaultPatience {
				t.Fatal("patience does not end")
			}
		}
		t.Fatal("the attempts do not end")
	})
}

// A scriptedPort answers every command that reads with the next part of its
// data, and every third with sense data.
type scriptedPort struct {
	data []byte
	n    int
}

func (p *scriptedPort) Submit(*Task) { panic("not used when a volume is opened") }
func (p *scriptedPort) Kick()        {}
func (p *scriptedPort) Do(_ context.Context, t *Task) error {
	t.reset()
	take := func(n int) []byte {
		b := p.data[:min(n, len(p.data))]
		p.data = p.data[len(b):]
		return b
	}
	kind := take(1)
	switch {
	case len(kind) > 0 && kind[0] >= 0xf0:
		t.Status = scsi.StatusCheckCondition
		t.setSense(take(18))
	case len(t.DataIn) > 0:
		n := len(t.DataIn)
		if len(kind) > 0 {
			n = min(n, int(kind[0])+4)
		}
		t.Transferred = copy(t.DataIn, take(n))
		t.Residual = int64(len(t.DataIn) - t.Transferred)
	}
	p.n++
	return nil
}

// FuzzOpenVolume checks that whatever a device says about itself, opening it
// neither panics nor takes for ever, and that what comes out is usable.
func FuzzOpenVolume(f *testing.F) {
	var script []byte
	add := func(b []byte) { script = append(append(script, byte(len(b)-4)), b...) }
	add(scsi.InquiryData{Version: 6}.Append(nil))
	pages := scsi.VPDPages{}
	for _, p := range []scsi.VPDPage{0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2} {
		pages.Add(p)
	}
	page := func(p scsi.VPDPage, b []byte) { add(scsi.AppendVPD(nil, 0, 0, p, b)) }
	page(0, pages.Append(nil))
	page(0x80, []byte("serial"))
	page(0x83, scsi.AppendDesignators(nil, scsi.Designator{Type: 3, CodeSet: 1, ID: []byte{0x60, 1, 2, 3}}))
	add([]byte{0, 0, 0, 0}[:4]) // TEST UNIT READY takes the length byte only
	add(scsi.Capacity{LastLBA: 99, BlockSize: 512, Thin: true}.Append16(nil))
	add(scsi.ModeHeader{DPOFUA: true}.AppendModeSense6(nil, scsi.CachingPage{WriteCache: true}.Append(nil)))
	page(0xb0, scsi.BlockLimits{MaxTransfer: 1, UnmapGranularity: 3, UnmapAlignment: 5, UnmapAlignmentValid: true, MaxUnmapBlocks: 7, MaxUnmapDescriptors: 1}.Append(nil))
	page(0xb1, scsi.Characteristics{}.Append(nil))
	page(0xb2, scsi.Provisioning{Unmap: true}.Append(nil))
	f.Add(script)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		port := &scriptedPort{data: data}
		p := &prober{port: port, clock: newClock(), log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		v, err := openVolume(ctx, p, fakeLUN, VolumeOptions{Patience: Immediately, QueueDepth: 1})
		if port.n > 1000 {
			t.Fatalf("%d commands", port.n)
		}
		if err != nil {
			return
		}
		defer v.Close()
		bs := int64(v.BlockSize())
		if v.Size() < bs || v.Size()%bs != 0 {
			t.Fatalf("size %d with blocks of %d", v.Size(), bs)
		}
		v.Features()
		// Whatever the limits, a range is cut into pieces that cover it.
		for k := pieceRead; k < pieceKinds; k++ {
			if k == pieceSync {
				continue
			}
			off, left := 3*bs, 1000*bs
			for i := 0; left > 0; i++ {
				n := v.split.cut(k, off, left)
				if n <= 0 || n > left || n%bs != 0 || i > 1000 {
					t.Fatalf("piece of kind %d: %d bytes of %d at %d", k, n, left, off)
				}
				off, left = off+n, left-n
			}
		}
	})
}
