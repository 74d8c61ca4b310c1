package initiator_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// recoveringRig starts a target of error recovery level 1 and logs in with data
// digests; segments are short, so that a task has many PDUs.
func recoveringRig(t testing.TB, params iscsitest.Params, mod func(*initiator.Config)) (*rig, *initiator.Session) {
	t.Helper()
	params.ErrorRecoveryLevel = 1
	r := newRig(t, func(c *iscsitest.Config) { c.Params = params })
	return r, r.dialLevelOne(t, r.config(t), mod)
}

func (r *rig) dialLevelOne(t testing.TB, cfg initiator.Config, mod func(*initiator.Config)) *initiator.Session {
	t.Helper()
	cfg.Params.ErrorRecoveryLevel = 1
	cfg.Params.DataDigest = []initiator.Digest{initiator.DigestCRC32C}
	cfg.Params.MaxRecvDataSegmentLength = 4096
	cfg.Params.MaxXmitDataSegmentLength = 4096
	cfg.Params.FirstBurstLength = 16384
	cfg.Params.MaxBurstLength = 16384
	if mod != nil {
		mod(&cfg)
	}
	s := r.dial(t, cfg)
	if n := s.Info().Negotiated.ErrorRecoveryLevel; n != 1 {
		t.Fatalf("error recovery level %d", n)
	}
	return s
}

// spoil has the target treat PDUs of an opcode as said the first times they come:
// which says how often, counted for each key.
func (r *rig) spoil(op pdu.Opcode, a iscsitest.Action, times int, which func(p pdu.PDU) (key string, ok bool)) (spoilt func() int) {
	var mu sync.Mutex
	n := 0
	seen := map[string]int{}
	r.srv.Handle(op, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		key, ok := which(p)
		mu.Lock()
		defer mu.Unlock()
		if !ok || seen[key] >= times {
			return iscsitest.Pass()
		}
		seen[key]++
		n++
		return a
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// holds fails the test if the disk has other data at an offset.
func (r *rig) holds(t testing.TB, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := r.store.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the disk has other data at %d: %v", off, err)
	}
}

// within fails the test if the session has had to log in again.
func (r *rig) within(t testing.TB, s *initiator.Session) {
	t.Helper()
	if i := s.Info(); i.Recoveries != 0 || r.srv.Accepted() != 1 {
		t.Errorf("%d recoveries, %d connections: %v", i.Recoveries, r.srv.Accepted(), i.LastError)
	}
}

// Data-In PDUs that are damaged or lost are sent again, whichever they are, and
// nobody notices.
func TestRecoversDataIn(t *testing.T) {
	const n = 64 << 10
	for _, separate := range []bool{false, true} {
		for name, a := range map[string]iscsitest.Action{"damaged": iscsitest.BadDataDigest(), "lost": iscsitest.Drop()} {
			for _, sn := range []uint32{0, 1, 9, 15} {
				for _, times := range []int{1, 2} {
					t.Run(fmt.Sprintf("%s %d times/DataSN=%d/separate=%v", name, times, sn, separate), func(t *testing.T) {
						r, s := recoveringRig(t, iscsitest.Params{SeparateStatus: separate, AckData: true},
							func(c *initiator.Config) {
								c.Timeouts.NoopInterval, c.Timeouts.NoopTimeout = 20*time.Millisecond, 10*time.Second
							})
						data := pattern(1, n)
						do(t, s, writeTask(0, data))
						spoilt := r.spoil(pdu.OpDataIn, a, times, func(p pdu.PDU) (string, bool) { return "", p.(*pdu.DataIn).DataSN == sn })
						task := readTask(0, n)
						do(t, s, task)
						if !bytes.Equal(task.DataIn, data) {
							t.Error("other data")
						}
						if spoilt() != times {
							t.Errorf("spoilt %d PDUs", spoilt())
						}
						do(t, s, readTask(0, n)) // what was held back is acknowledged
						r.within(t, s)
						if s.Stats().SNACKPDUs == 0 {
							t.Error("no SNACK counted")
						}
					})
				}
			}
		}
	}
}

// Responses that are damaged or lost are sent again.
func TestRecoversResponses(t *testing.T) {
	for name, a := range map[string]iscsitest.Action{"damaged": iscsitest.BadDataDigest(), "lost": iscsitest.Drop()} {
		t.Run(name, func(t *testing.T) {
			r, s := recoveringRig(t, iscsitest.Params{}, func(c *initiator.Config) {
				c.Timeouts.NoopInterval, c.Timeouts.NoopTimeout = 20*time.Millisecond, 10*time.Second
			})
			spoilt := r.spoil(pdu.OpSCSIResponse, a, 2, func(pdu.PDU) (string, bool) { return "", true })
			r.lun.FailNext(scsi.StatusCheckCondition, scsi.NewSense(scsi.KeyMediumError, 0x11, 0).Append(nil), nil)
			task := readTask(0, 512)
			if err := s.Do(t.Context(), task); err != nil {
				t.Fatal(err)
			}
			if len(task.Sense) < 14 || task.Sense[2] != 3 || task.Sense[12] != 0x11 {
				t.Errorf("sense % x", task.Sense)
			}
			if spoilt() != 2 {
				t.Errorf("spoilt %d PDUs", spoilt())
			}
			do(t, s, writeTask(0, pattern(2, 512)))
			r.within(t, s)
		})
	}
}

// Data-Out that arrive damaged are asked for by a recovery R2T, R2Ts that are lost
// by a SNACK, and a command that was rejected for its data is sent again.
func TestRecoversWrites(t *testing.T) {
	const n = 64 << 10
	any := func(pdu.PDU) (string, bool) { return "", true }
	for _, c := range []struct {
		name  string
		op    pdu.Opcode
		a     iscsitest.Action
		times int
		which func(pdu.PDU) (string, bool)
	}{
		{"unsolicited data", pdu.OpDataOut, iscsitest.BadDataDigest(), 1, func(p pdu.PDU) (string, bool) {
			o := p.(*pdu.DataOut)
			return "", o.TargetTransferTag == pdu.ReservedTag && !o.Final
		}},
		{"last unsolicited data", pdu.OpDataOut, iscsitest.BadDataDigest(), 1, func(p pdu.PDU) (string, bool) {
			o := p.(*pdu.DataOut)
			return "", o.TargetTransferTag == pdu.ReservedTag && o.Final
		}},
		{"solicited data", pdu.OpDataOut, iscsitest.BadDataDigest(), 3, func(p pdu.PDU) (string, bool) {
			o := p.(*pdu.DataOut)
			return "", o.TargetTransferTag != pdu.ReservedTag && o.DataSN == 1
		}},
		{"all data once", pdu.OpDataOut, iscsitest.BadDataDigest(), 1, func(p pdu.PDU) (string, bool) {
			return fmt.Sprint(p.(*pdu.DataOut).BufferOffset), true
		}},
		{"R2T", pdu.OpR2T, iscsitest.Drop(), 1, func(p pdu.PDU) (string, bool) { return "", p.(*pdu.R2T).R2TSN == 0 }},
		{"immediate data", pdu.OpSCSICommand, iscsitest.BadDataDigest(), 2, any},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := recoveringRig(t, iscsitest.Params{}, func(cfg *initiator.Config) { cfg.Params.MaxOutstandingR2T = 4 })
			spoilt := r.spoil(c.op, c.a, c.times, c.which)
			data := pattern(3, n)
			do(t, s, writeTask(0, data))
			r.holds(t, 0, data)
			if spoilt() < c.times {
				t.Errorf("spoilt %d PDUs", spoilt())
			}
			r.within(t, s)
		})
	}
}

// A command that the target never got is sent again, with those behind it waiting,
// and carried out once.
func TestRetriesLostCommand(t *testing.T) {
	levelOne := func(c *iscsitest.Config) { c.Params.ErrorRecoveryLevel = 1 }
	bubble(t, levelOne, func(t *testing.T, r *rig) { // it takes as long as a ping may
		s := r.dialLevelOne(t, r.pipeConfig(t), nil)
		spoilt := r.spoil(pdu.OpSCSICommand, iscsitest.Drop(), 1, func(pdu.PDU) (string, bool) { return "", true })
		done := newCollector(4)
		for i := range 4 {
			task := writeTask(int64(i)*32768, pattern(uint64(i), 32768))
			task.Owner, task.Replay = done, false
			s.Submit(task)
		}
		s.Kick()
		for range 4 {
			if err := good(done.wait(t)); err != nil {
				t.Error(err)
			}
		}
		for i := range 4 {
			r.holds(t, int64(i)*32768, pattern(uint64(i), 32768))
		}
		if spoilt() != 1 {
			t.Errorf("lost %d commands", spoilt())
		}
		r.within(t, s)
	})
}

// A target that spoils the same PDU for ever loses the connection, not us.
func TestGivesUpOnDataThatNeverComes(t *testing.T) {
	events := make(eventLog, 64)
	r, s := recoveringRig(t, iscsitest.Params{}, func(c *initiator.Config) { c.OnEvent = events.add })
	r.srv.Handle(pdu.OpDataIn, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action { return iscsitest.BadDataDigest() })
	task := readTask(0, 8192)
	task.Replay = false
	is(t, doErr(s, task), initiator.ErrInterrupted)
	events.await(t, initiator.EventRecovered)
}

// Under load PDUs may be damaged or lost at any time: the data are right and the
// connection stays. (A lost R2T is for the target to notice, which this one does
// not: RFC 7143 section 7.1.4.1.)
func TestRecoversFromRandomLosses(t *testing.T) {
	r, s := recoveringRig(t, iscsitest.Params{AckData: true}, func(c *initiator.Config) {
		c.Timeouts.NoopInterval, c.Timeouts.NoopTimeout = 50*time.Millisecond, 10*time.Second
		c.Params.MaxOutstandingR2T = 3
	})
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(1, 2))
	for op, actions := range map[pdu.Opcode][]iscsitest.Action{
		pdu.OpDataIn:       {iscsitest.BadDataDigest(), iscsitest.Drop()},
		pdu.OpDataOut:      {iscsitest.BadDataDigest()},
		pdu.OpSCSIResponse: {iscsitest.Drop()},
		pdu.OpSCSICommand:  {iscsitest.BadDataDigest()},
	} {
		r.srv.Handle(op, func(*iscsitest.Conn, pdu.PDU) iscsitest.Action {
			mu.Lock()
			defer mu.Unlock()
			if rnd.IntN(50) == 0 {
				return actions[rnd.IntN(len(actions))]
			}
			return iscsitest.Pass()
		})
	}
	const workers, rounds, size = 8, 25, 48 << 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				off := int64(w) * size
				data := pattern(uint64(w*1000+i), size)
				if err := doErr(s, writeTask(off, data)); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				back := readTask(off, size)
				if err := doErr(s, back); err != nil {
					t.Errorf("read: %v", err)
					return
				}
				if !bytes.Equal(back.DataIn, data) {
					t.Errorf("worker %d reads other data than it wrote", w)
					return
				}
			}
		})
	}
	wg.Wait()
	r.within(t, s)
	t.Logf("%d SNACKs", s.Stats().SNACKPDUs)
}

// A target that has data acknowledged and does not read it is cut off.
func TestFloodOfAcknowledgements(t *testing.T) {
	r, s := recoveringRig(t, iscsitest.Params{}, nil)
	r.srv.Handle(pdu.OpSCSICommand, func(_ *iscsitest.Conn, p pdu.PDU) iscsitest.Action {
		var flood []pdu.PDU
		for i := range 200000 {
			flood = append(flood, &pdu.DataIn{
				InitiatorTaskTag: p.(*pdu.SCSICommand).InitiatorTaskTag, TargetTransferTag: 7, Acknowledge: true, Final: true, DataSN: uint32(i),
			})
		}
		r.srv.Handle(pdu.OpSCSICommand, nil)
		return iscsitest.Reply(flood...)
	})
	do(t, s, readTask(0, 512))
	if i := s.Info(); i.Recoveries != 1 {
		t.Errorf("%d recoveries", i.Recoveries)
	}
}

// On error recovery level 0 nothing of this is done, whatever the target could.
func TestLevelZeroAsksForNothing(t *testing.T) {
	r := newRig(t, func(c *iscsitest.Config) { c.Params = iscsitest.Params{ErrorRecoveryLevel: 1, AckData: true} })
	events := make(eventLog, 64)
	cfg := r.config(t)
	cfg.OnEvent = events.add
	cfg.Params.DataDigest = []initiator.Digest{initiator.DigestCRC32C}
	s := r.dial(t, cfg)
	r.spoil(pdu.OpDataIn, iscsitest.BadDataDigest(), 1, func(pdu.PDU) (string, bool) { return "", true })
	do(t, s, readTask(0, 4096))
	events.await(t, initiator.EventRecovered)
	if n := r.srv.Received(pdu.OpSNACK); n != 0 {
		t.Errorf("%d SNACKs", n)
	}
}
